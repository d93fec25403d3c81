"""Batches of messages: decided and recorded, only then acknowledged, and only then answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from mqttjobs.clock import Clock
from mqttjobs.domain.service_topics import status_topic
from mqttjobs.errors import NotFound, StoreError
from mqttjobs.service.api.router import RequestRouter
from mqttjobs.service.engine import Engine
from mqttjobs.service.scheduler import Scheduler
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.subscriptions import Subscriptions
from mqttjobs.store.base import RETRY_S
from mqttjobs.transport.base import Message, Session
from mqttjobs.transport.rejections import Rejections

SESSION_KEY = "session"
"""The name under which the store keeps that the broker has a session of ours."""
HELD_BACK = 10_000
"""Messages held while the store is unavailable; beyond this nothing more is received."""

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Intake:
    """Takes batches in. An unavailable store is noted in `notices`, and a lost session published as a rejection."""

    engine: Engine
    cache: StateCache
    scheduler: Scheduler
    router: RequestRouter
    subscriptions: Subscriptions
    rejections: Rejections
    notices: dict[str, str]
    base_topic: str
    clock: Clock
    _forget_packets: bool = field(default=False, init=False)

    def begin(self, session: Session) -> None:
        """Take in what a session brings from now on.

        In a new session packet identifiers begin anew; if there was one before, messages may be missing.
        """
        self.cache.live.clear()
        if session.resumed:
            return
        self._forget_packets = True
        if self.cache.metadata.get(SESSION_KEY):
            message = "the broker lost our session: changes that came while we were away may be missing"
            log.warning("session-lost", details=message)
            self.rejections.publish(status_topic(self.base_topic), "session_lost", message)

    async def take(self, session: Session, messages: list[Message], stop: asyncio.Event) -> None:
        """Record a batch, and only then acknowledge it and answer its requests.

        While the store is unavailable nothing is acknowledged: the batch is held and tried again, with what
        arrives meanwhile, until `stop`; requests are answered, so that service/health can say what is wrong.
        """
        answered = 0
        while True:
            try:
                requests = await self._record(messages)
            except NotFound:
                continue  # a job that a report is about was pruned in this moment: decide anew
            except StoreError as error:
                if "store" not in self.notices:
                    log.error("store-unavailable", details=str(error), messages_held=len(messages))
                self.notices["store"] = f"store: {error}"
                self.router.accept([each for each in messages[answered:] if self._is_request(each)])
                answered = len(messages)
                if stop.is_set():
                    return
                messages += await self._meanwhile(session, len(messages))
            else:
                break
        self.notices.pop("store", None)
        session.acknowledge(messages)
        held = {id(each) for each in messages[:answered]}
        self.router.accept([each for each in requests if id(each) not in held])
        if not all(self._is_request(each) or self._is_of_agent(each) for each in messages):
            self.scheduler.heard()

    async def _record(self, messages: Sequence[Message]) -> list[Message]:
        """Decide and record one batch, with what the store does not know of the session; return its new requests."""
        others = [each for each in messages if self._is_request(each) or self._is_of_agent(each)]
        known = set(map(id, others))
        reports = [each for each in messages if id(each) not in known]
        async with self.engine.transaction() as tx:
            ingest, now = self.engine.configuration.ingest, self.clock.now()
            if self._forget_packets:
                tx.forget_packets = True
                self.cache.packets.clear()
            tx.metadata |= self.subscriptions.unrecorded()
            if not self.cache.metadata.get(SESSION_KEY):
                tx.metadata[SESSION_KEY] = True
            await ingest.take(tx, reports, now, self.scheduler.before_batch(tx, now))
            fresh = [each for each in others if ingest.note_packet(tx, each)]
            agents = [each for each in fresh if self._is_of_agent(each)]
            await self.engine.configuration.agent_inbox.take(tx, agents, now)
        if tx.forget_packets:
            self._forget_packets = False
        return [each for each in fresh if self._is_request(each)]

    async def _meanwhile(self, session: Session, held: int) -> list[Message]:
        if held >= HELD_BACK:
            await self.clock.wait(asyncio.Event(), RETRY_S)
            return []
        receiving = asyncio.ensure_future(session.receive())
        waiting = asyncio.Event()
        receiving.add_done_callback(lambda _: waiting.set())
        await self.clock.wait(waiting, RETRY_S)
        if not receiving.done():
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        return [] if receiving.cancelled() else receiving.result()

    def _is_request(self, message: Message) -> bool:
        return message.topic.startswith((f"{self.base_topic}/request/", f"{self.base_topic}/users/"))

    def _is_of_agent(self, message: Message) -> bool:
        return message.topic.startswith(f"{self.base_topic}/agents/")
