"""jobs/create, send, poll and retry: new jobs by request, and waiting for their end (seeds 001 and 002)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import orjson
from pydantic import BeforeValidator, Field, JsonValue

from mqttjobs.domain.documents import send_document
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import Json
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.params import fill_params
from mqttjobs.errors import MOST_INVALID_FIELDS, ConfigError, Conflict, Forbidden, InvalidRequest, NotFound
from mqttjobs.service.api.manual_runs import Run, brief, finish, start
from mqttjobs.service.api.request import Params, Reply, RequestContext, method
from mqttjobs.service.api.targets import choose_target, target_of_retry
from mqttjobs.service.jobs.definitions import blank_description
from mqttjobs.service.jobs.factory import JobOrigin
from mqttjobs.service.methods.jobs import OneJob, find_job

NOT_INLINE = frozenset(
    [
        "attach", "params", "mode", "max", "active", "schedule", "catch_up", "event_driven", "run_as",
        "trigger_states", "triggerStates", "triggers", "conditions", "on_failure", "confirm", "breaker", "allow_loop",
        "record_skipped",
    ]
)  # fmt: skip
"""Keys that only a configured operation can have, such as triggers and modes."""
KEPT_FOR_RETRY = ("payload", "state", "previous_state", "editor_session")
"""Variables of the job's origin that a retry keeps; all others are taken anew."""


def _as_uuid(value: Json) -> Json:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            parsed = str(UUID(value))
        except ValueError:
            parsed = ""
        if parsed and parsed == value.lower():
            return parsed
    raise ValueError("must be a uuid")


class Create(Params):
    """An operation as in the configuration, sent in to be run once."""

    operation: dict[str, JsonValue]
    object: str | None = None
    link: str | None = None
    target: str | None = None


Name = Annotated[str, Field(min_length=1)]


class Send(Params):
    """A run by the name of the method; `arguments` and `method` are older names of `params` and `method_name`."""

    object: str | None = None
    link: str | None = None
    method_name: Name | None = None
    method_type: Name | None = None
    params: dict[str, JsonValue] | None = None
    events: list[str] | None = None
    editor_session: Annotated[str | None, BeforeValidator(_as_uuid)] = None
    poll_result: bool = False
    arguments: dict[str, JsonValue] | None = None
    method: Name | None = None


class Retry(OneJob):
    """The job to run again, and where."""

    target: str | None = None


@method("jobs/create", "operation:manage", params=Create, changes=True)
async def create_job(request: RequestContext, params: Create) -> Reply:
    """Run an operation that is sent in, once."""
    operation = _inline_operation(request, params.operation)
    target = choose_target(request.settings, params.target, operation.target)
    owner = None
    if params.object is not None or params.link is not None:
        owner = request.entity(params.object, params.link).key
    return await start(request, Run(operation, owner, JobOrigin(request.caller.user.id, target=target)), brief)


def _inline_operation(request: RequestContext, written: Mapping[str, Json]) -> Operation:
    """Return the operation of what was sent in.

    Raises:
        Forbidden: its type may not be sent in.
        InvalidRequest: it is no operation.
    """
    settings = request.settings
    kind = written.get("type")
    if not isinstance(kind, str):
        raise InvalidRequest("wrong parameters: operation", {"operation": ["type: must be a text"]})
    if kind not in settings.service.inline_operations or settings.build is None:
        allowed = ", ".join(settings.service.inline_operations) or "none"
        raise Forbidden(f"operations of this type may not be sent in; service.inline_operations allows: {allowed}")
    misplaced = sorted(written.keys() & NOT_INLINE)
    problems = [f"{name}: only a configured operation can have this" for name in misplaced]
    if not problems:
        try:
            return settings.build(written)
        except ConfigError as error:
            problems = [each.message for each in error.problems]
    raise InvalidRequest("wrong parameters: operation", {"operation": problems[:MOST_INVALID_FIELDS]})


@method("jobs/send", "operation:execute", params=Send, changes=True)
async def send_job(request: RequestContext, params: Send) -> Reply:
    """Run an operation of an object or link, and wait a short while for its result if that is asked."""
    installation = request.installation
    name = _one_of(params, "method_name", "method")
    if name is None:
        raise InvalidRequest("wrong parameters: method_name", {"method_name": ["is required"]})
    owner = request.entity(params.object, params.link).key
    operation = installation.operations.get(name)
    if operation is None or not installation.is_attached(operation, owner):
        raise NotFound("Operation", f"no operation of this {owner.kind.value} has this id")
    if params.method_type not in (None, operation.type):
        raise InvalidRequest(
            "wrong parameters: method_type", {"method_type": [f"the method is of the type {operation.type}"]}
        )
    filled, wrong = fill_params(operation.params, _one_of(params, "params", "arguments") or {})
    extra = {} if params.editor_session is None else {"editor_session": params.editor_session}
    user_id = operation.run_as or request.caller.user.id
    origin = JobOrigin(user_id, params=filled, events=tuple(params.events or ()), extra=extra)
    run = Run(operation, owner, origin, wrong)
    if not params.poll_result:
        return await start(request, run, sent)
    window = request.settings.service.poll_window
    return await request.replace_answer(sent(await finish(request, run, window / timedelta(seconds=1))))


def _one_of(params: Send, name: str, older: str) -> Json:
    """Return the value given under a name or its older name; null counts as not given."""
    value, alias = getattr(params, name), getattr(params, older)
    if value is None:
        return alias
    if alias is not None and _sorted(alias) != _sorted(value):
        raise InvalidRequest(f"wrong parameters: {older}", {older: [f"is another name of {name} and differs from it"]})
    return value


def _sorted(value: Json) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def sent(job: Job) -> Reply:
    """Return the send document: 200 when the job has ended, else 201."""
    return Reply(_document(job), code=200 if job.ended else 201)


def _document(job: Job) -> dict[str, Json]:
    return send_document(job, blank_description(str(job.operation.get("type"))))


@method("jobs/poll", "job:read", params=OneJob)
async def poll_job(request: RequestContext, params: OneJob) -> Reply:
    """Return the send document: 200 when the job has ended, 202 while it has not."""
    job = await find_job(request, params.id)
    return Reply(_document(job), code=200 if job.ended else 202)


@method("jobs/retry", "job:write", params=Retry, changes=True)
async def retry_job(request: RequestContext, params: Retry) -> Reply:
    """Run what a job ran once more, as a new job."""
    old = await find_job(request, params.id)
    settings = request.settings
    operation = _operation_again(request, old)
    target = choose_target(settings, params.target, target_of_retry(old))
    filled, wrong = fill_params(operation.params, old.params)
    origin = JobOrigin(
        operation.run_as or request.caller.user.id,
        params=filled,
        events=old.events,
        extra={name: old.inputs[name] for name in KEPT_FOR_RETRY if name in old.inputs},
        retry_of=old.id,
        target=target,
    )
    return await start(request, Run(operation, old.owner, origin, wrong), brief, retried=old)


def _operation_again(request: RequestContext, old: Job) -> Operation:
    """Return a job's operation as it is configured now, or as it was sent in."""
    if old.operation_id is None:
        return _inline_operation(request, old.operation)
    installation = request.installation
    operation = installation.operations.get(old.operation_id)
    if operation is None:
        raise Conflict("the job's operation is configured no longer")
    if old.owner is not None and not installation.is_attached(operation, old.owner):
        raise Conflict(f"the job's operation is attached to its {old.owner.kind.value} no longer")
    return operation
