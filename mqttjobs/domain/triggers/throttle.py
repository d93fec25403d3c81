"""throttle: a trigger that starts its operation at most once in some time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar

from pydantic import Field

from mqttjobs.domain.durations import describe_duration
from mqttjobs.domain.fields import PositiveDuration
from mqttjobs.domain.jobs import duration_text
from mqttjobs.domain.starting import SkipReason
from mqttjobs.domain.triggers.base import TriggerKey, Waiting


class Throttle(TriggerKey):
    """Skips matches that come too soon after the last start of the operation, which is remembered."""

    name: ClassVar[str] = "throttle"
    position: ClassVar[int] = 90
    of_changes: ClassVar[bool] = False

    throttle: PositiveDuration = Field(description="The trigger starts the operation at most once in this time.")

    def ran(self, at: datetime) -> datetime:
        """See TriggerKey."""
        return at

    def skip_reason(self, remembered: Any, at: datetime) -> SkipReason | None:
        """See TriggerKey; a start in the future, before the wall clock was set back, skips nothing."""
        if remembered is None or not timedelta(0) <= at - remembered < self.throttle:
            return None
        return SkipReason("throttled", f"it ran less than {duration_text(self.throttle)} before")

    def matters(self, remembered: Any, at: datetime) -> bool:
        """See TriggerKey."""
        return bool(at - remembered < self.throttle)

    def describe_addition(self) -> str:
        """See TriggerKey."""
        return f", at most once in {describe_duration(self.throttle)}"

    def waiting(self, remembered: Any, now: datetime) -> Waiting | None:
        """See TriggerKey."""
        if remembered is None or remembered + self.throttle <= now:
            return None
        description = f"that {describe_duration(self.throttle)} have passed since it ran, and then a change"
        return Waiting(description, remembered + self.throttle)
