"""The start-up path: what a crash interrupted is taken up again, as each operation's delivery says (behaviour 3.9)."""

from __future__ import annotations

from datetime import datetime

import structlog

from mqttjobs.domain.jobs import Job, JobUpdate, Outcome, Phase, finish
from mqttjobs.domain.model import Delivery
from mqttjobs.errors import ConfigError
from mqttjobs.service.workbench import Workbench
from mqttjobs.store.base import Changes, Store

INTERRUPTED = "interrupted"

log = structlog.get_logger(__name__)


async def recover(store: Store, workbench: Workbench, now: datetime, hostname: str) -> None:
    """Give every job that was claimed when the process ended back to the queue, or end it as interrupted."""
    updates = [_recovered(job, workbench, now, hostname) for job in await store.claimed()]
    if updates:
        log.info("recovered", jobs=len(updates))
        await store.record(Changes(updates=updates))


def _recovered(job: Job, workbench: Workbench, now: datetime, hostname: str) -> JobUpdate:
    try:
        operation = workbench.tool(job).operation
    except ConfigError:
        operation = None
    if operation is not None and operation.delivery is Delivery.AT_LEAST_ONCE:
        attempts = max(0, job.attempts - 1)
        return JobUpdate(job.uid, (), job.status, Phase.WAITING, attempts=attempts, executed_at=job.executed_at)
    return finish(job, Outcome(ok=False, error=INTERRUPTED), now, hostname, operation)
