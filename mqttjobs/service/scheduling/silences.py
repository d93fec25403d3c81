"""The deadlines of `silence` triggers; a report costs nothing here."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from mqttjobs.domain.automaton import fall_silent, silence_deadline, trigger_state_name
from mqttjobs.domain.installation import Installation, Watcher
from mqttjobs.domain.model import AVAILABILITY, EntityKey, ValueKey
from mqttjobs.domain.triggers.base import TriggerState
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import Transaction


class Silences:
    """The silence triggers of every owner, in the order in which they may be due.

    A report does not move an entry. When the entry is due, its deadline is computed from the stored values; an entry
    whose deadline is later waits again. Without a connection nothing is silent.
    """

    def __init__(self, installation: Installation, cache: StateCache) -> None:
        self._installation = installation
        self._cache = cache
        self._connected_at: datetime | None = None
        self._queue: list[tuple[datetime, str]] = []
        self._watchers: dict[str, Watcher] = {}
        for operation in installation.operations.values():
            for trigger_index, trigger in enumerate(operation.triggers):
                if trigger.silence is None or not trigger.enabled:
                    continue
                for owner in installation.owners(operation):
                    self._watchers[trigger_state_name(operation.trigger_ids[trigger_index], owner)] = Watcher(
                        operation, trigger_index, trigger, owner
                    )

    def connected(self, at: datetime | None) -> None:
        """Count silences from `at`, the time of the connection; None: there is no connection."""
        self._connected_at = at
        self._queue = []
        if at is not None:
            for name in self._watchers:
                self._expect(name)

    def join(self, owner: EntityKey) -> None:
        """Watch a new member of a class."""
        for operation in self._installation.operations_of(owner):
            for trigger_index, trigger in enumerate(operation.triggers):
                if trigger.silence is not None and trigger.enabled:
                    name = trigger_state_name(operation.trigger_ids[trigger_index], owner)
                    self._watchers[name] = Watcher(operation, trigger_index, trigger, owner)
                    self._expect(name)

    def expect_again(self, names: Iterable[str]) -> None:
        """Wait for the next silence of triggers whose silence has ended."""
        for name in names:
            self._expect(name)

    def _expect(self, name: str) -> None:
        watcher = self._watchers.get(name)
        due = None if watcher is None else self._deadline(name, watcher)
        if due is not None:
            heapq.heappush(self._queue, (due, name))

    def _deadline(self, name: str, watcher: Watcher) -> datetime | None:
        if self._connected_at is None:
            return None
        heard_at = self.heard_at(watcher)
        since = self._connected_at if heard_at is None else max(heard_at, self._connected_at)
        return silence_deadline(watcher.trigger, self._cache.trigger_states.get(name), since)

    def deadline(self, watcher: Watcher) -> datetime | None:
        """Return when a silence fires next if nothing is heard, or None."""
        return self._deadline(
            trigger_state_name(watcher.operation.trigger_ids[watcher.trigger_index], watcher.owner), watcher
        )

    def heard_at(self, watcher: Watcher) -> datetime | None:
        """Return when the watched entity last reported live, or None."""
        return max((each for _, each in self._reports(watcher)), default=None)

    def _reports(self, watcher: Watcher) -> Iterator[tuple[ValueKey, datetime]]:
        watched = self._installation.watched(watcher.trigger, watcher.owner)
        if watched is None:
            return
        for name in self._installation.value_names(watched.entity):
            key = ValueKey(watched.kind, watched.id, name)
            value = self._cache.values.get(key)
            if name != AVAILABILITY and value is not None and value.heard_at is not None:
                yield key, value.heard_at

    def next(self) -> datetime | None:
        """Return when to look next, or None."""
        return self._queue[0][0] if self._queue else None

    def due(self, tx: Transaction, now: datetime) -> list[Watcher]:
        """Return the watchers whose silence is due, and store that they fired; each waits again as its trigger says."""
        found: dict[str, Watcher] = {}
        taken: list[str] = []
        while self._queue and self._queue[0][0] <= now:
            _, name = heapq.heappop(self._queue)
            watcher = self._watchers[name]
            due = self._deadline(name, watcher)
            taken.append(name)
            if due is not None and due <= now and name not in found:
                trigger_state = self._cache.trigger_states.get(name) or TriggerState(name, watcher.owner)
                self._cache.put_trigger_state(tx, fall_silent(watcher.trigger, trigger_state, due, now))
                found[name] = watcher
        for name in dict.fromkeys(taken):
            self._expect(name)
        return list(found.values())

    def shift(self, step: timedelta) -> list[tuple[ValueKey, datetime]]:
        """Return when each watched value was heard, in the time of the wall clock that was set."""
        if self._connected_at is None:
            return []
        heard = {key: at + step for watcher in self._watchers.values() for key, at in self._reports(watcher)}
        return list(heard.items())
