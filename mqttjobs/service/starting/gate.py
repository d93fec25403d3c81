"""Whether what matched may run: the tests that are made at the moment of firing, each with its reason (behaviour 2)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from mqttjobs.domain.installation import Watcher
from mqttjobs.domain.jobs import duration_text
from mqttjobs.domain.model import Change, EntityKey, Operation, Trigger
from mqttjobs.domain.triggers import hold_name, throttled
from mqttjobs.service.mirror import Mirror
from mqttjobs.service.settings import Settings
from mqttjobs.service.starting.breakers import Breakers
from mqttjobs.service.starting.scene import StoredScene

MAX_DEPTH = 8
"""Publishes into state topics and on_failure chains carry their depth; beyond this nothing starts (behaviour 4)."""
REMEMBERED = 20


class Refusal(NamedTuple):
    """Why a match did not run: the word that it is counted under, and a sentence."""

    reason: str
    details: str


@dataclass(frozen=True, slots=True)
class Miss:
    """A match that did not run."""

    at: datetime
    owner: EntityKey | None
    place: int | None
    state: str | None
    refusal: Refusal


class Misses:
    """The last matches of each operation that did not run; they live as long as the process."""

    def __init__(self) -> None:
        self._misses: dict[str, deque[Miss]] = {}

    def note(self, operation_id: str, miss: Miss) -> None:
        """Remember one."""
        found = self._misses.get(operation_id)
        if found is None:
            found = self._misses[operation_id] = deque(maxlen=REMEMBERED)
        found.append(miss)

    def of(self, operation_id: str) -> list[Miss]:
        """Return those of an operation, newest first."""
        return list(reversed(self._misses.get(operation_id, ())))


class Gate:
    """Lets a match through or says why not. One for each installation."""

    def __init__(self, settings: Settings, mirror: Mirror, breakers: Breakers) -> None:
        self._settings = settings
        self._mirror = mirror
        self._breakers = breakers

    def scene(self, owner: EntityKey | None, at: datetime) -> StoredScene:
        """Return what conditions of an operation are tested against for an owner."""
        return StoredScene(self._settings.installation, self._mirror.values, self._settings.service, owner, at)

    def of_trigger(self, watcher: Watcher, change: Change | None, at: datetime) -> Refusal | None:
        """Return why a trigger that fired may not start its operation, or None; the breaker counts it."""
        operation, trigger, owner = watcher.operation, watcher.trigger, watcher.owner
        if change is not None and not operation.event_driven:
            return Refusal("event_driven", "event_driven is false: state changes do not start it")
        if not self._mirror.is_active(operation):
            return Refusal("inactive", "it is deactivated")
        if change is not None and change.depth > MAX_DEPTH:
            return Refusal("depth", f"a chain of {MAX_DEPTH} publishes of our own led here")
        refused = self.of_conditions(operation, owner, at)
        if refused is not None:
            return refused
        if trigger.conditions is not None:
            scene = self.scene(owner, at)
            if not trigger.conditions.holds(scene):
                return Refusal("condition", trigger.conditions.told(scene))
        if trigger.throttle is not None:
            name = hold_name(operation.trigger_ids[watcher.place], owner)
            if throttled(trigger, self._mirror.holds.get(name), at):
                return Refusal("throttled", f"it ran less than {duration_text(trigger.throttle)} before")
        if not self._breakers.allows(operation, owner):
            return Refusal("breaker", "its breaker is open: it was started too often in a short time")
        return None

    def of_moment(self, operation: Operation, trigger: Trigger, at: datetime) -> Refusal | None:
        """Return why a moment may not start an operation that is attached to nothing, or None."""
        if not self._mirror.is_active(operation):
            return Refusal("inactive", "it is deactivated")
        refused = self.of_conditions(operation, None, at)
        if refused is not None or trigger.conditions is None:
            return refused
        scene = self.scene(None, at)
        return None if trigger.conditions.holds(scene) else Refusal("condition", trigger.conditions.told(scene))

    def of_conditions(self, operation: Operation, owner: EntityKey | None, at: datetime) -> Refusal | None:
        """Return that the operation's own conditions do not hold, in words, or None."""
        if operation.conditions is None:
            return None
        scene = self.scene(owner, at)
        return None if operation.conditions.holds(scene) else Refusal("condition", operation.conditions.told(scene))
