"""Records to rows and back: the shapes that schema/ describes, without any database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson

from mqttjobs.domain.agent_messages import Readiness
from mqttjobs.domain.agents import Agent
from mqttjobs.domain.assignments import Assignment, Stage
from mqttjobs.domain.jobs import CustomResult, Job, OperationState, Phase
from mqttjobs.domain.model import EntityKey, EntityKind, Json, Value, ValueKey
from mqttjobs.domain.protocol import encode, from_milliseconds, milliseconds
from mqttjobs.domain.status import EventKind, JobEvent, Status
from mqttjobs.domain.triggers.base import TriggerState
from mqttjobs.store.base import HistoryEntry

Row = Sequence[Any]

JOB_COLUMNS = (
    "uid, id, status, phase, takes_slot, run_limit, target, priority, operation_id, fingerprint, owner_kind, owner_id,"
    " user_id, created_ms, due_ms, executed_ms, last_ms, attempts, detail, timeline, results"
)
_DETAILS = {
    **{
        name: name
        for name in (
            "params", "events", "inputs", "process_meta", "parent_id", "root_id", "retry_of", "depth",
            "invalid_fields", "expected", "trigger",
        )
    },
    "hidden": "secret_templates",
}  # fmt: skip
"""The fields of a job that are stored as one JSON object: stored name -> attribute."""


def ms(at: datetime | None) -> int | None:
    """Return a time as it is stored."""
    return None if at is None else milliseconds(at)


def time(stored: int | None) -> datetime | None:
    """Return a stored time."""
    return None if stored is None else from_milliseconds(stored)


def text(value: Json) -> str:
    """Return JSON as it is stored."""
    return encode(value).decode()


def job_row(job: Job) -> Row:
    """Return a job as a row in the order of JOB_COLUMNS."""
    last = max((event.at for event in job.timeline), default=job.created_at)
    owner = job.owner
    return (
        job.uid,
        job.id,
        job.status.value,
        int(job.phase),
        int(job.uses_slot),
        job.max_running,
        job.target,
        job.priority,
        job.operation_id,
        job.fingerprint,
        None if owner is None else owner.kind.value,
        None if owner is None else owner.id,
        job.user_id,
        milliseconds(job.created_at),
        ms(job.due_at),
        ms(job.executed_at),
        milliseconds(last),
        job.attempts,
        text(
            {
                stored: value
                for stored, name in _DETAILS.items()
                if (value := getattr(job, name)) not in (None, (), 0) and value != {}
            }
        ),
        event_lines(job.timeline),
        "".join(result_line(result) for result in job.results),
    )


def job_of(row: Row, definition: Mapping[str, Json]) -> Job:
    """Return the job of a row and its definition."""
    detail = orjson.loads(row[18])
    for name in ("events", "expected"):
        if name in detail:
            detail[name] = tuple(detail[name])
    detail = {_DETAILS[stored]: value for stored, value in detail.items()}
    return Job(
        uid=row[0],
        id=row[1],
        status=Status(row[2]),
        phase=Phase(row[3]),
        uses_slot=bool(row[4]),
        max_running=row[5],
        target=row[6],
        priority=row[7],
        operation_id=row[8],
        fingerprint=row[9],
        owner=None if row[10] is None else EntityKey(EntityKind(row[10]), row[11]),
        user_id=row[12],
        created_at=from_milliseconds(row[13]),
        due_at=time(row[14]),
        executed_at=time(row[15]),
        attempts=row[17],
        operation=definition,
        timeline=tuple(map(_event_of, row[19].split("\n")[:-1])),
        results=tuple(map(_result_of, row[20].split("\n")[:-1])),
        **detail,
    )


def event_lines(events: Sequence[JobEvent]) -> str:
    """Return events as lines to append to a timeline."""
    return "".join(
        text([milliseconds(each.at), each.kind.value, each.hostname, each.message, each.error, each.report]) + "\n"
        for each in events
    )


def _event_of(line: str) -> JobEvent:
    at, kind, hostname, message, error, report = orjson.loads(line)
    return JobEvent(from_milliseconds(at), EventKind(kind), hostname, message, error, report)


def result_line(result: CustomResult) -> str:
    """Return a custom result as a line to append."""
    return text([milliseconds(result.at), result.by, result.payload]) + "\n"


def _result_of(line: str) -> CustomResult:
    at, by, payload = orjson.loads(line)
    return CustomResult(payload, by, from_milliseconds(at))


VALUE_COLUMNS = "kind, id, name, text, previous, since_ms, heard_ms, reported_ms, payload"


def value_row(value: Value) -> Row:
    """Return a value as a row in the order of VALUE_COLUMNS."""
    times = (ms(value.since_at), ms(value.heard_at), ms(value.reported_at))
    return (*value.key, value.text, value.previous, *times, text(value.payload))


def value_of(row: Row) -> Value:
    """Return the value of a row."""
    key = ValueKey(EntityKind(row[0]), row[1], row[2])
    return Value(
        key,
        text=row[3],
        previous=row[4],
        since_at=from_milliseconds(row[5]),
        heard_at=time(row[6]),
        payload=orjson.loads(row[8]),
        reported_at=time(row[7]),
    )


HISTORY_COLUMNS = "at_ms, state, previous, reported_ms, reported_by, reason"
"""What stands in a row of the history beside the key of its value."""


def history_row(entry: HistoryEntry) -> Row:
    """Return a change as a row: `kind, id, name`, then HISTORY_COLUMNS."""
    reported_ms = ms(entry.reported_at)
    return (*entry.key, ms(entry.at), entry.state, entry.previous, reported_ms, entry.reported_by, entry.reason)


def history_of(row: Row, key: ValueKey) -> HistoryEntry:
    """Return the change of a row in the order of HISTORY_COLUMNS."""
    return HistoryEntry(
        key,
        at=from_milliseconds(row[0]),
        state=row[1],
        previous=row[2],
        reported_by=row[4],
        reason=row[5],
        reported_at=time(row[3]),
    )


TRIGGER_STATE_COLUMNS = "name, kind, id, since_ms, fired_ms, meta, memory"
_TIME = "@ms"
"""The one key of an object that stands for a time in what a trigger key remembers."""


def trigger_state_row(trigger_state: TriggerState) -> Row:
    """Return a trigger state as a row in the order of TRIGGER_STATE_COLUMNS."""
    return (
        trigger_state.name,
        trigger_state.entity.kind.value,
        trigger_state.entity.id,
        ms(trigger_state.since_at),
        ms(trigger_state.fired_at),
        text(trigger_state.meta),
        text(_packed(trigger_state.memory)),
    )


def trigger_state_of(row: Row) -> TriggerState:
    """Return the trigger state of a row."""
    return TriggerState(
        name=row[0],
        entity=EntityKey(EntityKind(row[1]), row[2]),
        since_at=time(row[3]),
        fired_at=time(row[4]),
        meta=orjson.loads(row[5]),
        memory=_unpacked(orjson.loads(row[6])),
    )


def _packed(remembered: Any) -> Json:
    """Return what a trigger key remembers as JSON: a time is `{"@ms": milliseconds}`."""
    if isinstance(remembered, datetime):
        return {_TIME: milliseconds(remembered)}
    if isinstance(remembered, Mapping):
        return {name: _packed(each) for name, each in remembered.items()}
    return [_packed(each) for each in remembered] if isinstance(remembered, tuple | list) else remembered


def _unpacked(stored: Json) -> Any:
    if isinstance(stored, dict):
        if stored.keys() == {_TIME}:
            return from_milliseconds(stored[_TIME])
        return {name: _unpacked(each) for name, each in stored.items()}
    return tuple(_unpacked(each) for each in stored) if isinstance(stored, list) else stored


_TIMES = ("created_at", "updated_at", "first_run_at", "triggered_at", "due_at", "completed_at", "ended_at")


def operation_state_row(operation_state: OperationState) -> Row:
    """Return what is remembered of an operation as a row."""
    fields = {name: getattr(operation_state, name) for name in operation_state.__slots__}
    return (operation_state.id, text({name: ms(each) if name in _TIMES else each for name, each in fields.items()}))


def operation_state_of(row: Row) -> OperationState:
    """Return what is remembered of an operation."""
    fields: dict[str, Any] = orjson.loads(row[1])
    for name in _TIMES:
        fields[name] = time(fields[name])
    return OperationState(**fields)


ASSIGNMENT_COLUMNS = (
    "uid, hostname, attempt, stage, token, planned_ms, assigned_ms, answer_ms, deadline_ms, told_ms, detail"
)


def assignment_row(row: Assignment) -> Row:
    """Return an assignment as a row in the order of ASSIGNMENT_COLUMNS."""
    detail = {
        "limit": row.limit // timedelta(milliseconds=1),
        "wave": row.wave,
        "priority": row.priority,
        "takes_slot": row.uses_slot,
        "movable": row.movable,
        "movable_once_run": row.movable_once_run,
        "taken": row.taken,
        "superseded": row.superseded,
        "reminded": row.reminded,
    }
    times = (row.planned_at, row.assigned_at, row.answer_by, row.deadline_at, row.progress_at)
    return (*row.key, int(row.stage), row.token, *map(ms, times), text(detail))


def assignment_of(row: Row) -> Assignment:
    """Return the assignment of a row."""
    detail = orjson.loads(row[10])
    return Assignment(
        uid=row[0],
        hostname=row[1],
        attempt=row[2],
        stage=Stage(row[3]),
        token=row[4],
        planned_at=from_milliseconds(row[5]),
        assigned_at=time(row[6]),
        answer_by=time(row[7]),
        deadline_at=time(row[8]),
        progress_at=time(row[9]),
        limit=timedelta(milliseconds=detail.pop("limit")),
        taken=frozenset(map(EventKind, detail.pop("taken"))),
        uses_slot=detail.pop("takes_slot"),
        **detail,
    )


_AGENT_TIMES = ("status_at", "heard_at")
_STORED_NAMES = {"status_at": "told_at"}
"""Fields of an agent that are stored under another name."""


def agent_row(agent: Agent) -> Row:
    """Return what is known of an agent as a row."""
    fields = {name: getattr(agent, name) for name in agent.__slots__}
    stored = {
        _STORED_NAMES.get(name, name): ms(each) if name in _AGENT_TIMES else each for name, each in fields.items()
    }
    return (agent.hostname, text(stored))


def agent_of(row: Row) -> Agent:
    """Return what is known of an agent."""
    fields: dict[str, Any] = orjson.loads(row[1])
    for name in _AGENT_TIMES:
        fields[name] = time(fields.pop(_STORED_NAMES.get(name, name)))
    return Agent(**{**fields, "state": Readiness(fields["state"])})
