"""The clerk never lets go of an outcome, and never writes one twice."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from mqttjobs.domain.jobs import Job, JobUpdate, Outcome, Phase, apply, begin, finish, submitted
from mqttjobs.errors import StoreError
from mqttjobs.service.engine import Engine
from mqttjobs.service.jobs.completer import JobCompleter
from mqttjobs.service.jobs.events import JobEventPublisher
from mqttjobs.service.parts import Parts
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.cache import StateCache
from mqttjobs.store.backends.memory import MemoryStore
from mqttjobs.store.base import Changes
from mqttjobs.transport.publisher import Publisher

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class FickleStore(MemoryStore):
    """Cannot write at the times that are named."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.fails_at: set[int] = set()

    async def record(self, changes: Changes) -> None:
        self.writes += 1
        if self.writes in self.fails_at:
            raise StoreError("the disk is full")
        await super().record(changes)


def a_running_job(uid: int) -> Job:
    job = Job(uid, f"job-{uid}", NOW, None, {"type": "mqtt"}, "f", None, "alice", timeline=(submitted(NOW, "hub"),))
    return apply(job, begin(job, NOW, "hub"))


def ended(job: Job) -> tuple[JobUpdate, Job]:
    update = finish(job, Outcome(ok=True), NOW, "hub", None)
    return update, apply(job, update)


async def test_outcomes_beside_that_of_a_deleted_job_are_each_written_once_though_the_store_fails_between() -> None:
    loop: Any = asyncio.get_running_loop()
    store = FickleStore()
    jobs = [a_running_job(uid) for uid in (1, 2, 3)]
    await store.record(Changes(jobs=jobs))
    await store.record(Changes(deleted=[2]))
    done: list[int] = []
    job_events = JobEventPublisher(store, Publisher(), "mqttjobs", 0)
    engine = Engine(Settings(), Parts(Settings(), store, loop.clock, new_id=str, new_token=str))
    completer = JobCompleter(engine.transaction, StateCache(), job_events, loop.clock, lambda job: done.append(job.uid))
    all_at_once, one_by_one = 1, 3
    store.fails_at = {store.writes + all_at_once + one_by_one}
    working = asyncio.create_task(completer.run())
    for job in jobs:
        completer.write(*ended(job))
    await loop.clock.advance(5)
    for uid in (1, 3):
        stored = await store.get(uid)
        assert stored is not None
        assert [event.kind.value for event in stored.timeline].count("completed") == 1
        assert stored.phase is Phase.ENDED
    assert await store.get(2) is None
    assert done == [1, 3]
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working
