"""The job and send documents: what anyone outside sees of a job (contract 5)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from mqttjobs.domain.jobs import Job, duration_text
from mqttjobs.domain.model import EntityKey, EntityKind, Json
from mqttjobs.domain.protocol import encode, iso, milliseconds
from mqttjobs.domain.status import (
    TERMINAL_STATUSES,
    AgentState,
    EventKind,
    JobEvent,
    Status,
    agent_states,
    chronological,
)

EVENT_OUTPUT_BYTES = 4096
"""Output in a published event is cut here; jobs/get has all of it."""


def entity_field(key: EntityKey | None) -> dict[str, str]:
    """Return an entity as a field of documents: `{"object": id}` or `{"link": id}`; none where there is no entity."""
    return {} if key is None else {key.kind.value: key.id}


def owner_type(owner: EntityKey | None) -> str | None:
    """Return the wire's word for an owner's kind (seeds 000: 1 is an object, 2 is a link)."""
    if owner is None:
        return None
    return "1" if owner.kind is EntityKind.OBJECT else "2"


def job_document(job: Job, blank: Mapping[str, Json]) -> dict[str, Json]:
    """Return the whole job document.

    Args:
        job: with its timeline and results.
        blank: the description of the job's type before its end: its keys, each null.
    """
    document = _head(job) | _answer(job, blank)
    states = agent_states(job.timeline, job.expected, job.target)
    document["responses"] = {host: _response(state) for host, state in states.items() if state.ended}
    document["agent_states"] = {host: _agent_state(state) for host, state in states.items()}
    document["timeline"] = [_timeline_entry(event) for event in chronological(job.timeline)]
    return document | {"parent_id": job.parent_id, "root_id": job.root_id or job.id, "retry_of": job.retry_of}


def event_document(job: Job, blank: Mapping[str, Json]) -> dict[str, Json]:
    """Return the job document as it is published on event/job/…: brief, and its output cut."""
    document = _head(job) | _answer(job, blank)
    description = document["description"]
    stdout = description.get("stdout")
    if isinstance(stdout, str) and len(stdout) * 4 > EVENT_OUTPUT_BYTES:
        document["description"] = {**description, "stdout": _cut(stdout)}
    if document["result"] is not None and len(encode(document["result"])) > EVENT_OUTPUT_BYTES:
        document["result"] = None
    return document | {"parent_id": job.parent_id, "root_id": job.root_id or job.id, "retry_of": job.retry_of}


def job_fields() -> frozenset[str]:
    """Return the names that `fields` of jobs/list may hold."""
    return _FIELDS


def _cut(text: str) -> str:
    return text.encode()[:EVENT_OUTPUT_BYTES].decode(errors="ignore")


def _head(job: Job) -> dict[str, Json]:
    created = iso(job.created_at)
    updated = max((event.at for event in job.timeline), default=job.created_at)
    return {
        "id": job.id,
        "uid": job.uid,
        "status": job.status.value,
        "created": created,
        "updated_at": created if updated == job.created_at else iso(updated),
        "timestamp": None if job.executed_at is None else milliseconds(job.executed_at),
        "operation_id": job.operation_id,
        "operation": job.operation,
        "owner_id": None if job.owner is None else job.owner.id,
        "owner_type": owner_type(job.owner),
        "user_id": job.user_id,
        "target": job.target,
        "priority": job.priority,
        "params": job.params,
        "events": job.events,
    }


def _answer(job: Job, blank: Mapping[str, Json]) -> dict[str, Json]:
    """Return what the job brought: the fields between `description` and `process_meta`."""
    states = agent_states(job.timeline, job.expected, job.target)
    ended = [state for state in states.values() if state.ended]
    last = max(ended, key=_end_order, default=None)
    only = _report(ended[0]) if len(ended) == 1 and len(states) == 1 else {}
    description = blank
    if only.get("description"):
        description = only["description"]
    hostname = last.hostname if last else max((s.hostname for s in states.values() if s.event), default="")
    return {
        "description": dict(description),
        "result": only.get("result"),
        "changed": _changed(job, ended),
        "error": _error(job, ended),
        "hostname": hostname,
        "message": _message(job, ended),
        "attempts": job.attempts,
        "results": [
            {"payload": result.payload, "by": result.by, "timestamp": milliseconds(result.at)} for result in job.results
        ],
        "process_meta": _process_meta(job.process_meta),
    }


def _process_meta(recorded: Mapping[str, Json] | None) -> Mapping[str, Json] | None:
    """Return what a job says of the change that started it; jobs of version 0.1.0 recorded no `reported_at`."""
    return None if recorded is None else {**recorded, "reported_at": recorded.get("reported_at")}


def _end_order(state: AgentState) -> tuple[datetime, str]:
    at = state.event.at if state.event else datetime.min.replace(tzinfo=UTC)
    return (at, state.hostname)


def _report(state: AgentState) -> Mapping[str, Json]:
    return (state.event.report or {}) if state.event else {}


def _changed(job: Job, ended: list[AgentState]) -> bool | None:
    """Null until completed or when failed; of a broadcast, true if any completed one's is (behaviour 3.4)."""
    if job.status not in (Status.COMPLETED, Status.PARTIAL_FAILURE):
        return None
    return any(_report(state).get("changed") for state in ended if state.kind is EventKind.COMPLETED)


def _error(job: Job, ended: list[AgentState]) -> str:
    """Return the last error of a failed job: the later one, then the greater hostname (behaviour 3.3)."""
    if job.status is not Status.FAILED:
        return ""
    failed = [state for state in ended if state.kind is EventKind.FAILED]
    last = max(failed, key=_end_order, default=None)
    return last.event.error if last and last.event else ""


def _message(job: Job, ended: list[AgentState]) -> str:
    """Return what the job last said: the last end's own message, else its last progress."""
    for state in sorted(ended, key=_end_order, reverse=True):
        message = _report(state).get("message")
        if message:
            return str(message)
    for event in reversed(job.timeline):
        if event.kind in (EventKind.PROGRESS, EventKind.SKIPPED):
            return event.message
    return ""


def _response(state: AgentState) -> dict[str, Json]:
    report = _report(state)
    data = report.get("result")
    if data is None and report.get("exit_code") is not None:
        data = report.get("description")
    completed = state.kind is EventKind.COMPLETED
    return {
        "status": state.kind.value,
        "data": data,
        "changed": report.get("changed") if completed else None,
        "error": state.event.error if state.event else "",
        "hostname": state.hostname,
    }


def _agent_state(state: AgentState) -> dict[str, Json]:
    duration = state.duration
    return {
        "status": state.kind.value,
        "error": state.event.error if state.event and state.ended else "",
        "duration": None if duration is None else duration_text(duration),
    }


def _timeline_entry(event: JobEvent) -> dict[str, Json]:
    """Return one event; what a program wrote to standard error stands in `error` (contract 5)."""
    stderr = (event.report or {}).get("stderr") or ""
    error = event.error
    if stderr and stderr not in error:
        error = f"{error}\n{stderr}" if error else stderr
    return {
        "timestamp": iso(event.at),
        "event": event.kind.value,
        "hostname": event.hostname,
        "message": event.message,
        "error": error,
    }


def send_document(job: Job, blank: Mapping[str, Json]) -> dict[str, Json]:
    """Return the send document: the job as the caller of jobs/send sees it (seeds 002)."""
    answer = _answer(job, blank)
    status = _send_status(job)
    ended = job.status in TERMINAL_STATUSES
    reports = [event.report for event in job.timeline if event.report]
    report = reports[-1] if reports else {}
    trace = None
    if status in ("error", "error_user") and report.get("exit_code") is not None:
        trace = {"exit_code": report["exit_code"], "stderr": report.get("stderr") or ""}
    message = answer["message"] or (job.timeline[-1].message if job.timeline else "")
    failed = status in ("error", "error_user")
    return {
        "uid": job.uid,
        "id": job.id,
        "status": status,
        "message": (message or None) if status == "message" else None,
        "kind": job.operation.get("type"),
        "error_message": (answer["error"] or "the job failed on some agents") if failed else None,
        "error_stack_trace": trace,
        "invalid_fields": dict(job.invalid_fields) if job.invalid_fields else None,
        "content": _content(answer) if ended and status == "success" else None,
    }


def _send_status(job: Job) -> str:
    match job.status:
        case Status.SUBMITTED | Status.PROCESSING:
            return "message"
        case Status.COMPLETED:
            return "success"
        case Status.STOPPED | Status.SKIPPED:
            return "stopped"
        case _:
            wrong_input = job.invalid_fields is not None or any(
                (event.report or {}).get("user_error") for event in job.timeline
            )
            return "error_user" if wrong_input else "error"


def _content(answer: Mapping[str, Json]) -> Json:
    """Return the result if it is an object, else `{"value": result}`, else the description."""
    result = answer["result"]
    if result is None:
        return answer["description"]
    return result if isinstance(result, Mapping) else {"value": result}


_FIELDS = frozenset(
    [
        "id", "uid", "status", "created", "updated_at", "timestamp", "operation_id", "operation", "owner_id",
        "owner_type", "user_id", "target", "priority", "params", "events", "description", "result", "changed",
        "error", "hostname", "message", "attempts", "results", "process_meta", "responses", "agent_states",
        "timeline", "parent_id", "root_id", "retry_of",
    ]
)  # fmt: skip
