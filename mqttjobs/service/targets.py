"""Where a job may run: what a request may name as its target (contract 6)."""

from __future__ import annotations

from mqttjobs.domain.jobs import Job
from mqttjobs.domain.status import ALL, ANY, LOCAL
from mqttjobs.errors import InvalidRequest
from mqttjobs.service.settings import Settings


def choose_target(settings: Settings, wanted: str | None, otherwise: str = LOCAL) -> str:
    """Return the target of a job that is asked for: the one that is named, else `otherwise`.

    Raises:
        InvalidRequest: it does not exist here: there are no agents.
    """
    del settings
    target = otherwise if wanted is None else wanted
    if target != LOCAL:
        raise InvalidRequest(
            "wrong parameters: target", {"target": ["only _local exists; other targets need agents.key"]}
        )
    return target


def target_of_retry(job: Job) -> str:
    """Return where a retry runs that names no target: the old single target, or any agent after a broadcast."""
    return ANY if job.target == ALL or ":" in job.target else job.target
