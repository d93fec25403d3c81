"""The operation that `on_failure` names: its job is recorded together with the failure."""

from __future__ import annotations

from datetime import datetime

import structlog

from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import EntityKey, Json
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.params import fill_params
from mqttjobs.domain.starting import SkipReason
from mqttjobs.domain.status import Status
from mqttjobs.service.guards.guard import MAX_DEPTH
from mqttjobs.service.jobs.factory import JobFactory, JobOrigin
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import Transaction

log = structlog.get_logger(__name__)


class OnFailure:
    """Makes the jobs that follow failures. One for each installation."""

    def __init__(self, settings: Settings, cache: StateCache, job_factory: JobFactory) -> None:
        self._installation = settings.installation
        self._system_user = settings.service.system_user
        self._cache = cache
        self._job_factory = job_factory

    async def follow(self, tx: Transaction, job: Job, at: datetime) -> None:
        """Put what follows an ended job into the transaction that records its end."""
        name = job.operation.get("on_failure")
        if name is None or job.status not in (Status.FAILED, Status.PARTIAL_FAILURE):
            return
        operation = self._installation.operations.get(str(name))
        if operation is None:
            log.warning("on-failure-missing", operation=str(name)[:64], job=job.id)
            return
        owner = self._owner(operation, job)
        params, wrong = fill_params(operation.params, _known_params(operation, _params(job)))
        origin = JobOrigin(
            user_id=operation.run_as or job.user_id or self._system_user,
            params=params,
            parent_id=job.id,
            root_id=job.root_id or job.id,
            depth=job.depth + 1,
            target=operation.target,
        )
        skip_reason = self._skip_reason(operation, origin, wrong)
        if skip_reason is not None:
            self._job_factory.skip(tx, operation, owner, skip_reason, at, origin)
            return
        made = self._job_factory.compose(operation, owner, origin, at)
        await self._job_factory.enqueue_match(tx, made, operation)

    def _skip_reason(self, operation: Operation, origin: JobOrigin, wrong: dict[str, list[str]]) -> SkipReason | None:
        if origin.depth > MAX_DEPTH:
            return SkipReason("depth", f"a chain of {MAX_DEPTH} failures led here")
        if not self._cache.is_active(operation):
            return SkipReason("inactive", "it is deactivated")
        if wrong:
            return SkipReason("params", f"its params do not take what a failure gives: {', '.join(wrong)}")
        return None

    def _owner(self, operation: Operation, job: Job) -> EntityKey | None:
        """Return whom it runs for: the entity of the failed job, or the only one that it is attached to."""
        if job.owner is not None and self._installation.is_attached(operation, job.owner):
            return job.owner
        owners = list(self._installation.owners(operation))
        return owners[0] if len(owners) == 1 else None


def _params(job: Job) -> dict[str, Json]:
    """Return the params that a failure passes on; `error` is empty when some agents of a broadcast completed."""
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
    """Return the params that a schema allows; all of them unless it forbids additional properties."""
    schema = operation.params
    if schema is None or schema.get("additionalProperties") is not False:
        return params
    known = schema.get("properties") or {}
    return {name: value for name, value in params.items() if name in known}
