"""times, within: a trigger that fires once it has been satisfied several times in a short time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from pydantic import Field, model_validator

from mqttjobs.domain.durations import describe_duration
from mqttjobs.domain.fields import PositiveDuration
from mqttjobs.domain.triggers.base import Trigger, TriggerKey, Waiting


class Times(TriggerKey):
    """Counts the changes that satisfy the trigger, and fires at the last of `times` that lie within `within`.

    The times of the counted changes are remembered. Changes that do not satisfy the trigger may come between them.
    """

    name: ClassVar[str] = "times"
    position: ClassVar[int] = 75

    times: int = Field(
        ge=2,
        le=100,
        description="The trigger fires when changes have satisfied it this often `within` a time; then it counts anew. "
        "`duration`, `debounce` and `periodicity` cannot stand beside it.",
    )
    within: PositiveDuration = Field(
        description="The longest time from the first to the last of the changes that `times` counts."
    )

    @model_validator(mode="before")
    @classmethod
    def _both(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            if value.get("within") is None:
                raise ValueError("times needs within: say in what time")
            if value.get("times") is None:
                raise ValueError("within needs times: say how often")
        return value

    def counted(self, remembered: Any, at: datetime) -> tuple[datetime, ...] | None:
        """See TriggerKey."""
        times = (*self._recent(remembered, at), at)
        return times if len(times) < self.times else None

    def matters(self, remembered: Any, at: datetime) -> bool:
        """See TriggerKey."""
        return bool(self._recent(remembered, at))

    def _recent(self, remembered: Any, at: datetime) -> tuple[datetime, ...]:
        """Return the counted changes that are within reach; one far in the future was before the clock was set back."""
        return tuple(each for each in remembered or () if abs(at - each) <= self.within)

    def describe_addition(self) -> str:
        """See TriggerKey."""
        return f", {self.times} times within {describe_duration(self.within)}"

    def waiting(self, remembered: Any, now: datetime) -> Waiting | None:
        """See TriggerKey; the first of the counted changes is forgotten at the end."""
        recent = self._recent(remembered, now)
        if not recent:
            return None
        count = f"{len(recent)} of {self.times} within {describe_duration(self.within)}"
        return Waiting(f"{count}, {self.times - len(recent)} more to come", recent[0] + self.within)

    def conflict(self, trigger: Trigger) -> str | None:
        """See TriggerKey."""
        for name in ("duration", "debounce", "periodicity"):
            if name in trigger.written():
                return f"times counts changes at the moment they come: {name} cannot stand beside it"
        return None
