"""Time that a test moves by hand: an event loop whose timers, like the service's clock, go by it alone."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

BEGIN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NANO = 1_000_000_000
TICK_S = 1e-6
"""No timer is sooner: one that is nearer than floating point can tell would ring for ever without time passing."""
STORM = 200_000
"""So many timers in one `advance`, or rounds of the loop in which no time passes, are a storm."""

CHILDREN: ContextVar[set[asyncio.Task[Any]] | None] = ContextVar("children", default=None)
"""Where tasks are noted that are made, directly or not, by the one that set this."""


class StandstillError(Exception):
    """A test waits for something that can happen no more unless it moves the clock."""


class HandClock:
    """See Clock. Nothing moves it but `advance`, and `step` for the wall clock alone."""

    def __init__(self) -> None:
        self._ns = 1000 * NANO
        self._wall = BEGIN - timedelta(seconds=1000)
        self._idle: list[asyncio.Future[None]] = []
        self._next_in_s: float | None = None
        self.timers = 0

    def now(self) -> datetime:
        """See Clock."""
        return self._wall + timedelta(milliseconds=self._ns // 1_000_000)

    def monotonic(self) -> float:
        """See Clock."""
        return self._ns / NANO

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        """See Clock."""
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)

    def step(self, **by: float) -> None:
        """Set the wall clock: `step(days=1)`, `step(hours=-1)`."""
        self._wall += timedelta(**by)

    async def settle(self) -> None:
        """Return when everything that can happen without time passing has happened."""
        idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(idle)
        await idle

    async def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer, everything settling at each."""
        end = self._ns + round(seconds * NANO)
        for _ in range(STORM):
            await self.settle()
            wait = None if self._next_in_s is None else max(1, math.ceil(self._next_in_s * NANO))
            if wait is None or self._ns + wait > end:
                break
            self.timers += 1
            self._ns += wait
        else:
            raise AssertionError(f"a storm: {STORM} timers in {seconds} s")
        self._ns = end
        await self.settle()

    def nothing_to_do(self, next_in_s: float | None) -> None:
        """Be told by the loop that it would sleep: for so long, or for ever."""
        self._next_in_s = next_in_s
        idle, self._idle = [each for each in self._idle if not each.done()], []
        if not idle:
            raise StandstillError("everything waits for time to pass, and the test does not move the clock")
        for each in idle:
            each.set_result(None)


class _Selector(selectors.BaseSelector):
    """Never sleeps: tells the clock instead."""

    def __init__(self, clock: HandClock) -> None:
        self._inner = selectors.DefaultSelector()
        self._clock = clock
        self._rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._inner.select(0)
        self._rounds += 1
        if not ready and (timeout is None or timeout > 0):
            self._rounds = 0
            self._clock.nothing_to_do(timeout)
        elif self._rounds > STORM:
            raise StandstillError("it is busy for ever without waiting for time to pass")
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def close(self) -> None:
        self._inner.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()


class HandLoop(asyncio.SelectorEventLoop):
    """An event loop on a HandClock: `asyncio.timeout` and its like go by it too. Threads' work is done at once."""

    def __init__(self) -> None:
        self.clock = HandClock()
        super().__init__(_Selector(self.clock))

    def time(self) -> float:
        return self.clock.monotonic()

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, **more: Any) -> asyncio.TimerHandle:
        return super().call_at(max(when, self.time() + TICK_S), callback, *args, **more)

    def create_task(self, coro: Any, **more: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **more)
        children = CHILDREN.get()
        if children is not None:
            children.add(task)
            task.add_done_callback(children.discard)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whatever it is, as a thread hands it over
            done.set_exception(error)
        return done
