"""Where a job may run: what a request may name as its target (contract 6)."""

from __future__ import annotations

from mqttjobs.domain.agents import Aim, parse_target
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.status import ANY
from mqttjobs.errors import InvalidRequest
from mqttjobs.service.settings import Settings


def choose_target(settings: Settings, wanted: str | None, otherwise: str | None = None) -> str | None:
    """Return the target of a job that is asked for: the one that is named, else `otherwise`.

    Raises:
        InvalidRequest: it is none, or there are no agents here. Whether one is ready is seen when the job is made.
    """
    target = otherwise if wanted is None else wanted
    if target is None:
        return None
    try:
        aim = parse_target(target).aim
    except ValueError as error:
        raise InvalidRequest("wrong parameters: target", {"target": [str(error)]}) from None
    if aim is not Aim.LOCAL and settings.agents.key is None:
        raise InvalidRequest(
            "wrong parameters: target", {"target": ["only _local exists; other targets need agents.key"]}
        )
    return target


def target_of_retry(job: Job) -> str:
    """Return where a retry runs that names no target: the old single target, or any agent after a broadcast."""
    return ANY if parse_target(job.target).broadcast else job.target
