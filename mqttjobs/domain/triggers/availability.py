"""availability: watch whether the device is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field

from mqttjobs.domain.model import AVAILABILITY
from mqttjobs.domain.triggers.base import Trigger, TriggerKey


class Availability(TriggerKey):
    """Watches the availability of the entity in place of its state."""

    name: ClassVar[str] = "availability"
    position: ClassVar[int] = 15

    availability: Literal["online", "offline"] = Field(
        description="The availability to wait for; it is watched instead of the state. Goes with `duration`."
    )

    def watched_value(self) -> str:
        """See TriggerKey."""
        return AVAILABILITY

    def states_waited_for(self) -> tuple[str, ...]:
        """See TriggerKey."""
        return (self.availability,)

    def lasting(self, trigger: Trigger) -> Callable[[str], bool]:
        """See TriggerKey."""
        del trigger
        return self.availability.__eq__

    def describe(self) -> str:
        """See TriggerKey."""
        return f"becomes {self.availability}"

    def describe_watched(self, entity_id: str) -> str:
        """See TriggerKey."""
        return f"the availability of {entity_id}"

    def conflict(self, trigger: Trigger) -> str | None:
        """See TriggerKey."""
        for name in ("states", "not_states", "above", "below", "attribute"):
            if name in trigger.written():
                return f"availability is watched instead of the state: {name} cannot stand beside it"
        return None
