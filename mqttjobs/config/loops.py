"""Loops that can be seen beforehand: operations whose publishes start them again (behaviour 4).

An edge leads from an operation to another when a topic that it can publish to feeds a value, and what it can publish
there may satisfy a trigger of the other. What a template will bring is not known: it may be anything without a `/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mqttjobs.domain.automaton import may_satisfy
from mqttjobs.domain.installation import Installation, Reader, attached_entity
from mqttjobs.domain.model import Entity, EntityKey, EntityKind, Json, ValueKey, ValueSource
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.protocol import decode_report, read_state
from mqttjobs.domain.templates import Template, as_text
from mqttjobs.domain.topics import matches
from mqttjobs.errors import ReportError, TemplateError
from mqttjobs.transport.base import MAXIMUM_PACKET_SIZE

ANYTHING = "\ue000"
"""Stands for what a variable will bring."""

Revealed = Callable[[Json], Json]


class Loop(NamedTuple):
    """Operations each of which starts the next, the last the first."""

    operations: tuple[str, ...]

    def describe(self) -> str:
        """Return it in words."""
        first, *others = self.operations
        if not others:
            way = "what it publishes starts it again"
        else:
            way = f"what it publishes starts {', which starts '.join(others)}, which starts {first} again"
        return f"{way}: a loop; say allow_loop: true if that is meant"


def find_loops(installation: Installation, revealed: Revealed, explicit: frozenset[EntityKey]) -> list[Loop]:
    """Return the loops of an installation, each operation in at most one.

    Args:
        installation: everything.
        revealed: returns a value with its `${…}` replaced.
        explicit: the objects that are written out; of a class's other members one stands for all.
    """
    finder = _Finder(installation, revealed, explicit)
    follows = {
        operation.id: finder.started_by(operation)
        for operation in installation.operations.values()
        if operation.type == "mqtt" and not operation.allow_loop
    }
    return [Loop(loop) for loop in _loops(follows)]


class _Finder:
    def __init__(self, installation: Installation, revealed: Revealed, explicit: frozenset[EntityKey]) -> None:
        self._installation = installation
        self._revealed = revealed
        self._explicit = explicit

    def started_by(self, operation: Operation) -> list[str]:
        """Return the operations that what an operation publishes may start."""
        try:
            topic = Template.of(operation.definition.get("topic", ""))
            message = Template.of(operation.definition.get("message", ""))
        except ValueError:
            return []
        found: dict[str, None] = {}
        for owner in self._owners(operation):
            variables = self._variables(owner, topic.names | message.names)
            try:
                pattern = as_text(self._revealed(topic.render(variables).value))
                sent = as_text(self._revealed(message.render(variables).value))
            except TemplateError:
                continue
            for reader in self._readers(pattern):
                for other in self._started(reader, sent):
                    found[other.id] = None
        return list(found)

    def _owners(self, operation: Operation) -> Iterator[EntityKey | None]:
        if not operation.attach:
            yield None
        for attach in operation.attach:
            key = attached_entity(attach)
            if key is not None:
                yield key
                continue
            members = self._installation.members(attach.class_id or "")
            alike = [member for member in members if member not in self._explicit]
            yield from alike[:1]
            yield from (member for member in members if member in self._explicit)

    def _variables(self, owner: EntityKey | None, names: frozenset[str]) -> dict[str, Json]:
        """Return what the configuration says of an owner; for every other name that is used, ANYTHING."""
        known: dict[str, Json] = {}
        entity = None if owner is None else self._installation.entities.get(owner)
        if entity is not None:
            known = _picture(entity)
            for side in ("source", "target"):
                other = self._installation.entities.get(EntityKey(EntityKind.OBJECT, getattr(entity, side) or ""))
                if other is not None:
                    known[side] = _picture(other)
        for name in names:
            _fill(known, name.split("."))
        return known

    def _readers(self, pattern: str) -> Iterator[Reader]:
        if ANYTHING not in pattern:
            yield from self._installation.readers(pattern)
            return
        filter_ = "/".join("+" if ANYTHING in level else level for level in pattern.split("/"))
        for topic in self._installation.topics():
            if matches(filter_, topic):
                yield from self._installation.readers(topic)

    def _started(self, reader: Reader, sent: str) -> Iterator[Operation]:
        text = _text(reader.source, sent)
        if text is None:
            return
        keys = [reader.key.entity, *self._installation.followers(reader.key.entity)]
        for key in keys:
            for watcher in self._installation.watchers(ValueKey(key.kind, key.id, reader.key.name)):
                if ANYTHING in text or may_satisfy(watcher.trigger, text):
                    yield watcher.operation


def _picture(entity: Entity) -> dict[str, Json]:
    return {"id": entity.key.id, "name": entity.name, "properties": entity.properties}


def _fill(known: dict[str, Json], path: Sequence[str]) -> None:
    """Put ANYTHING where a path leads to nothing that is known."""
    key_path: Json = known
    for part in path[:-1]:
        if isinstance(key_path, Mapping) and isinstance(key_path.get(part), Mapping):
            if isinstance(key_path, dict):
                key_path[part] = dict(key_path[part])
            key_path = key_path[part]
        elif isinstance(key_path, dict) and part not in key_path:
            key_path[part] = {}
            key_path = key_path[part]
        else:
            return
    if isinstance(key_path, dict):
        key_path.setdefault(path[-1], ANYTHING)


def _text(source: ValueSource, sent: str) -> str | None:
    """Return the state that a source reads in a message, or None if it reads none."""
    if sent == ANYTHING:
        return ANYTHING
    try:
        report = decode_report(sent.encode(), MAXIMUM_PACKET_SIZE)
    except ReportError:
        return None
    text = None if report is None else read_state(report, source.path)
    if text is None or text in source.ignore:
        return None
    text = source.map.get(text, text)
    return None if text in source.ignore else text


def _loops(follows: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Yield the shortest loop through each operation in a loop, each loop once."""
    follows = _on_loops(follows)
    describe: set[str] = set()
    for first in follows:
        if first in describe:
            continue
        came_from: dict[str, str] = {}
        reached = [first]
        while reached and first not in came_from:
            ahead = []
            for name in reached:
                for following in follows[name]:
                    if following not in came_from:
                        came_from[following] = name
                        ahead.append(following)
            reached = ahead
        if first in came_from:
            loop = [came_from[first]]
            while loop[-1] != first:
                loop.append(came_from[loop[-1]])
            describe.update(loop)
            yield tuple(reversed(loop))


def _on_loops(follows: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return only what may be on a loop: again and again leave out what starts nothing, or is started by nothing."""
    left = {name: [each for each in starts if each in follows] for name, starts in follows.items()}
    while True:
        started = {each for starts in left.values() for each in starts}
        kept = {name for name, starts in left.items() if starts and name in started}
        if len(kept) == len(left):
            return left
        left = {name: [each for each in left[name] if each in kept] for name in left if name in kept}
