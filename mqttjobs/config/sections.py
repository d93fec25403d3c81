"""The shapes of the sections mqtt, store, service and users (contract 2), with their defaults."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from mqttjobs.domain.durations import parse_duration, parse_size
from mqttjobs.domain.names import ID, NAME
from mqttjobs.domain.topics import check_filter, check_topic
from mqttjobs.transport.base import MAXIMUM_PACKET_SIZE

PERMISSIONS = (
    "admin", "job:read", "job:write", "operation:read", "operation:execute", "operation:manage", "agent:read",
    "agent:write", "config:write",
)  # fmt: skip


def _duration(value: Any) -> Any:
    if value is None or isinstance(value, timedelta):
        return value
    if isinstance(value, str | int | float):
        return parse_duration(value)
    raise ValueError("a duration is a number of seconds, or 500ms, 10s, 5m, 2h, 30d")


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be more than nothing")
    return value


def _size(value: Any) -> Any:
    if isinstance(value, str | int):
        return parse_size(value)
    raise ValueError("a size is a number of bytes, or 64KiB, 1MiB")


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Size = Annotated[int, BeforeValidator(_size)]
Id = Annotated[str, Field(pattern=f"^{ID}$")]


def positive(value: timedelta | None) -> timedelta | None:
    """Refuse a duration of nothing."""
    return None if value is None else _positive(value)


class Section(BaseModel):
    """A mapping in which an unknown key is an error, and no type is bent to fit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class TlsSection(Section):
    """mqtt.tls."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure: bool = False


class MqttSection(Section):
    """mqtt: how to reach the broker."""

    url: str = "mqtt://127.0.0.1:1883"
    username: str | None = None
    password: str | None = None
    client_id: Annotated[str, Field(min_length=1, max_length=200)] = "mqttjobs"
    session_expiry: Duration = timedelta(days=1)
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    base_topic: str = "mqttjobs"
    tls: TlsSection = TlsSection()
    reply_topics: list[str] = []
    trust_user_lanes: bool = False

    @field_validator("protocol", mode="before")
    @classmethod
    def _protocol_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("base_topic")
    @classmethod
    def _plain(cls, value: str) -> str:
        check_topic(value)
        if value.startswith(("$", "/")) or value.endswith("/"):
            raise ValueError("must be a plain topic such as mqttjobs or home/jobs")
        return value

    @field_validator("reply_topics")
    @classmethod
    def _filters(cls, value: list[str]) -> list[str]:
        for each in value:
            check_filter(each)
        return value


class RetentionSection(Section):
    """store.retention."""

    completed: Duration = timedelta(days=30)
    failed: Duration = timedelta(days=180)
    max_jobs: Annotated[int, Field(ge=1)] = 1_000_000
    history: Duration = timedelta(days=30)
    history_per_value: Annotated[int, Field(ge=1)] = 1000


class StoreSection(Section):
    """store: where the records are."""

    url: str = "sqlite:///mqttjobs.db"
    retention: RetentionSection = RetentionSection()


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


class ServiceSection(Section):
    """service: limits and habits."""

    hostname: Annotated[str, Field(pattern=f"^{NAME}$")] | None = None
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 32
    poll_window: Duration = timedelta(seconds=2)
    timeout: Duration = timedelta(seconds=60)
    grace: Duration = timedelta(seconds=5)
    system_user: Id = "system"
    program_dirs: list[str] = []
    inline_operations: list[str] = ["mqtt"]
    event_qos: Literal[0, 1] = 0
    max_payload: Annotated[Size, Field(le=MAXIMUM_PACKET_SIZE)] = 64 * 1024
    max_objects: Annotated[int, Field(ge=1)] = 100_000
    time_zone: str | None = None
    latitude: Annotated[float, Field(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Field(ge=-180, le=180)] | None = None

    @field_validator("timeout")
    @classmethod
    def _some_time(cls, value: timedelta) -> timedelta:
        return _positive(value)

    @model_validator(mode="after")
    def _whole_location(self) -> ServiceSection:
        if (self.latitude is None) != (self.longitude is None):
            raise ValueError("a place needs both, service.latitude and service.longitude")
        return self

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None and not is_time_zone(value):
            raise ValueError("is no time zone; write it like Europe/Berlin")
        return value

    @property
    def host(self) -> str:
        """The configured name, or this host's."""
        return self.hostname or socket.gethostname() or "localhost"


class AgentsSection(Section):
    """agents: the secret that the service shares with them."""

    key: Annotated[str, Field(min_length=1)] | None = None


class UserSection(Section):
    """users.<name>."""

    api_key: Annotated[str, Field(min_length=16)] | None = None
    permissions: list[str] = []
    objects: list[str] | None = None
    links: list[str] | None = None
    display_name: str | None = None
    email: str | None = None
    role: str | None = None
