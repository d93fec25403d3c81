"""One session with the broker: subscribe, take batches in, commit, acknowledge, answer, and say goodbye."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from mqttjobs.domain.protocol import encode
from mqttjobs.domain.service_topics import OFFLINE, ONLINE, lane, report_filter, status_topic
from mqttjobs.domain.topics import minimal_filters
from mqttjobs.errors import NotFound, StoreError, TransportError
from mqttjobs.service.api.router import RequestRouter
from mqttjobs.service.api.status import info_document, status_publication
from mqttjobs.service.engine import Engine
from mqttjobs.service.scheduler import Scheduler
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.store.base import RETRY_S
from mqttjobs.transport.base import REFUSED, Message, Publication, Session, Subscription, describe_refusal

FILTERS_KEY = "filters"
SESSION_KEY = "session"
HELD_BACK = 10_000
"""Messages held while the store is unavailable; beyond this nothing more is received."""
GOODBYE_S = 2.0

log = structlog.get_logger(__name__)


class Connection:
    """What happens while there is a session."""

    def __init__(self, engine: Engine, scheduler: Scheduler, router: RequestRouter) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._router = router
        self._session: Session | None = None
        self._greeting = Transaction()
        self._receiving = False

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
            self._session = None
            self._engine.publisher.detach()
            self._scheduler.disconnected()

    async def _pump(self, session: Session, stop: asyncio.Event) -> None:
        await self._greet(session, stop)
        while not stop.is_set():
            await self._router.room()
            self._receiving = True
            try:
                messages = await session.receive()
            finally:
                self._receiving = False
            await self._take(session, messages, stop)

    async def _greet(self, session: Session, stop: asyncio.Event) -> None:
        """Subscribe, remember what is subscribed, and say that we are here."""
        engine = self._engine
        engine.protocol = session.protocol
        self._session = session
        async with engine.write_lock:
            engine.cache.live.clear()
            tx = self._greeting  # what an earlier one could not record is still owed
            if not session.resumed:
                self._new_session(tx)
            await self._subscribe(session, tx)
        engine.publisher.attach(session)
        engine.job_events.behind = True
        engine.agent_registry.connected(engine.clock.now())
        self._scheduler.connected()
        log.info("connected", protocol=session.protocol, resumed=session.resumed)
        await self._take(session, [], stop)
        self._announce()
        engine.runner.wake()
        engine.agent_scheduler.wake()

    def _announce(self) -> None:
        base = self._engine.settings.base_topic
        info = encode(info_document(self._engine))
        publish = self._engine.publisher.publish
        publish(Publication(f"{base}/info", info, qos=1, retain=True, content_type="application/json"))
        publish(status_publication(self._engine.settings, ONLINE))

    def _new_session(self, tx: Transaction) -> None:
        """Packet identifiers begin anew; if there was a session before, what came meanwhile may be missing."""
        engine = self._engine
        tx.forget_packets = True
        if engine.cache.metadata.get(SESSION_KEY):
            message = "the broker lost our session: changes that came while we were away may be missing"
            log.warning("session-lost", details=message)
            engine.rejections.publish(status_topic(engine.settings.base_topic), "session_lost", message)
        tx.metadata[SESSION_KEY] = True

    def _wanted(self) -> list[Subscription]:
        """Return what to subscribe to: states with their retained messages, requests without; so too of agents."""
        settings = self._engine.settings
        base = settings.base_topic
        states = minimal_filters([*settings.installation.filters(), report_filter(base)])
        requests = [f"{prefix}/request/+/+" for prefix in (base, lane(base, "+"))]
        statuses: list[str] = []
        if self._engine.agent_scheduler.enabled:
            status, report = self._engine.agent_inbox.filters()
            statuses.append(status)
            requests.append(report)
        return [
            *(Subscription(each) for each in statuses),
            *(Subscription(each) for each in states),
            *(Subscription(each, replay=False) for each in requests),
        ]

    async def _subscribe(self, session: Session, tx: Transaction, known: frozenset[str] = frozenset()) -> None:
        """Subscribe to what is wanted and not in `known`, and unsubscribe what is wanted no longer."""
        engine = self._engine
        wanted = self._wanted()
        names = [each.filter for each in wanted]
        gone = sorted(set(engine.cache.metadata.get(FILTERS_KEY) or ()) - set(names))
        if gone:
            await session.unsubscribe(gone)
        fresh = [each for each in wanted if each.filter not in known]
        codes = await session.subscribe(fresh) if fresh else []
        for name in gone + names:
            engine.notices.pop(f"subscription {name}", None)
        for each, code in zip(fresh, codes, strict=True):
            if code >= REFUSED:
                message = f"the broker refused the subscription {each.filter}: {describe_refusal(code)}"
                engine.notices[f"subscription {each.filter}"] = message
                log.error("subscription-refused", filter=each.filter, code=code)
        engine.cache.metadata[FILTERS_KEY] = names
        tx.metadata[FILTERS_KEY] = names

    async def resubscribe(self, tx: Transaction) -> None:
        """Follow a new configuration, if there is a session and it lasts; otherwise the next one does."""
        if self._session is not None:
            known = frozenset(self._engine.cache.metadata.get(FILTERS_KEY) or ())
            with suppress(TransportError):
                await self._subscribe(self._session, tx, known)
                self._greeting.metadata.pop(FILTERS_KEY, None)
            self._announce()

    async def _take(self, session: Session, messages: list[Message], stop: asyncio.Event) -> None:
        """Commit a batch, and only then acknowledge it and answer its requests.

        While the store is unavailable nothing is acknowledged: the batch is held and tried again, with what
        arrives meanwhile, until `stop`; requests are answered, so that service/health can say what is wrong.
        """
        engine = self._engine
        answered = 0
        while True:
            try:
                requests = await self._commit(messages)
            except NotFound:
                continue  # a job that a report is about was pruned in this moment: decide anew
            except StoreError as error:
                if "store" not in engine.notices:
                    log.error("store-unavailable", details=str(error), messages_held=len(messages))
                engine.notices["store"] = f"store: {error}"
                self._router.accept([each for each in messages[answered:] if self._is_request(each)])
                answered = len(messages)
                if stop.is_set():
                    return
                messages += await self._meanwhile(session, len(messages))
            else:
                break
        engine.notices.pop("store", None)
        session.acknowledge(messages)
        held = {id(each) for each in messages[:answered]}
        self._router.accept([each for each in requests if id(each) not in held])
        if not all(self._is_request(each) or self._is_of_agent(each) for each in messages):
            self._scheduler.heard()

    async def _commit(self, messages: Sequence[Message]) -> list[Message]:
        """Decide and record one batch, with what the greeting has still to record; return its requests that are new."""
        engine = self._engine
        async with engine.write_lock:
            await engine.refresh()
            greeting = self._greeting
            if greeting.forget_packets:
                engine.cache.packets.clear()
            engine.cache.metadata |= greeting.metadata
            others = [each for each in messages if self._is_request(each) or self._is_of_agent(each)]
            known = set(map(id, others))
            reports = [each for each in messages if id(each) not in known]
            tx, now = Transaction(), engine.clock.now()
            await engine.ingest.take(tx, reports, now, self._scheduler.before_batch(tx, now))
            fresh = [each for each in others if engine.ingest.note_packet(tx, each)]
            await engine.agent_inbox.take(tx, [each for each in fresh if self._is_of_agent(each)], now)
            requests = [each for each in fresh if self._is_request(each)]
            tx.forget_packets = greeting.forget_packets
            tx.metadata |= greeting.metadata
            if tx:
                await engine.commit(tx)
            else:
                engine.counters.add(tx)
            self._greeting = Transaction()
        return requests

    async def _meanwhile(self, session: Session, held: int) -> list[Message]:
        if held >= HELD_BACK:
            await self._engine.clock.wait(asyncio.Event(), RETRY_S)
            return []
        receiving = asyncio.ensure_future(session.receive())
        waiting = asyncio.Event()
        receiving.add_done_callback(lambda _: waiting.set())
        await self._engine.clock.wait(waiting, RETRY_S)
        if not receiving.done():
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        return [] if receiving.cancelled() else receiving.result()

    def _is_request(self, message: Message) -> bool:
        base = self._engine.settings.base_topic
        return message.topic.startswith((f"{base}/request/", f"{base}/users/"))

    def _is_of_agent(self, message: Message) -> bool:
        return message.topic.startswith(f"{self._engine.settings.base_topic}/agents/")

    async def _goodbye(self, session: Session) -> None:
        """Say offline before a clean stop: a clean disconnect sends no will."""
        await self._router.close()
        sending = session.publish(status_publication(self._engine.settings, OFFLINE))
        try:
            async with asyncio.timeout(GOODBYE_S):
                await sending
        except (TimeoutError, TransportError):
            log.warning("goodbye-not-confirmed")
