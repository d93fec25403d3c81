"""Staying connected: connect, serve, and reconnect for ever, with jittered back-off (behaviour 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from mqttjobs.clock import Clock
from mqttjobs.errors import ClientIdTaken, ConnectionLost, TransportError
from mqttjobs.transport.base import Session, Transport

TAKEN_WITHIN_S = 60.0
"""Two takeovers of the client id within this time mean that another client uses the same id."""

FIRST_S = 0.1
LONGEST_S = 30.0
"""First and longest wait between connections; the real wait is a random part of it (full jitter)."""
STEADY_S = 5.0
"""After a connection that lasted this long the waits begin again with the first."""
MANY_SHORT = 3
"""After so many short connections in a row, the log asks whether two clients share a client id."""
SHARED_ID_HINT = "; the broker ends each connection soon: does another client use the same client id?"

log = structlog.get_logger(__name__)


async def stay_connected(
    transport: Transport,
    serve: Callable[[Session], Awaitable[None]],
    stop: asyncio.Event,
    *,
    clock: Clock,
    jitter: Callable[[], float],
    longest_s: float = LONGEST_S,
) -> None:
    """Serve over one session after the other until `stop` is set.

    Args:
        transport: makes the sessions.
        serve: serves one session; returns once `stop` is set, and raises the error that ended the session.
        stop: ends the loop.
        clock: the source of time.
        jitter: returns a random number from 0 to 1.
        longest_s: the longest wait between connections, in seconds.

    Raises:
        ClientIdTaken: another client uses the same client id.
    """
    failures = short_connections = 0
    taken_s: float | None = None
    while not stop.is_set():
        began_s: float | None = None
        try:
            async with transport.connect() as session:
                began_s = clock.monotonic()
                await serve(session)
        except ClientIdTaken:
            now_s = clock.monotonic()
            if taken_s is not None and now_s - taken_s < TAKEN_WITHIN_S:
                raise
            taken_s = now_s
            log.warning("client-id-taken", details="another client connected with our client id; trying once more")
        except ConnectionLost as error:
            held_s = 0.0 if began_s is None else clock.monotonic() - began_s
            short_connections = short_connections + 1 if began_s is not None and held_s < STEADY_S else 0
            hint = SHARED_ID_HINT if short_connections >= MANY_SHORT else ""
            log.warning("connection-lost", details=f"{error}{hint}", after_s=round(held_s, 1))
        except TransportError as error:
            log.error("connection-refused", details=str(error))
        if stop.is_set():
            return
        if began_s is not None and clock.monotonic() - began_s >= STEADY_S:
            failures = 0
        wait_s = min(longest_s, FIRST_S * 2 ** min(failures, 20))
        failures += 1
        await clock.wait(stop, wait_s * jitter())
