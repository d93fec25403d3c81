"""Triggers as they are written, and what must not be said together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from mqttjobs.config.conditions import read_conditions
from mqttjobs.config.explain import validate
from mqttjobs.config.yaml12 import Document, KeyPath
from mqttjobs.domain.durations import DURATION, parse_duration
from mqttjobs.domain.fields import PositiveDuration, Record, States, as_schema
from mqttjobs.domain.model import Json, Trigger
from mqttjobs.domain.starting import At, Condition, Moment, OnRestart
from mqttjobs.domain.thresholds import Threshold

_CHANGE_KEYS = (
    "states", "from_", "not_from", "not_states", "above", "below", "hysteresis", "attribute", "duration", "debounce",
    "availability",
)  # fmt: skip


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


class TriggerSection(Record):
    """One trigger; every key that is given must agree. `conditions` are read apart, with their places."""

    states: States | None = Field(default=None, description="The new state is one of these.")
    from_: States | None = Field(default=None, alias="from", description="The previous state is one of these.")
    not_from: States | None = Field(default=None, description="The previous state is none of these.")
    not_states: States | None = Field(default=None, description="The new state is none of these.")
    above: float | None = Field(
        default=None,
        description="The state is a number and has crossed this threshold upwards. With `below`: it has entered the "
        "band between the two.",
    )
    below: float | None = Field(
        default=None,
        description="The state is a number and has crossed this threshold downwards. With `above`: it has entered the "
        "band between the two.",
    )
    hysteresis: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Once crossed, a threshold counts again only after the value came back by this much."
    )
    attribute: str | None = Field(default=None, description="The attribute to watch; without it the state.")
    entity: str | None = Field(
        default=None,
        description="The object or link to watch; on a link also `source` or `target`. Without it what the operation "
        "is attached to.",
    )
    duration: PositiveDuration | None = Field(
        default=None,
        validation_alias=AliasChoices("duration", "for"),
        description="The trigger must stay satisfied this long; another state that also satisfies it does not begin "
        "anew.",
    )
    periodicity: PositiveDuration | None = Field(
        default=None, description="While the trigger stays satisfied, it fires again at this interval."
    )
    debounce: PositiveDuration | None = Field(
        default=None, description="The trigger fires once there was no further change for this long."
    )
    throttle: PositiveDuration | None = Field(
        default=None, description="The trigger starts the operation at most once in this time."
    )
    silence: PositiveDuration | None = Field(
        default=None,
        description="The trigger fires when nothing was heard from the entity for this long, counted from its last "
        "live report or from our connection.",
    )
    availability: Literal["online", "offline"] | None = Field(
        default=None,
        description="The availability to wait for; it is watched instead of the state. Goes with `duration`.",
    )
    at: Literal["start", "sunrise", "sunset"] | None = Field(
        default=None, description="The moment at which the trigger fires; `start` is when the service is ready."
    )
    offset: Offset | None = Field(
        default=None,
        description="How long after sunrise or sunset, such as `30m`; before with a minus, such as `-30m`.",
    )
    conditions: Any = Field(default=None, description="What must hold for this trigger alone.")
    on_restart: Literal["resume", "restart", "drop"] = Field(
        default="resume",
        description="What a restart of the service does to a pending duration: `resume` (the deadline stays), "
        "`restart` (it begins anew), `drop` (it is forgotten).",
    )
    enabled: bool = Field(default=True, description="`false` switches the trigger off.")

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


def read_trigger(written: Json, document: Document, key_path: KeyPath) -> Trigger | None:
    """Return the trigger of a mapping, or None with every problem noted."""
    if not isinstance(written, Mapping):
        document.wrong(key_path, "must be a mapping")
        return None
    section = validate(TriggerSection, written, document, key_path)
    if section is None:
        return None
    conditions = section.conditions
    where = (*key_path, "conditions")
    return section.trigger(None if conditions is None else read_conditions(conditions, document, where))
