"""objects/…, links/… and states/…: entities and their states."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mqttjobs.domain.model import AVAILABILITY, STATE, Entity, EntityKey, EntityKind, Json, Value, ValueKey
from mqttjobs.domain.protocol import iso
from mqttjobs.errors import Conflict, InvalidRequest, NotFound
from mqttjobs.service.api.request import Params, Reply, RequestContext, method
from mqttjobs.service.methods.jobs import Moment, Paging, moment

READ = "job:read"


class OneEntity(Params):
    """An object's or a link's id."""

    id: str


class History(Paging):
    """Whose history: an object's or a link's state, or one of its attributes."""

    object: str | None = None
    link: str | None = None
    attribute: Annotated[str | None, Field(min_length=1)] = None
    since: Moment = None
    until: Moment = None


class SetState(Params):
    """The new state, as if it had been reported; numbers and booleans are read as JSON writes them."""

    object: str | None = None
    link: str | None = None
    state: str | int | float | bool
    reason: Annotated[str | None, Field(max_length=1024)] = None


def entity_document(request: RequestContext, entity: Entity) -> dict[str, Json]:
    """Return an object or link with its values as they are now."""
    installation = request.installation
    values = request.cache.values
    kind, entity_id = entity.key

    def text(name: str) -> str | None:
        value = values.get(ValueKey(kind, entity_id, name))
        return value.text if value else None

    leader = entity
    if entity.follows is not None:
        leader = installation.entities.get(EntityKey(EntityKind.OBJECT, entity.follows), entity)
    state: Value | None = values.get(ValueKey(kind, entity_id, STATE))
    document: dict[str, Json] = {
        "id": entity_id,
        "name": entity.name,
        "class": entity.class_id,
        "properties": entity.properties,
        "state": state.text if state else None,
        "state_since": iso(state.since_at) if state else None,
        "attributes": {name: text(name) for name in leader.sources if name and name != AVAILABILITY},
        "availability": text(AVAILABILITY),
        "operations": [operation.id for operation in installation.operations_of(entity.key)],
    }
    if kind is EntityKind.LINK:
        document |= {"source": entity.source, "target": entity.target}
    return document


def _listing(request: RequestContext, kind: EntityKind, params: Paging) -> Json:
    entities = request.installation.entities.values()
    seen = [each for each in entities if each.key.kind is kind and request.caller.sees(each.key)]
    page = seen[params.offset : params.offset + params.limit]
    return {"total_items": len(seen), "items": [entity_document(request, each) for each in page]}


@method("objects/list", READ, params=Paging)
async def list_objects(request: RequestContext, params: Paging) -> Json:
    """Return the objects in the caller's scope."""
    return _listing(request, EntityKind.OBJECT, params)


@method("links/list", READ, params=Paging)
async def list_links(request: RequestContext, params: Paging) -> Json:
    """Return the links in the caller's scope."""
    return _listing(request, EntityKind.LINK, params)


@method("objects/get", READ, params=OneEntity)
async def get_object(request: RequestContext, params: OneEntity) -> Json:
    """Return one object."""
    return entity_document(request, request.entity(params.id, None))


@method("links/get", READ, params=OneEntity)
async def get_link(request: RequestContext, params: OneEntity) -> Json:
    """Return one link."""
    return entity_document(request, request.entity(None, params.id))


@method("states/history", READ, params=History)
async def history(request: RequestContext, params: History) -> Json:
    """Return the changes of a value, newest first."""
    entity = request.entity(params.object, params.link)
    key = ValueKey(entity.key.kind, entity.key.id, params.attribute or STATE)
    if params.attribute is not None and request.installation.source_of(key) is None:
        raise NotFound("Attribute", "the entity has no such attribute")
    since, until = moment(request, "since", params.since), moment(request, "until", params.until)
    page = await request.store.history(key, since, until, params.limit, params.offset)
    items = [
        {
            "state": entry.state,
            "previous_state": entry.previous,
            "timestamp": iso(entry.at),
            "reported_at": None if entry.reported_at is None else iso(entry.reported_at),
            "reported_by": entry.reported_by,
            "reason": entry.reason,
        }
        for entry in page.entries
    ]
    return {"total_items": page.total, "items": items}


@method("states/set", "job:write", params=SetState, changes=True)
async def set_state(request: RequestContext, params: SetState) -> Reply:
    """Set a state as if it had been reported; triggers run with the caller as user."""
    entity = request.entity(params.object, params.link)
    if entity.follows is not None:
        raise Conflict(f"the state of this link is that of the object {entity.follows}; set that")
    text = _text(params.state)
    source = request.installation.source_of(ValueKey(entity.key.kind, entity.key.id, STATE))
    if source is not None and text in source.ignore:
        raise InvalidRequest("wrong parameters: state", {"state": ["is among the states that this entity ignores"]})
    async with request.engine.transaction() as tx:
        key = ValueKey(entity.key.kind, entity.key.id, STATE)
        matches = request.engine.configuration.ingest.set_state(
            tx, key, text, request.clock.now(), by=request.caller.user.id, reason=params.reason
        )
        await request.engine.configuration.ingest.enqueue(tx, matches)
        return request.keep_answer(tx, Reply(entity_document(request, entity)))


def _text(state: str | float | bool) -> str:
    if isinstance(state, str):
        return state
    if isinstance(state, bool):
        return "true" if state else "false"
    return repr(state)
