"""What a report does to a value: the rules of behaviour 1, one value at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from mqttjobs.domain.model import Json, Retained, Value, ValueKey, ValueSource


class ReportResult(StrEnum):
    """What became of a report, in the order in which a message is counted (behaviour 5)."""

    CHANGED = "changed"
    DUPLICATE = "duplicate"
    UNCHANGED = "unchanged"
    RETAINED_SKIPPED = "retained_skipped"
    IGNORED = "ignored"
    INVALID = "invalid"
    UNMATCHED = "unmatched"


ORDER = {report_result: index for index, report_result in enumerate(ReportResult)}


@dataclass(frozen=True, slots=True)
class Reading:
    """One text seen for one value. `live_before` says that a live report of it came since this connection."""

    text: str
    at: datetime
    payload: Json = None
    retained: bool = False
    live_before: bool = False
    reported_at: datetime | None = None


class Result(NamedTuple):
    """The result of a reading, the value after it (None: unchanged), and whether the change fires nothing."""

    report_result: ReportResult
    value: Value | None = None
    silent: bool = False


def apply_reading(key: ValueKey, source: ValueSource, known: Value | None, reading: Reading) -> Result:
    """Return what a reading does to a value.

    `ignore` is tested before and after `map` (behaviour 1.5). A repeated live report returns the value with its
    `heard_at` moved, with the result UNCHANGED.
    """
    text = reading.text
    if text in source.ignore:
        return Result(ReportResult.IGNORED)
    text = source.map.get(text, text)
    if text in source.ignore:
        return Result(ReportResult.IGNORED)
    if not reading.retained or (source.retained is Retained.FIRE and not source.event):
        if known is not None and known.text == text and not source.event:
            return Result(ReportResult.UNCHANGED, None if reading.retained else replace(known, heard_at=reading.at))
        return Result(ReportResult.CHANGED, _changed(key, known, text, reading))
    if source.event or source.retained is Retained.IGNORE or reading.live_before:
        return Result(ReportResult.RETAINED_SKIPPED)
    if known is None:
        return Result(ReportResult.CHANGED, _changed(key, None, text, reading), silent=True)
    if known.text == text:
        return Result(ReportResult.UNCHANGED)
    return Result(ReportResult.CHANGED, _changed(key, known, text, reading))


def _changed(key: ValueKey, known: Value | None, text: str, reading: Reading) -> Value:
    previous = known.text if known else None
    heard_at = (known.heard_at if known else None) if reading.retained else reading.at
    return Value(key, text, previous, reading.at, heard_at, reading.payload, reading.reported_at)
