"""Staying connected: connect, serve, and connect again for ever, with jittered back-off (behaviour 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from mqttjobs.clock import Clock
from mqttjobs.errors import ClientIdTaken, ConnectionLost, TransportError
from mqttjobs.transport.base import Session, Transport

TAKEN_WITHIN_S = 60.0
"""Our client id taken over twice within this means that another client uses it."""

FIRST_S = 0.1
LONGEST_S = 30.0
"""First and longest wait between connections; the wait itself is drawn from zero to it (full jitter)."""

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
        serve: serves one session; it returns once `stop` is set, and raises what ended the session.
        stop: ends it.
        clock: time.
        jitter: draws a number from 0 to 1.
        longest_s: the longest wait between connections.

    Raises:
        ClientIdTaken: another client uses our client id.
    """
    failures = 0
    taken_s: float | None = None
    while not stop.is_set():
        connected_s = clock.monotonic()
        try:
            async with transport.connect() as session:
                failures = 0
                await serve(session)
        except ClientIdTaken:
            now_s = clock.monotonic()
            if taken_s is not None and now_s - taken_s < TAKEN_WITHIN_S:
                raise
            taken_s = now_s
            log.warning("client-id-taken", details="another client connected with our client id; trying once more")
        except ConnectionLost as error:
            log.warning("connection-lost", details=str(error), after_s=round(clock.monotonic() - connected_s, 1))
        except TransportError as error:
            log.error("connection-refused", details=str(error))
        if stop.is_set():
            return
        wait_s = min(longest_s, FIRST_S * 2 ** min(failures, 20))
        failures += 1
        await clock.wait(stop, wait_s * jitter())
