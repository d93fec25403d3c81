"""jobs/…: list, read, annotate, stop and delete jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BeforeValidator, Field, JsonValue

from mqttjobs.domain.documents import job_document, job_fields
from mqttjobs.domain.jobs import CustomResult, Job, JobUpdate
from mqttjobs.domain.model import Json
from mqttjobs.domain.protocol import milliseconds, parse_time
from mqttjobs.domain.status import EventKind, JobEvent, Status
from mqttjobs.errors import InvalidRequest, NotFound, TerminalState
from mqttjobs.service.api.request import Params, Reply, RequestContext, method
from mqttjobs.service.jobs.definitions import blank_description
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.store.base import JobQuery

ANSWER = 64
"""The longest text that can be a job id."""


def _as_list(value: Json) -> Json:
    return value if value is None or isinstance(value, list) else [value]


def _as_job_id(value: Json) -> Json:
    """Accept a uuid, or a uid as a number or its digits."""
    if isinstance(value, bool):
        raise ValueError("must be a job's uuid or uid")
    if isinstance(value, int) and 0 < value < 2**63:
        return value
    if isinstance(value, str) and len(value) <= ANSWER:
        if value.isascii() and value.isdigit() and 0 < int(value) < 2**63:
            return int(value)
        try:
            parsed = UUID(value)
        except ValueError:
            pass
        else:
            if str(parsed) == value.lower():
                return str(parsed)
    raise ValueError("must be a job's uuid or uid")


JobId = Annotated[int | str, BeforeValidator(_as_job_id)]
Ids = Annotated[list[str] | None, BeforeValidator(_as_list)]
Moment = Annotated[int | str | None, Field()]


class Paging(Params):
    """How much of a listing: `limit` 1 to 100, `offset` from 0."""

    limit: Annotated[int, Field(ge=1, le=100)] = 10
    offset: Annotated[int, Field(ge=0, lt=2**63)] = 0


class ListJobs(Paging):
    """Filters of jobs/list; all that are given must agree."""

    status: Annotated[list[Status] | None, BeforeValidator(_as_list)] = None
    operation_id: str | None = None
    object: Ids = None
    link: Ids = None
    user_id: str | None = None
    since: Moment = None
    until: Moment = None
    cursor: str | None = None
    fields: list[str] | None = None


class OneJob(Params):
    """A job's uuid or uid."""

    id: JobId


class AddResult(OneJob):
    """A custom result: any JSON object."""

    payload: dict[str, JsonValue]


class AddProgress(OneJob):
    """A progress message."""

    message: Annotated[str, Field(min_length=1, max_length=4096)]


def moment(request: RequestContext, name: str, value: int | str | None) -> datetime | None:
    """Return a time given as ISO 8601, milliseconds, or `-24h`."""
    if value is None:
        return None
    try:
        return parse_time(value, request.clock.now())
    except ValueError as error:
        raise InvalidRequest(f"wrong parameters: {name}", {name: [str(error)]}) from None


def _cursor(value: str | None) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise InvalidRequest("wrong parameters: cursor", {"cursor": ["use the next_cursor of an earlier answer"]})
    return int(value)


def document(request: RequestContext, job: Job) -> dict[str, Json]:
    """Return the job document; of the operation, only what the caller may see."""
    made = job_document(job, blank_description(str(job.operation.get("type"))))
    user = request.caller.user
    if user.may("job:read") or user.may("operation:read"):
        return made | {"operation": request.caller.in_scope(job.operation)}
    name = job.operation.get("name") or job.operation_id
    brief = {"id": job.operation_id, "name": name, "description": job.operation.get("description", "")}
    return made | {"operation": brief}


async def find_job(request: RequestContext, job_id: int | str) -> Job:
    """Return a job in the caller's scope; unknown and out of scope look alike."""
    job = await request.store.get(job_id, request.caller.scope)
    if job is None:
        raise NotFound("Job", f"no job has the id {job_id}")
    return job


@method("jobs/list", "job:read", params=ListJobs)
async def list_jobs(request: RequestContext, params: ListJobs) -> Json:
    """Return whole documents, newest first, with totals and counts in the caller's scope."""
    if set(params.fields or ()) - job_fields():
        message = f"each must be one of {', '.join(sorted(job_fields()))}"
        raise InvalidRequest("wrong parameters: fields", {"fields": [message]})
    scope = request.caller.scope
    query = JobQuery(
        statuses=None if params.status is None else frozenset(params.status),
        operation_id=params.operation_id,
        objects=None if params.object is None else frozenset(params.object),
        links=None if params.link is None else frozenset(params.link),
        user_id=params.user_id,
        since=moment(request, "since", params.since),
        until=moment(request, "until", params.until),
        before_uid=_cursor(params.cursor),
        limit=params.limit + 1,
        offset=params.offset,
        scope=scope,
    )
    page = await request.store.find(query)
    jobs = page.jobs[: params.limit]
    counts = await request.store.counts(scope)
    items = [document(request, job) for job in jobs]
    if params.fields is not None:
        items = [{name: item[name] for name in params.fields} for item in items]
    data: dict[str, Json] = {
        "total_items": page.total,
        "status_counts": {status.value: counts[status] for status in Status},
        "items": items,
        "next_cursor": str(jobs[-1].uid) if len(page.jobs) > params.limit else None,
    }
    if not page.exact:
        data["total_exact"] = False
    return data


@method("jobs/get", "job:read", params=OneJob)
async def get_job(request: RequestContext, params: OneJob) -> Json:
    """Return the job document."""
    return document(request, await find_job(request, params.id))


@method("jobs/add_result", "job:write", params=AddResult, changes=True)
async def add_result(request: RequestContext, params: AddResult) -> Reply:
    """Append a custom result, changing nothing else (seeds 000)."""
    job = await find_job(request, params.id)
    result = CustomResult(params.payload, request.caller.user.id, request.clock.now())
    data = {"payload": result.payload, "by": result.by, "timestamp": milliseconds(result.at)}
    async with request.engine.transaction() as tx:
        tx.results.append((job.uid, result))
        return request.keep_answer(tx, Reply(data))


@method("jobs/progress", "job:write", params=AddProgress, changes=True)
async def add_progress(request: RequestContext, params: AddProgress) -> Reply:
    """Add a progress message to a job that has not ended."""
    job = await find_job(request, params.id)
    if job.ended:
        raise TerminalState(f"the job is {job.status.value}")
    event = JobEvent(request.clock.now(), EventKind.PROGRESS, request.settings.service.hostname, params.message)
    async with request.engine.transaction() as tx:
        tx.updates.append(JobUpdate(job.uid, (event,), strict=True, only_events=True))
        reply = request.keep_answer(tx, Reply({"id": job.id, "uid": job.uid, "message": params.message}))
    request.engine.runner.noted(job.uid, event)
    return reply


@method("jobs/stop", "job:write", params=OneJob, changes=True)
async def stop_job(request: RequestContext, params: OneJob) -> Reply:
    """Stop a job that has not ended, and end what runs of it."""
    job = await find_job(request, params.id)
    if job.ended:
        raise TerminalState(f"the job is {job.status.value}")
    async with request.engine.transaction() as tx:
        stopped = _stop(request, tx, job)
        return request.keep_answer(tx, Reply(document(request, stopped)))


@method("jobs/delete", "job:write", params=OneJob, changes=True)
async def delete_job(request: RequestContext, params: OneJob) -> Reply:
    """Delete a job with all its records; a running job is stopped first."""
    job = await find_job(request, params.id)
    async with request.engine.transaction() as tx:
        tx.deleted.append(job.uid)
        if not job.ended:
            _stop(request, tx, job, strict=False)
        return request.keep_answer(tx, Reply({"id": job.id, "uid": job.uid}, code=204))


def _stop(request: RequestContext, tx: Transaction, job: Job, *, strict: bool = True) -> Job:
    message = f"Job stopped by {request.caller.user.id}"
    return request.engine.configuration.job_factory.stop(tx, job, request.clock.now(), message, strict=strict)
