"""Everything that starts because time passes: holds, silences, the sun, schedules, and the start itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from mqttjobs.domain.installation import Installation, Watcher
from mqttjobs.domain.jobs import OperationFacts
from mqttjobs.domain.model import EntityKey, Json, Operation, Schedule
from mqttjobs.domain.protocol import milliseconds
from mqttjobs.domain.schedules import latest_due, next_due
from mqttjobs.domain.starting import At, Moment
from mqttjobs.domain.sun import latest_moment, next_moment
from mqttjobs.domain.triggers import after_restart, shift
from mqttjobs.service.draft import Draft
from mqttjobs.service.ingest import Ingest, Match
from mqttjobs.service.mirror import Mirror
from mqttjobs.service.running.submission import Submission
from mqttjobs.service.settings import Settings
from mqttjobs.service.starting.scene import spot_of, zone_of
from mqttjobs.service.starting.silences import Silences

SUN_NOTE = "sun"
"""In an operation's facts: trigger id -> when the sun last made it due, in milliseconds."""


class Agenda:
    """What is due, and when the next thing will be. It decides nothing about sleeping: see Timekeeper.

    Args:
        mirror: what is stored.
        started_at: when the process began: what was due before was missed.
    """

    def __init__(self, mirror: Mirror, started_at: datetime) -> None:
        self._mirror = mirror
        self._started_at = started_at
        self._connected_at: datetime | None = None
        self._start_told = False

    def install(self, settings: Settings, ingest: Ingest, submission: Submission) -> None:
        """Use a configuration from now on."""
        self._settings = settings
        self._ingest = ingest
        self._submission = submission
        installation = settings.installation
        self._scheduled = installation.scheduled
        self._suns = list(_suns(installation))
        self.restore()

    def restore(self) -> None:
        """Follow a mirror that was read anew, or a new configuration."""
        self.silences = Silences(self._settings.installation, self._mirror)
        self.silences.connected(self._connected_at)

    def connected(self, at: datetime | None) -> None:
        """Count silences from here; None: the connection is gone."""
        self._connected_at = at
        self.silences.connected(at)

    @property
    def connected_at(self) -> datetime | None:
        """Since when silences are counted, or None while there is no connection."""
        return self._connected_at

    def skip_start(self) -> None:
        """Take what waits for the start as done."""
        self._start_told = True

    def begin(self, draft: Draft, now: datetime) -> None:
        """Treat holds that a start of the service finds pending as their triggers say (on_restart)."""
        for hold in list(self._mirror.holds.values()):
            watcher = self._mirror.watcher(hold)
            after = hold if watcher is None else after_restart(watcher.trigger, hold, now)
            if after is None:
                self._mirror.drop_hold(hold.name)
            elif after is not hold:
                self._mirror.put_hold(after)
            if after is not hold:
                draft.holds[hold.name] = after

    def holds_due(self, draft: Draft, now: datetime) -> list[Match]:
        """Test holds and silences."""
        matches = self._ingest.pass_time(draft, now)
        self._expect_awakened()
        for silence in self.silences.due(now):
            draft.holds[silence.hold.name] = silence.hold
            matches += self._fire(draft, silence.watcher, now)
        return matches

    def clock_due(self, draft: Draft, now: datetime, *, ready: bool) -> list[Match]:
        """Start what schedules and the sun make due, and once, when the service is ready, what waits for the start."""
        matches = [*(self._start(draft, now) if ready else ()), *self._run_schedules(draft, now)]
        for place, at in self._suns:
            matches += self._run_sun(draft, place, at, now)
        return matches

    def next_moment(self) -> datetime | None:
        """Return when the next schedule, sunrise or sunset is due."""
        dues = [next_due(schedule, facts.due_at or facts.created_at, self._zone) for _, schedule, facts in self._due()]
        dues += [self._next_sun(place, at) for place, at in self._suns]
        return min((due for due in dues if due is not None), default=None)

    def next_hold(self) -> datetime | None:
        """Return when the next hold or silence is due."""
        self._expect_awakened()
        dues = [self._mirror.next_deadline(), self.silences.next()]
        return min((due for due in dues if due is not None), default=None)

    def follow_wall_clock(self, draft: Draft, step: timedelta) -> None:
        """Move holds and silences along when the wall clock was set, so that what remains of them stays the same."""
        moved = [shift(hold, step) for hold in self._mirror.holds.values()]
        self._mirror.replace_holds(moved)
        draft.holds |= {hold.name: hold for hold in moved}
        for key, at in self.silences.shift(step):
            self._mirror.hear(key, at)
        if self._connected_at is not None:
            self.connected(self._connected_at + step)

    @property
    def _zone(self) -> Json:
        return zone_of(self._settings.service)

    def _expect_awakened(self) -> None:
        joined, self._mirror.joined = self._mirror.joined, []
        for owner in joined:
            self.silences.join(owner)
        awakened, self._mirror.awakened = self._mirror.awakened, []
        if awakened:
            self.silences.expect_again(awakened)

    def _fire(self, draft: Draft, watcher: Watcher, now: datetime) -> list[Match]:
        job = self._submission.fire(draft, watcher, None, now)
        return [] if job is None else [Match(job, watcher.operation)]

    def _moment(self, draft: Draft, operation: Operation, place: int, now: datetime) -> list[Match]:
        """Fire a trigger that goes by a moment, for every owner of its operation, or for nobody."""
        if not operation.attach:
            job = self._submission.start(draft, operation, None, now, place)
            return [] if job is None else [Match(job, operation)]
        owners = list(self._settings.installation.owners(operation))
        watchers = [Watcher(operation, place, operation.triggers[place], owner) for owner in owners]
        return [match for watcher in watchers for match in self._fire(draft, watcher, now)]

    def _start(self, draft: Draft, now: datetime) -> list[Match]:
        if self._start_told:
            return []
        self._start_told = True
        matches: list[Match] = []
        for operation in self._settings.installation.operations.values():
            for place, trigger in enumerate(operation.triggers):
                if trigger.enabled and trigger.at is not None and trigger.at.moment is Moment.START:
                    matches += self._moment(draft, operation, place, now)
        return matches

    def _run_schedules(self, draft: Draft, now: datetime) -> list[Match]:
        """Start what a schedule makes due; what was missed while away runs at most once (behaviour 2)."""
        matches: list[Match] = []
        for operation, schedule, facts in self._due():
            due = latest_due(schedule, facts.due_at or facts.created_at, now, self._zone)
            if due is None:
                continue
            self._mirror.change_facts(operation.id, due_at=due)
            draft.facts.add(operation.id)
            missed = due < self._started_at
            if (missed and not operation.catch_up) or not self._mirror.is_active(operation):
                continue
            for owner in self._owners(operation):
                job = self._submission.start(draft, operation, owner, now)
                if job is not None:
                    matches.append(Match(job, operation))
        return matches

    def _owners(self, operation: Operation) -> list[EntityKey | None]:
        return list(self._settings.installation.owners(operation)) or [None]

    def _due(self) -> list[tuple[Operation, Schedule, OperationFacts]]:
        return [
            (operation, operation.schedule, self._mirror.facts[operation.id])
            for operation in self._scheduled
            if operation.schedule is not None and operation.id in self._mirror.facts
        ]

    def _run_sun(self, draft: Draft, place: tuple[Operation, int], at: At, now: datetime) -> list[Match]:
        """Start what the sun makes due; like a schedule, what was missed runs at most once."""
        operation, number = place
        spot, last = spot_of(self._settings.service), self._last_sun(place)
        if last is None:
            return []
        due = latest_moment(at, last, now, spot)
        if due is None:
            return []
        facts = self._mirror.facts[operation.id]
        notes = _notes(facts, operation) | {operation.trigger_ids[number]: milliseconds(due)}
        self._mirror.change_facts(operation.id, extra={**facts.extra, SUN_NOTE: notes})
        draft.facts.add(operation.id)
        if due < self._started_at and not operation.catch_up:
            return []
        return self._moment(draft, operation, number, now)

    def _last_sun(self, place: tuple[Operation, int]) -> datetime | None:
        operation, number = place
        facts = self._mirror.facts.get(operation.id)
        if facts is None:
            return None
        noted = _notes(facts, operation).get(operation.trigger_ids[number])
        return facts.updated_at if noted is None else datetime.fromtimestamp(noted / 1000, facts.updated_at.tzinfo)

    def _next_sun(self, place: tuple[Operation, int], at: At) -> datetime | None:
        spot, last = spot_of(self._settings.service), self._last_sun(place)
        return None if last is None else next_moment(at, last, spot)

    def next_sun(self, operation: Operation, number: int) -> datetime | None:
        """Return when the sun makes a trigger due next, or None."""
        at = operation.triggers[number].at
        return None if at is None else self._next_sun((operation, number), at)


def _notes(facts: OperationFacts, operation: Operation) -> dict[str, Json]:
    """Return when the sun last made the triggers due that the operation has now."""
    noted: Mapping[str, Json] = facts.extra.get(SUN_NOTE) or {}
    return {name: at for name, at in noted.items() if name in operation.trigger_ids}


def _suns(installation: Installation) -> Iterator[tuple[tuple[Operation, int], At]]:
    for operation in installation.operations.values():
        for place, trigger in enumerate(operation.triggers):
            if trigger.enabled and trigger.at is not None and trigger.at.moment is not Moment.START:
                yield (operation, place), trigger.at
