"""Operations: the keys that all types share, the type's own, and the operation that is made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Literal

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BeforeValidator, Field, field_validator, model_validator

from mqttjobs.config.conditions import read_conditions
from mqttjobs.config.explain import did_you_mean, validate
from mqttjobs.config.schemas import check_references
from mqttjobs.config.sections import Duration, Section, positive
from mqttjobs.config.targets import RolloutOfMany, TargetText
from mqttjobs.config.triggers import States, TriggerSection
from mqttjobs.config.yaml12 import Document, KeyPath
from mqttjobs.domain.model import (
    Attach,
    Delivery,
    Json,
    Mode,
    Operation,
    Preference,
    Retry,
    Schedule,
)
from mqttjobs.domain.names import NAME
from mqttjobs.domain.schedules import check_cron
from mqttjobs.domain.starting import SELF, BreakerRule, Condition, Confirm
from mqttjobs.executors.base import Executor, Limits, executor_types


class AttachSection(Section):
    """One place: an object, a link or a class."""

    object: str | None = None
    link: str | None = None
    class_id: str | None = Field(default=None, alias="class")

    @model_validator(mode="after")
    def _exactly_one(self) -> AttachSection:
        if sum(each is not None for each in (self.object, self.link, self.class_id)) != 1:
            raise ValueError("must name exactly one object, link or class; use a list for several")
        return self


class RetrySection(Section):
    """Automatic attempts."""

    attempts: Annotated[int, Field(ge=1, le=1000)] = 1
    first: Duration = timedelta(seconds=1)
    factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    max: Duration = timedelta(minutes=5)


class PreferenceSection(Section):
    """One setting handed to programs."""

    key: Annotated[str, Field(pattern=f"^{NAME}$")]
    value: Any = None
    description: str = ""


class ConfirmSection(Section):
    """What the device must report after a publish, for the job to be done."""

    entity: str = SELF
    attribute: str | None = None
    states: States
    within: Duration

    @field_validator("within")
    @classmethod
    def _some_time(cls, value: timedelta) -> timedelta | None:
        return positive(value)


class BreakerSection(Section):
    """How many firings within what time pause an operation for one entity, and for how long."""

    firings: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    within: Duration = timedelta(seconds=10)
    pause: Duration = timedelta(seconds=60)

    @field_validator("within", "pause")
    @classmethod
    def _some_time(cls, value: timedelta) -> timedelta | None:
        return positive(value)


class ScheduleSection(Section):
    """A fixed interval."""

    every: Duration

    @field_validator("every")
    @classmethod
    def _some_time(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise ValueError("must be at least a second")
        return value


class OperationSection(Section):
    """The keys that all types share."""

    attach: list[AttachSection] = Field(default_factory=list)
    name: str = ""
    description: str = ""
    type: str
    params: dict[str, Any] | None = None
    timeout: Duration | None = None
    retry: RetrySection = RetrySection()
    mode: Literal["parallel", "single", "queued", "restart"] = "parallel"
    max: Annotated[int, Field(ge=1)] | None = None
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    active: bool = True
    schedule: str | ScheduleSection | None = None
    catch_up: bool = True
    event_driven: bool = True
    run_as: str | None = None
    environment: str | None = None
    version: (
        Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)] | None
    ) = None
    preferences: list[PreferenceSection] = Field(default_factory=list)
    delivery: Literal["at_least_once", "at_most_once"] | None = None
    target: TargetText = "_local"
    rollout: RolloutOfMany = None
    triggers: list[TriggerSection] = Field(default_factory=list)
    conditions: Any = None
    on_failure: str | None = None
    confirm: ConfirmSection | None = None
    breaker: BreakerSection | Literal["off"] = BreakerSection()
    allow_loop: bool = False
    record_skipped: bool = False

    @field_validator("attach", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, Mapping) else value

    @field_validator("timeout")
    @classmethod
    def _some_time(cls, value: timedelta | None) -> timedelta | None:
        return positive(value)

    @field_validator("params")
    @classmethod
    def _schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            try:
                Draft202012Validator.check_schema(value)
            except SchemaError as error:
                where = ".".join(str(part) for part in error.absolute_path)
                raise ValueError(f"is no JSON Schema{f' at {where}' if where else ''}") from None
            check_references(value)
        return value

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | ScheduleSection | None) -> str | ScheduleSection | None:
        if isinstance(value, str):
            check_cron(value)
        return value

    @field_validator("schedule", mode="before")
    @classmethod
    def _one_branch(cls, value: Any) -> Any:
        return ScheduleSection.model_validate(value) if isinstance(value, Mapping) else value

    @field_validator("breaker", mode="before")
    @classmethod
    def _breaker_branch(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return BreakerSection.model_validate(value)
        if value != "off" and not isinstance(value, BreakerSection):
            raise ValueError("must be off, or a mapping with firings, within and pause")
        return value


KEPT_AS_WRITTEN = frozenset({"name", "description", "environment", "version", "preferences", "params"})
"""What documents show of an operation, with its `${…}`."""

COMMON = frozenset(OperationSection.model_fields) | {"trigger_states", "triggerStates"}


def read_operation(
    operation_id: str, written: Json, document: Document, key_path: KeyPath, limits: Limits, reveal: Any
) -> Operation | None:
    """Return the operation of what is written, or None with every problem noted.

    Args:
        operation_id: its id; empty for one that was sent in.
        written: the mapping, `${…}` kept.
        document: takes the problems.
        key_path: where it stands.
        limits: what the installation allows.
        reveal: returns a value with its `${…}` replaced, for the keys that all types share.
    """
    if not isinstance(written, dict):
        document.wrong(key_path, "must be a mapping")
        return None
    normal = _normal(written, document, key_path)
    own = {key: value for key, value in normal.items() if key not in COMMON}
    common = {key: value for key, value in normal.items() if key in COMMON}
    revealed = {key: value if key in KEPT_AS_WRITTEN else reveal(value) for key, value in common.items()}
    section = validate(OperationSection, revealed, document, key_path)
    kinds = executor_types()
    kind = kinds.get(str(written.get("type")))
    if kind is None and isinstance(written.get("type"), str):
        message = f"must be one of {', '.join(sorted(kinds))}{did_you_mean(written['type'], kinds)}"
        document.wrong((*key_path, "type"), message)
    executor = _read_executor(kind, own, document, key_path, limits) if kind is not None else None
    if section is None or kind is None or executor is None:
        return None
    if section.confirm is not None and kind.kind != "mqtt":
        document.wrong((*key_path, "confirm"), "belongs to operations of the type mqtt")
        return None
    operation = _operation(operation_id, section, executor, normal)
    conditions = _conditions(section.conditions, document, key_path)
    triggers = tuple(
        each.trigger(_conditions(each.conditions, document, (*key_path, "triggers", number)))
        for number, each in enumerate(section.triggers)
    )
    return replace(operation, conditions=conditions, triggers=triggers)


def _conditions(written: Json, document: Document, key_path: KeyPath) -> Condition | None:
    return None if written is None else read_conditions(written, document, (*key_path, "conditions"))


def _normal(written: Mapping[str, Json], document: Document, key_path: KeyPath) -> dict[str, Json]:
    """Return the mapping with `trigger_states` as the trigger it is short for, and `attach` as a list."""
    normal = dict(written)
    for short in ("trigger_states", "triggerStates"):
        if short not in normal:
            continue
        states = normal.pop(short)
        existing = normal.setdefault("triggers", [])
        if not isinstance(states, list | str | int | float) or states in ([], ""):
            document.wrong((*key_path, short), "must be a list of states")
        elif isinstance(existing, list):
            normal["triggers"] = [*existing, {"states": states}]
            _is_short_for(document, key_path, short, len(existing))
    if isinstance(normal.get("attach"), Mapping):
        normal["attach"] = [normal["attach"]]
        document.moved[(*key_path, "attach", 0)] = (*key_path, "attach")
    return normal


def _is_short_for(document: Document, key_path: KeyPath, short: str, number: int) -> None:
    """Remember that what is wrong with a trigger is told where its short form is written."""
    triggers: KeyPath = (*key_path, "triggers")
    made = [(*triggers, number), (*triggers, number, "states")]
    if document.written(triggers) is None:
        made.append(triggers)
    document.moved |= dict.fromkeys(made, (*key_path, short))


def _read_executor(
    kind: type[Executor], own: Mapping[str, Json], document: Document, key_path: KeyPath, limits: Limits
) -> Executor | None:
    unknown = [key for key in own if key not in kind.model_fields]
    for key in unknown:
        message = f"unknown key{did_you_mean(key, [*kind.model_fields, *COMMON])}"
        document.wrong((*key_path, key), message)
    executor = validate(kind, {key: value for key, value in own.items() if key not in unknown}, document, key_path)
    if executor is None:
        return None
    problems = executor.problems(limits)
    for key, message in problems.items():
        document.wrong((*key_path, key), message)
    return None if problems or unknown else executor


def _operation(
    operation_id: str, section: OperationSection, executor: Executor, normal: Mapping[str, Json]
) -> Operation:
    kind = type(executor)
    fingerprint = hashlib.sha256(orjson.dumps(normal, option=orjson.OPT_SORT_KEYS)).hexdigest()
    retry = section.retry
    return Operation(
        id=operation_id,
        type=section.type,
        definition=normal,
        fingerprint=fingerprint,
        attach=tuple(Attach(each.object, each.link, each.class_id) for each in section.attach),
        name=section.name or operation_id,
        description=section.description,
        params=section.params,
        timeout=section.timeout,
        retry=Retry(retry.attempts, retry.first, retry.factor, retry.max),
        mode=Mode(section.mode),
        max=section.max,
        priority=section.priority,
        active=section.active,
        schedule=_schedule(section.schedule, normal.get("schedule")),
        catch_up=section.catch_up,
        event_driven=section.event_driven,
        run_as=section.run_as,
        environment=section.environment,
        version=section.version,
        preferences=tuple(Preference(each.key, each.value, each.description) for each in section.preferences),
        target=section.target,
        rollout=section.rollout.rollout() if section.rollout else None,
        delivery=Delivery(section.delivery) if section.delivery else kind.delivery,
        uses_slot=kind.uses_slot,
        on_failure=section.on_failure,
        confirm=_confirm(section.confirm),
        breaker=_breaker(section.breaker),
        allow_loop=section.allow_loop,
        record_skipped=section.record_skipped,
        inputs=executor.inputs(),
    )


def _confirm(section: ConfirmSection | None) -> Confirm | None:
    if section is None:
        return None
    return Confirm(section.entity, section.attribute, frozenset(section.states), section.within)


def _breaker(section: BreakerSection | str) -> BreakerRule | None:
    if isinstance(section, str):
        return None
    return BreakerRule(section.firings, section.within, section.pause)


def _schedule(section: str | ScheduleSection | None, written: Json) -> Schedule | None:
    if section is None:
        return None
    if isinstance(section, str):
        return Schedule(cron=section, text=written)
    return Schedule(every=section.every, text=written)
