"""How a job comes to be: from a cause, an operation and an owner to a record that is ready to be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mqttjobs.domain.installation import Installation, Watcher
from mqttjobs.domain.jobs import Job, JobUpdate, Phase, apply, submitted
from mqttjobs.domain.model import EMPTY, STATE, Change, EntityKey, Json, Mode, Operation, ValueKey
from mqttjobs.domain.protocol import iso
from mqttjobs.domain.status import LOCAL, EventKind, JobEvent, Status
from mqttjobs.service.draft import Draft
from mqttjobs.service.mirror import Mirror
from mqttjobs.service.variables import Painter
from mqttjobs.store.base import Store

QUEUE_LENGTH = 10
"""How many jobs of a `queued` operation wait per owner when `max` is left out."""

MAX_DEPTH = 8
"""Publishes into state topics carry their depth; beyond this nothing starts (behaviour 4)."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a job is made, and by whom.

    `extra` replaces or adds variables (contract 2): payload, state and previous_state of the change.
    `process_meta` is None unless a state change started it. `target` is where it is to run.
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
    target: str = LOCAL


class Submission:
    """Makes jobs. One for each installation; a reload makes a new one."""

    def __init__(
        self,
        installation: Installation,
        mirror: Mirror,
        store: Store,
        *,
        hostname: str,
        system_user: str,
        new_id: Callable[[], str],
    ) -> None:
        self._installation = installation
        self._mirror = mirror
        self._store = store
        self._hostname = hostname
        self._system_user = system_user
        self._new_id = new_id
        self._painter = Painter(installation, mirror.values)

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
            target=cause.target,
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
            timeline=(submitted(at, self._hostname),),
        )

    def fire(self, draft: Draft, watcher: Watcher, change: Change, at: datetime) -> Job | None:
        """Return the job of a trigger that fired, or None with the reason counted when it may not run."""
        operation = watcher.operation
        if not operation.event_driven:
            draft.skipped["event_driven"] += 1
            return None
        if not self._mirror.is_active(operation):
            draft.skipped["inactive"] += 1
            return None
        if change.depth > MAX_DEPTH:
            draft.skipped["depth"] += 1
            return None
        extra: dict[str, Json] = {"payload": change.payload}
        if change.key.name == STATE:
            extra |= {"state": change.text, "previous_state": change.previous}
        states = watcher.trigger.states_in_order
        cause = Cause(
            user_id=operation.run_as or change.user_id or self._system_user,
            extra=extra,
            process_meta={
                "triggerStates": [change.text] if states is None else list(states),
                "state": change.text,
                "previous_state": change.previous,
                "attribute": change.key.attribute,
                "topic": change.topic,
                "received_at": iso(change.at),
                "reported_by": change.reported_by,
            },
            root_id=change.root_id,
            depth=change.depth,
        )
        return self.compose(operation, change.key.entity, cause, at)

    async def place(self, draft: Draft, job: Job, operation: Operation) -> str | None:
        """Put a job into the draft as its operation's mode says (behaviour 3.8), or return why it may not run."""
        if operation.mode is not Mode.PARALLEL:
            refusal = await self._make_room(draft, job, operation)
            if refusal is not None:
                return refusal
        self.add(draft, job)
        return None

    def add(self, draft: Draft, job: Job) -> None:
        """Put a job into the draft and count it among its operation's runs."""
        draft.jobs.append(job)
        facts = self._mirror.facts.get(job.operation_id or "")
        if facts is not None:
            self._mirror.change_facts(facts.id, total=facts.total + 1, triggered_at=job.created_at)
            draft.facts.add(facts.id)
        if job.ended:
            self._note_end(draft, job, job.created_at)

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
        self._note_end(draft, job, at)
        return stopped

    def _note_end(self, draft: Draft, job: Job, at: datetime) -> None:
        facts = self._mirror.facts.get(job.operation_id or "")
        if facts is not None:
            self._mirror.change_facts(facts.id, ended_at=at)
            draft.facts.add(facts.id)

    async def _make_room(self, draft: Draft, job: Job, operation: Operation) -> str | None:
        drafted = [each for each in draft.jobs if each.operation_id == job.operation_id and each.owner == job.owner]
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


def value_key(entity: EntityKey, attribute: str | None) -> ValueKey:
    """Return the key of an entity's state, or of one of its attributes."""
    return ValueKey(entity.kind, entity.id, attribute or STATE)
