"""entity: watch another entity than the one that the operation runs for."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mqttjobs.domain.triggers.base import TriggerKey


class OtherEntity(TriggerKey):
    """Watches another object or link; the operation still runs for the one that it is attached to."""

    name: ClassVar[str] = "entity"
    position: ClassVar[int] = 56
    of_changes: ClassVar[bool] = False

    entity: str = Field(
        description="The object or link to watch; on a link also `source` or `target`. Without it what the operation "
        "is attached to.",
    )

    def watched_entity(self) -> str:
        """See TriggerKey."""
        return self.entity
