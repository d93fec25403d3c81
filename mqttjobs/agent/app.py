"""An agent: connects, says how it is doing, takes what the service gives it, and runs it (contract 6)."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import structlog

import mqttjobs
from mqttjobs.agent.channel import AgentChannel
from mqttjobs.agent.commands import CommandHandler
from mqttjobs.agent.facts import facts
from mqttjobs.agent.journal import Journal
from mqttjobs.agent.settings import AgentSettings
from mqttjobs.agent.worker import Worker
from mqttjobs.clock import Clock, SystemClock
from mqttjobs.domain.agent_messages import Readiness
from mqttjobs.domain.model import Json
from mqttjobs.errors import TransportError
from mqttjobs.transport.base import (
    REFUSED,
    Publication,
    Session,
    Subscription,
    Transport,
    create_transport,
    describe_refusal,
)
from mqttjobs.transport.reconnect import stay_connected
from mqttjobs.transport.rejections import Rejections

LONGEST_PAUSE_S = 10.0
"""Between connections: well within a lease."""
GOODBYE_S = 5.0

log = structlog.get_logger(__name__)


class Agent:
    """One run of an agent.

    Args:
        settings: what it is told.
        clock: time.
        new_token: gives texts that are never the same.
        jitter: draws a number from 0 to 1.
        connect: makes the transport; the last will of each connection is made with it.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        clock: Clock,
        new_token: Callable[[], str] = secrets.token_hex,
        jitter: Callable[[], float] = random.random,
        connect: Callable[[AgentSettings, Callable[[], Publication]], Transport] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._new_token = new_token
        self._jitter = jitter
        self._journal = Journal(settings.state_dir)
        self._channel = AgentChannel(settings, clock)
        self.worker = Worker(settings, self._journal, self._channel, clock, self._settle)
        rejections = Rejections(settings.base_topic, clock, self._channel.publisher.publish)
        self._commands = CommandHandler(settings, self._journal, self.worker, rejections, clock)
        self._transport = (connect or _transport)(settings, self._will)
        self._connection = new_token()
        self._state = Readiness.READY
        self._published_state: Readiness | None = None
        self._leaving = False

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish cleanly.

        Raises:
            StoreRefused: the state directory cannot be used.
            ClientIdTaken: another agent has our name.
        """
        self._journal.open(self._clock.now())
        heart = asyncio.create_task(self._beat(), name="heartbeat")
        try:
            self.worker.recover()
            self._settle()
            await stay_connected(
                self._transport,
                lambda session: self._serve(session, stop),
                stop,
                clock=self._clock,
                jitter=self._jitter,
                longest_s=LONGEST_PAUSE_S,
            )
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            self._leaving = True
            await self.worker.close(0)
            self._journal.close()
            await self.worker.release()

    # -- one session ---------------------------------------------------------------------------------------------

    async def _serve(self, session: Session, stop: asyncio.Event) -> None:
        """Serve over a session until it is lost (raises) or `stop` is set."""
        pump = asyncio.create_task(self._pump(session), name="intake")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({pump, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
            await self._goodbye(session)
        finally:
            pump.cancel()
            stopping.cancel()
            await asyncio.gather(pump, stopping, return_exceptions=True)
            self._channel.detach()

    async def _pump(self, session: Session) -> None:
        wanted = [Subscription(self._settings.topic(what), replay=False) for what in ("assign", "control")]
        for each, code in zip(wanted, await session.subscribe(wanted), strict=True):
            if code >= REFUSED:
                refusal = describe_refusal(code)
                raise TransportError(f"the broker refused the subscription {each.filter}: {refusal}; check its ACL")
        self._channel.attach(session)
        self._publish_status()
        if not session.resumed:
            self.worker.repeat_all()
        log.info("connected", protocol=session.protocol, resumed=session.resumed)
        while True:
            messages = await session.receive()
            await self._commands.take(messages)
            session.acknowledge(messages)
            self._journal.tidy(self._clock.now())
            self._settle()

    async def _goodbye(self, session: Session) -> None:
        """End what runs, deliver what can be, and say offline: a clean disconnect publishes no will."""
        self._leaving = True
        self._state = Readiness.DRAINING
        await self.worker.close(GOODBYE_S)
        sending = session.publish(self._status(Readiness.OFFLINE, qos=1))
        with suppress(TimeoutError, TransportError):
            async with asyncio.timeout(GOODBYE_S):
                await sending

    # -- how it is doing -----------------------------------------------------------------------------------------

    def _will(self) -> Publication:
        """Return the last will of a connection that is about to be made, and give that a name of its own."""
        self._connection = self._new_token()
        return self._status(Readiness.OFFLINE, qos=1)

    def _status(self, state: Readiness, *, qos: int) -> Publication:
        body: Mapping[str, Json] = {
            "state": state.value,
            "labels": self._settings.labels,
            "version": mqttjobs.__version__,
            "max_jobs": self._settings.max_jobs,
            "running": self.worker.running,
            "facts": facts(),
            "connection": self._connection,
        }
        return self._channel.status(body, qos=qos)

    def _settle(self) -> None:
        """Find out in which state we are, and tell a new one at once."""
        if self._leaving:
            return
        if not self._journal.drained:
            self._state = Readiness.READY
        else:
            self._state = Readiness.DRAINING if self.worker.running else Readiness.CORDONED
        if self._published_state is not self._state and self._channel.publisher.connected:
            self._publish_status()

    def _publish_status(self) -> None:
        self._published_state = self._state
        self._channel.publisher.publish(self._status(self._state, qos=1))

    async def _beat(self) -> None:
        """Say that we are here; at QoS 0, so that nothing piles up for a service that is away."""
        pause_s = self._settings.timing.heartbeat / timedelta(seconds=1)
        while True:
            await self._clock.wait(asyncio.Event(), pause_s)
            if self._channel.publisher.connected:
                self._channel.publisher.publish(self._status(self._state, qos=0))


def _transport(settings: AgentSettings, will: Callable[[], Publication]) -> Transport:
    return create_transport(replace(settings.connect, will=will))


async def serve(settings: AgentSettings, *, stop: asyncio.Event) -> None:
    """Run an agent until `stop` is set.

    Raises:
        StoreRefused: the state directory cannot be used; the text says what to do.
        ClientIdTaken: another agent has our name.
    """
    await Agent(settings, clock=SystemClock()).run(stop)
