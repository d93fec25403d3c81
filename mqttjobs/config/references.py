"""What operations refer to: entities, attributes, users, other operations; each must be there, and fit."""

from __future__ import annotations

from collections.abc import Iterator

from mqttjobs.config.explain import unknown_name
from mqttjobs.config.yaml12 import Document, KeyPath
from mqttjobs.domain.installation import Installation, attached_entity
from mqttjobs.domain.model import AVAILABILITY, STATE, EntityKey, ValueKey, ValueSource
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.starting import SELF, SOURCE, TARGET, Condition
from mqttjobs.domain.triggers.base import Trigger

NO_LOCATION = (
    "sunrise and sunset are taken to be about 06:00 and 18:00, as it is not said where we are; "
    "give service.latitude and service.longitude"
)


class References:
    """Follows every reference of every operation, and notes those that lead nowhere.

    Args:
        document: takes the problems.
        installation: everything, expanded; what an operation is attached to may be missing.
        has_spot: whether latitude and longitude are configured.
    """

    def __init__(self, document: Document, installation: Installation, *, has_location: bool) -> None:
        self._document = document
        self._installation = installation
        self._has_location = has_location

    def check(self) -> None:
        """Check every operation."""
        for operation in self._installation.operations.values():
            key_path: KeyPath = ("operations", operation.id)
            self._check_names(operation, key_path)
            self._check_triggers(operation, key_path)
            owners = self._owners(operation)
            if operation.conditions is not None:
                self._check_condition(operation.conditions, owners, (*key_path, "conditions"))
            confirm = operation.confirm
            for owner in owners if confirm is not None else ():
                if confirm is not None:
                    self._check_value(confirm.entity, confirm.attribute, owner, (*key_path, "confirm"))

    def _check_names(self, operation: Operation, key_path: KeyPath) -> None:
        users, operations = self._installation.users, self._installation.operations
        if operation.run_as is not None and users and operation.run_as not in users:
            unknown_name(self._document, (*key_path, "run_as"), "user", operation.run_as, users)
        if operation.on_failure is not None and operation.on_failure not in operations:
            unknown_name(self._document, (*key_path, "on_failure"), "operation", operation.on_failure, operations)

    def _owners(self, operation: Operation) -> list[EntityKey | None]:
        """Return what an operation is attached to; one member stands for its class, and None for nothing."""
        return list(self._representatives(operation)) or [None]

    def _representatives(self, operation: Operation) -> Iterator[EntityKey]:
        for attach in operation.attach:
            key = attached_entity(attach)
            if key is None:
                key = next(iter(self._installation.members(attach.class_id or "")), None)
            if key is not None and key in self._installation.entities:
                yield key

    def _check_triggers(self, operation: Operation, key_path: KeyPath) -> None:
        """Every watched value exists on what the operation is attached to, and fits the trigger (behaviour 1.2)."""
        if not operation.attach and any(each.clock is None for each in operation.triggers):
            message = "nothing is watched: say with attach what the operation belongs to"
            self._document.wrong((*key_path, "triggers"), message)
            return
        for number, trigger in enumerate(operation.triggers):
            where: KeyPath = (*key_path, "triggers", number)
            if trigger.clock is not None and trigger.clock.needs_sun() and not self._has_location:
                self._document.warn((*where, trigger.clock.name), NO_LOCATION)
            for owner in self._representatives(operation):
                self._check_watched(trigger, owner, where)
            if trigger.conditions is not None:
                self._check_condition(trigger.conditions, self._owners(operation), (*where, "conditions"))

    def _check_watched(self, trigger: Trigger, owner: EntityKey, where: KeyPath) -> None:
        if trigger.clock is not None:
            return
        source = self._check_value(trigger.entity, trigger.value_name, owner, where)
        unfit = trigger.unfit_for_events()
        if source is not None and source.event and unfit and trigger.silence is None:
            message = f"a value with event: true lasts no time; {', '.join(unfit)} cannot be used on it"
            self._document.wrong(where, message)

    def _check_condition(self, condition: Condition, owners: list[EntityKey | None], where: KeyPath) -> None:
        if condition.needs_sun() and not self._has_location:
            self._document.warn(where, NO_LOCATION)
        for entity, attribute in condition.references():
            for owner in owners:
                self._check_value(entity, attribute, owner, where)

    def _check_value(
        self, entity: str, attribute: str | None, owner: EntityKey | None, where: KeyPath
    ) -> ValueSource | None:
        """Note what is wrong with an entity and its attribute; return where the value comes from."""
        key = self._installation.resolve(entity, owner)
        if key is None:
            self._no_entity(self._at(where, "entity"), entity)
            return None
        if key not in self._installation.entities:
            return None
        name = attribute or STATE
        source = self._installation.source_of(ValueKey(key.kind, key.id, name))
        if source is None and name != STATE:
            if name == AVAILABILITY:
                message = f"{key.kind.value} {key.id} has no availability"
                self._document.wrong(self._at(where, "availability"), message)
            else:
                known = [each for each in self._installation.value_names(key) if each and each != AVAILABILITY]
                unknown_name(self._document, self._at(where, "attribute"), "attribute", name, known)
        return source

    def _at(self, where: KeyPath, key: str) -> KeyPath:
        """Return the place of a key if it is written there, else what is around it."""
        return (*where, key) if self._document.written((*where, key)) is not None else where

    def _no_entity(self, where: KeyPath, name: str) -> None:
        """Note that an operation names an entity that is not there."""
        if name == SELF:
            self._document.wrong(where, "there is no self: the operation is attached to nothing")
        elif name in (SOURCE, TARGET):
            message = f"{name} is an end of a link, and the operation is not attached to one"
            self._document.wrong(where, message)
        else:
            known = [key.id for key in self._installation.entities]
            unknown_name(self._document, where, "object or link", name, known)
