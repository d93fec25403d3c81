"""The signed messages from the service to agents: assignments and commands (contract 6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

from mqttjobs.domain.assignments import Assignment
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import Json
from mqttjobs.domain.protocol import encode, iso
from mqttjobs.domain.service_topics import agent_topic
from mqttjobs.domain.signatures import signed
from mqttjobs.errors import ReportError
from mqttjobs.executors.base import Limits
from mqttjobs.service.jobs.definitions import ResolvedOperation
from mqttjobs.service.settings import Settings
from mqttjobs.transport.base import Publication

ORDER_LIFE = timedelta(minutes=10)
"""How long a command may wait at the broker for an agent that is away."""


class AgentMessages:
    """Makes messages to agents. One for each configuration."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self._settings = settings
        self._limits = limits
        self._lease = settings.timing.lease

    def assignment(self, job: Job, row: Assignment, resolved: ResolvedOperation) -> Publication:
        """Return the message that assigns an attempt of a job to an agent.

        Raises:
            ReportError: `too_large`: the message is larger than service.max_payload.
        """
        service = self._settings.service
        until = row.answer_by or row.planned_at
        executor = resolved.executor.portable(self._limits)
        definition: dict[str, Json] = {
            "type": resolved.operation.type,
            **executor.model_dump(mode="json", exclude_unset=True),
            "preferences": [{"key": each.key, "value": each.value} for each in resolved.operation.preferences],
        }
        body: dict[str, Json] = {
            "hostname": row.hostname,
            "job_id": job.id,
            "attempt": row.attempt,
            "token": row.token,
            "operation_id": job.operation_id,
            "operation": definition,
            "params": job.params,
            "events": job.events,
            "inputs": job.inputs,
            "hidden": job.secret_templates,
            "depth": job.depth,
            "root_id": job.root_id or job.id,
            "timeout": row.limit.total_seconds(),
            "grace": service.grace.total_seconds(),
            "delivery": resolved.operation.delivery.value,
            "lease": self._lease.total_seconds() if row.movable else None,
            "max_payload": service.max_payload,
            "expires_at": iso(until),
        }
        publication = self._publication(row.hostname, "assign", body, self._settings.timing.acknowledge)
        if len(publication.payload) > service.max_payload:
            size = len(publication.payload)
            message = f"the assignment has {size} bytes, more than service.max_payload: {service.max_payload}"
            raise ReportError(message, reason="too_large")
        return publication

    def order(self, hostname: str, command: str, at: datetime, job_id: str | None = None) -> Publication:
        """Return the command to stop a job, to drain, or to take jobs again."""
        body: dict[str, Json] = {
            "hostname": hostname,
            "command": command,
            "job_id": job_id,
            "timestamp": iso(at),
            "expires_at": iso(at + ORDER_LIFE),
        }
        return self._publication(hostname, "control", body, ORDER_LIFE)

    def _publication(self, hostname: str, what: str, body: Mapping[str, Json], lifetime: timedelta) -> Publication:
        """Return a signed message; on MQTT 5 the broker drops an expired one."""
        return Publication(
            agent_topic(self._settings.base_topic, hostname, what),
            encode(signed(body, self._settings.agents.key or "")),
            qos=1,
            content_type="application/json",
            expiry_s=max(1, math.ceil(lifetime.total_seconds())),
        )
