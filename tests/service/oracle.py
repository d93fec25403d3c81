"""What must come of what was published: the promises of behaviour 1, without any of the service's code."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mqttjobs.domain.model import EntityKind, ValueKey

DOOR = ValueKey(EntityKind.OBJECT, "door", "")
PRESS = ValueKey(EntityKind.OBJECT, "door", "press")
HATCH = ValueKey(EntityKind.OBJECT, "hatch", "")
WAY = ValueKey(EntityKind.LINK, "way", "")


@dataclass
class Expected:
    """A change that must come to be: its text, the number its report carried, when, and whether it fires nothing."""

    text: str
    number: int
    published_at: datetime
    silent: bool = False


@dataclass
class Oracle:
    """What was promised, from what was published alone."""

    changes: dict[ValueKey, list[Expected]] = field(default_factory=lambda: defaultdict(list))

    def door(self, text: str | None, number: int, at: datetime, *, press: bool) -> None:
        if text is not None:
            self._change(DOOR, text, number, at)
        if press:
            self.changes[PRESS].append(Expected("down", number, at))

    def hatch(self, text: str, number: int, at: datetime, *, replayed: bool = False) -> None:
        for key in (HATCH, WAY):
            self._change(key, text, number, at, replayed=replayed)

    def _change(self, key: ValueKey, text: str, number: int, at: datetime, *, replayed: bool = False) -> None:
        before = self.changes[key]
        if not before or before[-1].text != text:
            before.append(Expected(text, number, at, silent=replayed and not before))


def spans(entries: list[Any], states: set[str]) -> list[tuple[datetime, datetime | None]]:
    """Return when a value was among `states` without a break, the last time with None if it still is."""
    found: list[tuple[datetime, datetime | None]] = []
    begin: datetime | None = None
    for entry in entries:
        if entry.state in states:
            begin = begin or entry.at
        elif begin is not None:
            found.append((begin, entry.at))
            begin = None
    return [*found, (begin, None)] if begin is not None else found
