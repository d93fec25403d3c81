"""Whether what matched may run: the tests that are made at the moment of firing, each with its reason (behaviour 2)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime

from mqttjobs.domain.automaton import skip_reason, trigger_state_name
from mqttjobs.domain.documents import entity_field
from mqttjobs.domain.installation import Watcher
from mqttjobs.domain.model import Change, EntityKey, Json
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.starting import SkipReason
from mqttjobs.domain.triggers.base import Trigger
from mqttjobs.service.guards.breakers import Breakers
from mqttjobs.service.guards.context import StoredConditionContext
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.cache import StateCache

MAX_DEPTH = 8
"""Publishes into state topics and on_failure chains carry their depth; beyond this nothing starts (behaviour 4)."""
SKIPPED_MATCHES_KEPT = 20
"""How many skipped matches of each operation are remembered, and explained (contract 4, operations/explain)."""


@dataclass(frozen=True, slots=True)
class SkippedMatch:
    """A match that did not run."""

    at: datetime
    owner: EntityKey | None
    trigger_index: int | None
    state: str | None
    skip_reason: SkipReason

    def document(self) -> dict[str, Json]:
        """Return the fields that every document has of it; each adds the time, under a name of its own."""
        return {
            **entity_field(self.owner),
            "trigger": self.trigger_index,
            "state": self.state,
            "reason": self.skip_reason.reason,
            "details": self.skip_reason.details,
        }


class SkippedMatches:
    """The last matches of each operation that did not run; they live as long as the process."""

    def __init__(self) -> None:
        self._skipped_matches: dict[str, deque[SkippedMatch]] = {}

    def note(self, operation_id: str, skipped_match: SkippedMatch) -> None:
        """Remember one."""
        found = self._skipped_matches.get(operation_id)
        if found is None:
            found = self._skipped_matches[operation_id] = deque(maxlen=SKIPPED_MATCHES_KEPT)
        found.append(skipped_match)

    def of(self, operation_id: str) -> list[SkippedMatch]:
        """Return those of an operation, newest first."""
        return list(reversed(self._skipped_matches.get(operation_id, ())))


class TriggerGuard:
    """Lets a match through or says why not. One for each installation."""

    def __init__(self, settings: Settings, cache: StateCache, breakers: Breakers) -> None:
        self._settings = settings
        self._cache = cache
        self._breakers = breakers

    def context(self, owner: EntityKey | None, at: datetime) -> StoredConditionContext:
        """Return what conditions of an operation are tested against for an owner."""
        return StoredConditionContext(
            self._settings.installation, self._cache.values, self._settings.service, owner, at
        )

    def of_trigger(self, watcher: Watcher, change: Change | None, at: datetime) -> SkipReason | None:
        """Return why a trigger that fired may not start its operation, or None; the breaker counts it."""
        operation, trigger, owner = watcher.operation, watcher.trigger, watcher.owner
        if change is not None and not operation.event_driven:
            return SkipReason("event_driven", "event_driven is false: state changes do not start it")
        if not self._cache.is_active(operation):
            return SkipReason("inactive", "it is deactivated")
        if change is not None and change.depth > MAX_DEPTH:
            return SkipReason("depth", f"a chain of {MAX_DEPTH} publishes of our own led here")
        reason = self.of_conditions(operation, owner, at)
        if reason is not None:
            return reason
        if trigger.conditions is not None:
            context = self.context(owner, at)
            if not trigger.conditions.holds(context):
                return SkipReason("condition", trigger.conditions.describe(context))
        if trigger.skipping:
            name = trigger_state_name(operation.trigger_ids[watcher.trigger_index], owner)
            reason = skip_reason(trigger, self._cache.trigger_states.get(name), at)
            if reason is not None:
                return reason
        if not self._breakers.allows(operation, owner):
            return SkipReason("breaker", "its breaker is open: it was started too often in a short time")
        return None

    def of_moment(self, operation: Operation, trigger: Trigger, at: datetime) -> SkipReason | None:
        """Return why a moment may not start an operation that is attached to nothing, or None."""
        if not self._cache.is_active(operation):
            return SkipReason("inactive", "it is deactivated")
        reason = self.of_conditions(operation, None, at)
        if reason is not None or trigger.conditions is None:
            return reason
        context = self.context(None, at)
        return (
            None if trigger.conditions.holds(context) else SkipReason("condition", trigger.conditions.describe(context))
        )

    def of_conditions(self, operation: Operation, owner: EntityKey | None, at: datetime) -> SkipReason | None:
        """Return that the operation's own conditions do not hold, in words, or None."""
        if operation.conditions is None:
            return None
        context = self.context(owner, at)
        return (
            None
            if operation.conditions.holds(context)
            else SkipReason("condition", operation.conditions.describe(context))
        )
