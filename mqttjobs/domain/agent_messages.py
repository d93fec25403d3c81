"""What the service and its agents say to each other: status, assign, report and control (contract 6)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from mqttjobs.domain.durations import parse_duration
from mqttjobs.domain.model import Json
from mqttjobs.domain.names import NAME
from mqttjobs.domain.protocol import decode_json, from_milliseconds
from mqttjobs.domain.signatures import check_signature
from mqttjobs.errors import MOST_INVALID_FIELDS, InvalidJson, ReportError

MAX_PAYLOAD = 64 * 1024
SKEW = timedelta(seconds=30)
"""How far an agent's clock may be from ours: a live message that is older, or from the future, is stale."""

M = TypeVar("M", bound="AgentMessage")


class Readiness(StrEnum):
    """Whether an agent takes jobs: draining finishes what runs, cordoned runs nothing more."""

    READY = "ready"
    DRAINING = "draining"
    CORDONED = "cordoned"
    OFFLINE = "offline"


def _moment(value: Any) -> Any:
    """Accept milliseconds since 1970 and ISO 8601."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return from_milliseconds(value)
    if isinstance(value, str):
        at = datetime.fromisoformat(value)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    raise ValueError("must be milliseconds since 1970, or ISO 8601")


def _duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str | int | float) else value


def _text(value: Any) -> Any:
    return "" if value is None else value


Moment = Annotated[datetime, BeforeValidator(_moment)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
Token = Annotated[str, Field(min_length=8, max_length=128)]


class AgentMessage(BaseModel):
    """A signed message; `hostname` says which agent it is from or for, so that no other's can be passed off as it.

    Keys that are not known are let through: an agent may be of another version than its service.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, hide_input_in_errors=True)

    hostname: Name | None = None


class StatusMessage(AgentMessage):
    """The retained status of an agent; `connection` names the connection whose end a last will reports."""

    state: Annotated[Readiness, BeforeValidator(lambda value: Readiness(value) if isinstance(value, str) else value)]
    labels: Annotated[dict[Name, Word], Field(max_length=100)] = {}
    version: Annotated[str, Field(max_length=64)] = ""
    max_jobs: Annotated[int, Field(ge=1, le=10_000)] = 1
    running: Annotated[int, Field(ge=0)] = 0
    facts: dict[str, JsonValue] = {}
    timestamp: Moment
    connection: Annotated[str, Field(max_length=64)] = ""


class AssignMessage(AgentMessage):
    """One attempt of one job for one agent.

    `operation` is the definition, its `${…}` kept: they stand for the agent's own environment and files. `inputs` and
    `hidden` are the variables, as in RunContext. `lease` is given where the job goes to another agent when nothing
    is heard of this one for so long. `max_payload` is what the service takes as a report.
    """

    job_id: Annotated[str, Field(min_length=1, max_length=64)]
    attempt: Annotated[int, Field(ge=1)]
    token: Token
    operation: dict[str, JsonValue]
    params: dict[str, JsonValue] = {}
    timeout: Duration
    expires_at: Moment
    operation_id: str | None = None
    inputs: dict[str, JsonValue] = {}
    hidden: dict[str, str] = {}
    events: list[str] = []
    depth: int = 0
    root_id: str = ""
    grace: Duration = timedelta(seconds=5)
    delivery: Literal["at_least_once", "at_most_once"] | None = None
    lease: Duration | None = None
    max_payload: Annotated[int, Field(ge=1024)] = MAX_PAYLOAD


class ReportMessage(AgentMessage):
    """What became of an assignment.

    `data` is the result, or where there is none what the type describes of a run: `{exitCode, stdout}`. Beside it the
    rest of an outcome. `given_back`: it was not started, and will not be. `again`: it may have been said before.
    """

    job_id: Annotated[str, Field(min_length=1, max_length=64)]
    attempt: Annotated[int, Field(ge=1)]
    token: Token
    event: Literal["acknowledged", "started", "progress", "completed", "failed"]
    timestamp: Moment
    data: JsonValue = None
    error: Text = ""
    changed: bool | None = None
    message: Text = ""
    description: dict[str, JsonValue] | None = None
    exit_code: int | None = None
    stderr: Text = ""
    user_error: bool = False
    repeatable: bool = True
    given_back: bool = False
    again: bool = False


class ControlMessage(AgentMessage):
    """An order: stop a job, take nothing new, or take jobs again."""

    command: Literal["stop", "drain", "undrain"]
    expires_at: Moment
    job_id: str | None = None


def open_message(model: type[M], payload: bytes, key: str, hostname: str, max_payload: int) -> tuple[M, str]:
    """Return a message that passed every check that needs no memory, and its signature.

    Args:
        model: what it should be.
        payload: as it came.
        key: the shared secret.
        hostname: the agent whose topic it came on.
        max_payload: in bytes.

    Raises:
        ReportError: too_large, invalid_json, unsigned, forged or invalid_message.
    """
    if len(payload) > max_payload:
        raise ReportError(f"the message has {len(payload)} bytes, more than {max_payload}", reason="too_large")
    try:
        body = decode_json(payload)
    except InvalidJson as error:
        raise ReportError(error.details, reason="invalid_json") from None
    if not isinstance(body, dict):
        raise ReportError("an agent message is a JSON object", reason="invalid_message")
    check_signature(body, key)
    message = _parsed(model, body)
    if message.hostname not in (None, hostname):
        raise ReportError("the message belongs to another agent", reason="forged")
    return message, str(body["signature"])


def _parsed(model: type[M], body: Mapping[str, Json]) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        names = dict.fromkeys(
            str(each["loc"][0])[:64] if each["loc"] else "message" for each in error.errors(include_url=False)
        )
        raise ReportError(
            f"wrong fields: {', '.join(list(names)[:MOST_INVALID_FIELDS])}", reason="invalid_message"
        ) from None
