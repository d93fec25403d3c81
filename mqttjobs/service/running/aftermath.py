"""What follows a job that failed: the operation that `on_failure` names, recorded with the failure itself."""

from __future__ import annotations

from datetime import datetime

import structlog

from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import EntityKey, Json, Operation
from mqttjobs.domain.status import Status
from mqttjobs.service.draft import Draft
from mqttjobs.service.requests.params import fill_params
from mqttjobs.service.running.submission import Cause, Submission
from mqttjobs.service.settings import Settings
from mqttjobs.service.starting.gate import MAX_DEPTH, Refusal

log = structlog.get_logger(__name__)


class Aftermath:
    """Makes the jobs that follow failures. One for each installation."""

    def __init__(self, settings: Settings, submission: Submission) -> None:
        self._installation = settings.installation
        self._system_user = settings.service.system_user
        self._submission = submission

    async def follow(self, draft: Draft, job: Job, at: datetime) -> None:
        """Put what follows an ended job into the draft that records its end."""
        name = job.operation.get("on_failure")
        if name is None or job.status not in (Status.FAILED, Status.PARTIAL_FAILURE):
            return
        operation = self._installation.operations.get(str(name))
        if operation is None:
            log.warning("on-failure-missing", operation=str(name)[:64], job=job.id)
            return
        owner = self._owner(operation, job)
        params, wrong = fill_params(operation, _known_params(operation, _params(job)))
        cause = Cause(
            user_id=operation.run_as or job.user_id or self._system_user,
            params=params,
            parent_id=job.id,
            root_id=job.root_id or job.id,
            depth=job.depth + 1,
            target=operation.target,
        )
        refusal = self._refusal(operation, cause, wrong)
        if refusal is not None:
            self._submission.refuse(draft, operation, owner, refusal, at, cause)
            return
        made = self._submission.compose(operation, owner, cause, at)
        await self._submission.place_match(draft, made, operation)

    def _refusal(self, operation: Operation, cause: Cause, wrong: dict[str, list[str]]) -> Refusal | None:
        if cause.depth > MAX_DEPTH:
            return Refusal("depth", f"a chain of {MAX_DEPTH} failures led here")
        if not self._submission.is_active(operation):
            return Refusal("inactive", "it is deactivated")
        if wrong:
            return Refusal("params", f"its params do not take what a failure gives: {', '.join(wrong)}")
        return None

    def _owner(self, operation: Operation, job: Job) -> EntityKey | None:
        """Return whom it runs for: the entity of the failed job, or the only one that it is attached to."""
        if job.owner is not None and self._installation.is_attached(operation, job.owner):
            return job.owner
        owners = list(self._installation.owners(operation))
        return owners[0] if len(owners) == 1 else None


def _params(job: Job) -> dict[str, Json]:
    """Return what is told of a failure: `error` is empty when some agents of a broadcast did complete."""
    ends = [event for event in job.timeline if event.error]
    error = max(ends, key=lambda event: (event.at, event.hostname)).error if ends else ""
    owner = job.owner
    return {
        "job_id": job.id,
        "error": error if job.status is Status.FAILED else "",
        "operation_id": job.operation_id,
        "owner_id": None if owner is None else owner.id,
    }


def _known_params(operation: Operation, params: dict[str, Json]) -> dict[str, Json]:
    """Return those of the params that a schema without additional properties has room for."""
    schema = operation.params
    if schema is None or schema.get("additionalProperties") is not False:
        return params
    known = schema.get("properties") or {}
    return {name: value for name, value in params.items() if name in known}
