"""What the service is made of: the parts that outlast a configuration, and those that are made anew with each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mqttjobs.clock import Clock
from mqttjobs.domain.model import EntityKey
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.service_topics import job_event_topic
from mqttjobs.domain.status import Status
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
from mqttjobs.service.scheduling.deadlines import Deadlines
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.agents import AgentRegistry
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.counters import Counters
from mqttjobs.store.base import Store
from mqttjobs.transport.publisher import Publisher
from mqttjobs.transport.rejections import Rejections


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is made of one configuration. A reload puts another in its place, whole."""

    settings: Settings
    resolver: OperationResolver
    guard: TriggerGuard
    job_factory: JobFactory
    ingest: Ingest
    on_failure: OnFailure
    agent_inbox: AgentInbox


class Parts:
    """What outlasts a configuration, made once for one run of the service.

    The composition root and the engine have all of it; everything else is given what it needs.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Clock,
        new_id: Callable[[], str],
        new_token: Callable[[], str],
    ) -> None:
        self.store = store
        self.clock = clock
        self.new_id = new_id
        self.cache = StateCache()
        self.agent_registry = AgentRegistry()
        self.counters = Counters()
        self.publisher = Publisher()
        self.rejections = Rejections(settings.base_topic, clock, self.publisher.publish)
        self.job_events = JobEventPublisher(store, self.publisher, settings.base_topic, settings.service.event_qos)
        self.confirmations = Confirmations(clock)
        self.breakers = Breakers(clock.monotonic, partial(_publish_breaker, self.rejections, settings.base_topic))
        self.skipped_matches = SkippedMatches()
        self.deadlines = Deadlines(self.cache, clock.now())
        self._new_batch = partial(AssignmentBatch, store=store, agent_registry=self.agent_registry, cache=self.cache)
        self.agent_scheduler = AgentScheduler(
            store,
            self.agent_registry,
            clock,
            new_batch=self._new_batch,
            new_token=new_token,
            publish=self.publisher.publish,
        )

    def configure(self, settings: Settings) -> Configuration:
        """Return what is made of a configuration; nothing uses it yet."""
        settings = settings.with_members(self.cache.members)
        resolver = OperationResolver(settings)
        guard = TriggerGuard(settings, self.cache, self.breakers)
        job_factory = JobFactory(
            settings, self.cache, self.agent_registry, self.store, guard, self.skipped_matches, self.new_id
        )
        return Configuration(
            settings,
            resolver,
            guard,
            job_factory,
            Ingest(settings, self.cache, job_factory, self.rejections, self.confirmations),
            OnFailure(settings, self.cache, job_factory),
            AgentInbox(settings, resolver, self.agent_registry, self.rejections, self._new_batch, self.counters.agents),
        )


def _publish_breaker(
    rejections: Rejections, base_topic: str, operation: Operation, owner: EntityKey | None, message: str
) -> None:
    topic = job_event_topic(base_topic, Status.SKIPPED.value, operation.id, owner.id if owner else None)
    rejections.publish(topic, "breaker_open", message)
