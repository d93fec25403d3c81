"""Time as an argument: the wall clock, a monotonic clock, and one way to wait."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The source of time; the tests have one that is set by hand."""

    def now(self) -> datetime:
        """Return the time of the wall clock: aware, UTC, whole milliseconds."""

    def monotonic(self) -> float:
        """Return the seconds of a clock that setting the wall clock does not change."""

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        """Return when `event` is set or `seconds` have passed, whichever is first; None waits for the event only."""


class SystemClock:
    """The clock of this machine."""

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
