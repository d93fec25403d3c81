"""The operation document: what the third system calls a job (seeds 003, contract 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from mqttjobs.domain.jobs import Job, OperationState
from mqttjobs.domain.model import Json
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.protocol import iso
from mqttjobs.domain.status import AgentState, EventKind, Status, agent_states
from mqttjobs.domain.users import User

_STATUS_TEXTS = {
    Status.SUBMITTED: "running",
    Status.PROCESSING: "running",
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.PARTIAL_FAILURE: "failed",
    Status.STOPPED: "cancelled",
    Status.SKIPPED: "cancelled",
}

_COMMON = (
    "attach", "params", "triggers", "conditions", "mode", "max", "target", "timeout", "retry", "schedule",
    "delivery", "catch_up", "on_failure", "confirm", "run_as",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OperationView:
    """Everything that an operation document is made of; runs and `latest` are those in the caller's scope."""

    operation: Operation
    operation_state: OperationState | None
    active: bool
    total: int
    running: int
    last_ids: tuple[str, ...]
    latest: Job | None
    next_due: datetime | None
    process: tuple[str, str]
    users: Mapping[str, User]


def operation_document(view: OperationView) -> dict[str, Json]:
    """Return the whole operation document."""
    operation, operation_state, definition = view.operation, view.operation_state, view.operation.definition
    name, process_id = view.process
    document: dict[str, Json] = {
        "id": operation.id,
        "job_name": operation.name,
        "name": operation.name,
        "process_name": name,
        "process_id": process_id,
        "process_version": operation.version or operation.fingerprint[:12],
        "environment_id": operation.environment,
        "status": "scheduled" if view.latest is None else _STATUS_TEXTS[view.latest.status],
        "job_execution_strategy": strategy(operation),
        "job_instances": {"total": view.total, "running": view.running, "last_ids": list(view.last_ids)},
        "scheduled": definition.get("schedule"),
        "priority": operation.priority,
        "active": view.active,
        "previous_trigger": _iso(operation_state.triggered_at if operation_state else None),
        "next_trigger": _iso(view.next_due if view.active else None),
        "force_user_context": operation.run_as is not None,
        "eo_flow_enabled": operation.event_driven,
        "job_context": job_context(view.latest, view.users),
        "preferences": [
            {"id": each.key, "key": each.key, "value": each.value, "description": each.description}
            for each in operation.preferences
        ],
        "description": operation.description,
        "type": operation.type,
        "metadata": _metadata(operation_state),
        "start_date": _iso(operation_state.first_run_at if operation_state else None),
        "end_date": _iso(operation_state.ended_at if operation_state else None),
    }
    own = {key: value for key, value in definition.items() if key not in document}
    return document | dict.fromkeys(_COMMON) | _defaults(operation) | own


def brief_document(operation: Operation) -> dict[str, Json]:
    """Return what a user sees who may run operations but not read them."""
    return {"id": operation.id, "name": operation.name, "description": operation.description}


def strategy(operation: Operation) -> str:
    """Return `job_execution_strategy`."""
    event_driven = bool(operation.triggers) and operation.event_driven
    if operation.schedule is not None:
        return "scheduled+event_driven" if event_driven else "scheduled"
    return "event_driven" if event_driven else "on_demand"


def job_context(latest: Job | None, users: Mapping[str, User]) -> dict[str, Json]:
    """Return the context of the latest run: machine, device, user, and robots, which are agents."""
    user = None if latest is None else users.get(latest.user_id)
    states = [] if latest is None else list(agent_states(latest.timeline, latest.expected, latest.target).values())
    active = [state for state in states if state.kind is not EventKind.SUBMITTED]
    last = max(active, key=_latest, default=None)
    host = last.hostname if last else None
    user_id = None if latest is None else latest.user_id
    return {
        "machine_id": host,
        "device_name": host,
        "user_identifier": user_id,
        "dynamic_robots": len(active),
        "robot_id": host,
        "robot_name": host,
        "user_name": (user.display_name or user.id) if user else user_id,
        "user_details": {
            "id": user_id,
            "display_name": user.display_name if user else None,
            "email": user.email if user else None,
            "rpa_role": user.role if user else None,
        },
    }


def _latest(state: AgentState) -> tuple[bool, datetime, str]:
    at = state.event.at if state.event else datetime.min.replace(tzinfo=UTC)
    return (state.ended_at is not None, at, state.hostname)


def _defaults(operation: Operation) -> dict[str, Json]:
    return {
        "attach": [
            {"object": each.object} if each.object else {"link": each.link} if each.link else {"class": each.class_id}
            for each in operation.attach
        ],
        "triggers": [],
        "mode": operation.mode.value,
        "max": operation.max,
        "target": operation.target,
        "delivery": operation.delivery.value,
    }


def _metadata(operation_state: OperationState | None) -> dict[str, Json]:
    return {
        "created_by": operation_state.created_by if operation_state else None,
        "created_at": _iso(operation_state.created_at if operation_state else None),
        "updated_by": operation_state.updated_by if operation_state else None,
        "updated_at": _iso(operation_state.updated_at if operation_state else None),
        "completed_at": _iso(operation_state.completed_at if operation_state else None),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else iso(at)
