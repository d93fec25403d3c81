"""all, any, not: conditions made of conditions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field

from mqttjobs.domain.conditions.base import ConditionKind
from mqttjobs.domain.starting import Condition, ConditionContext


class _Several(ConditionKind):
    """A condition made of others. The fields are typed `Any`: the caller has already built the conditions."""

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
    """Holds when every inner condition holds."""

    inner: ClassVar[str] = "all"

    all_: tuple[Any, ...] = Field(alias="all", min_length=1, description="Every one of these conditions.")

    @property
    def parts(self) -> tuple[Condition, ...]:
        """See _Several."""
        return self.all_

    def holds(self, context: ConditionContext) -> bool:
        """See Condition."""
        return all(part.holds(context) for part in self.parts)

    def describe(self, context: ConditionContext) -> str:
        """See Condition; names only the failing conditions, if any fail."""
        failing = [part for part in self.parts if not part.holds(context)]
        return " and ".join(part.describe(context) for part in failing or self.parts)


class AnyOf(_Several):
    """Holds when at least one inner condition holds."""

    inner: ClassVar[str] = "any"

    any_: tuple[Any, ...] = Field(alias="any", min_length=1, description="At least one of these conditions.")

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
    """Holds when the inner condition does not."""

    inner: ClassVar[str] = "not"

    not_: Any = Field(alias="not", description="The opposite of this condition.")

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
