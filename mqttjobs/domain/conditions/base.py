"""The interface of a condition kind: a frozen model whose fields are its keys and whose `holds` is its test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from mqttjobs.domain.starting import ConditionContext
from mqttjobs.registry import Family


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


def _keys_of(module: ModuleType) -> Iterator[tuple[str, type[ConditionKind]]]:
    """Yield the keys of a module's kinds of condition; a class without fields is none."""
    for item in vars(module).values():
        if isinstance(item, type) and issubclass(item, ConditionKind):
            for name, field in item.model_fields.items():
                for wanted in ("holds", "describe"):
                    if getattr(item, wanted) is getattr(ConditionKind, wanted):
                        raise ValueError(f"{item.__module__}.{item.__qualname__} has no {wanted}()")
                yield field.alias or name, item


CONDITIONS = Family("mqttjobs.domain.conditions", "mqttjobs.domain.conditions", noun="condition key", read=_keys_of)
"""The kinds of condition, by each of their keys."""


def condition_kinds() -> Mapping[str, type[ConditionKind]]:
    """Return the condition kinds by key."""
    return CONDITIONS.members()
