"""all, any, not: conditions made of conditions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field

from mqttjobs.domain.conditions.base import ConditionKind
from mqttjobs.domain.starting import Condition, ConditionContext


class _Several(ConditionKind):
    """A condition over a list of them; `Any` stands for Condition, which the caller has made already."""

    @property
    def parts(self) -> tuple[Condition, ...]:
        """The conditions inside."""
        raise NotImplementedError

    def references(self) -> Iterator[tuple[str, str | None]]:
        """See Condition."""
        for part in self.parts:
            yield from part.references()

    def needs_sun(self) -> bool:
        """See Condition."""
        return any(part.needs_sun() for part in self.parts)


class All(_Several):
    """Every one of them."""

    inner: ClassVar[str] = "all"

    all_: tuple[Any, ...] = Field(alias="all", min_length=1)

    @property
    def parts(self) -> tuple[Condition, ...]:
        """See _Several."""
        return self.all_

    def holds(self, context: ConditionContext) -> bool:
        """See Condition."""
        return all(part.holds(context) for part in self.parts)

    def describe(self, context: ConditionContext) -> str:
        """See Condition; of those that do not hold, if there are any."""
        failing = [part for part in self.parts if not part.holds(context)]
        return " and ".join(part.describe(context) for part in failing or self.parts)


class AnyOf(_Several):
    """At least one of them."""

    inner: ClassVar[str] = "any"

    any_: tuple[Any, ...] = Field(alias="any", min_length=1)

    @property
    def parts(self) -> tuple[Condition, ...]:
        """See _Several."""
        return self.any_

    def holds(self, context: ConditionContext) -> bool:
        """See Condition."""
        return any(part.holds(context) for part in self.parts)

    def describe(self, context: ConditionContext) -> str:
        """See Condition."""
        return "any of: " + "; ".join(part.describe(context) for part in self.parts)


class Not(_Several):
    """The opposite of one."""

    inner: ClassVar[str] = "not"

    not_: Any = Field(alias="not")

    @property
    def parts(self) -> tuple[Condition, ...]:
        """See _Several."""
        return (self.not_,)

    def holds(self, context: ConditionContext) -> bool:
        """See Condition."""
        return not self.parts[0].holds(context)

    def describe(self, context: ConditionContext) -> str:
        """See Condition."""
        return f"not: {self.parts[0].describe(context)}"
