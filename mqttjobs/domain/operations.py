"""Operations: what can be run, and when it runs by itself. A key is declared here once, with what it means."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mqttjobs.domain.agents import parse_target
from mqttjobs.domain.breaker import BreakerRule
from mqttjobs.domain.fields import (
    AsWritten,
    Duration,
    Made,
    OneOrMany,
    PositiveDuration,
    Record,
    States,
    Written,
    exactly_one,
    key_names,
)
from mqttjobs.domain.model import Delivery, Json, Mode
from mqttjobs.domain.names import NAME
from mqttjobs.domain.params import check_schema
from mqttjobs.domain.schedules import Schedule
from mqttjobs.domain.starting import SELF, Condition
from mqttjobs.domain.triggers.base import Trigger


class Attach(Record):
    """One place that an operation is attached to: exactly one of object, link and class."""

    model_config = ConfigDict(json_schema_extra=exactly_one("object", "link", "class"))

    object: str | None = Field(default=None, description="The id of an object.")
    link: str | None = Field(default=None, description="The id of a link.")
    class_id: str | None = Field(default=None, alias="class", description="The id of a class: each of its members.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(each is not None for each in (self.object, self.link, self.class_id)) != 1:
            raise ValueError("must name exactly one object, link or class; use a list for several")
        return self


class Retry(Record):
    """Automatic attempts inside one job: the n-th wait is first * factor**(n-1), at most `max`."""

    attempts: int = Field(default=1, ge=1, le=1000, description="How often the job is attempted in all.")
    first: Duration = Field(default=timedelta(seconds=1), description="The wait after the first failed attempt.")
    factor: float = Field(default=2.0, ge=1, le=100, description="How much longer each further wait is.")
    max: Duration = Field(default=timedelta(minutes=5), description="The longest wait between two attempts.")

    def delay(self, failed_attempts: int) -> timedelta:
        """Return the wait after that many failed attempts (from 1)."""
        try:
            wait = self.first * self.factor ** (failed_attempts - 1)
        except OverflowError:
            return self.max
        return min(wait, self.max)


class Rollout(Record):
    """How a job reaches many agents: in waves.

    The next wave begins when all jobs of the last have ended and `interval` has passed since its begin. No wave begins
    once `abort_failures` agents have failed.
    """

    batch: int = Field(ge=1, description="How many agents a wave has.")
    interval: Duration = Field(
        default=timedelta(0), description="The shortest time from the begin of one wave to that of the next."
    )
    abort_failures: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="After this many failed agents no further wave begins; without it all do."
    )


class Preference(Record):
    """One setting that programs are given as `MQTTJOBS_PREF_<KEY>`."""

    key: Annotated[str, Field(pattern=f"^{NAME}$"), AsWritten()] = Field(description="The name of the setting.")
    value: Any = Field(default=None, description="Its value: any JSON.")
    description: str = Field(default="", description="What it means, for people.")


class Confirm(Record):
    """What a device must report, and within what time, for a published command to count as done."""

    entity: str = Field(
        default=SELF,
        description="The object or link that reports: an id, `self`, or on a link `source` or `target`.",
    )
    attribute: str | None = Field(default=None, description="The attribute to look at; without it the state.")
    states: States = Field(description="The device must report one of these.")
    within: PositiveDuration = Field(description="How long the service waits for the report.")


def _target(value: str) -> str:
    parse_target(value)
    return value


def _of_many(value: Rollout | None, info: ValidationInfo) -> Rollout | None:
    target = info.data.get("target")
    if value is not None and target is not None and not parse_target(target).broadcast:
        raise ValueError("needs a target of many agents: _all, or label:value")
    return value


def _version(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


def _schema(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is not None:
        check_schema(value)
    return value


class OperationKeys(Record):
    """The keys that all types of operation share.

    `triggers` and `conditions` are read on their own, see config.triggers and config.conditions.
    """

    type: str = Field(description="What the operation does; each type has keys of its own.")
    attach: Annotated[tuple[Attach, ...], Field(strict=False), OneOrMany((Mapping,))] = Field(
        default=(),
        description="`{object: o}`, `{link: l}`, `{class: c}`, or a list of these: whose changes start the operation, "
        "and what its variables are about.",
    )
    name: Annotated[str, AsWritten()] = Field(default="", description="The name for people; without it the id.")
    description: Annotated[str, AsWritten()] = Field(default="", description="What the operation is for, for people.")
    triggers: Annotated[tuple[Any, ...], Field(strict=False)] = Field(
        default=(), description="Any of these triggers starts the operation."
    )
    schedule: Schedule | None = Field(
        default=None, description="Cron text of five fields in `service.time_zone`, or `{every: 10m}`."
    )
    catch_up: bool = Field(
        default=True, description="A schedule that was missed while the service was down runs once at start."
    )
    params: Annotated[dict[str, Any] | None, AfterValidator(_schema), AsWritten()] = Field(
        default=None,
        description="A JSON Schema (draft 2020-12) for the `params` of a run; its defaults are filled in. "
        "Without it any params are accepted.",
    )
    timeout: PositiveDuration | None = Field(
        default=None, description="The time limit of one attempt; without it `service.timeout`."
    )
    retry: Retry = Field(
        default=Retry(), description="Automatic attempts inside the job; without it there is one attempt."
    )
    mode: Annotated[Mode, Field(strict=False)] = Field(
        default=Mode.PARALLEL,
        description="What a second job of the same operation and owner does: `parallel` (it runs too), `single` (it is "
        "skipped), `queued` (it waits for its turn), `restart` (the running one is stopped).",
    )
    max: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="How many jobs of the same operation and owner run at once; without it any number. When `queued`, "
        "how many wait; without it 10.",
    )
    priority: int = Field(
        default=0, ge=-1_000_000, le=1_000_000, description="Jobs with the higher number run first where slots are few."
    )
    active: bool = Field(
        default=True,
        description="Whether the operation may run; the requests `operations/activate` and `operations/deactivate` win "
        "over the file.",
    )
    event_driven: bool = Field(default=True, description="`false` keeps state changes from starting the operation.")
    run_as: str | None = Field(
        default=None,
        description="The user whose id the jobs have; without it the user whose request or report started the job, or "
        "`service.system_user`.",
    )
    environment: Annotated[str | None, AsWritten()] = Field(
        default=None, description="The environment that the document of the operation shows."
    )
    version: Annotated[
        str | None, BeforeValidator(_version), Written({"type": ["string", "number", "boolean", "null"]}), AsWritten()
    ] = Field(default=None, description="The version that the document shows; without it a hash of the operation.")
    preferences: Annotated[tuple[Preference, ...], Field(strict=False), AsWritten()] = Field(
        default=(),
        description="Settings `{key, value, description}` that programs are given as `MQTTJOBS_PREF_<KEY>`.",
    )
    delivery: Annotated[Delivery, Field(strict=False)] | None = Field(
        default=None,
        description="What happens to a job that a crash interrupted: `at_least_once` (it runs again), `at_most_once` "
        "(it fails with `interrupted`). Without it the type decides: `mqtt` is `at_least_once`, `program` and `script` "
        "are `at_most_once`.",
    )
    target: Annotated[str, AfterValidator(_target)] = Field(
        default="_local",
        description="Where the operation runs: `_local` (the service itself), `_any` (one ready agent), `_all` (each "
        "ready agent), a hostname, or `label:value`.",
    )
    rollout: Annotated[Rollout | None, AfterValidator(_of_many)] = Field(
        default=None, description="How a job reaches many agents: in waves; without it all at once."
    )
    conditions: Any = Field(
        default=None, description="What must hold when a trigger fires or the schedule is due; never for a run by hand."
    )
    on_failure: str | None = Field(
        default=None,
        description="The operation that runs when a job of this one has failed, with the params `job_id`, `error`, "
        "`operation_id` and `owner_id`.",
    )
    confirm: Confirm | None = Field(
        default=None,
        description="Only for the type `mqtt`: a publish is done only when the device then reports one of `states`. If "
        "the report does not come in time, the attempt has failed, and `retry` publishes again.",
    )
    breaker: BreakerRule | Literal["off"] = Field(
        default=BreakerRule(),
        description="More firings than this pause the operation for one object or link. `off`: no limit.",
    )
    allow_loop: bool = Field(
        default=False,
        description="A publish that triggers its own operation is an error at `check`, unless this is `true`.",
    )
    record_skipped: bool = Field(
        default=False,
        description="Matches that did not run are recorded as `skipped` jobs too; they are always counted by reason.",
    )

    @field_validator("breaker", mode="before")
    @classmethod
    def _breaker_branch(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return BreakerRule.model_validate(value)
        if value != "off" and not isinstance(value, BreakerRule):
            raise ValueError("must be off, or a mapping with firings, within and pause")
        return value


class ShortTriggers(Record):
    """The short form of a trigger that has states and nothing else."""

    trigger_states: States = Field(
        default=(),
        validation_alias=AliasChoices("trigger_states", "triggerStates"),
        description="Short for one more trigger, `triggers: [{states: […]}]`.",
    )


SHORT_KEYS = key_names(ShortTriggers)
COMMON_KEYS = frozenset({*key_names(OperationKeys), *SHORT_KEYS})
"""The keys that operations of every type have, in every spelling; no type has a key of such a name."""


class Operation(OperationKeys):
    """What can be run, and when it runs by itself.

    `definition` is the operation as it was written, expanded and with its `${…}` kept: it is what documents
    show, what a job keeps, and what a job is run from. `fingerprint` is a hash of it. `uses_slot` says whether its jobs
    count as running programs. `inputs` are the variables that its templates name, or None when it is given all of them.
    """

    id: str
    definition: Annotated[Mapping[str, Json], Made()]
    fingerprint: str
    triggers: Annotated[tuple[Trigger, ...], Made()] = ()
    conditions: Annotated[Condition | None, Made()] = None
    delivery: Delivery = Delivery.AT_MOST_ONCE
    uses_slot: bool = True
    inputs: frozenset[str] | None = None

    @cached_property
    def trigger_ids(self) -> tuple[str, ...]:
        """A name for each trigger that stays the same while the operation's definition does."""
        return tuple(f"{self.id}/{self.fingerprint[:12]}/{n}" for n in range(len(self.triggers)))
