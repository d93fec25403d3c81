"""Triggers as they are written, and what must not be said together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mqttjobs.config.entities import Text
from mqttjobs.config.sections import Duration, Section, positive
from mqttjobs.domain.durations import parse_duration
from mqttjobs.domain.model import Trigger
from mqttjobs.domain.starting import At, Condition, Moment, OnRestart
from mqttjobs.domain.thresholds import Threshold

_CHANGE_KEYS = (
    "states", "from_", "not_from", "not_states", "above", "below", "hysteresis", "attribute", "duration", "debounce",
    "availability",
)  # fmt: skip


def as_list(value: Any) -> Any:
    """Accept one state where a list of them is meant."""
    return [value] if isinstance(value, str | int | float | bool) else value


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


States = Annotated[list[Text], Field(min_length=1), BeforeValidator(as_list)]


class TriggerSection(Section):
    """One trigger; every key that is given must agree. `conditions` are read apart, with their places."""

    states: States | None = None
    from_: States | None = Field(default=None, alias="from")
    not_from: States | None = None
    not_states: States | None = None
    above: float | None = None
    below: float | None = None
    hysteresis: Annotated[float, Field(gt=0)] | None = None
    attribute: str | None = None
    entity: str | None = None
    duration: Duration | None = None
    periodicity: Duration | None = None
    debounce: Duration | None = None
    throttle: Duration | None = None
    silence: Duration | None = None
    availability: Literal["online", "offline"] | None = None
    at: Literal["start", "sunrise", "sunset"] | None = None
    offset: Annotated[timedelta, BeforeValidator(_signed)] | None = None
    conditions: Any = None
    on_restart: Literal["resume", "restart", "drop"] = "resume"
    enabled: bool = True

    @model_validator(mode="before")
    @classmethod
    def _for(cls, value: Any) -> Any:
        """Accept `for` for duration."""
        if isinstance(value, Mapping) and "for" in value and "duration" not in value:
            return {("duration" if key == "for" else key): item for key, item in value.items()}
        return value

    @field_validator("duration", "periodicity", "debounce", "throttle", "silence")
    @classmethod
    def _some_time(cls, value: timedelta | None) -> timedelta | None:
        return positive(value)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        kinds = [name for name in ("silence", "at") if getattr(self, name) is not None]
        if len(kinds) > 1:
            raise ValueError("silence and at are triggers of their own; use two triggers")
        for kind in kinds:
            for name in _CHANGE_KEYS:
                if getattr(self, name) is not None:
                    message = "is about state changes and cannot stand beside"
                    raise ValueError(f"{name.rstrip('_')} {message} {kind}; use conditions")
        if self.at is not None and (self.entity is not None or self.periodicity is not None):
            raise ValueError("at is a moment: entity and periodicity cannot stand beside it")
        if self.offset is not None and self.at not in ("sunrise", "sunset"):
            raise ValueError("offset belongs to at: sunrise or at: sunset")
        self._check_numbers()
        if self.availability is not None:
            for name in ("states", "not_states", "above", "below", "attribute"):
                if getattr(self, name) is not None:
                    raise ValueError(f"availability is watched instead of the state: {name} cannot stand beside it")
        return self

    def _check_numbers(self) -> None:
        if self.hysteresis is not None and self.above is None and self.below is None:
            raise ValueError("hysteresis belongs to above or below")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError("no number is above the one and below the other; above must be the smaller one")

    def trigger(self, conditions: Condition | None) -> Trigger:
        """Return the trigger."""
        states = [self.availability] if self.availability is not None else self.states
        has_threshold = self.above is not None or self.below is not None
        return Trigger(
            states=None if states is None else frozenset(states),
            states_in_order=None if states is None else tuple(states),
            attribute=self.attribute,
            duration=self.duration,
            periodicity=self.periodicity,
            from_states=None if self.from_ is None else frozenset(self.from_),
            not_from=frozenset(self.not_from or ()),
            not_states=frozenset(self.not_states or ()),
            threshold=Threshold(self.above, self.below, self.hysteresis or 0.0) if has_threshold else None,
            entity=self.entity,
            debounce=self.debounce,
            throttle=self.throttle,
            silence=self.silence,
            availability=self.availability is not None,
            at=None if self.at is None else At(Moment(self.at), self.offset or timedelta(0)),
            conditions=conditions,
            on_restart=OnRestart(self.on_restart),
            enabled=self.enabled,
        )
