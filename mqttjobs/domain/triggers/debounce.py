"""debounce: a trigger that fires once things have been quiet."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from pydantic import Field

from mqttjobs.domain.durations import describe_duration
from mqttjobs.domain.fields import PositiveDuration
from mqttjobs.domain.triggers.base import TriggerKey


class Debounce(TriggerKey):
    """Fires once no change has satisfied the trigger for this long. The last such change is remembered."""

    name: ClassVar[str] = "debounce"
    position: ClassVar[int] = 70

    debounce: PositiveDuration = Field(description="The trigger fires once there was no further change for this long.")

    def begun(self, at: datetime) -> datetime:
        """See TriggerKey."""
        return at

    def due(self, since_at: datetime, remembered: Any) -> datetime | None:
        """See TriggerKey."""
        del since_at
        return None if remembered is None else remembered + self.debounce

    def describe_addition(self) -> str:
        """See TriggerKey."""
        return f", once it has been quiet for {describe_duration(self.debounce)}"
