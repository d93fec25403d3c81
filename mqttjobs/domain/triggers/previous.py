"""from, not_from: which previous states satisfy a trigger."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from pydantic import Field

from mqttjobs.domain.fields import States
from mqttjobs.domain.model import Change
from mqttjobs.domain.triggers.base import Trigger, TriggerKey


class From(TriggerKey):
    """The states that a change must come from.

    Where a trigger lasts and no key says in which states, it lasts until it is back in one of these.
    """

    name: ClassVar[str] = "from"
    position: ClassVar[int] = 40

    from_: States = Field(alias="from", description="The previous state is one of these.")

    def beginning(self, trigger: Trigger) -> Callable[[Change], bool]:
        """See TriggerKey."""
        del trigger
        states = frozenset(self.from_)
        return lambda change: change.previous in states

    def lasting(self, trigger: Trigger) -> Callable[[str], bool] | None:
        """See TriggerKey."""
        if not trigger.is_timed or trigger.states_waited_for is not None or trigger.level is not None:
            return None
        states = frozenset(self.from_)
        return lambda text: text not in states

    def describe(self) -> str:
        """See TriggerKey."""
        return f"was {' or '.join(sorted(set(self.from_)))} before"


class NotFrom(TriggerKey):
    """The states that a change must not come from."""

    name: ClassVar[str] = "not_from"
    position: ClassVar[int] = 50

    not_from: States = Field(description="The previous state is none of these.")

    def beginning(self, trigger: Trigger) -> Callable[[Change], bool]:
        """See TriggerKey."""
        del trigger
        states = frozenset(self.not_from)
        return lambda change: change.previous not in states

    def describe(self) -> str:
        """See TriggerKey."""
        return f"was not {' or '.join(sorted(set(self.not_from)))} before"
