"""Records what happened to running jobs, many at a time, and never lets go of an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from mqttjobs.clock import Clock
from mqttjobs.domain.jobs import Job, JobUpdate, Phase
from mqttjobs.errors import NotFound, StoreError
from mqttjobs.service.jobs.events import JobEventPublisher
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import OpenTransaction
from mqttjobs.store.base import RETRY_S

log = structlog.get_logger(__name__)


class JobCompleter:
    """One writer of outcomes: records all that wait in one transaction, then publishes their events.

    An outcome waits here until it is stored. A job whose outcome is lost with the process is treated as one that a
    crash interrupted.
    """

    def __init__(
        self,
        transaction: OpenTransaction,
        cache: StateCache,
        job_events: JobEventPublisher,
        clock: Clock,
        done: Callable[[Job], None],
    ) -> None:
        self._transaction = transaction
        self._cache = cache
        self._job_events = job_events
        self._clock = clock
        self._done = done
        self._waiting: list[tuple[JobUpdate, Job]] = []
        self._begun: list[Job] = []
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.failing = False

    def write(self, update: JobUpdate, job: Job) -> None:
        """Have `update` recorded; `job` is the job as it leaves it."""
        self._waiting.append((update, job))
        self._idle.clear()
        self._work.set()

    def nudge(self) -> None:
        """Record which ends were published even if no job ends soon."""
        self._work.set()

    def started_running(self, jobs: Sequence[Job]) -> None:
        """Remember the first run of operations; their jobs' events are recorded already."""
        self._begun += jobs
        self._work.set()

    def forget(self, uids: set[int]) -> None:
        """Let go of the outcomes of jobs that were recorded as stopped; what they did before is still recorded."""
        self._waiting = [each for each in self._waiting if each[0].uid not in uids or each[1].phase is Phase.CLAIMED]
        self._work.set()

    async def drained(self) -> None:
        """Return when everything given so far is recorded."""
        await self._idle.wait()

    async def run(self) -> None:
        """Record until cancelled; a record that was begun is finished."""
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._write()
            except StoreError as error:
                if not self.failing:
                    log.error("store-unavailable", details=str(error), outcomes_waiting=len(self._waiting))
                self.failing = True
                await self._clock.wait(asyncio.Event(), RETRY_S)
                self._work.set()
            else:
                self.failing = False
                if not self._waiting:
                    self._idle.set()

    async def _write(self) -> None:
        try:
            await self._record()
        except NotFound:  # some job was deleted, and its outcome goes with it
            for _ in range(len(self._waiting)):
                await self._record(1)

    async def _record(self, most: int | None = None) -> None:
        """Record the oldest outcomes that wait, at most so many; the only one, of a job that is gone, is let go of."""
        batch: list[tuple[JobUpdate, Job]] = []
        begun = list(self._begun)
        try:
            async with self._transaction() as tx:
                batch += self._waiting[:most]
                tx.updates += [update for update, _ in batch]
                tx.announced += self._job_events.published
                for job in [*begun, *(job for _, job in batch)]:
                    self._cache.record_run(tx, job, ended_now=job.ended)
                tx.ended |= {job.uid: job for _, job in batch if job.ended}
        except NotFound:
            if most is None:
                raise
            log.info("outcome-of-deleted-job", job=batch[0][1].id)
            self._waiting.remove(batch[0])
            return
        recorded = set(map(id, batch))
        self._waiting = [each for each in self._waiting if id(each) not in recorded]
        del self._begun[: len(begun)]
        self._job_events.announced(tx.announced)
        self._job_events.publish(job for _, job in batch if job.ended)
        for _, job in batch:
            self._done(job)
