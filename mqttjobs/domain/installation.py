"""The whole of a configuration, expanded: who is there, what is attached where, and the two indexes of matching."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mqttjobs.domain.membership import Membership
from mqttjobs.domain.model import EMPTY, Entity, EntityClass, EntityKey, EntityKind, ValueKey, ValueSource
from mqttjobs.domain.operations import Attach, Operation
from mqttjobs.domain.starting import SELF, SOURCE, TARGET
from mqttjobs.domain.topics import minimal_filters
from mqttjobs.domain.triggers.base import Trigger
from mqttjobs.domain.users import User


class Reader(NamedTuple):
    """One value that a topic feeds."""

    key: ValueKey
    source: ValueSource


class Watcher(NamedTuple):
    """One trigger that watches a value, and the entity it runs its operation for.

    `place` is where it stands among the operation's triggers.
    """

    operation: Operation
    trigger_index: int
    trigger: Trigger
    owner: EntityKey


class Installation:
    """What the service knows: entities, classes, operations and users, and the indexes made of them.

    Matching a message costs two look-ups, whatever the number of entities and operations (behaviour 1.10):
    topic -> readers, and value -> watchers.

    Args:
        entities: every object (members of classes included) and link.
        classes: the classes.
        operations: every operation; the references of `attach` exist.
        users: every configured user; empty when none are configured.
        patterns: subscription filters of class topics, so that 10,000 members need one filter.
    """

    def __init__(
        self,
        entities: Mapping[EntityKey, Entity] | None = None,
        classes: Mapping[str, EntityClass] = EMPTY,
        operations: Mapping[str, Operation] = EMPTY,
        users: Mapping[str, User] = EMPTY,
        patterns: Sequence[str] = (),
    ) -> None:
        self._entities = dict(entities or {})
        self.entities: Mapping[EntityKey, Entity] = self._entities
        self.membership = Membership(classes.values())
        self._registered: set[EntityKey] = set()
        self.classes = classes
        self.operations = operations
        self.users = users
        self.scheduled = tuple(each for each in operations.values() if each.schedule is not None)
        self._patterns = tuple(patterns)
        self._readers: dict[str, list[Reader]] = {}
        self._followers: dict[EntityKey, list[EntityKey]] = {}
        self._members: dict[str, list[EntityKey]] = {}
        self._attached: dict[EntityKey, list[Operation]] = {}
        self._attached_classes: dict[str, list[Operation]] = {}
        self._watchers: dict[ValueKey, list[Watcher]] = {}
        self._class_watchers: dict[tuple[str, str], list[tuple[Operation, int, Trigger]]] = {}
        self._far_class_watchers: dict[ValueKey, list[tuple[str, Operation, int, Trigger]]] = {}
        self._any_attached_twice = any(len(each.attach) > 1 for each in operations.values())
        for entity in self.entities.values():
            self._add_entity(entity)
        for operation in operations.values():
            self._add_operation(operation)

    def copy(self) -> Installation:
        """Return another of the same configuration, without the members that this one has learned of."""
        configured = {key: each for key, each in self._entities.items() if key not in self._registered}
        return Installation(configured, self.classes, self.operations, self.users, self._patterns)

    def register(self, class_id: str, member: str) -> EntityKey | None:
        """Take up a member of a class with `ids: any`; None if there is no such class, or its id is taken."""
        key = EntityKey(EntityKind.OBJECT, member)
        entity = self.membership.make(class_id, member)
        if entity is None or key in self._entities:
            return None
        self._entities[key] = entity
        self._registered.add(key)
        self._add_entity(entity)
        return key

    def is_registered(self, key: EntityKey) -> bool:
        """Whether an object is there because it reported."""
        return key in self._registered

    @property
    def objects(self) -> int:
        """How many objects there are."""
        return sum(key.kind is EntityKind.OBJECT for key in self._entities)

    def _add_entity(self, entity: Entity) -> None:
        for name, source in entity.sources.items():
            reader = Reader(ValueKey(entity.key.kind, entity.key.id, name), source)
            self._readers.setdefault(source.topic, []).append(reader)
        if entity.follows is not None:
            leader = EntityKey(EntityKind.OBJECT, entity.follows)
            self._followers.setdefault(leader, []).append(entity.key)
        if entity.class_id is not None:
            self._members.setdefault(entity.class_id, []).append(entity.key)

    def _add_operation(self, operation: Operation) -> None:
        for attach in dict.fromkeys(operation.attach):
            key = attached_entity(attach)
            if key is not None:
                self._attached.setdefault(key, []).append(operation)
            elif attach.class_id is not None:
                self._attached_classes.setdefault(attach.class_id, []).append(operation)
            for index, trigger in enumerate(operation.triggers):
                if trigger.watches_changes:
                    self._add_trigger(operation, index, trigger, key, attach.class_id or "")

    def _add_trigger(
        self, operation: Operation, index: int, trigger: Trigger, owner: EntityKey | None, class_id: str
    ) -> None:
        """Index a trigger under what it watches; one of a class stands once for all members."""
        if owner is not None:
            value = self.watched(trigger, owner)
            if value is not None:
                self._watchers.setdefault(value, []).append(Watcher(operation, index, trigger, owner))
        elif trigger.entity == SELF:
            self._class_watchers.setdefault((class_id, trigger.value_name), []).append((operation, index, trigger))
        else:
            found = self.resolve(trigger.entity, None)
            if found is not None:
                value = ValueKey(found.kind, found.id, trigger.value_name)
                self._far_class_watchers.setdefault(value, []).append((class_id, operation, index, trigger))

    def resolve(self, name: str, owner: EntityKey | None) -> EntityKey | None:
        """Return the entity that an operation means by `self`, `source`, `target` or an id; objects come first."""
        if name == SELF:
            return owner
        if name in (SOURCE, TARGET) and owner is not None and owner.kind is EntityKind.LINK:
            link = self.entities.get(owner)
            end = None if link is None else link.source if name == SOURCE else link.target
            return None if end is None else EntityKey(EntityKind.OBJECT, end)
        for kind in EntityKind:
            if EntityKey(kind, name) in self.entities:
                return EntityKey(kind, name)
        return None

    def watched(self, trigger: Trigger, owner: EntityKey) -> ValueKey | None:
        """Return the value that a trigger of an owner looks at, or None if there is no such entity."""
        found = self.resolve(trigger.entity, owner)
        return None if found is None else ValueKey(found.kind, found.id, trigger.value_name)

    def readers(self, topic: str) -> Sequence[Reader]:
        """Return the values that `topic` feeds; none for an unmatched topic."""
        return self._readers.get(topic, ())

    def topics(self) -> Iterable[str]:
        """Return every topic that feeds a value."""
        return self._readers

    def followers(self, key: EntityKey) -> Sequence[EntityKey]:
        """Return the links whose values are this object's values."""
        return self._followers.get(key, ())

    def source_of(self, key: ValueKey) -> ValueSource | None:
        """Return where a value comes from, through the object that a link follows; None if there is no such value."""
        entity = self.entities.get(key.entity)
        if entity is not None and entity.follows is not None:
            entity = self.entities.get(EntityKey(EntityKind.OBJECT, entity.follows))
        return None if entity is None else entity.sources.get(key.name)

    def value_names(self, key: EntityKey) -> Iterable[str]:
        """Return the names of an entity's values, through the object that a link follows."""
        entity = self.entities.get(key)
        if entity is not None and entity.follows is not None:
            entity = self.entities.get(EntityKey(EntityKind.OBJECT, entity.follows))
        return () if entity is None else entity.sources

    def watchers(self, key: ValueKey) -> Iterator[Watcher]:
        """Yield the triggers that watch a value, of the entity's own operations and of its class's, each once."""
        yield from self._watchers.get(key, ())
        owner = key.entity
        entity = self.entities.get(owner)
        if entity is not None and entity.class_id is not None:
            for operation, trigger_index, trigger in self._class_watchers.get((entity.class_id, key.name), ()):
                if not (self._any_attached_twice and self._attached_itself(operation, owner)):
                    yield Watcher(operation, trigger_index, trigger, owner)
        for far_class, operation, trigger_index, trigger in self._far_class_watchers.get(key, ()):
            for member in self._members.get(far_class, ()):
                if not (self._any_attached_twice and self._attached_itself(operation, member)):
                    yield Watcher(operation, trigger_index, trigger, member)

    def _attached_itself(self, operation: Operation, key: EntityKey) -> bool:
        """Whether an operation is attached to an entity by its own name, so that its class's is not counted twice."""
        return any(attached_entity(attach) == key for attach in operation.attach)

    def operations_of(self, key: EntityKey) -> list[Operation]:
        """Return the operations attached to an entity, its class's included, each once."""
        found = {operation.id: operation for operation in self._attached.get(key, ())}
        entity = self.entities.get(key)
        if entity is not None and entity.class_id is not None:
            found |= {operation.id: operation for operation in self._attached_classes.get(entity.class_id, ())}
        return list(found.values())

    def owners(self, operation: Operation) -> Iterator[EntityKey]:
        """Yield every entity that an operation is attached to, members of classes included, each once."""
        seen: set[EntityKey] = set()
        for attach in operation.attach:
            key = attached_entity(attach)
            keys = [key] if key is not None else self._members.get(attach.class_id or "", ())
            for each in keys:
                if each not in seen:
                    seen.add(each)
                    yield each

    def members(self, class_id: str) -> Sequence[EntityKey]:
        """Return the members of a class that there are."""
        return self._members.get(class_id, ())

    def is_attached(self, operation: Operation, key: EntityKey) -> bool:
        """Whether an operation is attached to an entity, directly or through its class."""
        entity = self.entities.get(key)
        return entity is not None and any(
            attached_entity(attach) == key or (attach.class_id is not None and attach.class_id == entity.class_id)
            for attach in operation.attach
        )

    def filters(self) -> list[str]:
        """Return the fewest filters that deliver every configured topic, in a stable order."""
        return minimal_filters([*self._patterns, *self._readers])


def attached_entity(attach: Attach) -> EntityKey | None:
    """Return the one entity that is meant, or None for a class."""
    if attach.object is not None:
        return EntityKey(EntityKind.OBJECT, attach.object)
    if attach.link is not None:
        return EntityKey(EntityKind.LINK, attach.link)
    return None
