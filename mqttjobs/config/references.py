"""What operations refer to: entities, attributes, users, other operations; each must be there, and fit."""

from __future__ import annotations

from collections.abc import Iterator

from mqttjobs.config.explain import unknown_name
from mqttjobs.config.yaml12 import Document, Place
from mqttjobs.domain.installation import Installation, attached_entity
from mqttjobs.domain.model import (
    AVAILABILITY,
    STATE,
    EntityKey,
    Operation,
    Trigger,
    ValueKey,
    ValueSource,
)
from mqttjobs.domain.starting import SELF, SOURCE, TARGET, Condition, Moment

NO_PLACE = (
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

    def __init__(self, document: Document, installation: Installation, *, has_spot: bool) -> None:
        self._document = document
        self._installation = installation
        self._has_spot = has_spot

    def check(self) -> None:
        """Check every operation."""
        for operation in self._installation.operations.values():
            place: Place = ("operations", operation.id)
            self._check_names(operation, place)
            self._check_triggers(operation, place)
            owners = self._owners(operation)
            if operation.conditions is not None:
                self._check_condition(operation.conditions, owners, (*place, "conditions"))
            confirm = operation.confirm
            for owner in owners if confirm is not None else ():
                if confirm is not None:
                    self._check_value(confirm.entity, confirm.attribute, owner, (*place, "confirm"))

    def _check_names(self, operation: Operation, place: Place) -> None:
        users, operations = self._installation.users, self._installation.operations
        if operation.run_as is not None and users and operation.run_as not in users:
            unknown_name(self._document, (*place, "run_as"), "user", operation.run_as, users)
        if operation.on_failure is not None and operation.on_failure not in operations:
            unknown_name(self._document, (*place, "on_failure"), "operation", operation.on_failure, operations)

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

    def _check_triggers(self, operation: Operation, place: Place) -> None:
        """Every watched value exists on what the operation is attached to, and fits the trigger (behaviour 1.2)."""
        if not operation.attach and any(each.at is None for each in operation.triggers):
            words = "nothing is watched: say with attach what the operation belongs to"
            self._document.wrong((*place, "triggers"), words)
            return
        for number, trigger in enumerate(operation.triggers):
            where: Place = (*place, "triggers", number)
            if trigger.at is not None and trigger.at.moment is not Moment.START and not self._has_spot:
                self._document.warn((*where, "at"), NO_PLACE)
            for owner in self._representatives(operation):
                self._check_watched(trigger, owner, where)
            if trigger.conditions is not None:
                self._check_condition(trigger.conditions, self._owners(operation), (*where, "conditions"))

    def _check_watched(self, trigger: Trigger, owner: EntityKey, where: Place) -> None:
        if trigger.at is not None:
            return
        source = self._check_value(trigger.entity or SELF, trigger.value_name, owner, where)
        lasting = trigger.holds or trigger.band is not None
        if source is not None and source.event and lasting and trigger.silence is None:
            words = (
                "a value with event: true lasts no time; duration, periodicity, above and below cannot be used on it"
            )
            self._document.wrong(where, words)

    def _check_condition(self, condition: Condition, owners: list[EntityKey | None], where: Place) -> None:
        if condition.needs_sun() and not self._has_spot:
            self._document.warn(where, NO_PLACE)
        for entity, attribute in condition.references():
            for owner in owners:
                self._check_value(entity, attribute, owner, where)

    def _check_value(
        self, entity: str, attribute: str | None, owner: EntityKey | None, where: Place
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
                words = f"{key.kind.value} {key.id} has no availability"
                self._document.wrong(self._at(where, "availability"), words)
            else:
                known = [each for each in self._installation.value_names(key) if each and each != AVAILABILITY]
                unknown_name(self._document, self._at(where, "attribute"), "attribute", name, known)
        return source

    def _at(self, where: Place, key: str) -> Place:
        """Return the place of a key if it is written there, else what is around it."""
        return (*where, key) if self._document.written((*where, key)) is not None else where

    def _no_entity(self, where: Place, name: str) -> None:
        """Note that an operation names an entity that is not there."""
        if name == SELF:
            self._document.wrong(where, "there is no self: the operation is attached to nothing")
        elif name in (SOURCE, TARGET):
            words = f"{name} is an end of a link, and the operation is not attached to one"
            self._document.wrong(where, words)
        else:
            known = [key.id for key in self._installation.entities]
            unknown_name(self._document, where, "object or link", name, known)
