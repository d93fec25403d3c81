"""One session with the broker: subscribe, take batches in, commit, acknowledge, answer, and say goodbye."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from mqttjobs.domain.protocol import encode
from mqttjobs.domain.topics import minimal_filters
from mqttjobs.errors import NotFound, StoreError, TransportError
from mqttjobs.service.draft import Draft
from mqttjobs.service.requests.reports import info_document
from mqttjobs.service.requests.responder import Responder
from mqttjobs.service.starting.timekeeper import Timekeeper
from mqttjobs.service.workshop import Workshop
from mqttjobs.transport.base import REASONS, Message, Publication, Session, Subscription

FILTERS_NOTE = "filters"
SESSION_NOTE = "session"
STORE_RETRY_S = 1.0
HELD_BACK = 10_000
"""Messages held while the store is unavailable; beyond this nothing more is received."""
GOODBYE_S = 2.0

log = structlog.get_logger(__name__)


class Connection:
    """What happens while there is a session."""

    def __init__(self, workshop: Workshop, timekeeper: Timekeeper, responder: Responder) -> None:
        self._workshop = workshop
        self._timekeeper = timekeeper
        self._responder = responder
        self._session: Session | None = None
        self._greeting = Draft()
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
            self._workshop.publisher.detach()
            self._timekeeper.disconnected()

    async def _pump(self, session: Session, stop: asyncio.Event) -> None:
        await self._greet(session, stop)
        while not stop.is_set():
            await self._responder.room()
            self._receiving = True
            try:
                messages = await session.receive()
            finally:
                self._receiving = False
            await self._take(session, messages, stop)

    async def _greet(self, session: Session, stop: asyncio.Event) -> None:
        """Subscribe, remember what is subscribed, and say that we are here."""
        workshop = self._workshop
        workshop.protocol = session.protocol
        self._session = session
        async with workshop.turn:
            workshop.mirror.live.clear()
            draft = self._greeting  # what an earlier one could not record is still owed
            if not session.resumed:
                self._new_session(draft)
            await self._subscribe(session, draft)
        workshop.publisher.attach(session)
        workshop.announcer.behind = True
        workshop.roster.connected(workshop.clock.now())
        self._timekeeper.connected()
        log.info("connected", protocol=session.protocol, resumed=session.resumed)
        await self._take(session, [], stop)
        self._announce()
        workshop.runner.wake()
        workshop.agents.wake()

    def _announce(self) -> None:
        base = self._workshop.settings.base_topic
        info = encode(info_document(self._workshop))
        publish = self._workshop.publisher.publish
        publish(Publication(f"{base}/info", info, qos=1, retain=True, content_type="application/json"))
        publish(Publication(f"{base}/status", b"online", qos=1, retain=True))

    def _new_session(self, draft: Draft) -> None:
        """Packet identifiers begin anew; if there was a session before, what came meanwhile may be missing."""
        workshop = self._workshop
        draft.forget_packets = True
        if workshop.mirror.notes.get(SESSION_NOTE):
            words = "the broker lost our session: changes that came while we were away may be missing"
            log.warning("session-lost", details=words)
            workshop.rejections.tell(f"{workshop.settings.base_topic}/status", "session_lost", words)
        draft.notes[SESSION_NOTE] = True

    def _wanted(self) -> list[Subscription]:
        """Return what to subscribe to: states with their retained messages, requests without; so too of agents."""
        settings = self._workshop.settings
        base = settings.base_topic
        states = minimal_filters([*settings.installation.filters(), f"{base}/state/#"])
        requests = [f"{base}/request/+/+", f"{base}/users/+/request/+/+"]
        statuses: list[str] = []
        if self._workshop.agents.enabled:
            status, report = self._workshop.agent_intake.filters()
            statuses.append(status)
            requests.append(report)
        return [
            *(Subscription(each) for each in statuses),
            *(Subscription(each) for each in states),
            *(Subscription(each, replay=False) for each in requests),
        ]

    async def _subscribe(self, session: Session, draft: Draft, known: frozenset[str] = frozenset()) -> None:
        """Subscribe to what is wanted and not in `known`, and unsubscribe what is wanted no longer."""
        workshop = self._workshop
        wanted = self._wanted()
        names = [each.filter for each in wanted]
        gone = sorted(set(workshop.mirror.notes.get(FILTERS_NOTE) or ()) - set(names))
        if gone:
            await session.unsubscribe(gone)
        fresh = [each for each in wanted if each.filter not in known]
        codes = await session.subscribe(fresh) if fresh else []
        for name in gone + names:
            workshop.notices.pop(f"subscription {name}", None)
        for each, code in zip(fresh, codes, strict=True):
            if code >= 0x80:
                words = (
                    f"the broker refused the subscription {each.filter}: {REASONS.get(code, 'refused')} (0x{code:02X})"
                )
                workshop.notices[f"subscription {each.filter}"] = words
                log.error("subscription-refused", filter=each.filter, code=code)
        workshop.mirror.notes[FILTERS_NOTE] = names
        draft.notes[FILTERS_NOTE] = names

    async def resubscribe(self, draft: Draft) -> None:
        """Follow a new configuration, if there is a session and it lasts; otherwise the next one does."""
        if self._session is not None:
            known = frozenset(self._workshop.mirror.notes.get(FILTERS_NOTE) or ())
            with suppress(TransportError):
                await self._subscribe(self._session, draft, known)
                self._greeting.notes.pop(FILTERS_NOTE, None)
            self._announce()

    async def _take(self, session: Session, messages: list[Message], stop: asyncio.Event) -> None:
        """Commit a batch, and only then acknowledge it and answer its requests.

        While the store is unavailable nothing is acknowledged: the batch is held and tried again, with what
        arrives meanwhile, until `stop`; requests are answered, so that service/health can say what is wrong.
        """
        workshop = self._workshop
        answered = 0
        while True:
            try:
                requests = await self._commit(messages)
            except NotFound:
                continue  # a job that a report is about was pruned in this moment: decide anew
            except StoreError as error:
                if "store" not in workshop.notices:
                    log.error("store-unavailable", details=str(error), messages_held=len(messages))
                workshop.notices["store"] = f"store: {error}"
                self._responder.accept([each for each in messages[answered:] if self._is_request(each)])
                answered = len(messages)
                if stop.is_set():
                    return
                messages += await self._meanwhile(session, len(messages))
            else:
                break
        workshop.notices.pop("store", None)
        session.acknowledge(messages)
        held = {id(each) for each in messages[:answered]}
        self._responder.accept([each for each in requests if id(each) not in held])
        if not all(self._is_request(each) or self._is_of_agent(each) for each in messages):
            self._timekeeper.heard()

    async def _commit(self, messages: Sequence[Message]) -> list[Message]:
        """Decide and record one batch, with what the greeting has still to record; return its requests that are new."""
        workshop = self._workshop
        async with workshop.turn:
            await workshop.refresh()
            greeting = self._greeting
            if greeting.forget_packets:
                workshop.mirror.packets.clear()
            workshop.mirror.notes |= greeting.notes
            others = [each for each in messages if self._is_request(each) or self._is_of_agent(each)]
            known = set(map(id, others))
            reports = [each for each in messages if id(each) not in known]
            draft, now = Draft(), workshop.clock.now()
            await workshop.ingest.take(draft, reports, now, self._timekeeper.before_batch(draft, now))
            fresh = [each for each in others if workshop.ingest.note_packet(draft, each)]
            await workshop.agent_intake.take(draft, [each for each in fresh if self._is_of_agent(each)], now)
            requests = [each for each in fresh if self._is_request(each)]
            draft.forget_packets = greeting.forget_packets
            draft.notes |= greeting.notes
            if draft:
                await workshop.commit(draft)
            else:
                workshop.counters.add(draft)
            self._greeting = Draft()
        return requests

    async def _meanwhile(self, session: Session, held: int) -> list[Message]:
        if held >= HELD_BACK:
            await self._workshop.clock.wait(asyncio.Event(), STORE_RETRY_S)
            return []
        receiving = asyncio.ensure_future(session.receive())
        waiting = asyncio.Event()
        receiving.add_done_callback(lambda _: waiting.set())
        await self._workshop.clock.wait(waiting, STORE_RETRY_S)
        if not receiving.done():
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        return [] if receiving.cancelled() else receiving.result()

    def _is_request(self, message: Message) -> bool:
        base = self._workshop.settings.base_topic
        return message.topic.startswith((f"{base}/request/", f"{base}/users/"))

    def _is_of_agent(self, message: Message) -> bool:
        return message.topic.startswith(f"{self._workshop.settings.base_topic}/agents/")

    async def _goodbye(self, session: Session) -> None:
        """Say offline before a clean stop: a clean disconnect sends no will."""
        await self._responder.close()
        status = Publication(f"{self._workshop.settings.base_topic}/status", b"offline", qos=1, retain=True)
        sending = session.publish(status)
        try:
            async with asyncio.timeout(GOODBYE_S):
                await sending
        except (TimeoutError, TransportError):
            log.warning("goodbye-not-confirmed")
