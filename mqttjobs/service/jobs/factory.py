"""Makes jobs: from an operation, an owner and an origin to a record that is ready to be stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from mqttjobs.domain.agents import expected_set, no_ready_agent, parse_target
from mqttjobs.domain.automaton import ran, trigger_state_name
from mqttjobs.domain.installation import Watcher
from mqttjobs.domain.jobs import Job, JobUpdate, Phase, apply, fail_unrun, submitted
from mqttjobs.domain.model import AVAILABILITY, EMPTY, STATE, Change, EntityKey, Json, Mode, ValueKey
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.protocol import iso
from mqttjobs.domain.starting import SkipReason
from mqttjobs.domain.status import LOCAL, EventKind, JobEvent, Status
from mqttjobs.domain.triggers.base import TriggerState
from mqttjobs.service.guards.guard import SkippedMatch, SkippedMatches, TriggerGuard
from mqttjobs.service.jobs.variables import TemplateContextBuilder
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.agents import AgentRegistry
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import Transaction

QUEUE_LENGTH = 10
"""How many jobs of a `queued` operation wait per owner when `max` is left out."""


@dataclass(frozen=True, slots=True)
class JobOrigin:
    """Why a job is made, and by whom.

    `extra` replaces or adds variables (contract 2): payload, state and previous_state of the change.
    `process_meta` is None unless a state change started it. `target` is where it is to
    run, None for where its operation says.
    """

    user_id: str
    params: Mapping[str, Json] = EMPTY
    events: tuple[str, ...] = ()
    extra: Mapping[str, Json] = field(default_factory=dict)
    process_meta: Mapping[str, Json] | None = None
    parent_id: str | None = None
    root_id: str | None = None
    retry_of: str | None = None
    depth: int = 0
    target: str | None = None
    trigger: str | None = None


class Active(Protocol):
    """What is asked of the store before a job is placed; see Store."""

    async def count_active(self, operation_id: str, owner: EntityKey | None) -> tuple[int, int]:
        """See Store."""

    async def active(self, operation_id: str, owner: EntityKey | None) -> Sequence[Job]:
        """See Store."""


class JobFactory:
    """Makes jobs. One for each installation; a reload makes a new one."""

    def __init__(
        self,
        settings: Settings,
        cache: StateCache,
        agent_registry: AgentRegistry,
        store: Active,
        guard: TriggerGuard,
        skipped_matches: SkippedMatches,
        new_id: Callable[[], str],
    ) -> None:
        self._cache = cache
        self._agent_registry = agent_registry
        self._store = store
        self._guard = guard
        self._skipped_matches = skipped_matches
        self._hostname = settings.service.hostname
        self._system_user = settings.service.system_user
        self._new_id = new_id
        self._contexts = TemplateContextBuilder(settings.installation, cache)

    def compose(self, operation: Operation, owner: EntityKey | None, origin: JobOrigin, at: datetime) -> Job:
        """Return the job, not yet recorded; it has its uid and its first event."""
        job_id = self._new_id()
        extra = dict(origin.extra)
        extra["params"] = origin.params
        extra["user"] = {"id": origin.user_id}
        extra["job"] = {"id": job_id}
        template_context = self._contexts.template_context(operation, owner, extra)
        return Job(
            uid=self._cache.take_uid(),
            id=job_id,
            created_at=at,
            operation_id=operation.id or None,
            operation=operation.definition,
            fingerprint=operation.fingerprint,
            owner=owner,
            user_id=origin.user_id,
            target=origin.target or operation.target,
            priority=operation.priority,
            uses_slot=operation.uses_slot,
            max_running=1 if operation.mode is not Mode.PARALLEL else operation.max,
            params=origin.params,
            events=origin.events,
            inputs=template_context.variables,
            secret_templates=template_context.secret_templates,
            process_meta=origin.process_meta,
            parent_id=origin.parent_id,
            root_id=origin.root_id or job_id,
            retry_of=origin.retry_of,
            depth=origin.depth,
            trigger=origin.trigger,
            timeline=(submitted(at, self._hostname),),
        )

    def create_from_trigger(self, tx: Transaction, watcher: Watcher, change: Change | None, at: datetime) -> Job | None:
        """Return the job of a trigger that fired, or None with the reason counted when it may not run.

        `change` is None for a trigger that goes by silence or by the clock: no state change started its job.
        """
        operation, trigger = watcher.operation, watcher.trigger
        skip_reason = self._guard.of_trigger(watcher, change, at)
        if skip_reason is not None:
            origin = self._origin(watcher, change) if operation.record_skipped else None
            self.skip(tx, operation, watcher.owner, skip_reason, at, origin, watcher.trigger_index, change)
            return None
        if trigger.running:
            name = trigger_state_name(operation.trigger_ids[watcher.trigger_index], watcher.owner)
            known = self._cache.trigger_states.get(name) or TriggerState(name, watcher.owner)
            self._cache.put_trigger_state(tx, ran(trigger, known, at))
        return self.compose(operation, watcher.owner, self._origin(watcher, change), at)

    def start(
        self,
        tx: Transaction,
        operation: Operation,
        owner: EntityKey | None,
        at: datetime,
        trigger_index: int | None = None,
    ) -> Job | None:
        """Return the job of what the clock makes due, or None with the reason counted when it may not run.

        `place` is the trigger's, of an operation that is attached to nothing; without it a schedule is due.
        """
        origin = JobOrigin(
            user_id=operation.run_as or self._system_user,
            trigger=None if trigger_index is None else operation.trigger_ids[trigger_index],
        )
        skip_reason = self._guard.of_conditions(operation, owner, at)
        if trigger_index is not None:
            skip_reason = self._guard.of_moment(operation, operation.triggers[trigger_index], at)
        if skip_reason is None:
            return self.compose(operation, owner, origin, at)
        self.skip(tx, operation, owner, skip_reason, at, origin, trigger_index)
        return None

    def skip(
        self,
        tx: Transaction,
        operation: Operation,
        owner: EntityKey | None,
        skip_reason: SkipReason,
        at: datetime,
        origin: JobOrigin | None = None,
        trigger_index: int | None = None,
        change: Change | None = None,
    ) -> None:
        """Count a match that does not run, remember why, and keep a skipped job if the operation wants that."""
        tx.skipped[skip_reason.reason] += 1
        self._skipped_matches.note(
            operation.id, SkippedMatch(at, owner, trigger_index, change.text if change else None, skip_reason)
        )
        if operation.record_skipped and origin is not None:
            self.add(tx, _skipped(self.compose(operation, owner, origin, at), skip_reason, at, self._hostname))

    def _origin(self, watcher: Watcher, change: Change | None) -> JobOrigin:
        operation = watcher.operation
        trigger_id = operation.trigger_ids[watcher.trigger_index]
        if change is None:
            return JobOrigin(user_id=operation.run_as or self._system_user, target=operation.target, trigger=trigger_id)
        extra: dict[str, Json] = {"payload": change.payload}
        if change.key.name == STATE and change.key.entity == watcher.owner:
            extra |= {"state": change.text, "previous_state": change.previous}
        states = watcher.trigger.states_waited_for
        return JobOrigin(
            user_id=operation.run_as or change.user_id or self._system_user,
            extra=extra,
            process_meta={
                "triggerStates": [change.text] if states is None else list(states),
                "state": change.text,
                "previous_state": change.previous,
                "attribute": None if change.key.name == AVAILABILITY else change.key.attribute,
                "topic": change.topic,
                "received_at": iso(change.at),
                "reported_at": None if change.reported_at is None else iso(change.reported_at),
                "reported_by": change.reported_by,
            },
            root_id=change.root_id,
            depth=change.depth,
            target=operation.target,
            trigger=trigger_id,
        )

    def resolve_target(self, job: Job) -> Job:
        """Return a job with the agents that must answer, fixed from now on; failed where its target means none."""
        if job.target == LOCAL or job.expected or job.ended:
            return job
        target = parse_target(job.target)
        ready = self._agent_registry.ready(target, job.created_at)
        if ready:
            return job.evolve(expected=expected_set(target, ready))
        return fail_unrun(job, job.created_at, self._hostname, no_ready_agent(job.target))

    async def enqueue(self, tx: Transaction, job: Job, operation: Operation) -> str | None:
        """Add a job to a transaction as its operation's mode requires (behaviour 3.8), or return why it may not run."""
        job = self.resolve_target(job)
        if job.ended:
            self.add(tx, job)
            return None
        if operation.mode is not Mode.PARALLEL:
            skip_reason = await self._make_room(tx, job, operation)
            if skip_reason is not None:
                return skip_reason
        self.add(tx, job)
        return None

    async def enqueue_match(self, tx: Transaction, job: Job, operation: Operation) -> None:
        """Add the job of a match to a transaction, or count the match as skipped: `fired` and `skipped` add up."""
        reason = await self.enqueue(tx, job, operation)
        if reason is None:
            tx.fired += 1
            return
        skip_reason = SkipReason(reason, f"another job of it is there, and its mode is {operation.mode.value}")
        tx.skipped[reason] += 1
        state = None if job.process_meta is None else job.process_meta["state"]
        self._skipped_matches.note(
            operation.id, SkippedMatch(job.created_at, job.owner, _trigger_index(operation, job), state, skip_reason)
        )
        if operation.record_skipped:
            self.add(tx, _skipped(job, skip_reason, job.created_at, self._hostname))

    def add(self, tx: Transaction, job: Job) -> None:
        """Add a job to a transaction and count it among its operation's runs."""
        tx.jobs.append(job)
        operation_state = self._cache.operation_states.get(job.operation_id or "")
        if operation_state is not None:
            self._cache.change_operation_state(
                tx, operation_state.id, total=operation_state.total + 1, triggered_at=job.created_at
            )
        self._cache.record_run(tx, job, ended_now=job.ended and job.status is not Status.SKIPPED)

    def stop(self, tx: Transaction, job: Job, at: datetime, message: str, *, strict: bool = False) -> Job:
        """Add a stop to a transaction (behaviour 3.7); return the stopped job. `strict`: see JobUpdate."""
        event = JobEvent(at, EventKind.STOPPED, self._hostname, message)
        update = JobUpdate(
            job.uid,
            (event,),
            Status.STOPPED,
            Phase.ENDED,
            attempts=job.attempts,
            executed_at=job.executed_at,
            strict=strict,
        )
        stopped = apply(job, update)
        tx.updates.append(update)
        tx.stopped.append(stopped)
        self._cache.record_run(tx, stopped, ended_now=True)
        return stopped

    async def _make_room(self, tx: Transaction, job: Job, operation: Operation) -> str | None:
        pending = [
            each
            for each in tx.jobs
            if each.operation_id == job.operation_id and each.owner == job.owner and not each.ended
        ]
        waiting, claimed = await self._store.count_active(operation.id, job.owner)
        if operation.mode is Mode.SINGLE:
            return "mode" if waiting + claimed + len(pending) else None
        if operation.mode is Mode.QUEUED:
            running_or_next = 1
            room = (operation.max or QUEUE_LENGTH) + running_or_next
            return "mode" if waiting + claimed + len(pending) >= room else None
        for old in [*await self._store.active(operation.id, job.owner), *pending]:
            self.stop(tx, old, job.created_at, f"Job stopped: {job.id} takes its place")
        return None


def _trigger_index(operation: Operation, job: Job) -> int | None:
    return operation.trigger_ids.index(job.trigger) if job.trigger in operation.trigger_ids else None


def _skipped(job: Job, skip_reason: SkipReason, at: datetime, hostname: str) -> Job:
    """Return the record of a match that did not run: it has ended, and never ran."""
    event = JobEvent(at, EventKind.SKIPPED, hostname, f"Job skipped: {skip_reason.reason} ({skip_reason.details})")
    return job.evolve(status=Status.SKIPPED, phase=Phase.ENDED, timeline=(*job.timeline, event))


def value_key(entity: EntityKey, attribute: str | None) -> ValueKey:
    """Return the key of an entity's state, or of one of its attributes."""
    return ValueKey(entity.kind, entity.id, attribute or STATE)
