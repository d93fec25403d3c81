"""operations/…: list, read, run and switch operations."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

from pydantic import JsonValue

from mqttjobs.domain.model import EntityKey, EntityKind, Json
from mqttjobs.domain.operation_document import OperationView, brief_document, operation_document
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.params import fill_params
from mqttjobs.domain.schedules import next_due
from mqttjobs.errors import InvalidRequest, NotFound
from mqttjobs.service.api.manual_runs import Run, brief, choose_owner, finish, start
from mqttjobs.service.api.request import Params, Reply, RequestContext, method
from mqttjobs.service.jobs.definitions import executor_of
from mqttjobs.service.jobs.factory import JobOrigin
from mqttjobs.service.methods.jobs import Ids, Paging, document

READ = "operation:read"
EXECUTE = "operation:execute"


class ListOperations(Paging):
    """Filters of operations/list; all that are given must agree."""

    object: Ids = None
    link: Ids = None
    environment: str | None = None
    type: str | None = None
    active: bool | None = None


class OneOperation(Params):
    """An operation's id."""

    id: str


class Execute(OneOperation):
    """A run by hand; `object` or `link` is needed where the operation is attached to several."""

    object: str | None = None
    link: str | None = None
    params: dict[str, JsonValue] | None = None
    wait: bool = False


def find_operation(request: RequestContext, operation_id: str) -> Operation:
    """Return an operation that is attached to something in the caller's scope (or to nothing)."""
    operation = request.installation.operations.get(operation_id)
    if operation is None or not _in_scope(request, operation):
        raise NotFound("Operation", "no operation has this id")
    return operation


def _in_scope(request: RequestContext, operation: Operation) -> bool:
    if request.caller.scope is None or not operation.attach:
        return True
    return any(request.caller.sees(key) for key in request.installation.owners(operation))


async def view(request: RequestContext, operation: Operation) -> dict[str, Json]:
    """Return the operation as the caller may see it."""
    if not request.caller.user.may(READ):
        return brief_document(operation)
    operation_state = request.cache.operation_states.get(operation.id)
    scope = request.caller.scope
    runs = await request.store.runs(operation.id, scope)
    due = None
    if operation.schedule is not None and operation_state is not None:
        zone = ZoneInfo(request.settings.service.time_zone)
        due = next_due(operation.schedule, operation_state.due_at or operation_state.created_at, zone)
    made = operation_document(
        OperationView(
            operation=operation,
            operation_state=operation_state,
            active=request.cache.is_active(operation),
            total=operation_state.total if operation_state is not None and scope is None else runs.total,
            running=runs.running,
            last_ids=tuple(runs.last_ids),
            latest=runs.latest,
            next_due=due,
            process=executor_of(operation).title(operation.id),
            users=request.installation.users,
        )
    )
    return request.caller.in_scope(made)


@method("operations/list", READ, EXECUTE, params=ListOperations)
async def list_operations(request: RequestContext, params: ListOperations) -> Json:
    """Return operations in the order of the configuration."""
    installation = request.installation
    chosen = list(installation.operations.values())
    if params.object is not None or params.link is not None:
        keys = [EntityKey(EntityKind.OBJECT, each) for each in params.object or ()]
        keys += [EntityKey(EntityKind.LINK, each) for each in params.link or ()]
        keys = [key for key in keys if request.caller.sees(key)]
        chosen = [each for each in chosen if any(installation.is_attached(each, key) for key in keys)]
    chosen = [
        each
        for each in chosen
        if (params.environment is None or each.environment == params.environment)
        and (params.type is None or each.type == params.type)
        and (params.active is None or request.cache.is_active(each) is params.active)
        and _in_scope(request, each)
    ]
    page = chosen[params.offset : params.offset + params.limit]
    return {"total_items": len(chosen), "items": [await view(request, each) for each in page]}


@method("operations/get", READ, EXECUTE, params=OneOperation)
async def get_operation(request: RequestContext, params: OneOperation) -> Json:
    """Return the operation document."""
    return await view(request, find_operation(request, params.id))


@method("operations/execute", EXECUTE, params=Execute, changes=True)
async def execute(request: RequestContext, params: Execute) -> Reply:
    """Run an operation by hand, and wait for its end if that is asked."""
    operation = find_operation(request, params.id)
    owner = choose_owner(request, operation, params.object, params.link)
    filled, wrong = fill_params(operation.params, params.params or {})
    if wrong:
        raise InvalidRequest(f"wrong params: {', '.join(wrong)}", wrong)
    run = Run(operation, owner, JobOrigin(operation.run_as or request.caller.user.id, params=filled))
    if not params.wait:
        return await start(request, run, brief)
    service = request.settings.service
    limit = (operation.timeout or service.timeout) + service.grace + timedelta(seconds=1)
    job = await finish(request, run, limit / timedelta(seconds=1))
    return await request.replace_answer(Reply(document(request, job), code=200 if job.ended else 202))


class Switch(OneOperation):
    """The operation to switch."""


@method("operations/activate", "operation:manage", params=Switch, changes=True)
async def activate(request: RequestContext, params: Switch) -> Reply:
    """Let an operation run; survives restarts."""
    return await _switch(request, params.id, active=True)


@method("operations/deactivate", "operation:manage", params=Switch, changes=True)
async def deactivate(request: RequestContext, params: Switch) -> Reply:
    """Keep an operation from running; survives restarts."""
    return await _switch(request, params.id, active=False)


async def _switch(request: RequestContext, operation_id: str, *, active: bool) -> Reply:
    operation = find_operation(request, operation_id)
    async with request.engine.transaction() as tx:
        now, by = request.clock.now(), request.caller.user.id
        request.cache.remember(tx, operation, now, by)
        request.cache.change_operation_state(tx, operation.id, active=active, updated_at=now, updated_by=by)
        return request.keep_answer(tx, Reply(await view(request, operation)))
