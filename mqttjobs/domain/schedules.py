"""When a schedule is due: cron text in a time zone, or a fixed interval; computed from the stored last due time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Any

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, field_validator

from mqttjobs.domain.durations import DURATION
from mqttjobs.domain.fields import Duration, Record, Written, as_schema

_WINDOWS = (timedelta(hours=1), timedelta(days=1), timedelta(days=31), timedelta(days=366))
"""How far back the latest due time is looked for, so that a long absence costs few steps."""


def check_cron(text: str) -> str:
    """Return `text` if it is cron of five fields, or raise ValueError with a message."""
    if len(text.split()) != 5:
        raise ValueError("a cron schedule has five fields: minute, hour, day of the month, month, day of the week")
    try:
        next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"not a cron schedule: {str(error).lower()}") from error
    except StopIteration:
        raise ValueError("this cron schedule never comes") from None
    return text


class Interval(Record):
    """A schedule with a fixed interval."""

    every: Annotated[Duration, as_schema("duration", {"type": "number", "minimum": 1}, DURATION)] = Field(
        description="The time from one start to the next, at least a second."
    )

    @field_validator("every")
    @classmethod
    def _some_time(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise ValueError("must be at least a second")
        return value


Cron = Annotated[
    str,
    AfterValidator(check_cron),
    Written({"title": "cron text", "type": "string", "pattern": r"^\s*(\S+\s+){4}\S+\s*$"}),
]


def _text_or_mapping(value: Any) -> Any:
    if not isinstance(value, str | Mapping | Interval):
        raise ValueError("must be a text or a mapping")
    return value


def _shape(value: Any) -> str:
    """Return which of the two shapes of a schedule is meant, so that errors are about that one alone."""
    return "text" if isinstance(value, str) else "mapping"


Schedule = Annotated[
    Annotated[Cron, Tag("text")] | Annotated[Interval, Tag("mapping")],
    Discriminator(_shape),
    BeforeValidator(_text_or_mapping),
]
"""When an operation starts by the clock: cron text of five fields, or every interval."""


def next_due(schedule: Schedule, last: datetime, zone: tzinfo) -> datetime | None:
    """Return the first due time after `last`, in UTC; None for a schedule that never comes again.

    Cron text is read in `zone`; at a daylight-saving change a time that is skipped runs once right after it, and
    one that comes twice runs once.
    """
    if isinstance(schedule, Interval):
        return last + schedule.every
    for upcoming in CronSim(schedule, last.astimezone(zone)):
        due = upcoming.astimezone(UTC)
        if due > last:  # in the second of a doubled hour the first one's times come up again
            return due
    return None


def latest_due(schedule: Schedule, last: datetime, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the latest due time after `last` and not after `now`, or None: what was missed counts once."""
    first = next_due(schedule, last, zone)
    if first is None or first > now:
        return None
    if isinstance(schedule, Interval):
        return first + (now - first) // schedule.every * schedule.every
    for window in _WINDOWS:  # backwards the zone's doubled hour is read wrongly, so each window is walked forwards
        if now - last <= window:
            break
        found = _last_within(schedule, now - window, now, zone)
        if found is not None:
            return found
    return _last_within(schedule, last, now, zone)


def _last_within(schedule: Schedule, after: datetime, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the last due time after `after` and not after `now`, or None."""
    found = None
    due = next_due(schedule, after, zone)
    while due is not None and due <= now:
        found, due = due, next_due(schedule, due, zone)
    return found
