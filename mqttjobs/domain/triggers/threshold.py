"""above, below, hysteresis: a number that crosses a threshold."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from mqttjobs.domain.thresholds import Threshold, number_of
from mqttjobs.domain.triggers.base import TriggerKey


class ThresholdKey(TriggerKey):
    """A threshold, or the band between two. It is remembered that the last number was beyond, for either key."""

    name: ClassVar[str] = "above"
    position: ClassVar[int] = 20
    needs_lasting_value: ClassVar[bool] = True

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

    @model_validator(mode="after")
    def _is_a_threshold(self) -> Self:
        if self.above is None and self.below is None and self.hysteresis is not None:
            raise ValueError("hysteresis belongs to above or below")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError("no number is above the one and below the other; above must be the smaller one")
        return self

    @cached_property
    def threshold(self) -> Threshold:
        """The rule behind the keys."""
        return Threshold(self.above, self.below, self.hysteresis or 0.0)

    def side(self, text: str, *, was_beyond: bool) -> bool | None:
        """See TriggerKey; what is no number is on neither side."""
        number = number_of(text)
        return None if number is None else self.threshold.side(was_beyond, number)

    def describe(self) -> str:
        """See TriggerKey."""
        if self.above is not None and self.below is not None:
            message = f"comes between {self.above:g} and {self.below:g}"
        elif self.above is not None:
            message = f"rises above {self.above:g}"
        else:
            message = f"falls below {self.below:g}"
        return message + (f" (and back by {self.hysteresis:g} before it counts again)" if self.hysteresis else "")
