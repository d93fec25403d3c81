"""Times of day and weekdays in the service's time zone; sunrise and sunset are times of day too."""

from __future__ import annotations

import re
from datetime import date, datetime, time
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from mqttjobs.domain.conditions.base import ConditionKind
from mqttjobs.domain.fields import Written
from mqttjobs.domain.starting import ConditionContext, Moment

_CLOCK = r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?"
_TIME = re.compile(rf"{_CLOCK}\Z", re.ASCII)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SUN = {"sunrise": Moment.SUNRISE, "sunset": Moment.SUNSET}
_BEGIN, _END = 0.0, 86_400.0

TimeOfDay = time | Moment
_TIME_OF_DAY = Written(
    {"title": "time of day", "anyOf": [{"enum": [*_SUN]}, {"type": "string", "pattern": f"^{_CLOCK}$"}]}
)
_ANY_CASE = "|".join("".join(f"[{letter.upper()}{letter}]" for letter in day) for day in (*_DAYS, *_LONG_DAYS))
_DAY = {"title": "day", "anyOf": [{"enum": [*_DAYS]}, {"type": "string", "pattern": f"^({_ANY_CASE})$"}]}
_WEEKDAYS = Written({"anyOf": [_DAY, {"type": "array", "items": _DAY, "minItems": 1}]})


def _time_of_day(value: Any) -> Any:
    if isinstance(value, time | Moment):
        return value
    if isinstance(value, str):
        if value in _SUN:
            return _SUN[value]
        found = _TIME.match(value)
        if found is not None:
            return time(int(found[1]), int(found[2]), int(found[3] or 0))
    raise ValueError("must be a time such as 22:00, or sunrise, or sunset")


def _weekdays(value: Any) -> Any:
    days = [value] if isinstance(value, str) else value
    if not isinstance(days, list | tuple) or not all(isinstance(day, str) for day in days):
        raise ValueError("must be a list of mon, tue, wed, thu, fri, sat, sun")
    names = []
    for day in days:
        name = day.lower()
        name = _DAYS[_LONG_DAYS.index(name)] if name in _LONG_DAYS else name
        if name not in _DAYS:
            raise ValueError("must be a list of mon, tue, wed, thu, fri, sat, sun")
        names.append(name)
    return tuple(names)


class TimeWindow(ConditionKind):
    """From `after` (included) to `before` (excluded); over midnight where `before` is the earlier of the two.

    `weekdays` are tested against the day of the moment itself: at 01:00 on Saturday the day is Saturday, also in a
    window that began on Friday.
    """

    after: Annotated[Any, BeforeValidator(_time_of_day), _TIME_OF_DAY] = Field(
        default=None, description="From this time of day, such as `22:00`, `sunrise` or `sunset`."
    )
    before: Annotated[Any, BeforeValidator(_time_of_day), _TIME_OF_DAY] = Field(
        default=None, description="Until this time of day; over midnight where it is earlier than `after`."
    )
    weekdays: Annotated[tuple[str, ...], BeforeValidator(_weekdays), Field(min_length=1), _WEEKDAYS] | None = Field(
        default=None, description="On these days: a list of `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`, or one."
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.after is None and self.before is None and self.weekdays is None:
            raise ValueError("say with after, before or weekdays when")
        if self.after is not None and self.after == self.before:
            raise ValueError("after and before are the same moment")
        return self

    def holds(self, context: ConditionContext) -> bool:
        """See Condition."""
        local = context.now.astimezone(context.zone)
        if self.weekdays is not None and _DAYS[local.weekday()] not in self.weekdays:
            return False
        now = _seconds(local)
        begin = None if self.after is None else _at(self.after, local.date(), context)
        end = None if self.before is None else _at(self.before, local.date(), context)
        if begin is None:
            return end is None or now < end
        if end is None:
            return now >= begin
        return begin <= now < end if begin <= end else now >= begin or now < end

    def needs_sun(self) -> bool:
        """See Condition."""
        return isinstance(self.after, Moment) or isinstance(self.before, Moment)

    def describe(self, context: ConditionContext) -> str:
        """See Condition."""
        wanted = [
            f"{word} {value.value if isinstance(value, Moment) else value.isoformat('auto')[:8].removesuffix(':00')}"
            for word, value in (("after", self.after), ("before", self.before))
            if value is not None
        ]
        if self.weekdays is not None:
            wanted.append(f"on {', '.join(self.weekdays)}")
        local = context.now.astimezone(context.zone)
        return f"the time must be {' and '.join(wanted)}, and is {_DAYS[local.weekday()]} {local:%H:%M}"


def _seconds(local: datetime) -> float:
    """Return the time of day in seconds by the local clock: 02:30 is 02:30 also when the clock shows it twice."""
    return local.hour * 3600 + local.minute * 60 + local.second + local.microsecond / 1e6


def _at(value: TimeOfDay, day: date, context: ConditionContext) -> float:
    """Return a time of day on a given day, in seconds by the local clock.

    Where the sun does not set, sunrise is the beginning of the day and sunset its end; where the sun does not rise,
    the other way round.
    """
    if isinstance(value, time):
        return value.hour * 3600 + value.minute * 60 + value.second
    light = context.daylight(day)
    moment = light.sunrise if value is Moment.SUNRISE else light.sunset
    if moment is not None:
        return _seconds(moment.astimezone(context.zone))
    return _BEGIN if light.up is (value is Moment.SUNRISE) else _END
