"""The settings of the service: the sections of a configuration beside the installation."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from mqttjobs.domain.agents import Timing
from mqttjobs.domain.durations import SIZE
from mqttjobs.domain.fields import (
    Duration,
    FilePath,
    FilePaths,
    Id,
    OrElse,
    PositiveDuration,
    Record,
    Size,
    Texts,
    Written,
    all_or_none,
    as_schema,
    number_as_text,
)
from mqttjobs.domain.installation import Installation
from mqttjobs.domain.model import Json
from mqttjobs.domain.names import NAME
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.templates import Reveal, secret_reference
from mqttjobs.domain.topics import check_filter, check_topic
from mqttjobs.errors import Problem
from mqttjobs.store.base import Retention
from mqttjobs.transport.base import MAXIMUM_PACKET_SIZE, ConnectOptions, Tls


class TlsSettings(Record):
    """The section mqtt.tls: TLS of mqtts and wss. Relative paths start at the folder of the configuration."""

    ca_file: FilePath | None = Field(
        default=None, description="The certificates of who may have signed the broker's; without it the system's."
    )
    cert_file: FilePath | None = Field(
        default=None, description="The certificate of the service, if the broker asks for one."
    )
    key_file: FilePath | None = Field(default=None, description="The private key of `cert_file`.")
    insecure: bool = Field(
        default=False, description="`true` accepts any certificate of the broker; only for trying things out."
    )


def _filter(value: str) -> str:
    check_filter(value)
    return value


def _texts_of(check: Callable[[str], str]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    return lambda texts: tuple(check(each) for each in texts)


class MqttSettings(Record):
    """The section mqtt: how to reach the broker, and where the service is found on it."""

    url: str = Field(
        default="mqtt://127.0.0.1:1883",
        description="The broker. The schemes are `mqtt`, `mqtts`, `ws`, `wss`, and those of plugins; `user:password@` "
        "is allowed.",
    )
    username: str | None = Field(default=None, description="The user's name at the broker.")
    password: str | None = Field(default=None, repr=False, description="The user's password at the broker.")
    client_id: str = Field(
        default="mqttjobs",
        min_length=1,
        max_length=200,
        description="The MQTT client id. It is fixed, so that the broker keeps the session; nothing else may use it.",
    )
    session_expiry: Duration = Field(
        default=timedelta(days=1),
        description="How long the broker keeps messages while the service is away (MQTT 5; with 3.1.1 the broker "
        "decides).",
    )
    protocol: Annotated[
        Literal["auto", "5", "3.1.1"], BeforeValidator(number_as_text), Written({"enum": ["auto", "5", "3.1.1", 5]})
    ] = Field(
        default="auto",
        description="The version of MQTT: `5`, `3.1.1`, or `auto`: 5, and 3.1.1 with a broker that does not speak 5.",
    )
    base_topic: str = Field(
        default="mqttjobs", description="The topic under which requests, responses, events and agents are."
    )
    tls: TlsSettings = Field(default=TlsSettings(), description="TLS of `mqtts` and `wss`.")
    reply_topics: Annotated[Texts, AfterValidator(_texts_of(_filter))] = Field(
        default=(),
        description="Further filters; a Response Topic or `reply_to` must match one of them or be under "
        "`<base>/response/`.",
    )
    trust_user_lanes: bool = Field(
        default=False,
        description="`true` lets a request in `<base>/users/<user>/…` speak for that user without a key: only with a "
        "broker that lets each user publish in their own lane alone.",
    )

    @field_validator("base_topic")
    @classmethod
    def _plain(cls, value: str) -> str:
        check_topic(value)
        if value.startswith(("$", "/")) or value.endswith("/"):
            raise ValueError("must be a plain topic such as mqttjobs or home/jobs")
        return value


class StoreSettings(Record):
    """The section store: where the records are, and how long they are kept."""

    url: str = Field(
        default="sqlite:///mqttjobs.db",
        description="A file beside the configuration, such as `sqlite:///mqttjobs.db`; `sqlite:////var/lib/…` is "
        "absolute; `memory:` keeps nothing; plugins add schemes.",
    )
    retention: Retention = Field(default=Retention(), description="How long jobs and state changes are kept.")


def host_name() -> str:
    """Return this host's name."""
    return socket.gethostname() or "localhost"


def host_time_zone() -> str:
    """Return the name of this host's time zone: what TZ says, else /etc/localtime, else UTC."""
    linked = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    for name in (os.environ.get("TZ", "").removeprefix(":"), linked):
        if is_time_zone(name):
            return name
    return "UTC"


def is_time_zone(name: str) -> bool:
    """Whether there is a time zone of that name."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


def _time_zone(value: str) -> str:
    if not is_time_zone(value):
        raise ValueError("is no time zone; write it like Europe/Berlin")
    return value


class ServiceSettings(Record):
    """The section service: its name, its limits, and where it is."""

    model_config = ConfigDict(json_schema_extra=all_or_none("latitude", "longitude"))

    hostname: Annotated[str, Field(pattern=f"^{NAME}$"), OrElse(host_name)] = Field(
        default_factory=host_name,
        description="What stands in jobs as the host that ran them; without it this host's name.",
    )
    concurrency: int = Field(
        default=32, ge=1, le=10_000, description="How many programs and scripts run at once; publishing does not count."
    )
    poll_window: Duration = Field(
        default=timedelta(seconds=2),
        description="How long `jobs/send` with `poll_result` waits for the end of the job.",
    )
    timeout: PositiveDuration = Field(
        default=timedelta(seconds=60), description="The time limit of an attempt whose operation has none."
    )
    grace: Duration = Field(
        default=timedelta(seconds=5), description="How long a program has between SIGTERM and SIGKILL."
    )
    system_user: Id = Field(default="system", description="The `user_id` of a job that no user started.")
    program_dirs: FilePaths = Field(
        default=(),
        description="The folders in which programs may be; empty means anywhere, by an absolute path.",
    )
    inline_operations: Texts = Field(
        default=("mqtt",), description="The operation types that a request `jobs/create` may carry."
    )
    event_qos: Literal[0, 1] = Field(default=0, description="The QoS of job events.")
    max_payload: Annotated[
        Size,
        Field(le=MAXIMUM_PACKET_SIZE),
        as_schema("size", {"type": "integer", "minimum": 1, "maximum": MAXIMUM_PACKET_SIZE}, SIZE),
    ] = Field(default=64 * 1024, description="The largest report or request, at most 1MiB.")
    max_objects: int = Field(
        default=100_000, ge=1, description="How many objects there may be, the members of classes included."
    )
    time_zone: Annotated[str, AfterValidator(_time_zone), OrElse(host_time_zone)] = Field(
        default_factory=host_time_zone,
        description="The time zone of schedules and time conditions, such as `Europe/Berlin`; without it this host's.",
    )
    latitude: Annotated[float, Field(ge=-90, le=90)] | None = Field(
        default=None,
        description="Where the sun rises and sets, in degrees north. Without `latitude` and `longitude` the sun rises "
        "at about 06:00 and sets at about 18:00 by winter time, and `check` warns.",
    )
    longitude: Annotated[float, Field(ge=-180, le=180)] | None = Field(
        default=None, description="Where the sun rises and sets, in degrees east."
    )

    @model_validator(mode="after")
    def _whole_location(self) -> Self:
        if (self.latitude is None) != (self.longitude is None):
            raise ValueError("a place needs both, service.latitude and service.longitude")
        return self


class AgentsSettings(Record):
    """The section agents: the secret that the service shares with them."""

    key: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        repr=False,
        description="The secret that all agents share; without it only the target `_local` exists.",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """One whole configuration, ready to run.

    `timing` is how long agents are waited for (contract 6). `reveal` gives the text behind `ENV:NAME` or `FILE:path`.
    `config_dir` is where relative references start. `build` makes operations of definitions; without it only configured
    operations run. `warnings` are what whoever wrote it should know.
    """

    installation: Installation = field(default_factory=Installation)
    mqtt: MqttSettings = MqttSettings()
    store: StoreSettings = StoreSettings(url="memory:")
    service: ServiceSettings = field(default_factory=ServiceSettings)
    agents: AgentsSettings = AgentsSettings()
    timing: Timing = Timing()
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

    @property
    def base_topic(self) -> str:
        """The topic under which requests, responses, events and agents are."""
        return self.mqtt.base_topic

    @property
    def connect(self) -> ConnectOptions:
        """How to reach the broker."""
        mqtt = self.mqtt

        def here(name: str | None) -> str | None:
            return None if name is None else str(Path(self.config_dir) / name)

        return ConnectOptions(
            url=mqtt.url,
            client_id=mqtt.client_id,
            username=mqtt.username,
            password=mqtt.password,
            protocol=mqtt.protocol,
            session_expiry=mqtt.session_expiry,
            tls=Tls(here(mqtt.tls.ca_file), here(mqtt.tls.cert_file), here(mqtt.tls.key_file), mqtt.tls.insecure),
        )


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
