"""Why an operation ran or did not: for each trigger what it watches, what it waits for and until when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from mqttjobs.domain.installation import Watcher
from mqttjobs.domain.model import EntityKey, EntityKind, Json, Operation, Trigger, Value, ValueKey
from mqttjobs.domain.protocol import iso
from mqttjobs.domain.schedules import next_due
from mqttjobs.domain.status import Status
from mqttjobs.domain.telling import duration_words, start_words, wanted_words, watched_words
from mqttjobs.domain.triggers import Hold, deadline, hold_name, lasts
from mqttjobs.service.starting.gate import REMEMBERED, Miss
from mqttjobs.service.starting.scene import zone_of
from mqttjobs.service.workshop import Workshop
from mqttjobs.store.base import JobQuery

LOOKED_THROUGH = 200
"""Jobs in which the last firing of each trigger is looked for."""


async def explanation(workshop: Workshop, operation: Operation, owner: EntityKey | None) -> dict[str, Json]:
    """Return the document of operations/explain for an operation and one entity that it is attached to."""
    now = workshop.clock.now()
    fired = await _last_fired(workshop, operation, owner)
    triggers = []
    if owner is not None or not operation.attach:
        for place in range(len(operation.triggers)):
            told = _Trigger(workshop, operation, place, owner, now).document(fired.get(operation.trigger_ids[place]))
            written = operation.definition.get("triggers")
            triggers.append({"trigger": written[place] if isinstance(written, list) else None, **told})
    conditions = None
    if operation.conditions is not None:
        scene = workshop.gate.scene(owner, now)
        conditions = {"satisfied": operation.conditions.holds(scene), "told": operation.conditions.told(scene)}
    open_for_s = workshop.breakers.open_for_s(operation, owner)
    misses = [miss for miss in workshop.misses.of(operation.id) if owner is None or miss.owner == owner]
    return {
        "id": operation.id,
        "name": operation.name,
        **_named(owner),
        "active": workshop.is_active(operation),
        "event_driven": operation.event_driven,
        "triggers": triggers,
        "conditions": conditions,
        "schedule": _schedule(workshop, operation),
        "breaker": None if open_for_s is None else {"open_for": round(open_for_s, 3)},
        "not_run": [_miss(miss) for miss in misses[:REMEMBERED]],
    }


async def _last_fired(workshop: Workshop, operation: Operation, owner: EntityKey | None) -> dict[str, datetime]:
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
    for job in (await workshop.store.find(query)).jobs:
        if job.trigger is not None and job.status is not Status.SKIPPED:
            found.setdefault(job.trigger, job.created_at)
    return found


class _Trigger:
    """One trigger of one owner, as it stands at a moment."""

    def __init__(
        self, workshop: Workshop, operation: Operation, place: int, owner: EntityKey | None, now: datetime
    ) -> None:
        self._workshop = workshop
        self._operation = operation
        self._place = place
        self._owner = owner
        self._now = now
        self._trigger: Trigger = operation.triggers[place]
        self._hold: Hold | None = None
        self._key: ValueKey | None = None
        self._value: Value | None = None
        if owner is not None:
            self._hold = workshop.mirror.holds.get(hold_name(operation.trigger_ids[place], owner))
            self._key = workshop.settings.installation.watched(self._trigger, owner)
            scene = workshop.gate.scene(owner, now)
            self._value = None if self._key is None else scene.value(self._key)

    def document(self, last_fired: datetime | None) -> dict[str, Json]:
        """Return it as a document, with a sentence."""
        satisfied, since = self._satisfied()
        waiting, until = self._waiting()
        watches = None
        if self._key is not None and self._trigger.at is None:
            value = self._value
            watches = {
                **_named(self._key.entity),
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
        scene = self._workshop.gate.scene(self._owner, self._now)
        return {"conditions": {"satisfied": conditions.holds(scene), "told": conditions.told(scene)}}

    def _sentence(self) -> str:
        if self._trigger.at is not None:
            return f"runs when {wanted_words(self._trigger)}"
        watched = watched_words(self._trigger, "it" if self._key is None else self._key.id)
        return f"watches {watched}, and runs when it {wanted_words(self._trigger)}"

    def _satisfied(self) -> tuple[bool, datetime | None]:
        trigger, hold, value = self._trigger, self._hold, self._value
        if trigger.silence is not None:
            fired = hold is not None and hold.fired_at is not None
            return fired, hold.fired_at if fired and hold is not None else None
        if trigger.at is not None or value is None or not lasts(trigger, value.text):
            return False, None
        if trigger.band is not None and not (hold is not None and hold.beyond):
            return False, None
        since = hold.since_at if hold is not None and hold.since_at is not None else value.since_at
        return True, since

    def _waiting(self) -> tuple[str | None, datetime | None]:
        """Return what it waits for, and until when where time alone is enough."""
        trigger, hold = self._trigger, self._hold
        if not trigger.enabled:
            return None, None
        if trigger.at is not None:
            return wanted_words(trigger), self._workshop.agenda.next_sun(self._operation, self._place)
        if trigger.silence is not None and self._owner is not None:
            watcher = Watcher(self._operation, self._place, trigger, self._owner)
            due = self._workshop.agenda.silences.deadline(watcher)
            return ("that nothing is heard" if due else "that something is heard again"), due
        due = None if hold is None else deadline(trigger, hold)
        if due is not None and hold is not None:
            if hold.fired_at is not None:
                return f"the next repeat, while it stays {self._state()}", due
            return f"that it stays {self._state()}", due
        if hold is not None and hold.ran_at is not None and trigger.throttle is not None:
            free = hold.ran_at + trigger.throttle
            if free > self._now:
                return f"that {duration_words(trigger.throttle)} have passed since it ran, and then a change", free
        return f"that it {wanted_words(trigger)}", None

    def _state(self) -> str:
        return "as it is" if self._value is None else self._value.text


def _named(key: EntityKey | None) -> dict[str, str]:
    return {} if key is None else {key.kind.value: key.id}


def _schedule(workshop: Workshop, operation: Operation) -> Json:
    facts = workshop.mirror.facts.get(operation.id)
    if operation.schedule is None or facts is None:
        return None
    due = next_due(operation.schedule, facts.due_at or facts.created_at, zone_of(workshop.settings.service))
    return {
        "scheduled": operation.schedule.text,
        "told": f"runs {start_words(operation)}",
        "next": None if due is None else iso(due),
        "last": None if facts.due_at is None else iso(facts.due_at),
    }


def _miss(miss: Miss) -> Mapping[str, Json]:
    return {
        "timestamp": iso(miss.at),
        **_named(miss.owner),
        "trigger": miss.place,
        "state": miss.state,
        "reason": miss.refusal.reason,
        "details": miss.refusal.details,
    }
