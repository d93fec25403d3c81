"""Classes whose members appear as they report (`ids: any`): from a topic to the member that it must be of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mqttjobs.domain.model import Entity, EntityClass
from mqttjobs.domain.topics import TopicTrie

_VARIABLE = re.compile(r"\{\{\s*id\s*\}\}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class Candidate(NamedTuple):
    """A member that a report may bring."""

    class_id: str
    entity: Entity


def filter_of(topic: str) -> str:
    """Return the filter of a class's topic: `+` for each level in which the id stands."""
    return "/".join("+" if _VARIABLE.search(level) else level for level in topic.split("/"))


def id_in(template: str, topic: str) -> str | None:
    """Return the id for which a class's topic is this one, or None."""
    pieces = [re.escape(piece) for piece in _VARIABLE.split(template)]
    if len(pieces) < 2:
        return None
    pattern = pieces[0] + "([A-Za-z0-9_-]{1,64})" + pieces[1] + "".join(rf"\1{piece}" for piece in pieces[2:])
    found = re.fullmatch(pattern, topic)
    return None if found is None or _ID.match(found[1]) is None else found[1]


class Membership:
    """Finds who reports on a topic that no known object has."""

    def __init__(self, classes: Iterable[EntityClass]) -> None:
        self._open = {each.id: each for each in classes if each.make is not None}
        self._topics: TopicTrie[tuple[EntityClass, str]] = TopicTrie()
        for each in self._open.values():
            for topic in each.topics:
                self._topics.add(filter_of(topic), (each, topic))

    def __bool__(self) -> bool:
        """Whether there is any such class."""
        return bool(self._open)

    def __contains__(self, class_id: object) -> bool:
        """Whether a class is one of these."""
        return class_id in self._open

    def make(self, class_id: str, member: str) -> Entity | None:
        """Return a member of a class, or None if the class is not, or no longer, one of these."""
        found = self._open.get(class_id)
        return None if found is None or found.make is None else found.make(member)

    def candidates(self, topic: str) -> Iterator[Candidate]:
        """Yield who may report on a topic."""
        for each, template in self._topics.find(topic):
            member = id_in(template, topic)
            if member is not None and each.make is not None:
                yield Candidate(each.id, each.make(member))
