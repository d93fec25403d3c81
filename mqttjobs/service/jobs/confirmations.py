"""Confirmations: a job with `confirm` completes when the device has reported the state, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta

from mqttjobs.clock import Clock
from mqttjobs.domain.jobs import Outcome
from mqttjobs.domain.model import ValueKey

UNCONFIRMED = "unconfirmed"


class _Wish:
    """One job that waits for a value to be reported as one of some states."""

    __slots__ = ("came", "states")

    def __init__(self, states: tuple[str, ...]) -> None:
        self.states = states
        self.came = asyncio.Event()


class Confirmations:
    """The jobs that wait for a value. Ingest passes on each live report of such a value."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wishes: dict[ValueKey, list[_Wish]] = {}

    def waits_for(self, key: ValueKey) -> bool:
        """Whether somebody waits for a value."""
        return key in self._wishes

    def heard(self, key: ValueKey, text: str) -> None:
        """Tell that a value was reported, changed or not."""
        for wish in self._wishes.get(key, ()):
            if text in wish.states:
                wish.came.set()

    async def confirmed(
        self, key: ValueKey | None, states: tuple[str, ...], within: timedelta, work: Awaitable[Outcome]
    ) -> Outcome:
        """Do the work, and return its outcome once one of `states` was reported since it began.

        What is not reported within the time, counted from the end of the work, has failed as unconfirmed; another
        attempt may help. A `key` of None is a device that is there no more.
        """
        wish = _Wish(states)
        if key is not None:
            self._wishes.setdefault(key, []).append(wish)
        try:
            outcome = await work
            if outcome.ok and key is not None:
                await self._clock.wait(wish.came, within / timedelta(seconds=1))
        finally:
            if key is not None:
                self._wishes[key].remove(wish)
                if not self._wishes[key]:
                    del self._wishes[key]
        if not outcome.ok or wish.came.is_set():
            return outcome
        return replace(outcome, ok=False, error=UNCONFIRMED, changed=None)
