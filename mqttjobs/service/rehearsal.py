"""The rules without a broker and without effects: reports and time go in, what would run comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from mqttjobs.domain.installation import Installation
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import EntityKey, EntityKind, Json, Value, ValueKey
from mqttjobs.domain.status import Status
from mqttjobs.domain.triggers import Hold
from mqttjobs.domain.values import Verdict
from mqttjobs.errors import TemplateError
from mqttjobs.service.agents.roster import Roster
from mqttjobs.service.draft import Draft
from mqttjobs.service.ingest import Ingest, Match
from mqttjobs.service.mirror import Mirror
from mqttjobs.service.running.confirmations import Confirmations
from mqttjobs.service.running.submission import Submission
from mqttjobs.service.running.workbench import executor_of
from mqttjobs.service.settings import Settings
from mqttjobs.service.starting.agenda import Agenda
from mqttjobs.service.starting.breakers import Breakers
from mqttjobs.service.starting.gate import Gate, Miss, Misses
from mqttjobs.transport.base import Message
from mqttjobs.transport.rejections import Rejections

MOST_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class Said:
    """A value that is set as if it had been reported."""

    key: ValueKey
    text: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as a device would publish it."""

    topic: str
    payload: bytes
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Passed:
    """Time that goes by."""

    time: timedelta


Step = Said | Sent | Passed


@dataclass(slots=True)
class Seen:
    """What one step did.

    `waits` are holds that were armed or moved, each with its operation, owner and deadline; `refused` is what was
    wrong with the message.
    """

    step: Step | None
    at: datetime
    verdict: Verdict | None = None
    values: list[Value] = field(default_factory=list)
    waits: list[tuple[str, EntityKey, datetime]] = field(default_factory=list)
    dropped: list[tuple[str, EntityKey]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    misses: list[tuple[str, Miss]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class TooMuch(Exception):
    """The time that passes would start more than MOST_RUNS jobs."""


class _HandClock:
    """See Clock; nothing waits in a rehearsal."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self._began = at

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - self._began) / timedelta(seconds=1)

    async def wait(self, event: object, seconds: float | None) -> None:
        raise NotImplementedError


class _NoJobs:
    """See Active: in a rehearsal every job ends at once."""

    async def count_active(self, operation_id: str, owner: EntityKey | None) -> tuple[int, int]:
        del operation_id, owner
        return (0, 0)

    async def active(self, operation_id: str, owner: EntityKey | None) -> Sequence[Job]:
        del operation_id, owner
        return ()


class _Refused(Rejections):
    """Collects what would be told on event/rejected."""

    def __init__(self, base_topic: str, clock: _HandClock) -> None:
        super().__init__(base_topic, clock, lambda _: None)
        self.told: list[str] = []

    def tell(self, topic: str, reason: str, details: str) -> None:
        """Keep the sentence."""
        del topic
        self.told.append(f"{reason}: {details}")


class _Heard(Misses):
    """Collects the matches that did not run."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[str, Miss]] = []

    def note(self, operation_id: str, miss: Miss) -> None:
        """Keep one."""
        self.noted.append((operation_id, miss))


class Rehearsal:
    """The service's own rules over a copy of what is stored, on a clock that the steps move.

    Args:
        settings: the configuration.
        at: the time at which it begins.
        new_id: gives ids to jobs that are never recorded.
        mirror: what is stored; None: nothing.
        roster: which agents there are; None: none.
        connected_at: since when silence is counted; None: from the beginning.
    """

    def __init__(
        self,
        settings: Settings,
        at: datetime,
        new_id: Callable[[], str],
        *,
        mirror: Mirror | None = None,
        roster: Roster | None = None,
        connected_at: datetime | None = None,
    ) -> None:
        if settings.installation.membership:
            settings = replace(settings, installation=_peopled(settings.installation, mirror))
        self._settings = settings
        self._clock = _HandClock(at)
        self._mirror = Mirror() if mirror is None else _copy(mirror, settings.installation)
        self._mirror.install(settings.installation)
        for operation in settings.installation.operations.values():
            self._mirror.remember(operation, at, settings.service.system_user)
        self._refused = _Refused(settings.base_topic, self._clock)
        self._misses = _Heard()
        breakers = Breakers(self._clock.monotonic, lambda *_: None)
        gate = Gate(settings, self._mirror, breakers)
        submission = Submission(settings, self._mirror, roster or Roster(), _NoJobs(), gate, self._misses, new_id)
        self._ingest = Ingest(
            settings.installation,
            self._mirror,
            submission,
            self._refused,
            Confirmations(self._clock),
            base_topic=settings.base_topic,
            max_payload=settings.service.max_payload,
            max_objects=settings.service.max_objects,
        )
        self._agenda = Agenda(self._mirror, at)
        self._agenda.install(settings, self._ingest, submission)
        self._agenda.connected(connected_at or at)
        self._runs = 0

    async def begin(self) -> Seen:
        """Start the service: what waits for that runs."""
        return await self._due(self._clock.at)

    async def play(self, step: Step) -> list[Seen]:
        """Take one step; for time that passes, everything that comes due on the way, each at its moment.

        Raises:
            TooMuch: see there.
        """
        self._agenda.skip_start()
        if isinstance(step, Passed):
            return await self._pass(step)
        draft, now = Draft(), self._clock.at
        if isinstance(step, Said):
            matches = self._ingest.set_state(draft, step.key, step.text, now, by=None, reason=None)
            verdict = Verdict.CHANGED if draft.values else Verdict.UNCHANGED
            await self._ingest.place(draft, matches)
        else:
            message = Message(step.topic, step.payload, qos=0, retain=step.retained)
            await self._ingest.take(draft, [message], now)
            verdict = next(iter(draft.reports))
        seen = self._seen(step, draft, now)
        seen.verdict = verdict
        return [seen]

    async def _pass(self, step: Passed) -> list[Seen]:
        end = self._clock.at + step.time
        found: list[Seen] = []
        while True:
            dues = [due for due in (self._agenda.next_hold(), self._agenda.next_moment()) if due is not None]
            due = min(dues, default=None)
            if due is None or due > end:
                break
            self._clock.at = max(due, self._clock.at)
            seen = await self._due(self._clock.at)
            await asyncio.sleep(0)
            if seen.jobs or seen.misses:
                found.append(seen)
        self._clock.at = end
        return found

    async def _due(self, now: datetime) -> Seen:
        draft = Draft()
        matches: list[Match] = self._agenda.holds_due(draft, now)
        matches += self._agenda.clock_due(draft, now, ready=True)
        await self._ingest.place(draft, matches)
        return self._seen(None, draft, now)

    def _seen(self, step: Step | None, draft: Draft, now: datetime) -> Seen:
        seen = Seen(
            step,
            now,
            values=list(draft.values.values()),
            jobs=[job for job in draft.jobs if job.status is not Status.SKIPPED],
        )
        seen.refused, self._refused.told = self._refused.told, []
        seen.misses, self._misses.noted = self._misses.noted, []
        for name, hold in draft.holds.items():
            self._note_hold(seen, name, hold)
        self._runs += len(seen.jobs) + len(seen.misses)
        if self._runs > MOST_RUNS:
            raise TooMuch(f"more than {MOST_RUNS} runs")
        return seen

    def _note_hold(self, seen: Seen, name: str, hold: Hold | None) -> None:
        if hold is None:
            trigger_id, kind, entity_id = name.rsplit("|", 2)
            seen.dropped.append((trigger_id.split("/", 1)[0], EntityKey(EntityKind(kind), entity_id)))
            return
        watcher = self._mirror.watcher(hold)
        due = self._mirror.deadline(hold)
        if watcher is not None and due is not None:
            seen.waits.append((watcher.operation.id, hold.entity, due))

    def rendered(self, job: Job) -> dict[str, Json]:
        """Return what a job would do, with every `${…}` kept; `error` says why it cannot be done."""
        operation = self._settings.installation.operations[str(job.operation_id)]
        try:
            return {"error": None, **executor_of(operation).preview(job.inputs, self._settings.base_topic)}
        except TemplateError as error:
            return {"error": error.details}


def _copy(mirror: Mirror, installation: Installation) -> Mirror:
    """Return a mirror whose changes do not reach the other."""
    made = mirror.copy()
    made.install(installation)
    return made


def _peopled(configured: Installation, mirror: Mirror | None) -> Installation:
    installation = configured.copy()
    for class_id, member in sorted(mirror.members) if mirror is not None else ():
        installation.learn(class_id, member)
    return installation
