"""What the service is told: everything of a configuration that is not the installation itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol

from mqttjobs.domain.agents import Timing
from mqttjobs.domain.installation import Installation
from mqttjobs.domain.model import Json, Operation
from mqttjobs.domain.templates import Reveal, secret_reference
from mqttjobs.errors import Problem
from mqttjobs.store.base import Retention
from mqttjobs.transport.base import ConnectOptions


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The `service` section (contract 2), every default filled in."""

    hostname: str = "localhost"
    concurrency: int = 32
    poll_window: timedelta = timedelta(seconds=2)
    timeout: timedelta = timedelta(seconds=60)
    grace: timedelta = timedelta(seconds=5)
    system_user: str = "system"
    program_dirs: tuple[str, ...] = ()
    inline_operations: tuple[str, ...] = ("mqtt",)
    event_qos: int = 0
    max_payload: int = 64 * 1024
    max_objects: int = 100_000
    time_zone: str = "UTC"
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class AgentsSettings:
    """The `agents` section (contract 2), and how long agents are waited for (contract 6)."""

    key: str | None = field(default=None, repr=False)
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True)
class Settings:
    """One whole configuration, ready to run.

    `reveal` gives the text behind `ENV:NAME` or `FILE:path`. `config_dir` is where relative references start. `build`
    makes operations of definitions; without it only configured operations run. `warnings` are what whoever wrote it
    should know.
    """

    installation: Installation = field(default_factory=Installation)
    connect: ConnectOptions = ConnectOptions()
    base_topic: str = "mqttjobs"
    reply_topics: tuple[str, ...] = ()
    trust_user_lanes: bool = False
    store_url: str = "memory:"
    retention: Retention = Retention()
    service: ServiceSettings = ServiceSettings()
    agents: AgentsSettings = AgentsSettings()
    reveal: Reveal = secret_reference
    build: BuildOperation | None = None
    config_dir: str = "."
    warnings: tuple[Problem, ...] = ()

    def with_members(self, members: Iterable[tuple[str, str]]) -> Settings:
        """Return settings in which the members (class, id) that are known by their reports are there."""
        if not self.installation.membership:
            return self
        installation = self.installation.copy()
        for class_id, member in sorted(members):
            installation.register(class_id, member)
        return replace(self, installation=installation)


class BuildOperation(Protocol):
    """Makes an operation of a definition that was recorded or sent in."""

    def __call__(self, definition: Mapping[str, Json], *, configured: bool = False) -> Operation:
        """Return the operation.

        Args:
            definition: as it was written, its `${…}` kept.
            configured: it was in the configuration once, so that its `${…}` may be looked up.

        Raises:
            ConfigError: with every problem.
        """


LoadSettings = Callable[[], Settings]
"""Reads the configuration anew; raises ConfigError with every problem."""
