"""Claims due jobs, runs their executors, and gives their outcomes to the clerk."""

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
from mqttjobs.executors.base import RunContext
from mqttjobs.service.mirror import Mirror
from mqttjobs.service.running.announcer import Announcer
from mqttjobs.service.running.clerk import Clerk
from mqttjobs.service.running.confirmations import Confirmations
from mqttjobs.service.running.submission import value_key
from mqttjobs.service.running.workbench import Tool, Workbench
from mqttjobs.service.settings import Settings
from mqttjobs.store.base import Store
from mqttjobs.transport.publisher import Publisher

PUBLISHING = 1000
"""Jobs that publish at once; the rest waits in the store, in row order."""
PROGRESS_KEPT = 500
"""Progress messages of one attempt that are kept; more are left out."""
STORE_RETRY_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Live:
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
        settings: Settings,
        store: Store,
        mirror: Mirror,
        publisher: Publisher,
        announcer: Announcer,
        clock: Clock,
        confirmations: Confirmations,
    ) -> None:
        self._confirmations = confirmations
        self._store = store
        self._publisher = publisher
        self._announcer = announcer
        self._clock = clock
        self._hostname = settings.service.hostname
        self.install(settings)
        self._live: dict[int, _Live] = {}
        self._publishing: set[int] = set()
        self._waiters: dict[int, list[asyncio.Future[Job]]] = {}
        self._dying: set[tuple[tuple[str | None, EntityKey | None], asyncio.Task[None]]] = set()
        self._wake = asyncio.Event()
        self._left_waiting = True
        self._times_left = 0
        self._due_at: datetime | None = None
        self._closing = False
        self.clerk = Clerk(store, mirror, announcer, clock, self._written)

    def install(self, settings: Settings) -> None:
        """Use a configuration from now on; what runs goes on as it began."""
        self._settings = settings
        self._workbench = Workbench(settings)

    @property
    def running(self) -> int:
        """How many jobs are being run."""
        return len(self._live)

    def _let_go(self, uid: int) -> None:
        self._live.pop(uid, None)
        self._publishing.discard(uid)

    def admit(self, job: Job) -> Job:
        """Claim a new job in the transaction that creates it, if it publishes and nothing waits before it."""
        if job.takes_slot or job.limit is not None or job.ended or job.target != LOCAL:
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
                    if not job.takes_slot:
                        self._leave_waiting()
                    self._wake.set()
                self._announcer.tell([job])

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
                pause_s = STORE_RETRY_S
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
            publishing = await self._store.claim(now, room, takes_slot=False, begin=self._begin_publishing)
            for job in publishing:
                self._run_soon(job, begun=False)
            self._left_waiting = self._times_left != before or len(publishing) >= room or self._holds_up_others()
        slots = self._settings.service.concurrency - (len(self._live) - len(self._publishing))
        if slots > 0:
            taken = await self._store.claim(now, slots, takes_slot=True, begin=self._begin)
            for job in taken:
                self._run_soon(job, begun=True)
            self._announcer.tell(taken)
            self.clerk.begun(taken)
        self._due_at = await self._store.next_due(now)
        if self._due_at is None:
            return None
        return max(0.0, (self._due_at - self._clock.now()) / timedelta(seconds=1))

    def _holds_up_others(self) -> bool:
        """Whether a job that publishes now may have others of its operation and owner wait for it."""
        return any(self._live[uid].job.limit is not None for uid in self._publishing)

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
        live = _Live(job, begun)
        self._live[job.uid] = live
        if not job.takes_slot:
            self._publishing.add(job.uid)
        live.task = asyncio.create_task(self._run(live), name=f"job-{job.uid}")

    async def _run(self, live: _Live) -> None:
        if live.job.limit is not None:
            await self._predecessors_gone(live.job)
        started_at = self._clock.now()
        try:
            tool = self._workbench.tool(live.job)
            outcome = await self._attempt(live, tool)
        except ConfigError:
            tool = None
            outcome = Outcome(ok=False, error="its definition is no longer understood; run the operation anew")
        if live.dropped:
            return
        begun = () if live.begun else begin(live.job, started_at, self._hostname).events
        job = live.job.evolve(timeline=live.job.timeline + begun)
        update = finish(job, outcome, self._clock.now(), self._hostname, tool.operation if tool else None)
        live.job = apply(job, update)
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
        self.clerk.write(update, live.job)

    async def _attempt(self, live: _Live, tool: Tool) -> Outcome:
        """Make one attempt; what is to be confirmed is done when the device has reported it."""
        work = attempt(tool.executor, self._context(live, tool))
        confirm = tool.operation.confirm
        if confirm is None:
            return await work
        entity = self._settings.installation.resolve(confirm.entity, live.job.owner)
        key = None if entity is None else value_key(entity, confirm.attribute)
        return await self._confirmations.confirmed(key, confirm.states, confirm.within, work)

    async def _predecessors_gone(self, job: Job) -> None:
        """Wait for stopped jobs of the same operation and owner whose processes are still ending (mode restart)."""
        dying = [task for place, task in self._dying if place == (job.operation_id, job.owner)]
        if dying:
            await asyncio.wait(dying)

    def _context(self, live: _Live, tool: Tool) -> RunContext:
        job = live.job
        return RunContext(
            job_id=job.id,
            hostname=self._hostname,
            variables=job.inputs,
            hidden=job.hidden,
            reveal=tool.reveal,
            params=job.params,
            events=job.events,
            preferences={each.key: each.value for each in tool.operation.preferences},
            timeout=tool.operation.timeout or self._settings.service.timeout,
            grace=self._settings.service.grace,
            publish=self._publisher.publish,
            progress=lambda text: self._progress(live, text),
            limits=self._workbench.limits,
            depth=job.depth,
            root_id=job.root_id or job.id,
        )

    def _progress(self, live: _Live, text: str) -> None:
        """Keep a progress message of a running program."""
        if live.job.ended:
            return
        live.progressed += 1
        if live.progressed <= PROGRESS_KEPT:
            event = JobEvent(self._clock.now(), EventKind.PROGRESS, self._hostname, text)
            job = live.job
            update = JobUpdate(job.uid, (event,), job.status, job.phase, job.due_at, job.attempts, job.executed_at)
            live.job = apply(job, update)
            self.clerk.write(update, live.job)

    def noted(self, uid: int, event: JobEvent) -> None:
        """Add an event that was recorded by itself to the record of a job that runs here."""
        live = self._live.get(uid)
        if live is not None and live.job.phase is Phase.CLAIMED:
            live.job = live.job.evolve(timeline=(*live.job.timeline, event))

    def _written(self, job: Job) -> None:
        """Let go of a job whose outcome is durable, and tell those who wait for it."""
        if job.phase is Phase.CLAIMED:
            return
        if job.phase is Phase.ENDED:
            self._answer_waiters(job)
        live = self._live.get(job.uid)
        if live is not None and live.job is job:
            self._let_go(job.uid)
            if job.takes_slot or self._left_waiting or job.limit is not None or job.phase is Phase.WAITING:
                if job.phase is Phase.WAITING and not job.takes_slot:
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

    def tell(self, jobs: Iterable[Job]) -> None:
        """Tell the recorded status of jobs that run elsewhere, and their end to those who wait for it."""
        for job in jobs:
            self._announcer.tell([job])
            if job.ended:
                self._answer_waiters(job)

    def stopped(self, jobs: Sequence[Job]) -> None:
        """End what runs of jobs that were recorded as stopped, or deleted: process groups get TERM, then KILL."""
        for job in jobs:
            live = self._live.get(job.uid)
            if live is not None and live.task is not None:
                self._end(live, live.task)
            if job.ended:
                self._announcer.tell([job])
            self._answer_waiters(job)
        self._wake.set()

    def _end(self, live: _Live, task: asyncio.Task[None]) -> None:
        job = live.job
        dying = ((job.operation_id, job.owner), task)
        self._dying.add(dying)

        def gone(_: object) -> None:
            self._dying.discard(dying)
            self._let_go(job.uid)
            self._wake.set()

        live.dropped = True
        task.add_done_callback(gone)
        task.cancel()

    async def close(self) -> None:
        """Finish: publishes in flight get the grace to be confirmed, programs are ended, outcomes are written.

        What could not be finished stays claimed, and the next start treats it as a crash would be (behaviour 3.9).
        """
        self._closing = True
        publishing = [live.task for live in self._live.values() if live.task and not live.job.takes_slot]
        if publishing and self._publisher.connected:
            await asyncio.wait(publishing, timeout=self._settings.service.grace / timedelta(seconds=1))
        tasks = [live.task for live in self._live.values() if live.task and not live.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self.clerk.failing:
            await self.clerk.drained()
