"""What an agent is told when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from mqttjobs.domain.agent_messages import MAX_PAYLOAD
from mqttjobs.domain.agents import Timing
from mqttjobs.domain.model import EMPTY
from mqttjobs.domain.service_topics import agent_topic
from mqttjobs.transport.base import ConnectOptions

KEEPALIVE = timedelta(seconds=10)
"""A dead connection is noticed well within a lease, by us and by the broker, who then tells our last will."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """One agent. `state_dir` holds what it must not forget; `program_dirs` empty lets programs be anywhere absolute."""

    hostname: str
    key: str = field(repr=False)
    state_dir: Path
    connect: ConnectOptions = ConnectOptions()
    base_topic: str = "mqttjobs"
    labels: Mapping[str, str] = EMPTY
    max_jobs: int = 8
    program_dirs: tuple[str, ...] = ()
    max_payload: int = MAX_PAYLOAD
    timing: Timing = Timing()

    def topic(self, what: str) -> str:
        """Return one of the agent's own topics."""
        return agent_topic(self.base_topic, self.hostname, what)
