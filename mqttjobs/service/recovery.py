"""The start-up path: what a crash interrupted is taken up again, as each operation's delivery says (behaviour 3.9)."""

from __future__ import annotations

from datetime import datetime

import structlog

from mqttjobs.domain.jobs import INTERRUPTED, Job, JobUpdate, Outcome, Phase, apply, finish
from mqttjobs.domain.model import Delivery
from mqttjobs.errors import ConfigError
from mqttjobs.service.engine import Engine
from mqttjobs.service.jobs.definitions import OperationResolver
from mqttjobs.service.state.transaction import Transaction

log = structlog.get_logger(__name__)


async def recover(engine: Engine, now: datetime) -> None:
    """Give every job that was claimed when the process ended back to the queue, or end it as interrupted."""
    hostname = engine.settings.service.hostname
    tx = Transaction()
    for job in await engine.store.claimed():
        update = _recovered(job, engine.resolver, now, hostname)
        tx.updates.append(update)
        after = apply(job, update)
        engine.cache.record_run(tx.operation_states, after, ended_now=after.ended)
        await engine.follow(tx, after)
    if tx:
        log.info("recovered", jobs=len(tx.updates))
        await engine.commit(tx)


def _recovered(job: Job, resolver: OperationResolver, now: datetime, hostname: str) -> JobUpdate:
    try:
        operation = resolver.resolve(job).operation
    except ConfigError:
        operation = None
    if operation is not None and operation.delivery is Delivery.AT_LEAST_ONCE:
        attempts = max(0, job.attempts - 1)
        return JobUpdate(job.uid, (), job.status, Phase.WAITING, attempts=attempts, executed_at=job.executed_at)
    return finish(job, Outcome(ok=False, error=INTERRUPTED), now, hostname, operation)
