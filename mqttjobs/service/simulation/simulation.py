"""The rules without a broker and without effects: reports and time go in, the jobs that would run come out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from mqttjobs.domain.automaton import counting
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import EntityKey, EntityKind, Json, Value, ValueKey
from mqttjobs.domain.status import Status
from mqttjobs.domain.triggers.base import TriggerState
from mqttjobs.domain.values import ReportResult
from mqttjobs.errors import TemplateError
from mqttjobs.service.guards.breakers import Breakers
from mqttjobs.service.guards.guard import SkippedMatch, SkippedMatches, TriggerGuard
from mqttjobs.service.ingest.reports import Ingest, Match
from mqttjobs.service.jobs.confirmations import Confirmations
from mqttjobs.service.jobs.definitions import executor_of
from mqttjobs.service.jobs.factory import JobFactory
from mqttjobs.service.scheduling.deadlines import Deadlines
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.agents import AgentRegistry
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.transport.base import Message
from mqttjobs.transport.rejections import Rejections

MOST_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class SetValue:
    """A value that is set as if it had been reported."""

    key: ValueKey
    text: str


@dataclass(frozen=True, slots=True)
class Receive:
    """A message as a device would publish it."""

    topic: str
    payload: bytes
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Advance:
    """Time that goes by."""

    time: timedelta


Step = SetValue | Receive | Advance


class SimulatedWait(NamedTuple):
    """A trigger that waits: for its deadline, or, where `description` is given, for more changes until then."""

    operation_id: str
    owner: EntityKey
    until: datetime | None
    description: str | None = None


@dataclass(slots=True)
class StepResult:
    """What one step did.

    `waits` are trigger states that wait for a deadline, or for more changes, since this step; `dropped` are those that
    wait no longer, and did not run. `rejected` is what was wrong with the message.
    """

    step: Step | None
    at: datetime
    report_result: ReportResult | None = None
    values: list[Value] = field(default_factory=list)
    waits: list[SimulatedWait] = field(default_factory=list)
    dropped: list[tuple[str, EntityKey]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    skipped_matches: list[tuple[str, SkippedMatch]] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)


class TooManyRuns(Exception):
    """The time that passes would start more than MOST_RUNS jobs."""


class _HandClock:
    """See Clock; nothing waits in a simulation."""

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
    """See Active: in a simulation every job ends at once."""

    async def count_active(self, operation_id: str, owner: EntityKey | None) -> tuple[int, int]:
        del operation_id, owner
        return (0, 0)

    async def active(self, operation_id: str, owner: EntityKey | None) -> Sequence[Job]:
        del operation_id, owner
        return ()


class _Rejected(Rejections):
    """Collects what would be published on event/rejected."""

    def __init__(self, base_topic: str, clock: _HandClock) -> None:
        super().__init__(base_topic, clock, lambda _: None)
        self.messages: list[str] = []

    def publish(self, topic: str, reason: str, details: str) -> None:
        """Keep the sentence."""
        del topic
        self.messages.append(f"{reason}: {details}")


class _SkippedMatches(SkippedMatches):
    """Collects the matches that did not run."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[str, SkippedMatch]] = []

    def note(self, operation_id: str, skipped_match: SkippedMatch) -> None:
        """Keep one."""
        self.noted.append((operation_id, skipped_match))


class Simulation:
    """The service's own rules over a copy of what is stored, on a clock that the steps move.

    Args:
        settings: the configuration.
        at: the time at which it begins.
        new_id: gives ids to jobs that are never recorded.
        cache: the stored records; None: none.
        agent_registry: the agents; None: none.
        connected_at: the time from which silences are counted; None: from `at`.
    """

    def __init__(
        self,
        settings: Settings,
        at: datetime,
        new_id: Callable[[], str],
        *,
        cache: StateCache | None = None,
        agent_registry: AgentRegistry | None = None,
        connected_at: datetime | None = None,
    ) -> None:
        self._settings = settings = settings.with_members(() if cache is None else cache.members)
        self._clock = _HandClock(at)
        self._cache = StateCache() if cache is None else cache.copy()
        self._cache.install(settings.installation)
        for operation in settings.installation.operations.values():
            self._cache.remember(Transaction(), operation, at, settings.service.system_user)
        self._rejected = _Rejected(settings.base_topic, self._clock)
        self._skipped_matches = _SkippedMatches()
        breakers = Breakers(self._clock.monotonic, lambda *_: None)
        guard = TriggerGuard(settings, self._cache, breakers)
        job_factory = JobFactory(
            settings, self._cache, agent_registry or AgentRegistry(), _NoJobs(), guard, self._skipped_matches, new_id
        )
        self._ingest = Ingest(settings, self._cache, job_factory, self._rejected, Confirmations(self._clock))
        self._deadlines = Deadlines(self._cache, at)
        self._deadlines.install(settings, self._ingest, job_factory)
        self._deadlines.connected(connected_at or at)
        self._runs = 0

    async def begin(self) -> StepResult:
        """Start the service: triggers with `at: start` fire."""
        return await self._due(self._clock.at)

    async def play(self, step: Step) -> list[StepResult]:
        """Take one step; while time passes, everything due runs at its own moment.

        Raises:
            TooManyRuns: the step would start more than MOST_RUNS jobs.
        """
        self._deadlines.start_done()
        if isinstance(step, Advance):
            return await self._pass(step)
        tx, now = Transaction(), self._clock.at
        if isinstance(step, SetValue):
            matches = self._ingest.set_state(tx, step.key, step.text, now, by=None, reason=None)
            report_result = ReportResult.CHANGED if tx.values else ReportResult.UNCHANGED
            await self._ingest.enqueue(tx, matches)
        else:
            message = Message(step.topic, step.payload, qos=0, retain=step.retained)
            await self._ingest.take(tx, [message], now)
            report_result = next(iter(tx.reports))
        step_result = self._step_result(step, tx, now)
        step_result.report_result = report_result
        return [step_result]

    async def _pass(self, step: Advance) -> list[StepResult]:
        end = self._clock.at + step.time
        found: list[StepResult] = []
        while True:
            dues = [due for due in (self._deadlines.next_trigger(), self._deadlines.next_moment()) if due is not None]
            due = min(dues, default=None)
            if due is None or due > end:
                break
            self._clock.at = max(due, self._clock.at)
            step_result = await self._due(self._clock.at)
            await asyncio.sleep(0)
            if step_result.jobs or step_result.skipped_matches:
                found.append(step_result)
        self._clock.at = end
        return found

    async def _due(self, now: datetime) -> StepResult:
        tx = Transaction()
        matches: list[Match] = self._deadlines.triggers_due(tx, now)
        matches += self._deadlines.clock_due(tx, now, ready=True)
        await self._ingest.enqueue(tx, matches)
        return self._step_result(None, tx, now)

    def _step_result(self, step: Step | None, tx: Transaction, now: datetime) -> StepResult:
        step_result = StepResult(
            step,
            now,
            values=list(tx.values.values()),
            jobs=[job for job in tx.jobs if job.status is not Status.SKIPPED],
        )
        step_result.rejected, self._rejected.messages = self._rejected.messages, []
        step_result.skipped_matches, self._skipped_matches.noted = self._skipped_matches.noted, []
        for name, trigger_state in tx.trigger_states.items():
            self._add_trigger_state(step_result, name, trigger_state)
        self._runs += len(step_result.jobs) + len(step_result.skipped_matches)
        if self._runs > MOST_RUNS:
            raise TooManyRuns(f"more than {MOST_RUNS} runs")
        return step_result

    def _add_trigger_state(self, step_result: StepResult, name: str, trigger_state: TriggerState | None) -> None:
        if trigger_state is None:
            trigger_id, kind, entity_id = name.rsplit("|", 2)
            owner = EntityKey(EntityKind(kind), entity_id)
            if not any((job.trigger, job.owner) == (trigger_id, owner) for job in step_result.jobs):
                step_result.dropped.append((trigger_id.split("/", 1)[0], owner))
            return
        watcher = self._cache.watcher(trigger_state)
        if watcher is None:
            return
        due = self._cache.deadline(trigger_state)
        count = counting(watcher.trigger, trigger_state, step_result.at)
        if due is not None:
            step_result.waits.append(SimulatedWait(watcher.operation.id, watcher.owner, due))
        elif count is not None:
            step_result.waits.append(SimulatedWait(watcher.operation.id, watcher.owner, count.until, count.description))

    def rendered(self, job: Job) -> dict[str, Json]:
        """Return what a job would do, with every `${…}` kept; `error` says why it cannot be done."""
        operation = self._settings.installation.operations[str(job.operation_id)]
        try:
            return {"error": None, **executor_of(operation).preview(job.inputs, self._settings.base_topic)}
        except TemplateError as error:
            return {"error": error.details}
