"""The parts that the use cases share, and the one way in which what they decided becomes durable and starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from mqttjobs.clock import Clock
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import EntityKey, Json, Operation
from mqttjobs.domain.service_topics import job_event_topic
from mqttjobs.domain.status import LOCAL, Status
from mqttjobs.errors import MqttJobsError
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
        turn: held while deciding and recording anything that the mirror mirrors, so that records are written in the
            order in which they were decided.
        notices: what makes health degraded, by name; empty when all is well.
        recorded: called after each record.
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
        self.runner = Runner(settings, store, self.cache, self.publisher, self.job_events, clock, self.confirmations)
        self.runner.completer.follow = self.follow
        self.runner.completer.started = self._started
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
        self.write_lock = asyncio.Lock()
        self.notices: dict[str, str] = {}
        self.protocol: str | None = None
        self.recorded: Callable[[], object] = _nobody
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

    async def load(self) -> None:
        """Read the mirror and the roster from the store."""
        snapshot = await self.store.load()
        self.agent_registry.load(snapshot.agents, await self.store.assignments())
        for class_id, member in snapshot.members:
            self.settings.installation.register(class_id, member)
        self.cache.load(snapshot, self.settings.installation)
        self.job_factory.refresh_values()
        self.deadlines.restore()

    async def refresh(self) -> None:
        """Read the mirror and the roster anew if a write failed since."""
        if self.cache.stale:
            await self.load()

    def _publish_breaker(self, operation: Operation, owner: EntityKey | None, message: str) -> None:
        owner_id = owner.id if owner else None
        topic = job_event_topic(self.settings.base_topic, Status.SKIPPED.value, operation.id, owner_id)
        self.rejections.publish(topic, "breaker_open", message)

    async def adopt(self, at: datetime, by: str) -> Transaction:
        """Return the draft that brings what is remembered in line with the installed configuration."""
        tx = Transaction()
        self.cache.install(self.settings.installation)
        for name in self.cache.take_gone():
            tx.trigger_states[name] = None
        for operation in self.settings.installation.operations.values():
            before = self.cache.operation_states.get(operation.id)
            if self.cache.remember(operation, at, by) is not before:
                tx.operation_states.add(operation.id)
        return tx

    async def follow(self, tx: Transaction, job: Job) -> None:
        """Put what follows a failed job into the draft that records its end."""
        await self.on_failure_jobs.follow(tx, job, self.clock.now())

    async def commit(self, tx: Transaction) -> None:
        """Record a draft, end what it stopped and start its jobs.

        Call it with `turn` held if the draft changed the mirror.

        Raises:
            StoreError: nothing was written; the mirror is read anew before it is used again.
            TerminalState, NotFound: a refusal of the store; nothing was written.
        """
        await self._follow_agents(tx)
        stopping = {job.uid for job in tx.stopped}
        recorded = False
        if stopping:
            await self.runner.completer.defer(stopping)
        try:
            if stopping:
                await self._leave_out_ended(tx)
            tx.jobs = [self.runner.admit(job) for job in tx.jobs]
            await asyncio.shield(self.store.record(tx.changes(self.cache)))
            recorded = True
        except MqttJobsError:
            self.cache.stale = self.cache.stale or tx.changes_cache
            raise
        finally:
            if stopping:
                self.runner.completer.release(stopping, stopped=recorded)
        self._started(tx)

    async def _follow_agents(self, tx: Transaction) -> None:
        """Put what follows failures on agents into the draft: of jobs that end with it, or found no agent."""
        for job in tx.ended.values():
            await self.follow(tx, job)
        followed = 0
        while followed < len(tx.jobs):
            job = tx.jobs[followed]
            if job.ended and job.target != LOCAL and job.invalid_fields is None:
                await self.follow(tx, job)
            followed += 1

    async def _leave_out_ended(self, tx: Transaction) -> None:
        """Leave out stops of jobs that ended by themselves since they were decided; a strict one is refused instead."""
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

    def _started(self, tx: Transaction) -> None:
        """Count a recorded draft, end what it stopped and start its jobs."""
        self.counters.add(tx)
        self.runner.stopped(tx.stopped)
        self.runner.start(tx.jobs)
        self.runner.publish_changed(tx.changed.values())
        self.agent_scheduler.recorded(tx)
        self.recorded()

    def is_active(self, operation: Operation) -> bool:
        """Whether an operation may run."""
        return self.cache.is_active(operation)


def _nobody() -> None:
    """Stand in until somebody wants to know."""
