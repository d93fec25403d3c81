"""Time as an argument: the wall clock, a clock that only goes forward, and one way to wait."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the service knows of time; tests move one by hand."""

    def now(self) -> datetime:
        """Return the wall clock: aware, UTC, whole milliseconds."""

    def monotonic(self) -> float:
        """Return seconds that no setting of the wall clock moves."""

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        """Return when `event` is set or the time has passed, whichever is first; None waits for the event alone."""


class SystemClock:
    """See Clock."""

    def now(self) -> datetime:
        """See Clock."""
        return datetime.fromtimestamp(time.time_ns() // 1_000_000 / 1000, UTC)

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        """See Clock."""
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)
