"""A broker inside the process: sessions, QoS 1 with redelivery, retained messages and wills, and no time at all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from mqttjobs.domain.topics import check_filter, check_topic, matches
from mqttjobs.errors import ClientIdTaken, ConnectionLost, ConnectionRefused, TransportError
from mqttjobs.transport.base import (
    NO_MATCHING_SUBSCRIBERS,
    NOT_AUTHORIZED,
    TOPIC_FILTER_INVALID,
    ConnectOptions,
    Message,
    Publication,
    Session,
    Subscription,
)

SCHEMES = frozenset({"memory"})
OPTIONS = frozenset({"username", "password"})
UNREAD_MOST = 2000
"""Messages waiting to be received beyond which a session takes no more."""

_brokers: dict[str, MemoryBroker] = {}


def resolve_url(url: str, folder: Path) -> str:
    """Return the URL, which names a broker of this process."""
    del folder
    if not urlsplit(url).netloc:
        raise ValueError("must be like memory://name")
    return url


def create(options: ConnectOptions) -> MemoryTransport:
    """Return the transport of `memory://name`; all of one name in this process share a broker."""
    return MemoryTransport(broker(urlsplit(options.url).netloc), options)


def broker(name: str) -> MemoryBroker:
    """Return the broker behind `memory://name`."""
    return _brokers.setdefault(name, MemoryBroker())


@dataclass(slots=True)
class _Kept:
    """What the broker keeps of a client: its subscriptions, what it has not acknowledged, and what is still to send.

    `again` are the packet identifiers of the unacknowledged that a new connection has not been sent yet.
    """

    window: int
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    unacknowledged: dict[int, Message] = field(default_factory=dict)
    again: deque[int] = field(default_factory=deque)
    queued: deque[Message] = field(default_factory=deque)
    last_id: int = 0
    session: MemorySession | None = None

    def take(self, message: Message) -> None:
        """Queue a message; QoS 0 is lost on a client that is away."""
        if message.qos or self.session is not None:
            self.queued.append(message)
            self.send()

    def send(self) -> None:
        """Send what is queued, as far as the session reads and Receive Maximum allows (MQTT 5, 4.9)."""
        while self.session is not None and not self.session.full:
            message = self._again() or self._next()
            if message is None:
                return
            self.session.push(message)

    def _again(self) -> Message | None:
        """Return what a former connection did not acknowledge, with DUP (MQTT 5, 4.4)."""
        while self.again:
            packet_id = self.again.popleft()
            if packet_id in self.unacknowledged:
                again = self.unacknowledged[packet_id] = replace(self.unacknowledged[packet_id], duplicate=True)
                return again
        return None

    def _next(self) -> Message | None:
        if not self.queued or (self.queued[0].qos and len(self.unacknowledged) >= self.window):
            return None
        message = self.queued.popleft()
        if message.qos:
            message = replace(message, packet_id=self._free_id())
            self.unacknowledged[message.packet_id] = message
        return message

    def send_again(self) -> None:
        """Begin a connection: what was not acknowledged comes first."""
        self.again = deque(self.unacknowledged)
        self.send()

    def _free_id(self) -> int:
        self.last_id = self.last_id % 65_535 + 1
        while self.last_id in self.unacknowledged:
            self.last_id = self.last_id % 65_535 + 1
        return self.last_id


class MemoryBroker:
    """The broker, with what a test needs to make its life hard.

    `allows` is its ACL, asked for the topic of each publication and the filter of each subscription; `passwords`
    the users it knows (empty: everyone may connect); `published` everything that it took, in order.
    """

    def __init__(self) -> None:
        self.reachable = True
        self.allows: Callable[[str], bool] = lambda _: True
        self.passwords: dict[str, str] = {}
        self.retained: dict[str, Publication] = {}
        self.published: list[Publication] = []
        self._frozen = False
        self._clients: dict[str, _Kept] = {}

    # -- what a test does to it ----------------------------------------------------------------------------------

    def drop(self, client_id: str) -> None:
        """Cut a client's connection as a network does: its will is published, its session is kept."""
        kept = self._clients.get(client_id)
        if kept is not None and kept.session is not None:
            kept.session.end(ConnectionLost("the connection was cut"), clean=False)

    def forget(self, client_id: str) -> None:
        """Lose a client's session, as a broker without persistence does when it restarts."""
        self.drop(client_id)
        self._clients.pop(client_id, None)

    def refuse(self, *filters: str) -> None:
        """Refuse publications and subscriptions to topics that one of `filters` matches, with 0x87 from now on."""
        self.allows = lambda topic: not any(topic == each or matches(each, topic) for each in filters)

    def down(self) -> None:
        """Cut every connection and take no new one, until `up`; sessions and retained messages are kept."""
        self.reachable = False
        for client_id in list(self._clients):
            self.drop(client_id)

    def up(self) -> None:
        """Take connections again."""
        self.reachable = True

    def freeze(self) -> None:
        """Hang with every connection open: what clients publish waits until `thaw`."""
        self._frozen = True

    def thaw(self) -> None:
        """Go on after `freeze`, with what has waited."""
        self._frozen = False
        for kept in list(self._clients.values()):
            if kept.session is not None:
                kept.session.confirm()

    # -- what its clients do -------------------------------------------------------------------------------------

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
        message = _message(publication)
        reached = False
        for kept in list(self._clients.values()):
            for subscription in list(kept.subscriptions.values()):
                if matches(subscription.filter, publication.topic):
                    reached = True
                    kept.take(message)
        return 0 if reached else NO_MATCHING_SUBSCRIBERS

    def publish_for(self, session: MemorySession, publication: Publication, future: asyncio.Future[int]) -> None:
        """Take in a client's publication and confirm it, unless the broker hangs."""
        session.unconfirmed.append((publication, future))
        if not self._frozen:
            session.confirm()

    def subscribe(self, kept: _Kept, subscription: Subscription) -> int:
        """Subscribe a client, send it the retained messages that it wants, and return the SUBACK reason code."""
        try:
            check_filter(subscription.filter)
        except ValueError:
            return TOPIC_FILTER_INVALID
        if not self.allows(subscription.filter):
            return NOT_AUTHORIZED
        kept.subscriptions[subscription.filter] = subscription
        if subscription.replay:
            for publication in list(self.retained.values()):
                if matches(subscription.filter, publication.topic):
                    kept.take(replace(_message(publication), retain=True))
        return 1

    def connect(self, options: ConnectOptions) -> MemorySession:
        """Begin a session, resuming what was kept; another connection of the same client id is thrown out."""
        if not self.reachable:
            raise ConnectionLost("the broker is down")
        if self.passwords and self.passwords.get(options.username or "") != options.password:
            raise ConnectionRefused("the broker refused the connection: bad user name or password")
        known = self._clients.get(options.client_id)
        if known is not None and known.session is not None:
            known.session.end(ClientIdTaken("another client connected with this client id"), clean=False)
        resumed = known is not None and not options.clean and options.client_id in self._clients
        kept = known if known is not None and resumed else _Kept(options.receive_maximum)
        self._clients[options.client_id] = kept
        kept.session = MemorySession(self, kept, options, resumed=resumed)
        kept.send_again()
        return kept.session

    def leave(self, client_id: str, kept: _Kept, *, keep: bool) -> None:
        """Let a client go, and its session too unless it is to be kept."""
        kept.session = None
        kept.queued = deque(message for message in kept.queued if message.qos)
        if not keep and self._clients.get(client_id) is kept:
            del self._clients[client_id]


class MemoryTransport:
    """See Transport."""

    def __init__(self, broker: MemoryBroker, options: ConnectOptions) -> None:
        self._broker = broker
        self._options = options

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """See Transport. An exception in the body cuts the connection, so that the broker publishes the will."""
        session = self._broker.connect(self._options)
        gone = ConnectionLost("disconnected")
        try:
            yield session
        except BaseException:
            session.end(gone, clean=False)
            raise
        session.end(gone, clean=True)


class MemorySession:
    """See Session."""

    def __init__(self, broker: MemoryBroker, kept: _Kept, options: ConnectOptions, *, resumed: bool) -> None:
        self.unconfirmed: deque[tuple[Publication, asyncio.Future[int]]] = deque()
        self._broker = broker
        self._kept = kept
        self._options = options
        self._will = options.last_will()
        self._resumed = resumed
        self._unread: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._lost: TransportError | None = None

    @property
    def resumed(self) -> bool:
        """See Session."""
        return self._resumed

    @property
    def protocol(self) -> str:
        """See Session."""
        return "5"

    @property
    def full(self) -> bool:
        """Whether it takes no more messages until some have been received."""
        return len(self._unread) >= UNREAD_MOST

    def push(self, message: Message) -> None:
        """Take a message from the broker."""
        self._unread.append(message)
        self._arrived.set()

    def confirm(self) -> None:
        """Let the broker take what was published, in order, and confirm it."""
        while self.unconfirmed:
            publication, future = self.unconfirmed.popleft()
            code = self._broker.publish(publication)
            if not future.done():
                future.set_result(code if publication.qos else 0)

    def end(self, error: TransportError, *, clean: bool) -> None:
        """End the connection; an unclean end publishes the will."""
        if self._lost is not None:
            return
        self._lost = error
        self._arrived.set()
        self._broker.leave(self._options.client_id, self._kept, keep=not self._options.clean)
        while self.unconfirmed:
            _fail(self.unconfirmed.popleft()[1])
        if not clean and self._will is not None:
            self._broker.publish(self._will)

    async def receive(self, limit: int = 500) -> list[Message]:
        """See Session. What had arrived before a loss is not handed out: the broker sends it again."""
        while self._lost is None and not self._unread:
            self._arrived.clear()
            await self._arrived.wait()
        self._check()
        messages = [self._unread.popleft() for _ in range(min(limit, len(self._unread)))]
        self._kept.send()
        return messages

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See Session."""
        if self._lost is None:
            for message in messages:
                self._kept.unacknowledged.pop(message.packet_id, None)
            self._kept.send()

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> Sequence[int]:
        """See Session."""
        self._check()
        return [self._broker.subscribe(self._kept, each) for each in subscriptions]

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """See Session."""
        self._check()
        for each in filters:
            self._kept.subscriptions.pop(each, None)

    def publish(self, publication: Publication) -> asyncio.Future[int]:
        """See Session."""
        check_topic(publication.topic)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._lost is not None:
            _fail(future)
        else:
            self._broker.publish_for(self, publication, future)
        return future

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost


def _message(publication: Publication) -> Message:
    return Message(
        publication.topic,
        publication.payload,
        min(1, publication.qos),
        response_topic=publication.response_topic,
        correlation_data=publication.correlation_data,
        user_properties=publication.user_properties,
        expiry_s=publication.expiry_s,
    )


def _fail(future: asyncio.Future[int]) -> None:
    if not future.done():
        future.set_exception(ConnectionLost("the connection was lost before the broker confirmed"))
        future.exception()  # its caller may have gone
