"""operations/…: list, read, run and switch operations."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

from pydantic import JsonValue

from mqttjobs.domain.model import EntityKey, EntityKind, Json, Operation
from mqttjobs.domain.operation_document import OperationView, brief_document, operation_document
from mqttjobs.domain.schedules import next_due
from mqttjobs.errors import InvalidRequest, NotFound
from mqttjobs.service.draft import Draft
from mqttjobs.service.methods.jobs import Ids, Paging, document
from mqttjobs.service.requests.asking import Asking, Params, Reply, method
from mqttjobs.service.requests.by_hand import Run, brief, choose_owner, finish, start
from mqttjobs.service.requests.params import fill_params
from mqttjobs.service.running.submission import Cause
from mqttjobs.service.running.workbench import executor_of

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


def find_operation(asking: Asking, operation_id: str) -> Operation:
    """Return an operation that is attached to something in the caller's scope (or to nothing)."""
    operation = asking.workshop.settings.installation.operations.get(operation_id)
    if operation is None or not _in_scope(asking, operation):
        raise NotFound("Operation", "no operation has this id")
    return operation


def _in_scope(asking: Asking, operation: Operation) -> bool:
    if asking.caller.scope is None or not operation.attach:
        return True
    return any(asking.caller.sees(key) for key in asking.workshop.settings.installation.owners(operation))


async def view(asking: Asking, operation: Operation) -> dict[str, Json]:
    """Return the operation as the caller may see it."""
    if not asking.caller.user.may(READ):
        return brief_document(operation)
    workshop = asking.workshop
    facts = workshop.mirror.facts.get(operation.id)
    scope = asking.caller.scope
    runs = await workshop.store.runs(operation.id, scope)
    due = None
    if operation.schedule is not None and facts is not None:
        zone = ZoneInfo(workshop.settings.service.time_zone)
        due = next_due(operation.schedule, facts.due_at or facts.created_at, zone)
    made = operation_document(
        OperationView(
            operation=operation,
            facts=facts,
            active=workshop.is_active(operation),
            total=facts.total if facts is not None and scope is None else runs.total,
            running=runs.running,
            last_ids=tuple(runs.last_ids),
            latest=runs.latest,
            next_due=due,
            process=executor_of(operation).title(operation.id),
            users=workshop.settings.installation.users,
        )
    )
    return asking.caller.in_scope(made)


@method("operations/list", READ, EXECUTE, params=ListOperations)
async def list_operations(asking: Asking, params: ListOperations) -> Json:
    """Return operations in the order of the configuration."""
    installation = asking.workshop.settings.installation
    chosen = list(installation.operations.values())
    if params.object is not None or params.link is not None:
        keys = [EntityKey(EntityKind.OBJECT, each) for each in params.object or ()]
        keys += [EntityKey(EntityKind.LINK, each) for each in params.link or ()]
        keys = [key for key in keys if asking.caller.sees(key)]
        chosen = [each for each in chosen if any(installation.is_attached(each, key) for key in keys)]
    chosen = [
        each
        for each in chosen
        if (params.environment is None or each.environment == params.environment)
        and (params.type is None or each.type == params.type)
        and (params.active is None or asking.workshop.is_active(each) is params.active)
        and _in_scope(asking, each)
    ]
    page = chosen[params.offset : params.offset + params.limit]
    return {"total_items": len(chosen), "items": [await view(asking, each) for each in page]}


@method("operations/get", READ, EXECUTE, params=OneOperation)
async def get_operation(asking: Asking, params: OneOperation) -> Json:
    """Return the operation document."""
    return await view(asking, find_operation(asking, params.id))


@method("operations/execute", EXECUTE, params=Execute, changes=True)
async def execute(asking: Asking, params: Execute) -> Reply:
    """Run an operation by hand, and wait for its end if that is asked."""
    operation = find_operation(asking, params.id)
    owner = choose_owner(asking, operation, params.object, params.link)
    filled, wrong = fill_params(operation, params.params or {})
    if wrong:
        raise InvalidRequest(f"wrong params: {', '.join(wrong)}", wrong)
    run = Run(operation, owner, Cause(operation.run_as or asking.caller.user.id, params=filled))
    if not params.wait:
        return await start(asking, run, brief)
    service = asking.workshop.settings.service
    limit = (operation.timeout or service.timeout) + service.grace + timedelta(seconds=1)
    job = await finish(asking, run, limit / timedelta(seconds=1))
    return await asking.replace_answer(Reply(document(asking, job), code=200 if job.ended else 202))


class Switch(OneOperation):
    """The operation to switch."""


@method("operations/activate", "operation:manage", params=Switch, changes=True)
async def activate(asking: Asking, params: Switch) -> Reply:
    """Let an operation run; survives restarts."""
    return await _switch(asking, params.id, active=True)


@method("operations/deactivate", "operation:manage", params=Switch, changes=True)
async def deactivate(asking: Asking, params: Switch) -> Reply:
    """Keep an operation from running; survives restarts."""
    return await _switch(asking, params.id, active=False)


async def _switch(asking: Asking, operation_id: str, *, active: bool) -> Reply:
    workshop = asking.workshop
    operation = find_operation(asking, operation_id)
    async with workshop.turn:
        await workshop.refresh()
        now = workshop.clock.now()
        workshop.mirror.remember(operation, now, asking.caller.user.id)
        workshop.mirror.change_facts(operation.id, active=active, updated_at=now, updated_by=asking.caller.user.id)
        reply = Reply(await view(asking, operation))
        return await asking.commit(Draft(facts={operation.id}), reply)
