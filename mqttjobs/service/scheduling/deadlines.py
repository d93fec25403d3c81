"""Everything that starts because time passes: pending triggers, silences, the sun, schedules, and the start itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from mqttjobs.domain.automaton import after_restart, shift
from mqttjobs.domain.installation import Installation, Watcher
from mqttjobs.domain.jobs import OperationState
from mqttjobs.domain.model import EntityKey, Json
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.protocol import from_milliseconds, milliseconds
from mqttjobs.domain.schedules import Schedule, latest_due, next_due
from mqttjobs.domain.triggers.base import ClockKind
from mqttjobs.service.guards.context import location_of, zone_of
from mqttjobs.service.ingest.reports import Ingest, Match
from mqttjobs.service.jobs.factory import JobFactory
from mqttjobs.service.scheduling.silences import Silences
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import Transaction

MOMENTS_KEY = "sun"
"""In the `extra` of an operation state: trigger id -> when the clock last made the trigger due, in milliseconds."""


class Deadlines:
    """Everything that is due by time, and the time of the next deadline. Scheduler decides when to wake.

    Args:
        cache: the stored values, trigger states and operation states.
        started_at: when the process began; a moment before that was missed.

    Attributes:
        wake: set when the scheduler has to look before `next_look_at`.
    """

    def __init__(self, cache: StateCache, started_at: datetime) -> None:
        self._cache = cache
        self._started_at = started_at
        self._connected_at: datetime | None = None
        self._start_fired = False
        self.wake = asyncio.Event()
        self.next_look_at = started_at

    def install(self, settings: Settings, ingest: Ingest, job_factory: JobFactory) -> None:
        """Use a configuration from now on."""
        self._settings = settings
        self._ingest = ingest
        self._job_factory = job_factory
        installation = settings.installation
        self._scheduled = installation.scheduled
        self._clocks = list(_clocks(installation))
        self.restore()

    def restore(self) -> None:
        """Rebuild the silences after the cache was read again, or with a new configuration."""
        self.silences = Silences(self._settings.installation, self._cache)
        self.silences.connected(self._connected_at)

    def connected(self, at: datetime | None) -> None:
        """Count silences from `at`, the time of the connection; None: there is no connection."""
        self._connected_at = at
        self.silences.connected(at)

    @property
    def connected_at(self) -> datetime | None:
        """The time from which silences are counted; None while there is no connection."""
        return self._connected_at

    def recorded(self) -> None:
        """Wake the scheduler if a trigger is now due sooner than it will look."""
        due = self.next_trigger()
        if due is not None and due < self.next_look_at:
            self.wake.set()

    def start_done(self) -> None:
        """Start no more triggers with `at: start`: their jobs are recorded."""
        self._start_fired = True

    def begin(self, tx: Transaction, now: datetime) -> None:
        """Apply `on_restart` to the triggers that were pending when the service ended."""
        for trigger_state in list(self._cache.trigger_states.values()):
            watcher = self._cache.watcher(trigger_state)
            after = trigger_state if watcher is None else after_restart(watcher.trigger, trigger_state, now)
            if after is None:
                self._cache.drop_trigger_state(tx, trigger_state.name)
            elif after is not trigger_state:
                self._cache.put_trigger_state(tx, after)

    def triggers_due(self, tx: Transaction, now: datetime) -> list[Match]:
        """Return the matches of pending triggers and silences that are due."""
        matches = self._ingest.pass_time(tx, now)
        self._expect_awakened()
        for watcher in self.silences.due(tx, now):
            matches += self._create_job(tx, watcher, now)
        return matches

    def clock_due(self, tx: Transaction, now: datetime, *, ready: bool) -> list[Match]:
        """Return the matches of due schedules and moments, and once the service is ready those of `at: start`."""
        matches = [*(self._start(tx, now) if ready else ()), *self._run_schedules(tx, now)]
        for trigger_index, clock in self._clocks:
            matches += self._run_clock(tx, trigger_index, clock, now)
        return matches

    def next_moment(self) -> datetime | None:
        """Return when the next schedule, sunrise or sunset is due."""
        dues = [
            next_due(schedule, operation_state.due_at or operation_state.created_at, self._zone)
            for _, schedule, operation_state in self._due()
        ]
        dues += [self._next_of_clock(trigger_index, clock) for trigger_index, clock in self._clocks]
        return min((due for due in dues if due is not None), default=None)

    def next_trigger(self) -> datetime | None:
        """Return when the next pending trigger or silence is due."""
        self._expect_awakened()
        dues = [self._cache.next_deadline(), self.silences.next()]
        return min((due for due in dues if due is not None), default=None)

    def follow_wall_clock(self, tx: Transaction, step: timedelta) -> None:
        """Shift pending triggers and silences after the wall clock was set: their remaining time stays the same."""
        moved = [shift(trigger_state, step) for trigger_state in self._cache.trigger_states.values()]
        self._cache.replace_trigger_states(tx, moved)
        for key, at in self.silences.shift(step):
            self._cache.hear(key, at)
        if self._connected_at is not None:
            self.connected(self._connected_at + step)

    @property
    def _zone(self) -> Json:
        return zone_of(self._settings.service)

    def _expect_awakened(self) -> None:
        joined, self._cache.joined = self._cache.joined, []
        for owner in joined:
            self.silences.join(owner)
        awakened, self._cache.awakened = self._cache.awakened, []
        if awakened:
            self.silences.expect_again(awakened)

    def _create_job(self, tx: Transaction, watcher: Watcher, now: datetime) -> list[Match]:
        job = self._job_factory.create_from_trigger(tx, watcher, None, now)
        return [] if job is None else [Match(job, watcher.operation)]

    def _moment(self, tx: Transaction, operation: Operation, trigger_index: int, now: datetime) -> list[Match]:
        """Return the matches of a trigger with a moment: one for every owner, or one without an owner."""
        if not operation.attach:
            job = self._job_factory.start(tx, operation, None, now, trigger_index)
            return [] if job is None else [Match(job, operation)]
        owners = list(self._settings.installation.owners(operation))
        watchers = [Watcher(operation, trigger_index, operation.triggers[trigger_index], owner) for owner in owners]
        return [match for watcher in watchers for match in self._create_job(tx, watcher, now)]

    def _start(self, tx: Transaction, now: datetime) -> list[Match]:
        if self._start_fired:
            return []
        matches: list[Match] = []
        for operation in self._settings.installation.operations.values():
            for trigger_index, trigger in enumerate(operation.triggers):
                if trigger.enabled and trigger.clock is not None and trigger.clock.is_start():
                    matches += self._moment(tx, operation, trigger_index, now)
        return matches

    def _run_schedules(self, tx: Transaction, now: datetime) -> list[Match]:
        """Return the matches of schedules that are due; several missed runs are one (behaviour 2)."""
        matches: list[Match] = []
        for operation, schedule, operation_state in self._due():
            due = latest_due(schedule, operation_state.due_at or operation_state.created_at, now, self._zone)
            if due is None:
                continue
            self._cache.change_operation_state(tx, operation.id, due_at=due)
            missed = due < self._started_at
            if (missed and not operation.catch_up) or not self._cache.is_active(operation):
                continue
            for owner in self._owners(operation):
                job = self._job_factory.start(tx, operation, owner, now)
                if job is not None:
                    matches.append(Match(job, operation))
        return matches

    def _owners(self, operation: Operation) -> list[EntityKey | None]:
        return list(self._settings.installation.owners(operation)) or [None]

    def _due(self) -> list[tuple[Operation, Schedule, OperationState]]:
        return [
            (operation, operation.schedule, self._cache.operation_states[operation.id])
            for operation in self._scheduled
            if operation.schedule is not None and operation.id in self._cache.operation_states
        ]

    def _run_clock(
        self, tx: Transaction, trigger_index: tuple[Operation, int], clock: ClockKind, now: datetime
    ) -> list[Match]:
        """Return the matches of a moment such as sunset; several missed moments are one."""
        operation, number = trigger_index
        location, last = location_of(self._settings.service), self._last_of_clock(trigger_index)
        if last is None:
            return []
        due = clock.latest_moment(last, now, location)
        if due is None:
            return []
        operation_state = self._cache.operation_states[operation.id]
        moments = _last_moments(operation_state, operation) | {operation.trigger_ids[number]: milliseconds(due)}
        self._cache.change_operation_state(tx, operation.id, extra={**operation_state.extra, MOMENTS_KEY: moments})
        if due < self._started_at and not operation.catch_up:
            return []
        return self._moment(tx, operation, number, now)

    def _last_of_clock(self, trigger_index: tuple[Operation, int]) -> datetime | None:
        operation, number = trigger_index
        operation_state = self._cache.operation_states.get(operation.id)
        if operation_state is None:
            return None
        moments = _last_moments(operation_state, operation).get(operation.trigger_ids[number])
        return operation_state.updated_at if moments is None else from_milliseconds(moments)

    def _next_of_clock(self, trigger_index: tuple[Operation, int], clock: ClockKind) -> datetime | None:
        location, last = location_of(self._settings.service), self._last_of_clock(trigger_index)
        return None if last is None else clock.next_moment(last, location)

    def next_of_clock(self, operation: Operation, number: int) -> datetime | None:
        """Return when a trigger with a moment is due next, or None."""
        clock = operation.triggers[number].clock
        return None if clock is None else self._next_of_clock((operation, number), clock)


def _last_moments(operation_state: OperationState, operation: Operation) -> dict[str, Json]:
    """Return when each present trigger of the operation with a moment was last due."""
    moments: Mapping[str, Json] = operation_state.extra.get(MOMENTS_KEY) or {}
    return {name: at for name, at in moments.items() if name in operation.trigger_ids}


def _clocks(installation: Installation) -> Iterator[tuple[tuple[Operation, int], ClockKind]]:
    for operation in installation.operations.values():
        for trigger_index, trigger in enumerate(operation.triggers):
            if trigger.enabled and trigger.clock is not None and not trigger.clock.is_start():
                yield (operation, trigger_index), trigger.clock
