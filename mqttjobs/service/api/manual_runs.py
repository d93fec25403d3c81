"""Runs by hand: for whom, and how a new job is recorded in one transaction with the answer to whoever asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mqttjobs.domain.jobs import Job, JobUpdate, refuse
from mqttjobs.domain.model import EntityKey
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.status import EventKind, JobEvent
from mqttjobs.errors import Conflict, Inactive, InvalidRequest, NotFound
from mqttjobs.service.api.request import Reply, RequestContext
from mqttjobs.service.jobs.factory import JobOrigin
from mqttjobs.service.state.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be run; with `invalid_fields` it is recorded as failed and does not run."""

    operation: Operation
    owner: EntityKey | None
    origin: JobOrigin
    invalid_fields: Mapping[str, list[str]] = field(default_factory=dict)


def choose_owner(
    request: RequestContext, operation: Operation, object_id: str | None, link_id: str | None
) -> EntityKey | None:
    """Return the entity that a run by hand is for: the one that is named, or the only one there is."""
    installation = request.installation
    if object_id is not None or link_id is not None:
        key = request.entity(object_id, link_id).key
        if not installation.is_attached(operation, key):
            raise NotFound("Operation", f"the operation is not attached to this {key.kind.value}")
        return key
    owners = [key for key in installation.owners(operation) if request.caller.sees(key)]
    if len(owners) > 1:
        message = "is needed: the operation is attached to several"
        raise InvalidRequest("say for which object or link", {"object": [message]})
    return owners[0] if owners else None


def brief(job: Job) -> Reply:
    """Return the answer to who started a job and does not wait for it."""
    return Reply({"id": job.id, "uid": job.uid, "status": job.status.value}, code=201)


async def start(
    request: RequestContext, run: Run, answer: Callable[[Job], Reply], *, retried: Job | None = None
) -> Reply:
    """Record a new job, its answer and, in the job that it retries, that it does; start it and return the answer.

    Raises:
        Inactive, Conflict: its operation is deactivated, or its mode lets no other job run now.
    """
    async with request.engine.transaction() as tx:
        job = await _create(request, tx, run)
        event = JobEvent(
            job.created_at, EventKind.RETRIED, request.settings.service.hostname, f"Job retried as {job.id}"
        )
        if retried is not None:
            tx.updates.append(JobUpdate(retried.uid, (event,), only_events=True))
        reply = request.keep_answer(tx, answer(job))
    if retried is not None:
        request.engine.runner.noted(retried.uid, event)
    return reply


async def finish(request: RequestContext, run: Run, seconds: float) -> Job:
    """Record a new job and return it as it ended, or as it is after `seconds`.

    A repeated request whose first answer was lost with the process waits for the job that it made then.

    Raises:
        Inactive, Conflict: see start.
        NotFound: the job was deleted meanwhile.
    """
    uid = request.pending_job
    if uid is None:
        async with request.engine.transaction() as tx:
            job = await _create(request, tx, run)
            request.keep_pending_job(tx, job)
        uid = job.uid
    with request.parked():
        ended = await request.engine.runner.wait_for_end(uid, seconds)
    found = await request.store.get(uid) or ended
    if found is None:
        raise NotFound("Job", "the job was deleted before it ended")
    return found


async def _create(request: RequestContext, tx: Transaction, run: Run) -> Job:
    """Put the new job into a transaction and return it."""
    job_factory = request.engine.configuration.job_factory
    if not request.cache.is_active(run.operation):
        raise Inactive("the operation is deactivated; operations/activate switches it on")
    job = job_factory.compose(run.operation, run.owner, run.origin, request.clock.now())
    if run.invalid_fields:
        job = refuse(job, job.created_at, request.settings.service.hostname, run.invalid_fields)
        job_factory.add(tx, job)
        return job
    job = job_factory.resolve_target(job)
    if job.ended:
        raise InvalidRequest("wrong parameters: target", {"target": [job.timeline[-1].error]})
    if await job_factory.enqueue(tx, job, run.operation) is not None:
        raise Conflict(f"another job of this operation is running and its mode is {run.operation.mode.value}")
    return job
