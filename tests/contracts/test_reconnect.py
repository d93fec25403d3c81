"""stay_connected: the waits between connections, and when it gives up (behaviour 6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import structlog

from mqttjobs.errors import ClientIdTaken, ConnectionLost
from mqttjobs.transport.base import Session
from mqttjobs.transport.reconnect import stay_connected


class LivelyClock:
    """A clock on which every wait passes at once; records the length of each wait."""

    def __init__(self) -> None:
        self.at_s = 0.0
        self.waits: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.at_s

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        self.waits.append(seconds or 0.0)
        self.at_s += seconds or 0.0


class Broker:
    """A transport whose connections last `lasting_s` each (None: cannot be reached) and then raise `error`."""

    def __init__(self, clock: LivelyClock, lasting_s: Iterable[float | None], error: Exception) -> None:
        self.clock = clock
        self.lasting_s = list(lasting_s)
        self.error = error
        self.stop = asyncio.Event()

    def connect(self) -> AbstractAsyncContextManager[Session]:
        return self._connect()

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Session]:
        if self.lasting_s[0] is None:
            self._next()
            raise ConnectionLost("nobody there")
        yield cast("Session", None)

    async def serve(self, session: Session) -> None:
        self.clock.at_s += self._next() or 0.0
        raise self.error

    def _next(self) -> float | None:
        lasting_s = self.lasting_s.pop(0)
        if not self.lasting_s:
            self.stop.set()
        return lasting_s


async def waits(lasting_s: Iterable[float | None], error: Exception, *, jitter: float = 1.0) -> list[float]:
    """Return the waits between connections that lasted `lasting_s` each."""
    clock = LivelyClock()
    broker = Broker(clock, lasting_s, error)
    await stay_connected(broker, broker.serve, broker.stop, clock=clock, jitter=lambda: jitter)
    return clock.waits


async def test_the_wait_for_a_broker_that_is_away_doubles_up_to_half_a_minute_with_full_jitter() -> None:
    away: list[Any] = [None] * 12
    expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert await waits(away, ConnectionLost("")) == pytest.approx(expected)
    assert await waits(away, ConnectionLost(""), jitter=0.5) == pytest.approx([each / 2 for each in expected])


async def test_after_a_long_connection_the_next_is_tried_at_once() -> None:
    found = await waits([None, None, None, 60.0, None, 3600.0, None], ConnectionLost(""))
    assert found == pytest.approx([0.1, 0.2, 0.4, 0.1, 0.2, 0.1])


async def test_short_connections_are_made_with_growing_pauses() -> None:
    with structlog.testing.capture_logs() as logged:
        found = await waits([0.05] * 10, ConnectionLost("closed"))
    assert found == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6])
    lost = [each for each in logged if each["event"] == "connection-lost"]
    assert "client id" not in lost[0]["details"]
    assert "client id" in lost[-1]["details"], "two clients that share a client id end each other's connections"


async def test_a_client_id_that_is_taken_twice_in_a_minute_ends_the_loop() -> None:
    with pytest.raises(ClientIdTaken):
        await waits([5.0, 5.0, 5.0], ClientIdTaken("taken"))
    assert len(await waits([90.0, 90.0, 90.0], ClientIdTaken("taken"))) == 2
