"""Runs by hand: for whom, and how a new job is recorded in one transaction with the answer to whoever asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mqttjobs.domain.jobs import Job, JobUpdate, refuse
from mqttjobs.domain.model import EntityKey, Operation
from mqttjobs.domain.status import EventKind, JobEvent
from mqttjobs.errors import Conflict, Inactive, InvalidRequest, NotFound
from mqttjobs.service.draft import Draft
from mqttjobs.service.requests.asking import Asking, Reply
from mqttjobs.service.running.submission import Cause


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be run; with `invalid_fields` it is recorded as failed and does not run."""

    operation: Operation
    owner: EntityKey | None
    cause: Cause
    invalid_fields: Mapping[str, list[str]] = field(default_factory=dict)


def choose_owner(asking: Asking, operation: Operation, object_id: str | None, link_id: str | None) -> EntityKey | None:
    """Return the entity that a run by hand is for: the one that is named, or the only one there is."""
    installation = asking.workshop.settings.installation
    if object_id is not None or link_id is not None:
        key = asking.entity(object_id, link_id).key
        if not installation.is_attached(operation, key):
            raise NotFound("Operation", f"the operation is not attached to this {key.kind.value}")
        return key
    owners = [key for key in installation.owners(operation) if asking.caller.sees(key)]
    if len(owners) > 1:
        words = "is needed: the operation is attached to several"
        raise InvalidRequest("say for which object or link", {"object": [words]})
    return owners[0] if owners else None


def brief(job: Job) -> Reply:
    """Return the answer to who started a job and does not wait for it."""
    return Reply({"id": job.id, "uid": job.uid, "status": job.status.value}, code=201)


async def start(asking: Asking, run: Run, answer: Callable[[Job], Reply], *, retried: Job | None = None) -> Reply:
    """Record a new job, its answer and, in the job that it retries, that it does; start it and return the answer.

    Raises:
        Inactive, Conflict: its operation is deactivated, or its mode lets no other job run now.
    """
    workshop = asking.workshop
    async with workshop.turn:
        draft, job = await _draft(asking, run)
        event = JobEvent(
            job.created_at, EventKind.RETRIED, workshop.settings.service.hostname, f"Job retried as {job.id}"
        )
        if retried is not None:
            draft.updates.append(JobUpdate(retried.uid, (event,), only_events=True))
        reply = await asking.commit(draft, answer(job))
    if retried is not None:
        workshop.runner.noted(retried.uid, event)
    return reply


async def finish(asking: Asking, run: Run, seconds: float) -> Job:
    """Record a new job and return it as it ended, or as it is after `seconds`.

    A repeated request whose first answer was lost with the process waits for the job that it made then.

    Raises:
        Inactive, Conflict: see start.
        NotFound: the job was deleted meanwhile.
    """
    workshop = asking.workshop
    uid = asking.begun
    if uid is None:
        async with workshop.turn:
            draft, job = await _draft(asking, run)
            asking.keep_begun(draft, job)
            await workshop.commit(draft)
        uid = job.uid
    with asking.aside():
        ended = await workshop.runner.wait_for_end(uid, seconds)
    found = await workshop.store.get(uid) or ended
    if found is None:
        raise NotFound("Job", "the job was deleted before it ended")
    return found


async def _draft(asking: Asking, run: Run) -> tuple[Draft, Job]:
    """Return the draft with the new job in it; call it with `turn` held."""
    workshop = asking.workshop
    await workshop.refresh()
    if not workshop.is_active(run.operation):
        raise Inactive("the operation is deactivated; operations/activate switches it on")
    draft = Draft()
    job = workshop.submission.compose(run.operation, run.owner, run.cause, workshop.clock.now())
    if run.invalid_fields:
        job = refuse(job, job.created_at, workshop.settings.service.hostname, run.invalid_fields)
        workshop.submission.add(draft, job)
        return draft, job
    job = workshop.submission.aim(job)
    if job.ended:
        words = f"no ready agent for the target {job.target}"
        raise InvalidRequest("wrong parameters: target", {"target": [words]})
    if await workshop.submission.place(draft, job, run.operation) is not None:
        raise Conflict(f"another job of this operation is running and its mode is {run.operation.mode.value}")
    return draft, job
