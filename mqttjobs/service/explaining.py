"""Why an operation ran or did not: for each trigger what it watches, what it waits for and until when."""

from __future__ import annotations

from datetime import datetime

from mqttjobs.domain.descriptions import describe_duration, describe_start, describe_wanted, describe_watched
from mqttjobs.domain.documents import entity_field
from mqttjobs.domain.installation import Watcher
from mqttjobs.domain.model import EntityKey, EntityKind, Json, Operation, Trigger, Value, ValueKey
from mqttjobs.domain.protocol import iso
from mqttjobs.domain.schedules import next_due
from mqttjobs.domain.status import Status
from mqttjobs.domain.triggers import TriggerState, deadline, lasts, trigger_state_name
from mqttjobs.service.engine import Engine
from mqttjobs.service.guards.context import zone_of
from mqttjobs.service.guards.guard import SKIPPED_MATCHES_KEPT
from mqttjobs.store.base import JobQuery

LOOKED_THROUGH = 200
"""Jobs in which the last firing of each trigger is looked for."""


async def explanation(engine: Engine, operation: Operation, owner: EntityKey | None) -> dict[str, Json]:
    """Return the document of operations/explain for an operation and one entity that it is attached to."""
    now = engine.clock.now()
    fired = await _last_fired(engine, operation, owner)
    triggers = []
    if owner is not None or not operation.attach:
        for trigger_index in range(len(operation.triggers)):
            described = _Trigger(engine, operation, trigger_index, owner, now).document(
                fired.get(operation.trigger_ids[trigger_index])
            )
            written = operation.definition.get("triggers")
            triggers.append({"trigger": written[trigger_index] if isinstance(written, list) else None, **described})
    conditions = None
    if operation.conditions is not None:
        context = engine.guard.context(owner, now)
        conditions = {"satisfied": operation.conditions.holds(context), "told": operation.conditions.describe(context)}
    open_for_s = engine.breakers.open_for_s(operation, owner)
    skipped_matches = [
        skipped_match
        for skipped_match in engine.skipped_matches.of(operation.id)
        if owner is None or skipped_match.owner == owner
    ]
    return {
        "id": operation.id,
        "name": operation.name,
        **entity_field(owner),
        "active": engine.is_active(operation),
        "event_driven": operation.event_driven,
        "triggers": triggers,
        "conditions": conditions,
        "schedule": _schedule(engine, operation),
        "breaker": None if open_for_s is None else {"open_for": round(open_for_s, 3)},
        "not_run": [{"timestamp": iso(each.at), **each.document()} for each in skipped_matches[:SKIPPED_MATCHES_KEPT]],
    }


async def _last_fired(engine: Engine, operation: Operation, owner: EntityKey | None) -> dict[str, datetime]:
    """Return when each trigger last started the operation, as far as recent jobs tell."""
    ids = None if owner is None else frozenset({owner.id})
    is_link = owner is not None and owner.kind is EntityKind.LINK
    query = JobQuery(
        operation_id=operation.id,
        objects=None if is_link else ids,
        links=ids if is_link else None,
        limit=LOOKED_THROUGH,
    )
    found: dict[str, datetime] = {}
    for job in (await engine.store.find(query)).jobs:
        if job.trigger is not None and job.status is not Status.SKIPPED:
            found.setdefault(job.trigger, job.created_at)
    return found


class _Trigger:
    """One trigger of one owner, as it stands at a moment."""

    def __init__(
        self, engine: Engine, operation: Operation, trigger_index: int, owner: EntityKey | None, now: datetime
    ) -> None:
        self._engine = engine
        self._operation = operation
        self._trigger_index = trigger_index
        self._owner = owner
        self._now = now
        self._trigger: Trigger = operation.triggers[trigger_index]
        self._trigger_state: TriggerState | None = None
        self._key: ValueKey | None = None
        self._value: Value | None = None
        if owner is not None:
            self._trigger_state = engine.cache.trigger_states.get(
                trigger_state_name(operation.trigger_ids[trigger_index], owner)
            )
            self._key = engine.settings.installation.watched(self._trigger, owner)
            context = engine.guard.context(owner, now)
            self._value = None if self._key is None else context.value(self._key)

    def document(self, last_fired: datetime | None) -> dict[str, Json]:
        """Return it as a document, with a sentence."""
        satisfied, since = self._satisfied()
        waiting, until = self._waiting()
        watches = None
        if self._key is not None and self._trigger.at is None:
            value = self._value
            watches = {
                **entity_field(self._key.entity),
                "attribute": self._trigger.attribute,
                "state": value.text if value else None,
                "since": iso(value.since_at) if value else None,
            }
        document = {
            "enabled": self._trigger.enabled,
            "watches": watches,
            "satisfied": satisfied,
            "since": None if since is None else iso(since),
            "waiting_for": waiting,
            "until": None if until is None else iso(until),
            "last_fired": None if last_fired is None else iso(last_fired),
        }
        return document | {"told": self._sentence()} | self._conditions()

    def _conditions(self) -> dict[str, Json]:
        conditions = self._trigger.conditions
        if conditions is None:
            return {"conditions": None}
        context = self._engine.guard.context(self._owner, self._now)
        return {"conditions": {"satisfied": conditions.holds(context), "told": conditions.describe(context)}}

    def _sentence(self) -> str:
        if self._trigger.at is not None:
            return f"runs when {describe_wanted(self._trigger)}"
        watched = describe_watched(self._trigger, "it" if self._key is None else self._key.id)
        return f"watches {watched}, and runs when it {describe_wanted(self._trigger)}"

    def _satisfied(self) -> tuple[bool, datetime | None]:
        trigger, trigger_state, value = self._trigger, self._trigger_state, self._value
        if trigger.silence is not None:
            fired = trigger_state is not None and trigger_state.fired_at is not None
            return fired, trigger_state.fired_at if fired and trigger_state is not None else None
        if trigger.at is not None or value is None or not lasts(trigger, value.text):
            return False, None
        if trigger.threshold is not None and not (trigger_state is not None and trigger_state.beyond):
            return False, None
        since = (
            trigger_state.since_at
            if trigger_state is not None and trigger_state.since_at is not None
            else value.since_at
        )
        return True, since

    def _waiting(self) -> tuple[str | None, datetime | None]:
        """Return what it waits for, and until when where time alone is enough."""
        trigger, trigger_state = self._trigger, self._trigger_state
        if not trigger.enabled:
            return None, None
        if trigger.at is not None:
            return describe_wanted(trigger), self._engine.deadlines.next_sun(self._operation, self._trigger_index)
        if trigger.silence is not None and self._owner is not None:
            watcher = Watcher(self._operation, self._trigger_index, trigger, self._owner)
            due = self._engine.deadlines.silences.deadline(watcher)
            return ("that nothing is heard" if due else "that something is heard again"), due
        due = None if trigger_state is None else deadline(trigger, trigger_state)
        if due is not None and trigger_state is not None:
            if trigger_state.fired_at is not None:
                return f"the next repeat, while it stays {self._state()}", due
            return f"that it stays {self._state()}", due
        if trigger_state is not None and trigger_state.ran_at is not None and trigger.throttle is not None:
            free = trigger_state.ran_at + trigger.throttle
            if free > self._now:
                return f"that {describe_duration(trigger.throttle)} have passed since it ran, and then a change", free
        return f"that it {describe_wanted(trigger)}", None

    def _state(self) -> str:
        return "as it is" if self._value is None else self._value.text


def _schedule(engine: Engine, operation: Operation) -> Json:
    operation_state = engine.cache.operation_states.get(operation.id)
    if operation.schedule is None or operation_state is None:
        return None
    due = next_due(
        operation.schedule, operation_state.due_at or operation_state.created_at, zone_of(engine.settings.service)
    )
    return {
        "scheduled": operation.schedule.text,
        "told": f"runs {describe_start(operation)}",
        "next": None if due is None else iso(due),
        "last": None if operation_state.due_at is None else iso(operation_state.due_at),
    }
