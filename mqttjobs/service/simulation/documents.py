"""The steps of a simulation as they are written, and their results as documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from mqttjobs.domain.documents import entity_field
from mqttjobs.domain.durations import parse_duration
from mqttjobs.domain.installation import Installation
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import AVAILABILITY, STATE, EntityKey, EntityKind, Json, ValueKey
from mqttjobs.domain.protocol import encode, iso, scalar_text
from mqttjobs.errors import InvalidRequest
from mqttjobs.service.simulation.simulation import (
    Advance,
    Receive,
    SetValue,
    SimulatedWait,
    Simulation,
    Step,
    StepResult,
)

MOST_STEPS = 1000


class StepModel(BaseModel):
    """One step: a report, a message, or time; with `after`, time passes after the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    report: str | None = None
    object: str | None = None
    link: str | None = None
    attribute: str | None = None
    state: str | int | float | bool | None = None
    topic: Annotated[str | None, Field(min_length=1)] = None
    payload: JsonValue = ""
    retained: bool = False
    after: str | int | float | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"report": value} if isinstance(value, str) else value


Sees = Callable[[EntityKey], bool]
"""Whether the caller may see an entity; an entity out of scope does not exist for the caller."""


def everything(key: EntityKey) -> bool:
    """See Sees: for who may see everything."""
    del key
    return True


def read_steps(installation: Installation, written: Sequence[Json], sees: Sees = everything) -> list[Step]:
    """Return the steps of a written list.

    Raises:
        InvalidRequest: with the number of the wrong step, and what is wrong.
    """
    if len(written) > MOST_STEPS:
        raise _wrong(f"at most {MOST_STEPS} steps")
    steps: list[Step] = []
    for number, each in enumerate(written, 1):
        try:
            steps += _steps(installation, StepModel.model_validate(each), sees)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:64]
            raise _wrong(f"step {number}: {where or 'it'}: {first['msg']}") from None
        except ValueError as error:
            raise _wrong(f"step {number}: {error}") from None
    return steps


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest(f"wrong reports: {message}", {"reports": [message]})


def _steps(installation: Installation, written: StepModel, sees: Sees) -> list[Step]:
    steps: list[Step] = []
    if written.report is not None:
        name, equals, text = written.report.partition("=")
        if not equals:
            raise ValueError("a report is written OBJECT=STATE, or OBJECT.ATTRIBUTE=VALUE")
        entity, _, attribute = name.partition(".")
        steps.append(SetValue(_value_key(installation, entity, attribute, None, sees), text))
    named = written.object or written.link
    if named is not None:
        text_of = scalar_text(written.state)
        if text_of is None:
            raise ValueError("say with state what is reported")
        kind = EntityKind.OBJECT if written.object is not None else EntityKind.LINK
        steps.append(SetValue(_value_key(installation, named, written.attribute or "", kind, sees), text_of))
    if written.topic is not None:
        payload = written.payload if isinstance(written.payload, str) else encode(written.payload).decode()
        steps.append(Receive(written.topic, payload.encode(), written.retained))
    if written.after is not None:
        steps.append(Advance(parse_duration(written.after)))
    if not steps:
        raise ValueError("give a report, a topic with its payload, or after")
    return steps


def _value_key(installation: Installation, name: str, attribute: str, kind: EntityKind | None, sees: Sees) -> ValueKey:
    """Return the named value; an id of both an object and a link is the object's."""
    kinds = list(EntityKind) if kind is None else [kind]
    keys = [EntityKey(each, name) for each in kinds]
    found = next((each for each in keys if each in installation.entities and sees(each)), None)
    if found is None:
        raise ValueError(f"there is no {' or '.join(kinds)} {name[:64]!r}")
    key = ValueKey(found.kind, found.id, attribute or STATE)
    if installation.source_of(key) is not None or not attribute:
        return key
    if attribute == "availability":
        key = ValueKey(found.kind, found.id, AVAILABILITY)
        if installation.source_of(key) is not None:
            return key
    raise ValueError(f"{found.kind.value} {name} has no attribute {attribute[:64]!r}")


async def play(simulation: Simulation, steps: Sequence[Step], sees: Sees = everything) -> list[Json]:
    """Take the steps and return the document of each."""
    return [
        {
            "step": _step(step),
            "seen": [document(simulation, step_result, sees) for step_result in await simulation.play(step)],
        }
        for step in steps
    ]


def document(simulation: Simulation, step_result: StepResult, sees: Sees = everything) -> dict[str, Json]:
    """Return the document of one step, or of one moment while time passed."""
    return {
        "at": iso(step_result.at),
        "result": None if step_result.report_result is None else step_result.report_result.value,
        "values": [
            {
                **_value_fields(value.key),
                "state": value.text,
                "previous_state": value.previous,
            }
            for value in step_result.values
            if sees(value.key.entity)
        ],
        "waiting": [_wait(wait) for wait in step_result.waits if sees(wait.owner)],
        "given_up": [
            {"operation_id": name, **entity_field(owner)} for name, owner in step_result.dropped if sees(owner)
        ],
        "runs": [_run(simulation, job) for job in step_result.jobs if job.owner is None or sees(job.owner)],
        "not_run": [
            {"operation_id": name, "at": iso(skipped_match.at), **skipped_match.document()}
            for name, skipped_match in step_result.skipped_matches
            if skipped_match.owner is None or sees(skipped_match.owner)
        ],
        "refused": step_result.rejected,
    }


def _value_fields(key: ValueKey) -> dict[str, Json]:
    attribute = "availability" if key.name == AVAILABILITY else key.attribute
    return {**entity_field(key.entity), "attribute": attribute}


def _wait(wait: SimulatedWait) -> dict[str, Json]:
    described = {} if wait.description is None else {"waiting_for": wait.description}
    until = None if wait.until is None else iso(wait.until)
    return {"operation_id": wait.operation_id, **entity_field(wait.owner), **described, "until": until}


def _step(step: Step) -> dict[str, Json]:
    if isinstance(step, SetValue):
        return {**_value_fields(step.key), "state": step.text}
    if isinstance(step, Receive):
        return {"topic": step.topic, "payload": step.payload.decode(), "retained": step.retained}
    return {"after": step.time.total_seconds()}


def _run(simulation: Simulation, job: Job) -> dict[str, Json]:
    operation_id = str(job.operation_id)
    trigger_index = None if job.trigger is None else int(job.trigger.rsplit("/", 1)[1])
    return {
        "operation_id": operation_id,
        **entity_field(job.owner),
        "at": iso(job.created_at),
        "trigger": trigger_index,
        "type": job.operation.get("type"),
        "target": job.target,
        "rendered": simulation.rendered(job),
    }
