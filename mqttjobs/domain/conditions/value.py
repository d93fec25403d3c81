"""The current value of a state or an attribute: one of some states, or a number beyond a threshold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from mqttjobs.domain.conditions.base import ConditionKind
from mqttjobs.domain.protocol import scalar_text
from mqttjobs.domain.starting import SELF, ConditionContext
from mqttjobs.domain.thresholds import Threshold, number_of


def _texts(value: Any) -> Any:
    """Return states as texts: one state or a list; numbers and booleans as JSON writes them."""
    if not isinstance(value, list):
        value = [value]
    texts = [scalar_text(item) for item in value]
    if None in texts:
        raise ValueError("must be a text, a number, true or false, or a list of these")
    return texts


class ValueCondition(ConditionKind):
    """A test of an entity's state or attribute. A value that was never reported satisfies no test."""

    entity: str = SELF
    attribute: str | None = None
    states: Annotated[tuple[str, ...], BeforeValidator(_texts), Field(min_length=1)] | None = None
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.states is None and self.above is None and self.below is None:
            raise ValueError("say with states, above or below what the value must be")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError("no number is above the one and below the other; above must be the smaller one")
        return self

    def holds(self, context: ConditionContext) -> bool:
        """See Condition."""
        text = context.text(self.entity, self.attribute)
        if text is None or (self.states is not None and text not in self.states):
            return False
        if self.above is None and self.below is None:
            return True
        number = number_of(text)
        return number is not None and Threshold(self.above, self.below).contains(number)

    def references(self) -> Iterator[tuple[str, str | None]]:
        """See Condition."""
        yield (self.entity, self.attribute)

    def describe(self, context: ConditionContext) -> str:
        """See Condition."""
        wanted = []
        if self.states is not None:
            wanted.append(" or ".join(self.states))
        wanted += [
            f"{word} {limit:g}" for word, limit in (("above", self.above), ("below", self.below)) if limit is not None
        ]
        whose = self.entity if self.attribute is None else f"{self.attribute} of {self.entity}"
        found = context.text(self.entity, self.attribute)
        return f"{whose} must be {' and '.join(wanted)}, and is {'not known' if found is None else found}"
