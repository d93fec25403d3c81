"""Why an operation ran or did not: for each trigger what it watches, what it waits for and until when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from mqttjobs.clock import Clock
from mqttjobs.domain.automaton import deadline, is_satisfied, trigger_state_name, waiting
from mqttjobs.domain.descriptions import describe_start, describe_wanted, describe_watched
from mqttjobs.domain.documents import entity_field
from mqttjobs.domain.installation import Watcher
from mqttjobs.domain.model import AVAILABILITY, EntityKey, EntityKind, Json, Value, ValueKey
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.protocol import iso
from mqttjobs.domain.schedules import next_due
from mqttjobs.domain.starting import Condition
from mqttjobs.domain.status import Status
from mqttjobs.domain.triggers.base import Trigger, TriggerState
from mqttjobs.service.engine import Engine
from mqttjobs.service.guards.breakers import Breakers
from mqttjobs.service.guards.context import StoredConditionContext, zone_of
from mqttjobs.service.guards.guard import SKIPPED_MATCHES_KEPT, SkippedMatches
from mqttjobs.service.scheduling.deadlines import Deadlines
from mqttjobs.service.simulation.simulation import Simulation
from mqttjobs.service.state.agents import AgentRegistry
from mqttjobs.service.state.cache import StateCache
from mqttjobs.store.base import JobQuery, Store

LOOKED_THROUGH = 200
"""Jobs in which the last firing of each trigger is looked for."""


@dataclass(eq=False, slots=True)
class Explainer:
    """Describes operations as they stand, and what each trigger waits for; begins simulations with what is stored."""

    engine: Engine
    store: Store
    cache: StateCache
    agent_registry: AgentRegistry
    deadlines: Deadlines
    breakers: Breakers
    skipped_matches: SkippedMatches
    clock: Clock
    new_id: Callable[[], str]

    async def explain(self, operation: Operation, owner: EntityKey | None) -> dict[str, Json]:
        """Return the document of operations/explain for an operation and one entity that it is attached to."""
        now = self.clock.now()
        fired = await self._last_fired(operation, owner)
        context = self.engine.configuration.guard.context(owner, now)
        triggers = []
        if owner is not None or not operation.attach:
            for trigger_index, trigger_id in enumerate(operation.trigger_ids):
                written = operation.definition.get("triggers")
                document = self._trigger(operation, trigger_index, context).document(fired.get(trigger_id))
                triggers.append({"trigger": written[trigger_index] if isinstance(written, list) else None, **document})
        open_for_s = self.breakers.open_for_s(operation, owner)
        skipped_matches = [
            skipped_match
            for skipped_match in self.skipped_matches.of(operation.id)
            if owner is None or skipped_match.owner == owner
        ]
        return {
            "id": operation.id,
            "name": operation.name,
            **entity_field(owner),
            "active": self.cache.is_active(operation),
            "event_driven": operation.event_driven,
            "triggers": triggers,
            "conditions": _conditions(operation.conditions, context),
            "schedule": self._schedule(operation),
            "breaker": None if open_for_s is None else {"open_for": round(open_for_s, 3)},
            "not_run": [
                {"timestamp": iso(each.at), **each.document()} for each in skipped_matches[:SKIPPED_MATCHES_KEPT]
            ],
        }

    def simulation(self) -> Simulation:
        """Return a simulation that begins as things are now; call it in a transaction."""
        return Simulation(
            self.engine.configuration.settings,
            self.clock.now(),
            self.new_id,
            cache=self.cache,
            agent_registry=self.agent_registry,
            connected_at=self.deadlines.connected_at,
        )

    def _trigger(self, operation: Operation, trigger_index: int, context: StoredConditionContext) -> _Trigger:
        state, key, owner = None, None, context.owner
        if owner is not None:
            state = self.cache.trigger_states.get(trigger_state_name(operation.trigger_ids[trigger_index], owner))
            key = context.installation.watched(operation.triggers[trigger_index], owner)
        value = None if key is None else context.value(key)
        return _Trigger(operation, trigger_index, context, self.deadlines, state, key, value)

    async def _last_fired(self, operation: Operation, owner: EntityKey | None) -> dict[str, datetime]:
        """Return when each trigger last started the operation, as far as recent jobs show."""
        ids = None if owner is None else frozenset({owner.id})
        is_link = owner is not None and owner.kind is EntityKind.LINK
        query = JobQuery(
            operation_id=operation.id,
            objects=None if is_link else ids,
            links=ids if is_link else None,
            limit=LOOKED_THROUGH,
        )
        found: dict[str, datetime] = {}
        for job in (await self.store.find(query)).jobs:
            if job.trigger is not None and job.status is not Status.SKIPPED:
                found.setdefault(job.trigger, job.created_at)
        return found

    def _schedule(self, operation: Operation) -> Json:
        operation_state = self.cache.operation_states.get(operation.id)
        if operation.schedule is None or operation_state is None:
            return None
        zone = zone_of(self.engine.configuration.settings.service)
        due = next_due(operation.schedule, operation_state.due_at or operation_state.created_at, zone)
        return {
            "scheduled": operation.definition["schedule"],
            "told": f"runs {describe_start(operation)}",
            "next": None if due is None else iso(due),
            "last": None if operation_state.due_at is None else iso(operation_state.due_at),
        }


def _conditions(conditions: Condition | None, context: StoredConditionContext) -> Json:
    if conditions is None:
        return None
    return {"satisfied": conditions.holds(context), "told": conditions.describe(context)}


@dataclass(frozen=True, slots=True)
class _Trigger:
    """One trigger of one owner, as it stands at a moment: the value that it watches, and what it remembers."""

    operation: Operation
    trigger_index: int
    context: StoredConditionContext
    deadlines: Deadlines
    trigger_state: TriggerState | None
    key: ValueKey | None
    value: Value | None

    @property
    def trigger(self) -> Trigger:
        return self.operation.triggers[self.trigger_index]

    def document(self, last_fired: datetime | None) -> dict[str, Json]:
        """Return it as a document, with a sentence."""
        satisfied, since = self._satisfied()
        waiting_for, until = self._waiting()
        watches = None
        if self.key is not None and self.trigger.clock is None:
            value = self.value
            watches = {
                **entity_field(self.key.entity),
                "attribute": None if self.key.name == AVAILABILITY else self.key.attribute,
                "state": value.text if value else None,
                "since": iso(value.since_at) if value else None,
            }
        return {
            "enabled": self.trigger.enabled,
            "watches": watches,
            "satisfied": satisfied,
            "since": None if since is None else iso(since),
            "waiting_for": waiting_for,
            "until": None if until is None else iso(until),
            "last_fired": None if last_fired is None else iso(last_fired),
            "told": self._sentence(),
            "conditions": _conditions(self.trigger.conditions, self.context),
        }

    def _sentence(self) -> str:
        if self.trigger.clock is not None:
            return f"runs when {describe_wanted(self.trigger)}"
        watched = describe_watched(self.trigger, "it" if self.key is None else self.key.id)
        return f"watches {watched}, and runs when it {describe_wanted(self.trigger)}"

    def _satisfied(self) -> tuple[bool, datetime | None]:
        trigger, trigger_state, value = self.trigger, self.trigger_state, self.value
        if trigger.silence is not None:
            fired = trigger_state is not None and trigger_state.fired_at is not None
            return fired, trigger_state.fired_at if fired and trigger_state is not None else None
        if trigger.clock is not None or value is None or not is_satisfied(trigger, trigger_state, value.text):
            return False, None
        since = (
            trigger_state.since_at
            if trigger_state is not None and trigger_state.since_at is not None
            else value.since_at
        )
        return True, since

    def _waiting(self) -> tuple[str | None, datetime | None]:
        """Return what it waits for, and until when where time alone is enough."""
        trigger, trigger_state = self.trigger, self.trigger_state
        if not trigger.enabled:
            return None, None
        if trigger.clock is not None:
            return describe_wanted(trigger), self.deadlines.next_of_clock(self.operation, self.trigger_index)
        if trigger.silence is not None and self.context.owner is not None:
            watcher = Watcher(self.operation, self.trigger_index, trigger, self.context.owner)
            due = self.deadlines.silences.deadline(watcher)
            return ("that nothing is heard" if due else "that something is heard again"), due
        due = None if trigger_state is None else deadline(trigger, trigger_state)
        if due is not None and trigger_state is not None:
            if trigger_state.fired_at is not None:
                return f"the next repeat, while it stays {self._state()}", due
            return f"that it stays {self._state()}", due
        return waiting(trigger, trigger_state, self.context.now) or (f"that it {describe_wanted(trigger)}", None)

    def _state(self) -> str:
        return "as it is" if self.value is None else self.value.text
