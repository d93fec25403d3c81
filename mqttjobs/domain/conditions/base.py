"""The interface of a condition kind: a frozen model whose fields are its keys and whose `holds` is its test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from mqttjobs.domain.starting import ConditionContext
from mqttjobs.registry import plugin_modules


class ConditionKind(BaseModel):
    """One kind of condition. Its fields are its keys in the configuration; no two kinds share a key.

    `inner` names the field that holds other conditions, one or a list; None where a kind has no such field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)

    inner: ClassVar[str | None] = None

    def holds(self, context: ConditionContext) -> bool:
        """See Condition."""
        raise NotImplementedError

    def references(self) -> Iterator[tuple[str, str | None]]:
        """See Condition."""
        yield from ()

    def needs_sun(self) -> bool:
        """See Condition."""
        return False

    def describe(self, context: ConditionContext) -> str:
        """See Condition."""
        raise NotImplementedError


@cache
def condition_kinds() -> Mapping[str, type[ConditionKind]]:
    """Return the condition kinds by key."""
    found: dict[str, type[ConditionKind]] = {}
    for module in plugin_modules("mqttjobs.domain.conditions", "mqttjobs.domain.conditions"):
        for item in vars(module).values():
            if isinstance(item, type) and issubclass(item, ConditionKind) and item is not ConditionKind:
                for name, field in item.model_fields.items():
                    found[field.alias or name] = item
    return found
