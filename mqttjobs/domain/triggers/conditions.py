"""conditions: tests that are made at the moment when a trigger fires."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mqttjobs.domain.starting import Condition
from mqttjobs.domain.triggers.base import TriggerKey


class Conditions(TriggerKey):
    """Skips matches of this trigger while a condition does not hold."""

    name: ClassVar[str] = "conditions"
    position: ClassVar[int] = 93
    of_changes: ClassVar[bool] = False
    holds_conditions: ClassVar[bool] = True

    conditions: Any = Field(description="What must hold for this trigger alone.")

    def condition(self) -> Condition:
        """See TriggerKey."""
        found: Condition = self.conditions
        return found
