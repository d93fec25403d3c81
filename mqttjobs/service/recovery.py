"""The start-up path: what a crash interrupted is taken up again, as each operation's delivery says (behaviour 3.9)."""

from __future__ import annotations

from datetime import datetime

import structlog

from mqttjobs.domain.jobs import INTERRUPTED, Job, JobUpdate, Outcome, Phase, apply, finish
from mqttjobs.domain.model import Delivery
from mqttjobs.errors import ConfigError
from mqttjobs.service.engine import Engine
from mqttjobs.service.jobs.definitions import OperationResolver
from mqttjobs.service.state.cache import StateCache
from mqttjobs.store.base import Store

log = structlog.get_logger(__name__)


async def recover(engine: Engine, store: Store, cache: StateCache, now: datetime) -> None:
    """Give every job that was claimed when the process ended back to the queue, or end it as interrupted."""
    resolver, hostname = engine.configuration.resolver, engine.configuration.settings.service.hostname
    async with engine.transaction() as tx:
        for job in await store.claimed():
            update = _recovered(job, resolver, now, hostname)
            tx.updates.append(update)
            after = apply(job, update)
            cache.record_run(tx, after, ended_now=after.ended)
            if after.ended:
                tx.ended[after.uid] = after
    if tx.updates:
        log.info("recovered", jobs=len(tx.updates))


def _recovered(job: Job, resolver: OperationResolver, now: datetime, hostname: str) -> JobUpdate:
    try:
        operation = resolver.resolve(job).operation
    except ConfigError:
        operation = None
    if operation is not None and operation.delivery is Delivery.AT_LEAST_ONCE:
        attempts = max(0, job.attempts - 1)
        return JobUpdate(job.uid, (), job.status, Phase.WAITING, attempts=attempts, executed_at=job.executed_at)
    return finish(job, Outcome(ok=False, error=INTERRUPTED), now, hostname, operation)
