"""How a job comes to be: from a cause, an operation and an owner to a record that is ready to be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from mqttjobs.domain.agents import expected_set, parse_target
from mqttjobs.domain.installation import Watcher
from mqttjobs.domain.jobs import Job, JobUpdate, Phase, apply, submitted
from mqttjobs.domain.model import AVAILABILITY, EMPTY, STATE, Change, EntityKey, Json, Mode, Operation, ValueKey
from mqttjobs.domain.protocol import iso
from mqttjobs.domain.status import LOCAL, EventKind, JobEvent, Status
from mqttjobs.domain.triggers import Hold, hold_name
from mqttjobs.service.agents.roster import Roster
from mqttjobs.service.draft import Draft
from mqttjobs.service.mirror import Mirror
from mqttjobs.service.running.variables import Painter
from mqttjobs.service.settings import Settings
from mqttjobs.service.starting.gate import Gate, Miss, Misses, Refusal

QUEUE_LENGTH = 10
"""How many jobs of a `queued` operation wait per owner when `max` is left out."""


@dataclass(frozen=True, slots=True)
class Cause:
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


class Submission:
    """Makes jobs. One for each installation; a reload makes a new one."""

    def __init__(
        self,
        settings: Settings,
        mirror: Mirror,
        roster: Roster,
        store: Active,
        gate: Gate,
        misses: Misses,
        new_id: Callable[[], str],
    ) -> None:
        self._installation = settings.installation
        self._mirror = mirror
        self._roster = roster
        self._store = store
        self._gate = gate
        self._misses = misses
        self._hostname = settings.service.hostname
        self._system_user = settings.service.system_user
        self._new_id = new_id
        self._painter = Painter(settings.installation, mirror.values)

    def repaint(self) -> None:
        """Take variables from the mirror's values as they now are (it was read anew)."""
        self._painter = Painter(self._installation, self._mirror.values)

    def compose(self, operation: Operation, owner: EntityKey | None, cause: Cause, at: datetime) -> Job:
        """Return the job, not yet recorded; it has its uid and its first event."""
        job_id = self._new_id()
        extra = dict(cause.extra)
        extra["params"] = cause.params
        extra["user"] = {"id": cause.user_id}
        extra["job"] = {"id": job_id}
        picture = self._painter.picture(operation, owner, extra)
        return Job(
            uid=self._mirror.take_uid(),
            id=job_id,
            created_at=at,
            operation_id=operation.id or None,
            operation=operation.definition,
            fingerprint=operation.fingerprint,
            owner=owner,
            user_id=cause.user_id,
            target=cause.target or operation.target,
            priority=operation.priority,
            takes_slot=operation.takes_slot,
            limit=1 if operation.mode is not Mode.PARALLEL else operation.max,
            params=cause.params,
            events=cause.events,
            inputs=picture.variables,
            hidden=picture.hidden,
            process_meta=cause.process_meta,
            parent_id=cause.parent_id,
            root_id=cause.root_id or job_id,
            retry_of=cause.retry_of,
            depth=cause.depth,
            trigger=cause.trigger,
            timeline=(submitted(at, self._hostname),),
        )

    def fire(self, draft: Draft, watcher: Watcher, change: Change | None, at: datetime) -> Job | None:
        """Return the job of a trigger that fired, or None with the reason counted when it may not run.

        `change` is None for a trigger that goes by silence or by the clock: no state change started its job.
        """
        operation, trigger = watcher.operation, watcher.trigger
        refused = self._gate.of_trigger(watcher, change, at)
        if refused is not None:
            cause = self._cause(watcher, change) if operation.record_skipped else None
            self.refuse(draft, operation, watcher.owner, refused, at, cause, watcher.place, change)
            return None
        if trigger.throttle is not None:
            name = hold_name(operation.trigger_ids[watcher.place], watcher.owner)
            hold = replace(self._mirror.holds.get(name) or Hold(name, watcher.owner), ran_at=at)
            self._mirror.put_hold(hold)
            draft.holds[name] = hold
        return self.compose(operation, watcher.owner, self._cause(watcher, change), at)

    def start(
        self, draft: Draft, operation: Operation, owner: EntityKey | None, at: datetime, place: int | None = None
    ) -> Job | None:
        """Return the job of what the clock makes due, or None with the reason counted when it may not run.

        `place` is the trigger's, of an operation that is attached to nothing; without it a schedule is due.
        """
        cause = Cause(
            user_id=operation.run_as or self._system_user,
            trigger=None if place is None else operation.trigger_ids[place],
        )
        refused = self._gate.of_conditions(operation, owner, at)
        if place is not None:
            refused = self._gate.of_moment(operation, operation.triggers[place], at)
        if refused is None:
            return self.compose(operation, owner, cause, at)
        self.refuse(draft, operation, owner, refused, at, cause, place)
        return None

    def refuse(
        self,
        draft: Draft,
        operation: Operation,
        owner: EntityKey | None,
        refusal: Refusal,
        at: datetime,
        cause: Cause | None = None,
        place: int | None = None,
        change: Change | None = None,
    ) -> None:
        """Count a match that does not run, remember why, and keep a skipped job if the operation wants that."""
        draft.skipped[refusal.reason] += 1
        self._misses.note(operation.id, Miss(at, owner, place, change.text if change else None, refusal))
        if operation.record_skipped and cause is not None:
            self.add(draft, _skipped(self.compose(operation, owner, cause, at), refusal, at, self._hostname))

    def _cause(self, watcher: Watcher, change: Change | None) -> Cause:
        operation = watcher.operation
        trigger_id = operation.trigger_ids[watcher.place]
        if change is None:
            return Cause(user_id=operation.run_as or self._system_user, target=operation.target, trigger=trigger_id)
        extra: dict[str, Json] = {"payload": change.payload}
        if change.key.name == STATE and change.key.entity == watcher.owner:
            extra |= {"state": change.text, "previous_state": change.previous}
        states = watcher.trigger.states_in_order
        return Cause(
            user_id=operation.run_as or change.user_id or self._system_user,
            extra=extra,
            process_meta={
                "triggerStates": [change.text] if states is None else list(states),
                "state": change.text,
                "previous_state": change.previous,
                "attribute": None if change.key.name == AVAILABILITY else change.key.attribute,
                "topic": change.topic,
                "received_at": iso(change.at),
                "reported_by": change.reported_by,
            },
            root_id=change.root_id,
            depth=change.depth,
            target=operation.target,
            trigger=trigger_id,
        )

    def aim(self, job: Job) -> Job:
        """Return a job with the agents that must answer, fixed from now on; failed where its target means none."""
        if job.target == LOCAL or job.expected or job.ended:
            return job
        target = parse_target(job.target)
        ready = self._roster.ready(target, job.created_at)
        if ready:
            return job.evolve(expected=expected_set(target, ready))
        error = f"no ready agent for the target {job.target}"
        event = JobEvent(job.created_at, EventKind.FAILED, self._hostname, f"Job failed on {self._hostname}", error)
        return job.evolve(timeline=(*job.timeline, event), status=Status.FAILED, phase=Phase.ENDED)

    async def place(self, draft: Draft, job: Job, operation: Operation) -> str | None:
        """Put a job into the draft as its operation's mode says (behaviour 3.8), or return why it may not run."""
        job = self.aim(job)
        if job.ended:
            self.add(draft, job)
            return None
        if operation.mode is not Mode.PARALLEL:
            refusal = await self._make_room(draft, job, operation)
            if refusal is not None:
                return refusal
        self.add(draft, job)
        return None

    async def place_match(self, draft: Draft, job: Job, operation: Operation) -> None:
        """Put the job of a match into the draft, or count it as skipped: `fired` and `skipped` add up."""
        reason = await self.place(draft, job, operation)
        if reason is None:
            draft.fired += 1
            return
        refusal = Refusal(reason, f"another job of it is there, and its mode is {operation.mode.value}")
        draft.skipped[reason] += 1
        state = None if job.process_meta is None else job.process_meta["state"]
        self._misses.note(operation.id, Miss(job.created_at, job.owner, _place(operation, job), state, refusal))
        if operation.record_skipped:
            self.add(draft, _skipped(job, refusal, job.created_at, self._hostname))

    def is_active(self, operation: Operation) -> bool:
        """Whether an operation may run."""
        return self._mirror.is_active(operation)

    def add(self, draft: Draft, job: Job) -> None:
        """Put a job into the draft and count it among its operation's runs."""
        draft.jobs.append(job)
        facts = self._mirror.facts.get(job.operation_id or "")
        if facts is not None:
            self._mirror.change_facts(facts.id, total=facts.total + 1, triggered_at=job.created_at)
            draft.facts.add(facts.id)
        self._mirror.note_run(draft.facts, job, ended_now=job.ended and job.status is not Status.SKIPPED)

    def stop(self, draft: Draft, job: Job, at: datetime, message: str, *, strict: bool = False) -> Job:
        """Put a stop into the draft (behaviour 3.7); return the job as it leaves it. `strict`: see JobUpdate."""
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
        draft.updates.append(update)
        draft.stopped.append(stopped)
        self._mirror.note_run(draft.facts, stopped, ended_now=True)
        return stopped

    async def _make_room(self, draft: Draft, job: Job, operation: Operation) -> str | None:
        drafted = [
            each
            for each in draft.jobs
            if each.operation_id == job.operation_id and each.owner == job.owner and not each.ended
        ]
        waiting, claimed = await self._store.count_active(operation.id, job.owner)
        if operation.mode is Mode.SINGLE:
            return "mode" if waiting + claimed + len(drafted) else None
        if operation.mode is Mode.QUEUED:
            running_or_next = 1
            room = (operation.max or QUEUE_LENGTH) + running_or_next
            return "mode" if waiting + claimed + len(drafted) >= room else None
        for old in [*await self._store.active(operation.id, job.owner), *drafted]:
            self.stop(draft, old, job.created_at, f"Job stopped: {job.id} takes its place")
        return None


def _place(operation: Operation, job: Job) -> int | None:
    return operation.trigger_ids.index(job.trigger) if job.trigger in operation.trigger_ids else None


def _skipped(job: Job, refusal: Refusal, at: datetime, hostname: str) -> Job:
    """Return the record of a match that did not run: it has ended, and never ran."""
    event = JobEvent(at, EventKind.SKIPPED, hostname, f"Job skipped: {refusal.reason} ({refusal.details})")
    return job.evolve(status=Status.SKIPPED, phase=Phase.ENDED, timeline=(*job.timeline, event))


def value_key(entity: EntityKey, attribute: str | None) -> ValueKey:
    """Return the key of an entity's state, or of one of its attributes."""
    return ValueKey(entity.kind, entity.id, attribute or STATE)
