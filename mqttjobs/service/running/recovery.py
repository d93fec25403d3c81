"""The start-up path: what a crash interrupted is taken up again, as each operation's delivery says (behaviour 3.9)."""

from __future__ import annotations

from datetime import datetime

import structlog

from mqttjobs.domain.jobs import Job, JobUpdate, Outcome, Phase, apply, finish
from mqttjobs.domain.model import Delivery
from mqttjobs.errors import ConfigError
from mqttjobs.service.draft import Draft
from mqttjobs.service.running.workbench import Workbench
from mqttjobs.service.workshop import Workshop

INTERRUPTED = "interrupted"

log = structlog.get_logger(__name__)


async def recover(workshop: Workshop, now: datetime) -> None:
    """Give every job that was claimed when the process ended back to the queue, or end it as interrupted."""
    hostname = workshop.settings.service.hostname
    draft = Draft()
    for job in await workshop.store.claimed():
        update = _recovered(job, workshop.workbench, now, hostname)
        draft.updates.append(update)
        after = apply(job, update)
        workshop.mirror.note_run(draft.facts, after, ended_now=after.ended)
        await workshop.follow(draft, after)
    if draft:
        log.info("recovered", jobs=len(draft.updates))
        await workshop.commit(draft)


def _recovered(job: Job, workbench: Workbench, now: datetime, hostname: str) -> JobUpdate:
    try:
        operation = workbench.tool(job).operation
    except ConfigError:
        operation = None
    if operation is not None and operation.delivery is Delivery.AT_LEAST_ONCE:
        attempts = max(0, job.attempts - 1)
        return JobUpdate(job.uid, (), job.status, Phase.WAITING, attempts=attempts, executed_at=job.executed_at)
    return finish(job, Outcome(ok=False, error=INTERRUPTED), now, hostname, operation)
