"""Writes down what happened to running jobs, many at a time, and never lets go of an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from mqttjobs.clock import Clock
from mqttjobs.domain.jobs import Job, JobUpdate, Phase
from mqttjobs.domain.status import Status
from mqttjobs.errors import MqttJobsError, NotFound, StoreError
from mqttjobs.service.jobs.events import JobEventPublisher
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.store.base import RETRY_S, Store

FAILURES = (Status.FAILED, Status.PARTIAL_FAILURE)

log = structlog.get_logger(__name__)


class JobCompleter:
    """One writer of outcomes: takes all that has come together, writes it in one transaction, then tells it.

    While the store is unavailable the outcomes wait here and are written when it is back: a job whose outcome was
    lost with the process is treated as one that a crash interrupted.

    `follow` puts what follows an end into the draft that records it, and `started` starts it once it is recorded.
    """

    def __init__(
        self, store: Store, cache: StateCache, job_events: JobEventPublisher, clock: Clock, done: Callable[[Job], None]
    ) -> None:
        self._store = store
        self._cache = cache
        self._job_events = job_events
        self._clock = clock
        self._done = done
        self.follow: Callable[[Transaction, Job], Awaitable[None]] | None = None
        self.started: Callable[[Transaction], None] | None = None
        self._waiting: list[tuple[JobUpdate, Job]] = []
        self._writing: set[int] = set()
        self._deferred: set[int] = set()
        self._written = asyncio.Event()
        self._operation_states: set[str] = set()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.failing = False

    def write(self, update: JobUpdate, job: Job) -> None:
        """Have `update` written; `job` is the job as it leaves it."""
        self._waiting.append((update, job))
        self._idle.clear()
        self._work.set()

    def nudge(self) -> None:
        """Write the uids of told ends even if no job ends soon."""
        self._work.set()

    def started_running(self, jobs: Sequence[Job]) -> None:
        """Remember the first run of operations; their jobs' events are written already."""
        for job in jobs:
            self._cache.record_run(self._operation_states, job, ended_now=False)
        if self._operation_states:
            self._work.set()

    async def defer(self, uids: set[int]) -> None:
        """Write no more outcomes of these jobs until `release`, and return when those that are being written are.

        A stop is being recorded: whichever of it and an outcome comes first is the end, and the other is none. While
        the store is unavailable this does not wait.
        """
        self._deferred |= uids
        while self._writing & uids and not self.failing:
            self._written.clear()
            await self._written.wait()

    def release(self, uids: set[int], *, stopped: bool) -> None:
        """Go on after `hold`; of jobs that were stopped meanwhile the outcomes are let go of."""
        self._deferred -= uids
        if stopped:
            self._waiting = [
                each for each in self._waiting if each[0].uid not in uids or each[1].phase is Phase.CLAIMED
            ]
        self._work.set()

    async def drained(self) -> None:
        """Return when everything given so far is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write until cancelled; a write that was begun is finished."""
        while True:
            await self._work.wait()
            self._work.clear()
            batch = [each for each in self._waiting if each[0].uid not in self._deferred]
            self._waiting = [each for each in self._waiting if each[0].uid in self._deferred]
            self._writing = {update.uid for update, _ in batch}
            while not await self._write(batch):
                self._written.set()
                await self._clock.wait(asyncio.Event(), RETRY_S)
            self._writing = set()
            self._written.set()
            if not self._waiting:
                self._idle.set()

    async def _write(self, batch: list[tuple[JobUpdate, Job]]) -> bool:
        tx = self._transaction([update for update, _ in batch], [job for _, job in batch])
        tx.announced = self._job_events.take_published()
        if not tx:
            return True
        try:
            await self._record(tx, [job for _, job in batch])
        except NotFound:
            self._job_events.published.extend(tx.announced)
            return await self._write_one_by_one(batch)
        except StoreError as error:
            self._job_events.published.extend(tx.announced)
            if not self.failing:
                log.error("store-unavailable", details=str(error), outcomes_waiting=len(batch))
            self.failing = True
            return False
        self.failing = False
        self._operation_states -= tx.operation_states
        self._publish([job for _, job in batch])
        return True

    async def _record(self, tx: Transaction, jobs: Sequence[Job]) -> None:
        """Record a draft with what follows the ends in it, and start that."""
        if self.follow is not None:
            for job in jobs:
                if job.ended and job.status in FAILURES:
                    await self.follow(tx, job)
        try:
            await asyncio.shield(self._store.record(tx.changes(self._cache)))
        except MqttJobsError:
            self._cache.stale = self._cache.stale or bool(tx.jobs)
            raise
        if self.started is not None and (tx.jobs or tx.skipped):
            self.started(tx)

    async def _write_one_by_one(self, batch: list[tuple[JobUpdate, Job]]) -> bool:
        """Write each on its own: some job of the batch was deleted, and its outcome goes with it.

        What is written leaves the batch, which is tried again when the store failed.
        """
        while batch:
            update, job = batch[0]
            try:
                await self._record(self._transaction([update], [job]), [job])
            except NotFound:
                log.info("outcome-of-deleted-job", job=job.id)
            except StoreError:
                return False
            else:
                self._publish([job])
            del batch[0]
        return True

    def _transaction(self, updates: list[JobUpdate], jobs: list[Job]) -> Transaction:
        tx = Transaction(updates=updates, operation_states=set(self._operation_states))
        for job in jobs:
            self._cache.record_run(tx.operation_states, job, ended_now=job.ended)
        return tx

    def _publish(self, jobs: Sequence[Job]) -> None:
        self._job_events.publish(job for job in jobs if job.ended)
        for job in jobs:
            self._done(job)
