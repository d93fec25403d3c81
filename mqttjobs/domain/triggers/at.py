"""at, offset: a trigger that fires when the service starts, or when the sun rises or sets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from mqttjobs.domain.durations import DURATION, describe_duration, parse_duration
from mqttjobs.domain.fields import as_schema
from mqttjobs.domain.starting import At, Moment
from mqttjobs.domain.sun import Location, latest_moment, next_moment
from mqttjobs.domain.triggers.base import ClockKind, Trigger

_PHRASES = {Moment.SUNRISE: "the sun rises", Moment.SUNSET: "the sun sets"}
_LONELY_OFFSET = "offset belongs to at: sunrise or at: sunset"


def _signed(value: Any) -> Any:
    """Read a duration that may be negative: `-30m` is half an hour before."""
    if value is None or isinstance(value, timedelta):
        return value
    if isinstance(value, str) and value.strip()[:1] in ("-", "+"):
        text = value.strip()
        return parse_duration(text[1:]) * (-1 if text[0] == "-" else 1)
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        return -parse_duration(-value)
    if isinstance(value, str | int | float):
        return parse_duration(value)
    raise ValueError("an offset is a duration such as 30m, or -30m for before")


Offset = Annotated[
    timedelta, BeforeValidator(_signed), as_schema("duration", {"type": "number"}, rf"\s*[-+]?{DURATION}")
]


class AtMoment(ClockKind):
    """Fires at a moment that comes by itself."""

    name: ClassVar[str] = "at"
    position: ClassVar[int] = 92

    at: Moment = Field(
        strict=False, description="The moment at which the trigger fires; `start` is when the service is ready."
    )
    offset: Offset | None = Field(
        default=None,
        description="How long after sunrise or sunset, such as `30m`; before with a minus, such as `-30m`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _has_a_moment(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("at") is None:
            raise ValueError(_LONELY_OFFSET)
        return value

    @model_validator(mode="after")
    def _offset_is_of_the_sun(self) -> Self:
        if self.offset is not None and self.at is Moment.START:
            raise ValueError(_LONELY_OFFSET)
        return self

    @cached_property
    def moment(self) -> At:
        """The moment as domain/sun takes it."""
        return At(self.at, self.offset or timedelta(0))

    def is_start(self) -> bool:
        """See ClockKind."""
        return self.at is Moment.START

    def needs_sun(self) -> bool:
        """See ClockKind."""
        return self.at is not Moment.START

    def next_moment(self, after: datetime, location: Location) -> datetime | None:
        """See ClockKind."""
        return next_moment(self.moment, after, location)

    def latest_moment(self, after: datetime, now: datetime, location: Location) -> datetime | None:
        """See ClockKind."""
        return latest_moment(self.moment, after, now, location)

    def describe(self) -> str:
        """See TriggerKey."""
        if self.at is Moment.START:
            return "the service starts"
        plain = _PHRASES[self.at]
        if not self.offset:
            return plain
        return f"{describe_duration(abs(self.offset))} {'before' if self.offset < timedelta(0) else 'after'} {plain}"

    def conflict(self, trigger: Trigger) -> str | None:
        """See TriggerKey."""
        if "entity" in trigger.written() or trigger.repeats is not None:
            return "at is a moment: entity and periodicity cannot stand beside it"
        return None
