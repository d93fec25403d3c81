"""The parts that the use cases share, and the one way in which what they decided becomes durable and starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from mqttjobs.clock import Clock
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import EntityKey, Json, Operation
from mqttjobs.domain.status import LOCAL
from mqttjobs.errors import MqttJobsError
from mqttjobs.service.agents.assigning import Agents
from mqttjobs.service.agents.intake import AgentIntake
from mqttjobs.service.agents.roster import Roster
from mqttjobs.service.agents.sheet import Sheet
from mqttjobs.service.counters import Counters
from mqttjobs.service.draft import Draft
from mqttjobs.service.ingest import Ingest
from mqttjobs.service.mirror import Mirror
from mqttjobs.service.running.aftermath import Aftermath
from mqttjobs.service.running.announcer import Announcer
from mqttjobs.service.running.confirmations import Confirmations
from mqttjobs.service.running.runner import Runner
from mqttjobs.service.running.submission import Submission
from mqttjobs.service.running.workbench import Workbench
from mqttjobs.service.settings import LoadSettings, Settings
from mqttjobs.service.starting.agenda import Agenda
from mqttjobs.service.starting.breakers import Breakers
from mqttjobs.service.starting.gate import Gate, Misses
from mqttjobs.store.base import Store
from mqttjobs.transport.publisher import Publisher
from mqttjobs.transport.rejections import Rejections


class Workshop:
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
        self.mirror = Mirror()
        self.counters = Counters()
        self.publisher = Publisher()
        self.rejections = Rejections(settings.base_topic, clock, self.publisher.publish)
        self.announcer = Announcer(store, self.publisher, settings.base_topic, settings.service.event_qos)
        self.confirmations = Confirmations(clock)
        self.runner = Runner(settings, store, self.mirror, self.publisher, self.announcer, clock, self.confirmations)
        self.runner.clerk.follow = self.follow
        self.runner.clerk.started = self._started
        self.breakers = Breakers(clock.monotonic, self._tell_breaker)
        self.misses = Misses()
        self.agenda = Agenda(self.mirror, self.started_at)
        self.roster = Roster()
        self.agents = Agents(
            store,
            self.roster,
            clock,
            new_sheet=self._new_sheet,
            new_token=new_token,
            publish=self.publisher.publish,
        )
        self.turn = asyncio.Lock()
        self.notices: dict[str, str] = {}
        self.protocol: str | None = None
        self.recorded: Callable[[], object] = _nobody
        self.reloading: Callable[[str], Awaitable[dict[str, Json]]] | None = None
        self.install(settings)

    def install(self, settings: Settings) -> None:
        """Use a configuration from now on: the parts that are made of one are made anew."""
        self.settings = settings = self.peopled(settings)
        self.workbench = Workbench(settings)
        self.runner.install(settings)
        service = settings.service
        self.breakers.install(settings.installation.operations.values())
        self.gate = Gate(settings, self.mirror, self.breakers)
        self.submission = Submission(
            settings, self.mirror, self.roster, self.store, self.gate, self.misses, self.new_id
        )
        self.ingest = Ingest(
            settings.installation,
            self.mirror,
            self.submission,
            self.rejections,
            self.confirmations,
            base_topic=settings.base_topic,
            max_payload=service.max_payload,
            max_objects=service.max_objects,
        )
        self.aftermath = Aftermath(settings, self.submission)
        self.agenda.install(settings, self.ingest, self.submission)

        self.agents.install(settings, self.workbench)
        self.agent_intake = AgentIntake(
            settings, self.workbench, self.roster, self.rejections, self._new_sheet, self.counters.agents
        )

    def peopled(self, settings: Settings) -> Settings:
        """Return settings in which the members that are known by their reports are there."""
        if not settings.installation.membership:
            return settings
        installation = settings.installation.copy()
        for class_id, member in sorted(self.mirror.members):
            installation.learn(class_id, member)
        return replace(settings, installation=installation)

    def _new_sheet(self, draft: Draft) -> Sheet:
        return Sheet(draft, self.store, self.roster, self.mirror)

    async def load(self) -> None:
        """Read the mirror and the roster from the store."""
        snapshot = await self.store.load()
        self.roster.load(snapshot.agents, await self.store.assignments())
        for class_id, member in snapshot.members:
            self.settings.installation.learn(class_id, member)
        self.mirror.load(snapshot, self.settings.installation)
        self.submission.repaint()
        self.agenda.restore()

    async def refresh(self) -> None:
        """Read the mirror and the roster anew if a write failed since."""
        if self.mirror.stale:
            await self.load()

    def _tell_breaker(self, operation: Operation, owner: EntityKey | None, words: str) -> None:
        nobody = "_"
        topic = f"{self.settings.base_topic}/event/job/skipped/{operation.id}/{owner.id if owner else nobody}"
        self.rejections.tell(topic, "breaker_open", words)

    async def adopt(self, at: datetime, by: str) -> Draft:
        """Return the draft that brings what is remembered in line with the installed configuration."""
        draft = Draft()
        self.mirror.install(self.settings.installation)
        for name in self.mirror.take_gone():
            draft.holds[name] = None
        for operation in self.settings.installation.operations.values():
            before = self.mirror.facts.get(operation.id)
            if self.mirror.remember(operation, at, by) is not before:
                draft.facts.add(operation.id)
        return draft

    async def follow(self, draft: Draft, job: Job) -> None:
        """Put what follows a failed job into the draft that records its end."""
        await self.aftermath.follow(draft, job, self.clock.now())

    async def commit(self, draft: Draft) -> None:
        """Record a draft, end what it stopped and start its jobs.

        Call it with `turn` held if the draft changed the mirror.

        Raises:
            StoreError: nothing was written; the mirror is read anew before it is used again.
            TerminalState, NotFound: a refusal of the store; nothing was written.
        """
        await self._follow_agents(draft)
        stopping = {job.uid for job in draft.stopped}
        recorded = False
        if stopping:
            await self.runner.clerk.hold(stopping)
        try:
            if stopping:
                await self._leave_out_ended(draft)
            draft.jobs = [self.runner.admit(job) for job in draft.jobs]
            await asyncio.shield(self.store.record(draft.changes(self.mirror)))
            recorded = True
        except MqttJobsError:
            self.mirror.stale = self.mirror.stale or draft.mirrored
            raise
        finally:
            if stopping:
                self.runner.clerk.release(stopping, stopped=recorded)
        self._started(draft)

    async def _follow_agents(self, draft: Draft) -> None:
        """Put what follows failures on agents into the draft: of jobs that end with it, or found no agent."""
        for job in draft.ended.values():
            await self.follow(draft, job)
        followed = 0
        while followed < len(draft.jobs):
            job = draft.jobs[followed]
            if job.ended and job.target != LOCAL and job.invalid_fields is None:
                await self.follow(draft, job)
            followed += 1

    async def _leave_out_ended(self, draft: Draft) -> None:
        """Leave out stops of jobs that ended by themselves since they were decided; a strict one is refused instead."""
        fresh = {job.uid for job in draft.jobs}
        strict = {update.uid for update in draft.updates if update.strict}
        gone = set()
        for job in draft.stopped:
            if job.uid not in fresh | strict:
                stored = await self.store.get(job.uid)
                if stored is None or stored.ended:
                    gone.add(job.uid)
        if gone:
            draft.stopped = [job for job in draft.stopped if job.uid not in gone]
            draft.updates = [update for update in draft.updates if update.uid not in gone]

    def _started(self, draft: Draft) -> None:
        """Count a recorded draft, end what it stopped and start its jobs."""
        self.counters.add(draft)
        self.runner.stopped(draft.stopped)
        self.runner.start(draft.jobs)
        self.runner.tell(draft.changed.values())
        self.agents.recorded(draft)
        self.recorded()

    def is_active(self, operation: Operation) -> bool:
        """Whether an operation may run."""
        return self.mirror.is_active(operation)


def _nobody() -> None:
    """Stand in until somebody wants to know."""
