"""Claims due jobs, runs their executors, and hands their outcomes to the completer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from mqttjobs.clock import Clock
from mqttjobs.domain.jobs import Job, JobUpdate, Outcome, Phase, apply, begin, finish
from mqttjobs.domain.model import EntityKey
from mqttjobs.domain.status import LOCAL, EventKind, JobEvent
from mqttjobs.errors import ConfigError, StoreError
from mqttjobs.executors.attempt import attempt
from mqttjobs.executors.base import PROGRESS_KEPT, RunContext
from mqttjobs.executors.shared import SharedResources
from mqttjobs.service.jobs.completer import JobCompleter
from mqttjobs.service.jobs.confirmations import Confirmations
from mqttjobs.service.jobs.definitions import NO_LONGER_UNDERSTOOD, OperationResolver, ResolvedOperation
from mqttjobs.service.jobs.events import JobEventPublisher
from mqttjobs.service.jobs.factory import value_key
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import OpenTransaction
from mqttjobs.store.base import RETRY_S, Store
from mqttjobs.transport.publisher import Publisher

PUBLISHING = 1000
"""Jobs that publish at the same time; the rest waits in the store, in row order."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _RunningJob:
    """A claimed job in this process: the record as it stands, and the task that runs it."""

    job: Job
    begun: bool
    task: asyncio.Task[None] | None = None
    progressed: int = 0
    dropped: bool = False


class Runner:
    """Runs claimed jobs. The store is the queue: an event only wakes this, and claiming rows makes the slots."""

    def __init__(
        self,
        hostname: str,
        store: Store,
        cache: StateCache,
        publisher: Publisher,
        job_events: JobEventPublisher,
        clock: Clock,
        confirmations: Confirmations,
        *,
        transaction: OpenTransaction,
    ) -> None:
        self._confirmations = confirmations
        self._store = store
        self._publisher = publisher
        self._job_events = job_events
        self._clock = clock
        self._hostname = hostname
        self.shared = SharedResources()
        self._running: dict[int, _RunningJob] = {}
        self._publishing: set[int] = set()
        self._waiters: dict[int, list[asyncio.Future[Job]]] = {}
        self._stopping: set[tuple[tuple[str | None, EntityKey | None], asyncio.Task[None]]] = set()
        self._wake = asyncio.Event()
        self._left_waiting = True
        self._times_left = 0
        self._due_at: datetime | None = None
        self._closing = False
        self.completer = JobCompleter(transaction, cache, job_events, clock, self._written)

    def install(self, settings: Settings, resolver: OperationResolver) -> None:
        """Use a configuration from now on; what runs goes on as it began."""
        self._settings = settings
        self._resolver = resolver
        configured = {each.type for each in settings.installation.operations.values()}
        self.shared.keep(configured.union(settings.service.inline_operations))

    @property
    def running(self) -> int:
        """How many jobs are being run."""
        return len(self._running)

    def _let_go(self, uid: int) -> None:
        self._running.pop(uid, None)
        self._publishing.discard(uid)

    def admit(self, job: Job) -> Job:
        """Claim a new job in the transaction that creates it, if it publishes and nothing waits before it."""
        if job.uses_slot or job.max_running is not None or job.ended or job.target != LOCAL:
            return job
        if self._left_waiting or self._closing or len(self._publishing) >= PUBLISHING:
            self._leave_waiting()
            return job
        return job.evolve(phase=Phase.CLAIMED, attempts=1, executed_at=job.created_at)

    def _leave_waiting(self) -> None:
        """Until the store has no publishing job waiting, none may be claimed at once: it would overtake them."""
        self._left_waiting = True
        self._times_left += 1

    def start(self, jobs: Sequence[Job]) -> None:
        """Run those of newly recorded jobs that are claimed, in order; see to the others soon."""
        for job in jobs:
            if job.phase is Phase.CLAIMED:
                self._run_soon(job, begun=False)
            else:
                if job.phase is Phase.WAITING and job.target == LOCAL:
                    if not job.uses_slot:
                        self._leave_waiting()
                    self._wake.set()
                self._job_events.publish([job])

    def wake(self) -> None:
        """Look for due jobs now."""
        self._wake.set()

    async def run(self) -> None:
        """Claim and run what is due until cancelled."""
        while True:
            try:
                pause_s = await self._claim()
            except StoreError as error:
                log.error("store-unavailable", details=str(error))
                pause_s = RETRY_S
            await self._clock.wait(self._wake, pause_s)

    async def _claim(self) -> float | None:
        """Claim what there is room for; return the seconds until the next waiting job is due."""
        self._wake.clear()
        now = self._clock.now()
        if self._due_at is not None and self._due_at <= now:
            self._leave_waiting()
        room = PUBLISHING - len(self._publishing)
        if room > 0 and self._left_waiting:
            before = self._times_left
            publishing = await self._store.claim(now, room, uses_slot=False, begin=self._begin_publishing)
            for job in publishing:
                self._run_soon(job, begun=False)
            self._left_waiting = self._times_left != before or len(publishing) >= room or self._blocks_others()
        slots = self._settings.service.concurrency - (len(self._running) - len(self._publishing))
        if slots > 0:
            taken = await self._store.claim(now, slots, uses_slot=True, begin=self._begin)
            for job in taken:
                self._run_soon(job, begun=True)
            self._job_events.publish(taken)
            self.completer.started_running(taken)
        self._due_at = await self._store.next_due(now)
        if self._due_at is None:
            return None
        return max(0.0, (self._due_at - self._clock.now()) / timedelta(seconds=1))

    def _blocks_others(self) -> bool:
        """Whether a job that publishes now may have others of its operation and owner wait for it."""
        return any(self._running[uid].job.max_running is not None for uid in self._publishing)

    def _begin(self, job: Job) -> JobUpdate:
        return begin(job, self._clock.now(), self._hostname)

    def _begin_publishing(self, job: Job) -> JobUpdate:
        """Claim without events: they are written with the outcome (behaviour 3.1)."""
        return JobUpdate(
            job.uid,
            (),
            job.status,
            Phase.CLAIMED,
            attempts=job.attempts + 1,
            executed_at=job.executed_at or self._clock.now(),
        )

    def _run_soon(self, job: Job, *, begun: bool) -> None:
        running_job = _RunningJob(job, begun)
        self._running[job.uid] = running_job
        if not job.uses_slot:
            self._publishing.add(job.uid)
        running_job.task = asyncio.create_task(self._run(running_job), name=f"job-{job.uid}")

    async def _run(self, running_job: _RunningJob) -> None:
        if running_job.job.max_running is not None:
            await self._predecessors_gone(running_job.job)
        started_at = self._clock.now()
        try:
            resolved = self._resolver.resolve(running_job.job)
            outcome = await self._attempt(running_job, resolved)
        except ConfigError:
            resolved = None
            outcome = Outcome(ok=False, error=NO_LONGER_UNDERSTOOD)
        if running_job.dropped:
            return
        begun = () if running_job.begun else begin(running_job.job, started_at, self._hostname).events
        job = running_job.job.evolve(timeline=running_job.job.timeline + begun)
        update = finish(job, outcome, self._clock.now(), self._hostname, resolved.operation if resolved else None)
        running_job.job = apply(job, update)
        if begun:
            update = JobUpdate(
                update.uid,
                begun + update.events,
                update.status,
                update.phase,
                update.due_at,
                update.attempts,
                update.executed_at,
            )
        self.completer.write(update, running_job.job)

    async def _attempt(self, running_job: _RunningJob, resolved: ResolvedOperation) -> Outcome:
        """Make one attempt; what is to be confirmed is done when the device has reported it."""
        work = attempt(resolved.executor, self._context(running_job, resolved), self.shared)
        confirm = resolved.operation.confirm
        if confirm is None:
            return await work
        entity = self._settings.installation.resolve(confirm.entity, running_job.job.owner)
        key = None if entity is None else value_key(entity, confirm.attribute)
        return await self._confirmations.confirmed(key, confirm.states, confirm.within, work)

    async def _predecessors_gone(self, job: Job) -> None:
        """Wait for stopped jobs of the same operation and owner whose processes are still ending (mode restart)."""
        stopping = [task for key, task in self._stopping if key == (job.operation_id, job.owner)]
        if stopping:
            await asyncio.wait(stopping)

    def _context(self, running_job: _RunningJob, resolved: ResolvedOperation) -> RunContext:
        job = running_job.job
        return RunContext(
            job_id=job.id,
            hostname=self._hostname,
            variables=job.inputs,
            secret_templates=job.secret_templates,
            reveal=resolved.reveal,
            params=job.params,
            events=job.events,
            preferences={each.key: each.value for each in resolved.operation.preferences},
            timeout=resolved.operation.timeout or self._settings.service.timeout,
            grace=self._settings.service.grace,
            publish=self._publisher.publish,
            progress=lambda text: self._progress(running_job, text),
            limits=self._resolver.limits,
            depth=job.depth,
            root_id=job.root_id or job.id,
        )

    def _progress(self, running_job: _RunningJob, text: str) -> None:
        """Keep a progress message of a running program."""
        if running_job.job.ended:
            return
        running_job.progressed += 1
        if running_job.progressed <= PROGRESS_KEPT:
            event = JobEvent(self._clock.now(), EventKind.PROGRESS, self._hostname, text)
            job = running_job.job
            update = JobUpdate(job.uid, (event,), job.status, job.phase, job.due_at, job.attempts, job.executed_at)
            running_job.job = apply(job, update)
            self.completer.write(update, running_job.job)

    def noted(self, uid: int, event: JobEvent) -> None:
        """Add an event that was recorded by itself to the record of a job that runs here."""
        running_job = self._running.get(uid)
        if running_job is not None and running_job.job.phase is Phase.CLAIMED:
            running_job.job = running_job.job.evolve(timeline=(*running_job.job.timeline, event))

    def _written(self, job: Job) -> None:
        """Release a job whose outcome is stored, and answer the requests that wait for its end."""
        if job.phase is Phase.CLAIMED:
            return
        if job.phase is Phase.ENDED:
            self._answer_waiters(job)
        running_job = self._running.get(job.uid)
        if running_job is not None and running_job.job is job:
            self._let_go(job.uid)
            if job.uses_slot or self._left_waiting or job.max_running is not None or job.phase is Phase.WAITING:
                if job.phase is Phase.WAITING and not job.uses_slot:
                    self._leave_waiting()
                self._wake.set()

    def _answer_waiters(self, job: Job) -> None:
        for waiter in self._waiters.pop(job.uid, ()):
            if not waiter.done():
                waiter.set_result(job)

    async def wait_for_end(self, uid: int, seconds: float) -> Job | None:
        """Wait until a job's end is durable; return it as it ended, or None when that did not come within the time."""
        waiter: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(uid, [])
        waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                stored = await self._store.get(uid)  # it may have ended before anyone waited
                return stored if stored is not None and stored.ended else await waiter
        except TimeoutError:
            return None
        finally:
            waiters.remove(waiter)
            if not waiters and self._waiters.get(uid) is waiters:
                del self._waiters[uid]

    def publish_changed(self, jobs: Iterable[Job]) -> None:
        """Tell the recorded status of jobs that run elsewhere, and their end to those who wait for it."""
        for job in jobs:
            self._job_events.publish([job])
            if job.ended:
                self._answer_waiters(job)

    def stopped(self, jobs: Sequence[Job]) -> None:
        """End what runs of jobs that were recorded as stopped, or deleted: process groups get TERM, then KILL."""
        self.completer.forget({job.uid for job in jobs})
        for job in jobs:
            running_job = self._running.get(job.uid)
            if running_job is not None and running_job.task is not None:
                self._end(running_job, running_job.task)
            if job.ended:
                self._job_events.publish([job])
            self._answer_waiters(job)
        self._wake.set()

    def _end(self, running_job: _RunningJob, task: asyncio.Task[None]) -> None:
        job = running_job.job
        stopping = ((job.operation_id, job.owner), task)
        self._stopping.add(stopping)

        def gone(_: object) -> None:
            self._stopping.discard(stopping)
            self._let_go(job.uid)
            self._wake.set()

        running_job.dropped = True
        task.add_done_callback(gone)
        task.cancel()

    async def close(self) -> None:
        """Finish: publishes in flight get the grace to be confirmed, programs are ended, outcomes are written.

        What could not be finished stays claimed, and the next start treats it as a crash would be (behaviour 3.9).
        """
        self._closing = True
        publishing = [
            running_job.task
            for running_job in self._running.values()
            if running_job.task and not running_job.job.uses_slot
        ]
        if publishing and self._publisher.connected:
            await asyncio.wait(publishing, timeout=self._settings.service.grace / timedelta(seconds=1))
        tasks = [
            running_job.task
            for running_job in self._running.values()
            if running_job.task and not running_job.task.done()
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self.completer.failing:
            await self.completer.drained()
        await self.shared.close()
