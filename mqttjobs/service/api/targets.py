"""The target of a job that a request starts (contract 6)."""

from __future__ import annotations

from mqttjobs.domain.agents import Aim, parse_target
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.status import ANY
from mqttjobs.errors import InvalidRequest
from mqttjobs.service.settings import Settings


def choose_target(settings: Settings, wanted: str | None, otherwise: str | None = None) -> str | None:
    """Return the requested target, else `otherwise`.

    Raises:
        InvalidRequest: the text is no target, or names agents where `agents.key` is not set. Whether an agent is
            ready is decided when the job is made.
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
    """Return the target of a retry that names none: the old target, or any agent after a broadcast."""
    return ANY if parse_target(job.target).broadcast else job.target
