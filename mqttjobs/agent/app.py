"""An agent: connects, publishes its status, takes assignments and commands, and runs jobs (contract 6)."""

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
"""The longest wait between connections: well within a lease."""
SIGN_OFF_S = 5.0
"""How long a shutdown waits for the last reports, and then for the last status."""

log = structlog.get_logger(__name__)


class Agent:
    """One run of an agent.

    Args:
        settings: the settings of this agent.
        clock: the source of time.
        new_token: returns a text that it never returned before.
        jitter: returns a random number from 0 to 1.
        connect: makes the transport from the settings and a function that returns the will of each connection.
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
        self.worker = Worker(settings, self._journal, self._channel, clock, self._update_state)
        rejections = Rejections(settings.base_topic, clock, self._channel.publisher.publish)
        self._commands = CommandHandler(settings, self._journal, self.worker, rejections, clock)
        self._transport = (connect or _transport)(settings, self._will)
        self._connection = new_token()
        self._state = Readiness.READY
        self._published_state: Readiness | None = None
        self._leaving = False

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then sign off.

        Raises:
            StoreRefused: the state directory cannot be used.
            ClientIdTaken: another agent has the same hostname.
        """
        self._journal.open(self._clock.now())
        heartbeat = asyncio.create_task(self._send_heartbeats(), name="heartbeat")
        try:
            self.worker.recover()
            self._update_state()
            await stay_connected(
                self._transport,
                lambda session: self._serve(session, stop),
                stop,
                clock=self._clock,
                jitter=self._jitter,
                longest_s=LONGEST_PAUSE_S,
            )
        finally:
            heartbeat.cancel()
            await asyncio.gather(heartbeat, return_exceptions=True)
            self._leaving = True
            await self.worker.close(0)
            self._journal.close()
            await self.worker.release()

    # -- one session ---------------------------------------------------------------------------------------------

    async def _serve(self, session: Session, stop: asyncio.Event) -> None:
        """Serve one session until `stop` is set; raises the error that ended a lost session."""
        receiving = asyncio.create_task(self._receive(session), name="receive")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({receiving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                receiving.result()
            await self._sign_off(session)
        finally:
            receiving.cancel()
            stopping.cancel()
            await asyncio.gather(receiving, stopping, return_exceptions=True)
            self._channel.detach()

    async def _receive(self, session: Session) -> None:
        """Subscribe, publish the status, and handle messages until the session is lost."""
        wanted = [Subscription(self._settings.topic(what), replay=False) for what in ("assign", "control")]
        for each, code in zip(wanted, await session.subscribe(wanted), strict=True):
            if code >= REFUSED:
                refusal = describe_refusal(code)
                raise TransportError(f"the broker refused the subscription {each.filter}: {refusal}; check its ACL")
        self._channel.attach(session)
        self._publish_status()
        if not session.resumed:
            self.worker.report_all_again()
        log.info("connected", protocol=session.protocol, resumed=session.resumed)
        while True:
            messages = await session.receive()
            await self._commands.take(messages)
            session.acknowledge(messages)
            self._journal.compact(self._clock.now())
            self._update_state()

    async def _sign_off(self, session: Session) -> None:
        """Stop the jobs, deliver their reports, and publish `offline`: a clean disconnect publishes no will."""
        self._leaving = True
        self._state = Readiness.DRAINING
        await self.worker.close(SIGN_OFF_S)
        sending = session.publish(self._status(Readiness.OFFLINE, qos=1))
        with suppress(TimeoutError, TransportError):
            async with asyncio.timeout(SIGN_OFF_S):
                await sending

    # -- status --------------------------------------------------------------------------------------------------

    def _will(self) -> Publication:
        """Return the will of the next connection, and give that connection a new name."""
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

    def _update_state(self) -> None:
        """Compute the state of this agent, and publish a changed state at once."""
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

    async def _send_heartbeats(self) -> None:
        """Publish the status at each heartbeat; at QoS 0, so that nothing queues up for a service that is away."""
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
        ClientIdTaken: another agent has the same hostname.
    """
    await Agent(settings, clock=SystemClock()).run(stop)
