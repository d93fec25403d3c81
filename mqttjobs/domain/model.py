"""What an installation is made of: entities, their values, and the triggers of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

Json = Any
"""Any value that JSON can hold."""


class _Empty(Mapping[str, Any]):
    """A mapping that is empty and stays so; hashable, so that it can be a default in records."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __hash__(self) -> int:
        return 0


EMPTY: Mapping[str, Any] = _Empty()

STATE = ""
"""The name of an entity's state among its values."""
AVAILABILITY = "@availability"
"""The name of an entity's availability among its values; no attribute can be called this."""


class EntityKind(StrEnum):
    """What an owner is; the wire's `owner_type` is "1" for an object and "2" for a link."""

    OBJECT = "object"
    LINK = "link"


class EntityKey(NamedTuple):
    """Names one object or one link."""

    kind: EntityKind
    id: str


class ValueKey(NamedTuple):
    """Names one value of one entity: STATE, AVAILABILITY or an attribute."""

    kind: EntityKind
    id: str
    name: str

    @property
    def entity(self) -> EntityKey:
        """The entity whose value this is."""
        return EntityKey(self.kind, self.id)

    @property
    def attribute(self) -> str | None:
        """The attribute's name, or None for the state."""
        return self.name or None


class Retained(StrEnum):
    """What a retained report does (behaviour 1.3)."""

    INIT = "init"
    FIRE = "fire"
    IGNORE = "ignore"


DEFAULT_IGNORE = frozenset({"", "unavailable", "unknown"})


@dataclass(frozen=True, slots=True)
class ValueSource:
    """Where a value comes from: a topic, a place in its payload, and how its text is read.

    `path` is the dotted path, split; empty means the rule for payloads without one (contract 3).
    """

    topic: str
    path: tuple[str, ...] = ()
    map: Mapping[str, str] = EMPTY
    retained: Retained = Retained.INIT
    ignore: frozenset[str] = DEFAULT_IGNORE
    event: bool = False


@dataclass(frozen=True, slots=True)
class Value:
    """One value as it is stored: the facts that every rule about it is computed from.

    `since_at` is the receipt of the report that set `text`; `heard_at` the receipt of the last live one that
    contained it. `payload` is the decoded JSON, or the text, of the report that set it. `reported_at` is when the
    sender of that report says that the value changed, None where the report does not say; no rule uses it.
    """

    key: ValueKey
    text: str
    previous: str | None
    since_at: datetime
    heard_at: datetime | None
    payload: Json = None
    reported_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A value that changed, and the report that did it.

    `at` is the time of receipt and `reported_at` the report's own `timestamp`, see Value.
    `silent` is a retained report that only sets the value: it arms holds and fires nothing (behaviour 1.3).
    """

    key: ValueKey
    text: str
    previous: str | None
    at: datetime
    topic: str | None = None
    payload: Json = None
    silent: bool = False
    reported_at: datetime | None = None
    reported_by: str | None = None
    reason: str | None = None
    user_id: str | None = None
    depth: int = 0
    root_id: str | None = None


@dataclass(frozen=True, slots=True)
class Entity:
    """An object, or a link between two objects (`source` and `target` are set for links alone).

    `follows` names the object whose values are also the link's (behaviour 1.9); `sources` are its own.
    """

    key: EntityKey
    name: str
    class_id: str | None = None
    properties: Mapping[str, Json] = EMPTY
    sources: Mapping[str, ValueSource] = EMPTY
    source: str | None = None
    target: str | None = None
    follows: str | None = None


@dataclass(frozen=True, slots=True)
class EntityClass:
    """A set of objects made alike; `ids` are the members in order, None for `any`.

    Of `any`, `make` makes the object of an id, and `topics` are those that it would listen to, `{{ id }}` in them.
    """

    id: str
    ids: tuple[str, ...] | None
    make: Callable[[str], Entity] | None = None
    topics: tuple[str, ...] = ()


class Mode(StrEnum):
    """What a second job of the same operation and owner does (behaviour 3.8)."""

    PARALLEL = "parallel"
    SINGLE = "single"
    QUEUED = "queued"
    RESTART = "restart"


class Delivery(StrEnum):
    """What happens to a job that a crash interrupted (behaviour 3.9)."""

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"
