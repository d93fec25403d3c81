"""periodicity: a trigger that fires again and again."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pydantic import Field

from mqttjobs.domain.durations import describe_duration
from mqttjobs.domain.fields import PositiveDuration
from mqttjobs.domain.triggers.base import TriggerKey


class Periodicity(TriggerKey):
    """Fires again while the trigger stays satisfied, or while a silence lasts."""

    name: ClassVar[str] = "periodicity"
    position: ClassVar[int] = 80
    of_changes: ClassVar[bool] = False
    needs_lasting_value: ClassVar[bool] = True

    periodicity: PositiveDuration = Field(
        description="While the trigger stays satisfied, it fires again at this interval."
    )

    def repeat_interval(self) -> timedelta:
        """See TriggerKey."""
        return self.periodicity

    def describe_addition(self) -> str:
        """See TriggerKey."""
        return f", and again every {describe_duration(self.periodicity)}"
