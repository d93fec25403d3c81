"""enabled: a trigger that is switched off."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mqttjobs.domain.triggers.base import TriggerKey


class Enabled(TriggerKey):
    """Switches the trigger off."""

    name: ClassVar[str] = "enabled"
    position: ClassVar[int] = 95
    of_changes: ClassVar[bool] = False

    enabled: bool = Field(default=True, description="`false` switches the trigger off.")

    def is_enabled(self) -> bool:
        """See TriggerKey."""
        return self.enabled
