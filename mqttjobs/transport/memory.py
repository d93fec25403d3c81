"""A broker inside the process: sessions, QoS 1 with redelivery, retained messages and wills, and no time at all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from mqttjobs.domain.topics import matches
from mqttjobs.errors import ClientIdTaken, ConnectionLost
from mqttjobs.transport.base import ConnectOptions, Message, Publication, Session, Subscription

SCHEMES = frozenset({"memory"})
NOT_AUTHORIZED = 0x87
NO_SUBSCRIBERS = 0x10

_brokers: dict[str, MemoryBroker] = {}


def create(options: ConnectOptions) -> MemoryTransport:
    """Return the transport of `memory://name`; all of one name in this process share a broker."""
    name = urlsplit(options.url).netloc
    return MemoryTransport(_brokers.setdefault(name, MemoryBroker()), options)


@dataclass(slots=True)
class _Kept:
    """What the broker keeps of a client: its subscriptions, and what it has not acknowledged."""

    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    unacknowledged: dict[int, Message] = field(default_factory=dict)
    next_id: int = 1
    session: MemorySession | None = None


class MemoryBroker:
    """The broker. `reachable` False refuses connections; `allows` decides on publishes and subscriptions."""

    def __init__(self) -> None:
        self.reachable = True
        self.allows: Callable[[str], bool] = lambda topic: True
        self.retained: dict[str, Publication] = {}
        self.published: list[Publication] = []
        self._clients: dict[str, _Kept] = {}

    def drop(self, client_id: str) -> None:
        """Cut a client's connection as a network does: its will is published, its session is kept."""
        kept = self._clients.get(client_id)
        if kept is not None and kept.session is not None:
            kept.session.end(ConnectionLost("the connection was cut"), clean=False)

    def forget(self, client_id: str) -> None:
        """Lose a client's session, as a broker without persistence does when it restarts."""
        self.drop(client_id)
        self._clients.pop(client_id, None)

    def publish(self, publication: Publication) -> int:
        """Take in a publication from anywhere and return the PUBACK reason code."""
        if not self.allows(publication.topic):
            return NOT_AUTHORIZED
        self.published.append(publication)
        if publication.retain:
            if publication.payload:
                self.retained[publication.topic] = publication
            else:
                self.retained.pop(publication.topic, None)
        reached = False
        for kept in self._clients.values():
            for subscription in kept.subscriptions.values():
                if matches(subscription.filter, publication.topic):
                    reached = True
                    self.deliver(kept, publication, retain=False)
        return 0 if reached else NO_SUBSCRIBERS

    def deliver(self, kept: _Kept, publication: Publication, *, retain: bool) -> None:
        """Queue a message for one client; QoS 1 is kept until it is acknowledged, connected or not."""
        message = Message(
            publication.topic,
            publication.payload,
            min(1, publication.qos),
            retain,
            response_topic=getattr(publication, "response_topic", None),
            correlation_data=publication.correlation_data,
            user_properties=publication.user_properties,
            expiry_s=publication.expiry_s,
        )
        if message.qos:
            while kept.next_id in kept.unacknowledged:
                kept.next_id = kept.next_id % 65_535 + 1
            message = replace(message, packet_id=kept.next_id)
            kept.unacknowledged[kept.next_id] = message
            kept.next_id = kept.next_id % 65_535 + 1
        if kept.session is not None:
            kept.session.push(message)

    def connect(self, options: ConnectOptions) -> MemorySession:
        """Begin a session, resuming what was kept; another connection of the same client id is thrown out."""
        if not self.reachable:
            raise ConnectionLost("the broker is down")
        known = self._clients.get(options.client_id)
        if known is not None and known.session is not None:
            known.session.end(ClientIdTaken("another client connected with this client id"), clean=False)
        if options.clean or known is None:
            self._clients[options.client_id] = known_now = _Kept()
        else:
            known_now = known
        session = MemorySession(self, known_now, options, resumed=known_now is known)
        known_now.session = session
        for message in list(known_now.unacknowledged.values()):
            again = replace(message, duplicate=True)
            known_now.unacknowledged[message.packet_id] = again
            session.push(again)
        return session


@dataclass(frozen=True, slots=True)
class RequestPublication(Publication):
    """A publication with a Response Topic: what a requesting client sends."""

    response_topic: str | None = None


class MemoryTransport:
    """See Transport."""

    def __init__(self, broker: MemoryBroker, options: ConnectOptions) -> None:
        self._broker = broker
        self._options = options

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """See Transport."""
        session = self._broker.connect(self._options)
        try:
            yield session
        finally:
            session.end(ConnectionLost("disconnected"), clean=True)


class MemorySession:
    """See Session."""

    def __init__(self, broker: MemoryBroker, kept: _Kept, options: ConnectOptions, *, resumed: bool) -> None:
        self._broker = broker
        self._kept = kept
        self._options = options
        self._resumed = resumed
        self._unread: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._lost: Exception | None = None

    @property
    def resumed(self) -> bool:
        """See Session."""
        return self._resumed

    @property
    def protocol(self) -> str:
        """See Session."""
        return "5"

    def push(self, message: Message) -> None:
        """Take a message from the broker."""
        self._unread.append(message)
        self._arrived.set()

    def end(self, error: Exception, *, clean: bool) -> None:
        """End the connection; an unclean end publishes the will."""
        if self._lost is not None:
            return
        self._lost = error
        self._arrived.set()
        if self._kept.session is self:
            self._kept.session = None
        if self._options.clean:
            self._kept.subscriptions.clear()
        if not clean and self._options.will is not None:
            self._broker.publish(self._options.will)

    async def receive(self, limit: int = 500) -> list[Message]:
        """See Session."""
        while not self._unread or self._lost is not None:
            if self._lost is not None:
                raise self._lost
            self._arrived.clear()
            await self._arrived.wait()
        return [self._unread.popleft() for _ in range(min(limit, len(self._unread)))]

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See Session."""
        if self._lost is None:
            for message in messages:
                self._kept.unacknowledged.pop(message.packet_id, None)

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> Sequence[int]:
        """See Session."""
        self._check()
        codes = []
        for subscription in subscriptions:
            if not self._broker.allows(subscription.filter):
                codes.append(NOT_AUTHORIZED)
                continue
            self._kept.subscriptions[subscription.filter] = subscription
            codes.append(1)
            for publication in list(self._broker.retained.values()) if subscription.replay else []:
                if matches(subscription.filter, publication.topic):
                    self._broker.deliver(self._kept, publication, retain=True)
        return codes

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """See Session."""
        self._check()
        for each in filters:
            self._kept.subscriptions.pop(each, None)

    def publish(self, publication: Publication) -> asyncio.Future[int]:
        """See Session."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._lost is not None:
            future.set_exception(ConnectionLost("there is no connection"))
            future.exception()  # its caller may have gone
        else:
            code = self._broker.publish(publication)
            future.set_result(code if publication.qos else 0)
        return future

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost
