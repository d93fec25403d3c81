"""What a report does to a value: the rules of behaviour 1, one value at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from mqttjobs.domain.model import Json, Retained, Value, ValueKey, ValueSource


class Verdict(StrEnum):
    """What became of a report, in the order in which a message is counted (behaviour 5)."""

    CHANGED = "changed"
    DUPLICATE = "duplicate"
    UNCHANGED = "unchanged"
    RETAINED_SKIPPED = "retained_skipped"
    IGNORED = "ignored"
    INVALID = "invalid"
    UNMATCHED = "unmatched"


ORDER = {verdict: place for place, verdict in enumerate(Verdict)}


@dataclass(frozen=True, slots=True)
class Sighting:
    """One text seen for one value. `live_before` says that a live report of it came since this connection."""

    text: str
    at: datetime
    payload: Json = None
    retained: bool = False
    live_before: bool = False


class Result(NamedTuple):
    """The verdict, the value as it then is (None: as it was), and whether the change fires nothing."""

    verdict: Verdict
    value: Value | None = None
    silent: bool = False


def sight(key: ValueKey, source: ValueSource, known: Value | None, seen: Sighting) -> Result:
    """Return what a sighting does to a value.

    `ignore` is tested before and after `map` (behaviour 1.5). A repeated live report returns the value with its
    `heard_at` moved, under the verdict UNCHANGED.
    """
    text = seen.text
    if text in source.ignore:
        return Result(Verdict.IGNORED)
    text = source.map.get(text, text)
    if text in source.ignore:
        return Result(Verdict.IGNORED)
    if not seen.retained or (source.retained is Retained.FIRE and not source.event):
        if known is not None and known.text == text and not source.event:
            return Result(Verdict.UNCHANGED, None if seen.retained else replace(known, heard_at=seen.at))
        return Result(Verdict.CHANGED, _changed(key, known, text, seen))
    if source.event or source.retained is Retained.IGNORE or seen.live_before:
        return Result(Verdict.RETAINED_SKIPPED)
    if known is None:
        return Result(Verdict.CHANGED, _changed(key, None, text, seen), silent=True)
    if known.text == text:
        return Result(Verdict.UNCHANGED)
    return Result(Verdict.CHANGED, _changed(key, known, text, seen))


def _changed(key: ValueKey, known: Value | None, text: str, seen: Sighting) -> Value:
    previous = known.text if known else None
    heard_at = (known.heard_at if known else None) if seen.retained else seen.at
    return Value(key, text, previous, seen.at, heard_at, seen.payload)
