"""What starts an operation by itself, and what keeps it from it: small records that triggers are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import NamedTuple, Protocol

SELF = "self"
SOURCE = "source"
TARGET = "target"
"""How an operation names the entity that it runs for, and the two ends of a link."""


class OnRestart(StrEnum):
    """What a start of the service does to a hold that has not fired yet."""

    RESUME = "resume"
    RESTART = "restart"
    DROP = "drop"


class Moment(StrEnum):
    """A moment that comes by itself."""

    START = "start"
    SUNRISE = "sunrise"
    SUNSET = "sunset"


@dataclass(frozen=True, slots=True)
class At:
    """A trigger's `at`: when the service is ready, or this long after (negative: before) the sun rises or sets."""

    moment: Moment
    offset: timedelta = timedelta(0)


class SkipReason(NamedTuple):
    """Why a match is skipped: the word that it is counted under, and a sentence."""

    reason: str
    details: str


class Daylight(NamedTuple):
    """The sun's day in one place; None for what that day lacks, and without both `up` says whether it is day."""

    sunrise: datetime | None
    sunset: datetime | None
    up: bool = False


class ConditionContext(Protocol):
    """What a condition is tested against: the values as they are, and the moment."""

    @property
    def now(self) -> datetime:
        """The moment, aware."""

    @property
    def zone(self) -> tzinfo:
        """The time zone that times and weekdays are in."""

    def text(self, entity: str, attribute: str | None) -> str | None:
        """Return the state, or the attribute, of an id, `self`, `source` or `target`; None where none is known."""

    def daylight(self, day: date) -> Daylight:
        """Return the sun's day."""


class Condition(Protocol):
    """A test that is made at the moment of firing; see the leaves in domain/conditions."""

    def holds(self, context: ConditionContext) -> bool:
        """Whether it is so."""

    def references(self) -> Iterable[tuple[str, str | None]]:
        """Yield the values that it looks at, as entity and attribute."""

    def needs_sun(self) -> bool:
        """Whether it depends on where we are."""

    def describe(self, context: ConditionContext) -> str:
        """Return what it wants and what it finds, in words."""
