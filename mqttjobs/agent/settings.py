"""The settings of an agent: the options of its command line."""

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
"""The agent and the broker notice a dead connection well within a lease; the broker then publishes the will."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The settings of one agent.

    Attributes:
        key: the secret shared with the service, `agents.key`.
        state_dir: the directory of the journal; each agent needs its own.
        max_jobs: the most programs and scripts at once.
        program_dirs: where programs may be; empty allows any absolute path.
        max_payload: the most bytes of a message that the agent reads.
    """

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

    def topic(self, name: str) -> str:
        """Return the topic `<base>/agents/<hostname>/<name>` (contract 6)."""
        return agent_topic(self.base_topic, self.hostname, name)
