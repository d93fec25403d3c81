"""attribute: watch an attribute in place of the state."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mqttjobs.domain.triggers.base import TriggerKey


class Attribute(TriggerKey):
    """Watches an attribute of the entity."""

    name: ClassVar[str] = "attribute"
    position: ClassVar[int] = 55

    attribute: str = Field(description="The attribute to watch; without it the state.")

    def watched_value(self) -> str:
        """See TriggerKey."""
        return self.attribute

    def describe_watched(self, entity_id: str) -> str:
        """See TriggerKey."""
        return f"the {self.attribute or 'state'} of {entity_id}"
