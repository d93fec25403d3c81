"""The parts that the use cases share, and the one way in which what they decided becomes durable and starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

from mqttjobs.clock import Clock
from mqttjobs.domain.model import EntityKey, Json, Operation
from mqttjobs.domain.status import LOCAL
from mqttjobs.service.agents.batch import AssignmentBatch
from mqttjobs.service.agents.inbox import AgentInbox
from mqttjobs.service.agents.scheduler import AgentScheduler
from mqttjobs.service.guards.breakers import Breakers
from mqttjobs.service.guards.guard import SkippedMatches, TriggerGuard
from mqttjobs.service.ingest.reports import Ingest
from mqttjobs.service.jobs.confirmations import Confirmations
from mqttjobs.service.jobs.definitions import OperationResolver
from mqttjobs.service.jobs.events import JobEventPublisher
from mqttjobs.service.jobs.factory import JobFactory
from mqttjobs.service.jobs.on_failure import OnFailure
from mqttjobs.service.jobs.runner import Runner
from mqttjobs.service.scheduling.deadlines import Deadlines
from mqttjobs.service.settings import LoadSettings, Settings
from mqttjobs.service.state.agents import AgentRegistry
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.counters import Counters
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.store.base import Store
from mqttjobs.transport.publisher import Publisher
from mqttjobs.transport.rejections import Rejections


class Engine:
    """Everything between the transport and the store, for one run of the service.

    Attributes:
        notices: what makes health degraded, by name; empty when all is well.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Clock,
        new_id: Callable[[], str],
        new_token: Callable[[], str],
        load: LoadSettings | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.new_id = new_id
        self.load_settings = load
        self.started_at = clock.now()
        self.cache = StateCache()
        self.counters = Counters()
        self.publisher = Publisher()
        self.rejections = Rejections(settings.base_topic, clock, self.publisher.publish)
        self.job_events = JobEventPublisher(store, self.publisher, settings.base_topic, settings.service.event_qos)
        self.confirmations = Confirmations(clock)
        self.runner = Runner(
            settings,
            store,
            self.cache,
            self.publisher,
            self.job_events,
            clock,
            self.confirmations,
            transaction=self.transaction,
        )
        self.breakers = Breakers(clock.monotonic, self._publish_breaker)
        self.skipped_matches = SkippedMatches()
        self.deadlines = Deadlines(self.cache, self.started_at)
        self.agent_registry = AgentRegistry()
        self.agent_scheduler = AgentScheduler(
            store,
            self.agent_registry,
            clock,
            new_batch=self._new_batch,
            new_token=new_token,
            publish=self.publisher.publish,
        )
        self._lock = asyncio.Lock()
        self._stale = True
        self._handed_over: set[asyncio.Future[None]] = set()
        self.notices: dict[str, str] = {}
        self.protocol: str | None = None
        self.reloading: Callable[[str], Awaitable[dict[str, Json]]] | None = None
        self.install(settings)

    def install(self, settings: Settings) -> None:
        """Use a configuration from now on: the parts that are made of one are made anew."""
        self.settings = settings = self.with_members(settings)
        self.resolver = OperationResolver(settings)
        self.runner.install(settings)
        service = settings.service
        self.breakers.install(settings.installation.operations.values())
        self.guard = TriggerGuard(settings, self.cache, self.breakers)
        self.job_factory = JobFactory(
            settings, self.cache, self.agent_registry, self.store, self.guard, self.skipped_matches, self.new_id
        )
        self.ingest = Ingest(
            settings.installation,
            self.cache,
            self.job_factory,
            self.rejections,
            self.confirmations,
            base_topic=settings.base_topic,
            max_payload=service.max_payload,
            max_objects=service.max_objects,
        )
        self.on_failure_jobs = OnFailure(settings, self.job_factory)
        self.deadlines.install(settings, self.ingest, self.job_factory)

        self.agent_scheduler.install(settings, self.resolver)
        self.agent_inbox = AgentInbox(
            settings, self.resolver, self.agent_registry, self.rejections, self._new_batch, self.counters.agents
        )

    def with_members(self, settings: Settings) -> Settings:
        """Return settings in which the members that are known by their reports are there."""
        if not settings.installation.membership:
            return settings
        installation = settings.installation.copy()
        for class_id, member in sorted(self.cache.members):
            installation.register(class_id, member)
        return replace(settings, installation=installation)

    def _new_batch(self, tx: Transaction) -> AssignmentBatch:
        return AssignmentBatch(tx, self.store, self.agent_registry, self.cache)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Decide into a transaction, which is recorded when the block ends. There is no other way to commit.

        1. The lock is taken: transactions are decided one after the other, and recorded in that order.
        2. The cache is read from the store if it may be ahead of the store.
        3. The block decides, and changes the cache only together with the transaction.
        4. What follows failures is added (`on_failure`). Stops lose against outcomes that were recorded meanwhile:
           they are left out, and a strict one is refused. Jobs that publish are claimed at once where nothing waits
           before them (Runner.admit).
        5. The store records everything or nothing. A transaction without content is not recorded.
        6. What was recorded is counted, stopped and started.

        An exclusive transaction (see there) keeps the lock until it is stored. Any other lets go of the lock once the
        store has it, so that outcomes share a commit with what is decided meanwhile. Synchronous code that follows
        the block of an exclusive transaction runs before any other transaction is decided.

        On any exception, of the block or of the store, nothing is written, and what an exclusive transaction has
        changed in the cache is read anew before the next one is decided.

        Raises:
            StoreError: the store is unavailable.
            TerminalState: a strict update is of a job that has ended.
            NotFound: an update, result or deletion is of a job that is not stored.
        """
        tx = Transaction()
        async with self._lock:
            try:
                await self._refresh()
                yield tx
                await self._complete(tx)
                recording = self._hand_over(tx)
                if tx.exclusive:
                    await asyncio.shield(recording)
            except BaseException:
                self._stale = self._stale or tx.exclusive
                raise
        await asyncio.shield(recording)
        self._recorded(tx)

    async def _refresh(self) -> None:
        """Read what is known from the store if it may be ahead of it: at first, and when a record has failed."""
        if not self._stale:
            return
        await self._settle()
        snapshot = await self.store.load()
        self.agent_registry.load(snapshot.agents, await self.store.assignments())
        for class_id, member in snapshot.members:
            self.settings.installation.register(class_id, member)
        self.cache.load(snapshot, self.settings.installation)
        self.job_factory.refresh_values()
        self.deadlines.restore()
        self._stale = False

    async def _settle(self) -> None:
        """Wait until everything that the store was given is stored, or has failed."""
        while self._handed_over:
            await asyncio.wait(self._handed_over)

    async def _complete(self, tx: Transaction) -> None:
        """Add what follows from the decisions, and take away what came too late."""
        now = self.clock.now()
        for job in tx.ended.values():
            await self.on_failure_jobs.follow(tx, job, now)
        followed = 0
        while followed < len(tx.jobs):
            job = tx.jobs[followed]
            if job.ended and job.target != LOCAL and job.invalid_fields is None:  # it found no agent
                await self.on_failure_jobs.follow(tx, job, now)
            followed += 1
        if tx.stopped:
            await self._settle()
            await self._leave_out_ended(tx)
        tx.jobs = [self.runner.admit(job) for job in tx.jobs]

    def _hand_over(self, tx: Transaction) -> asyncio.Future[None]:
        """Give a transaction to the store, behind all that were given before."""
        recording: asyncio.Future[None]
        if not tx:
            recording = asyncio.get_running_loop().create_future()
            recording.set_result(None)
            return recording
        recording = asyncio.ensure_future(self.store.record(tx))
        self._handed_over.add(recording)
        recording.add_done_callback(self._handed_over.discard)
        return recording

    def _publish_breaker(self, operation: Operation, owner: EntityKey | None, message: str) -> None:
        nobody = "_"
        topic = f"{self.settings.base_topic}/event/job/skipped/{operation.id}/{owner.id if owner else nobody}"
        self.rejections.publish(topic, "breaker_open", message)

    def adopt(self, tx: Transaction, at: datetime, by: str) -> None:
        """Bring what is remembered in line with the installed configuration."""
        self.cache.install(self.settings.installation)
        for name in self.cache.take_gone():
            tx.trigger_states[name] = None
        for operation in self.settings.installation.operations.values():
            self.cache.remember(tx, operation, at, by)

    async def _leave_out_ended(self, tx: Transaction) -> None:
        """Leave out stops of jobs that ended by themselves meanwhile; a strict one is left to be refused."""
        fresh = {job.uid for job in tx.jobs}
        strict = {update.uid for update in tx.updates if update.strict}
        gone = set()
        for job in tx.stopped:
            if job.uid not in fresh | strict:
                stored = await self.store.get(job.uid)
                if stored is None or stored.ended:
                    gone.add(job.uid)
        if gone:
            tx.stopped = [job for job in tx.stopped if job.uid not in gone]
            tx.updates = [update for update in tx.updates if update.uid not in gone]

    def _recorded(self, tx: Transaction) -> None:
        """Count what was recorded, end what it stopped and start its jobs."""
        self.counters.add(tx)
        if not tx:
            return
        if tx.stopped:
            self.runner.stopped(tx.stopped)
        self.runner.start(tx.jobs)
        self.runner.publish_changed(tx.changed.values())
        self.agent_scheduler.recorded(tx)
        self.deadlines.recorded()

    def is_active(self, operation: Operation) -> bool:
        """Whether an operation may run."""
        return self.cache.is_active(operation)
