"""One session with the broker: say hello, take batches in until it ends, and say goodbye."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from mqttjobs.errors import TransportError
from mqttjobs.service.agents.scheduler import AgentScheduler
from mqttjobs.service.api.router import RequestRouter
from mqttjobs.service.api.status import ServiceStatus, offline
from mqttjobs.service.intake import Intake
from mqttjobs.service.jobs.events import JobEventPublisher
from mqttjobs.service.jobs.runner import Runner
from mqttjobs.service.scheduler import Scheduler
from mqttjobs.service.subscriptions import Subscriptions
from mqttjobs.transport.base import Session
from mqttjobs.transport.publisher import Publisher

GOODBYE_S = 2.0

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Connection:
    """What happens while there is a session: whoever depends on one learns when it begins and when it is gone."""

    subscriptions: Subscriptions
    intake: Intake
    router: RequestRouter
    publisher: Publisher
    status: ServiceStatus
    job_events: JobEventPublisher
    scheduler: Scheduler
    runner: Runner
    agent_scheduler: AgentScheduler
    base_topic: str
    _receiving: bool = field(default=False, init=False)

    async def serve(self, session: Session, stop: asyncio.Event, loops: Sequence[asyncio.Task[None]]) -> None:
        """Serve over `session` until it is lost (raises) or `stop` is set.

        `loops` are the service's other tasks: one that ended by itself ended by an error, which is raised here.
        """
        pump = asyncio.create_task(self._pump(session, stop), name="intake")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({pump, stopping, *loops}, return_when=asyncio.FIRST_COMPLETED)
            if not pump.done() and self._receiving:
                pump.cancel()
            await asyncio.wait({pump})
            if not pump.cancelled():
                pump.result()
            for loop in loops:
                if loop.done():
                    loop.result()
            await self._goodbye(session)
        finally:
            pump.cancel()
            stopping.cancel()
            await asyncio.gather(pump, stopping, return_exceptions=True)
            self.subscriptions.detach()
            self.publisher.detach()
            self.scheduler.disconnected()

    async def _pump(self, session: Session, stop: asyncio.Event) -> None:
        await self._greet(session, stop)
        while not stop.is_set():
            await self.router.room()
            self._receiving = True
            try:
                messages = await session.receive()
            finally:
                self._receiving = False
            await self.intake.take(session, messages, stop)

    async def _greet(self, session: Session, stop: asyncio.Event) -> None:
        """Subscribe, remember what is subscribed, and say that we are here."""
        self.status.protocol = session.protocol
        self.intake.begin(session)
        await self.subscriptions.attach(session)
        self.publisher.attach(session)
        self.job_events.behind = True
        self.agent_scheduler.connected()
        self.scheduler.connected()
        log.info("connected", protocol=session.protocol, resumed=session.resumed)
        await self.intake.take(session, [], stop)
        self.status.announce()
        self.runner.wake()
        self.agent_scheduler.wake()

    async def _goodbye(self, session: Session) -> None:
        """Say offline before a clean stop: a clean disconnect sends no will."""
        await self.router.close()
        sending = session.publish(offline(self.base_topic))
        try:
            async with asyncio.timeout(GOODBYE_S):
                await sending
        except (TimeoutError, TransportError):
            log.warning("goodbye-not-confirmed")
