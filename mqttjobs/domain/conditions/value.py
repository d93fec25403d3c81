"""The current value of a state or an attribute: one of some states, or a number beyond a threshold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from mqttjobs.domain.conditions.base import ConditionKind
from mqttjobs.domain.fields import Written
from mqttjobs.domain.model import Json
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


_SCALAR = {"type": ["string", "number", "boolean"]}
_STATES = Written({"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "minItems": 1}]})
_NEEDS: Json = {"anyOf": [{"required": [key]} for key in ("states", "above", "below")]}
_NUMBER = Written({"title": "number", "type": ["number", "boolean", "string"], "pattern": r"^\s*[-+]?[0-9.]"})
"""Unlike elsewhere, a text that is a number has always been accepted here."""


class ValueCondition(ConditionKind):
    """A test of an entity's state or attribute. A value that was never reported satisfies no test."""

    model_config = ConfigDict(json_schema_extra={"dependentSchemas": {"entity": _NEEDS, "attribute": _NEEDS}})

    entity: str = Field(
        default=SELF, description="The object or link: an id, `self`, or on a link `source` or `target`."
    )
    attribute: str | None = Field(default=None, description="The attribute to look at; without it the state.")
    states: Annotated[tuple[str, ...], BeforeValidator(_texts), Field(min_length=1), _STATES] | None = Field(
        default=None, description="The value is one of these."
    )
    above: Annotated[float, _NUMBER] | None = Field(default=None, description="The value is a number above this.")
    below: Annotated[float, _NUMBER] | None = Field(default=None, description="The value is a number below this.")

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
