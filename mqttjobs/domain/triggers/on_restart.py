"""on_restart: what a start of the service does to a pending trigger."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import ClassVar

from pydantic import Field

from mqttjobs.domain.automaton import kept, released, remembering
from mqttjobs.domain.starting import OnRestart
from mqttjobs.domain.triggers.base import Trigger, TriggerKey, TriggerState


class Restart(TriggerKey):
    """Resumes, restarts or drops what was pending when the service ended; a count begins anew by the last two."""

    name: ClassVar[str] = "on_restart"
    position: ClassVar[int] = 94
    of_changes: ClassVar[bool] = False

    on_restart: OnRestart = Field(
        default=OnRestart.RESUME,
        strict=False,
        description="What a restart of the service does to what is pending, such as a duration: `resume` (the deadline "
        "stays), `restart` (it begins anew), `drop` (it is forgotten).",
    )

    def after_restart(self, trigger: Trigger, state: TriggerState, now: datetime) -> TriggerState | None:
        """See TriggerKey."""
        if self.on_restart is OnRestart.RESUME:
            return state
        counts = [key for key in trigger.counting if key.name in state.memory]
        for key in counts:
            state = remembering(state, key, None)
        if state.since_at is None or state.fired_at is not None:
            return kept(trigger, state, now) if counts else state
        if self.on_restart is OnRestart.DROP:
            return kept(trigger, released(trigger, state), now)
        for key in trigger.marking:
            if key.name in state.memory:
                state = remembering(state, key, key.begun(now))
        return replace(state, since_at=now)
