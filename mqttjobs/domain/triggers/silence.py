"""silence: a trigger that fires when nothing is heard from an entity."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from pydantic import Field

from mqttjobs.domain.durations import describe_duration
from mqttjobs.domain.fields import PositiveDuration
from mqttjobs.domain.triggers.base import SilenceKind


class Silence(SilenceKind):
    """Fires once for each silence; with `periodicity` again and again while it lasts."""

    name: ClassVar[str] = "silence"
    position: ClassVar[int] = 91

    silence: PositiveDuration = Field(
        description="The trigger fires when nothing was heard from the entity for this long, counted from its last "
        "live report or from our connection."
    )

    def due_unheard(self, heard_at: datetime) -> datetime:
        """See SilenceKind."""
        return heard_at + self.silence

    def describe(self) -> str:
        """See TriggerKey."""
        return f"is not heard for {describe_duration(self.silence)}"

    def describe_watched(self, entity_id: str) -> str:
        """See TriggerKey."""
        return f"whether {entity_id} is heard"
