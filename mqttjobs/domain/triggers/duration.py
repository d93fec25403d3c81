"""duration: a trigger that must stay satisfied for some time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from pydantic import AliasChoices, Field

from mqttjobs.domain.durations import describe_duration
from mqttjobs.domain.fields import PositiveDuration
from mqttjobs.domain.triggers.base import TriggerKey


class Duration(TriggerKey):
    """Fires once the trigger has been satisfied this long without a break."""

    name: ClassVar[str] = "duration"
    position: ClassVar[int] = 60
    needs_lasting_value: ClassVar[bool] = True
    keeps_clock: ClassVar[bool] = True

    duration: PositiveDuration = Field(
        validation_alias=AliasChoices("duration", "for"),
        description="The trigger must stay satisfied this long; another state that also satisfies it does not begin "
        "anew.",
    )

    def due(self, since_at: datetime, remembered: Any) -> datetime:
        """See TriggerKey."""
        del remembered
        return since_at + self.duration

    def describe_addition(self) -> str:
        """See TriggerKey."""
        return f" and stays so for {describe_duration(self.duration)}"
