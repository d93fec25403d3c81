"""Partly overlapping filters: a broker may deliver one message once for each filter (behaviour 1.8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from mqttjobs.domain.model import Entity, EntityKey, ValueKey
from mqttjobs.domain.topics import covers, matches, overlaps


class Doubled(NamedTuple):
    """An event value whose topic two filters match, neither of which covers the other."""

    key: ValueKey
    one: str
    other: str


def doubled_events(filters: Sequence[str], entities: Mapping[EntityKey, Entity]) -> Iterator[Doubled]:
    """Yield the event values that a broker may deliver twice, one for each pair of filters.

    Other values do no harm: a repeated report is no change.
    """
    pairs = [
        (one, other)
        for one, other in combinations(dict.fromkeys(filters), 2)
        if overlaps(one, other) and not covers(one, other) and not covers(other, one)
    ]
    events = list(_events(entities.values())) if pairs else []
    for one, other in pairs:
        for key, topic in events:
            if matches(one, topic) and matches(other, topic):
                yield Doubled(key, one, other)
                break


def _events(entities: Iterable[Entity]) -> Iterator[tuple[ValueKey, str]]:
    for entity in entities:
        for name, source in entity.sources.items():
            if source.event:
                yield ValueKey(entity.key.kind, entity.key.id, name), source.topic
