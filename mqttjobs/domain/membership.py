"""Classes whose members appear with their first report (`ids: any`): which member a topic belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from mqttjobs.domain.model import Entity, EntityClass, Json
from mqttjobs.domain.names import ID
from mqttjobs.domain.topics import TopicTrie

_VARIABLE = re.compile(r"\{\{\s*id\s*\}\}")
"""`{{ id }}` in the topics and texts of a class."""


class Candidate(NamedTuple):
    """An object that a report may register as a member of its class."""

    class_id: str
    entity: Entity


def has_id(topic: str) -> bool:
    """Whether the id of a member stands in a class's topic."""
    return _VARIABLE.search(topic) is not None


def with_id(value: Json, member: str) -> Json:
    """Return a class's value with the id of a member wherever `{{ id }}` stands in it."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda _: member, value) if "{{" in value else value
    if isinstance(value, Mapping):
        return {key: with_id(item, member) for key, item in value.items()}
    if isinstance(value, list):
        return [with_id(item, member) for item in value]
    return value


def filter_of(topic: str) -> str:
    """Return the filter of a class's topic: `+` for each level that contains the id."""
    return "/".join("+" if has_id(level) else level for level in topic.split("/"))


def id_in(template: str, topic: str) -> str | None:
    """Return the id that makes `topic` of a class's topic, or None."""
    pieces = [re.escape(piece) for piece in _VARIABLE.split(template)]
    if len(pieces) < 2:
        return None
    pattern = pieces[0] + f"({ID})" + pieces[1] + "".join(rf"\1{piece}" for piece in pieces[2:])
    found = re.fullmatch(pattern, topic)
    return None if found is None else found[1]


class Membership:
    """Finds the candidates for a topic that feeds no known object."""

    def __init__(self, classes: Iterable[EntityClass]) -> None:
        self._open = {each.id: each for each in classes if each.make is not None}
        self._topics: TopicTrie[tuple[EntityClass, str]] = TopicTrie()
        for each in self._open.values():
            for topic in each.topics:
                self._topics.add(filter_of(topic), (each, topic))

    def __bool__(self) -> bool:
        """Whether there is a class with `ids: any`."""
        return bool(self._open)

    def __contains__(self, class_id: object) -> bool:
        """Whether a class has `ids: any`."""
        return class_id in self._open

    def make(self, class_id: str, member: str) -> Entity | None:
        """Return the member of a class with the given id, or None if the class has no `ids: any` (any more)."""
        found = self._open.get(class_id)
        return None if found is None or found.make is None else found.make(member)

    def candidates(self, topic: str) -> Iterator[Candidate]:
        """Yield the objects that a report on `topic` may register."""
        for each, template in self._topics.find(topic):
            member = id_in(template, topic)
            if member is not None and each.make is not None:
                yield Candidate(each.id, each.make(member))
