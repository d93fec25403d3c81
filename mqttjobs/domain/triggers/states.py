"""states, not_states: which new states satisfy a trigger."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from pydantic import Field

from mqttjobs.domain.fields import States as StateTexts
from mqttjobs.domain.triggers.base import Trigger, TriggerKey


class States(TriggerKey):
    """The states that satisfy the trigger."""

    name: ClassVar[str] = "states"
    position: ClassVar[int] = 10

    states: StateTexts = Field(description="The new state is one of these.")

    def states_waited_for(self) -> tuple[str, ...]:
        """See TriggerKey."""
        return self.states

    def lasting(self, trigger: Trigger) -> Callable[[str], bool]:
        """See TriggerKey."""
        del trigger
        return frozenset(self.states).__contains__

    def describe(self) -> str:
        """See TriggerKey."""
        return f"becomes {' or '.join(self.states)}"


class NotStates(TriggerKey):
    """The states that do not satisfy the trigger."""

    name: ClassVar[str] = "not_states"
    position: ClassVar[int] = 30

    not_states: StateTexts = Field(description="The new state is none of these.")

    def lasting(self, trigger: Trigger) -> Callable[[str], bool]:
        """See TriggerKey."""
        del trigger
        excluded = frozenset(self.not_states)
        return lambda text: text not in excluded

    def describe(self) -> str:
        """See TriggerKey."""
        return f"becomes anything but {' or '.join(sorted(set(self.not_states)))}"
