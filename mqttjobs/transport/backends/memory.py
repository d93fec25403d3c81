"""A broker in memory for tests: sessions, QoS 1 with redelivery, retained messages and wills, and no delays."""

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
MAX_UNREAD = 2000
"""The most messages that a session holds until they are received."""

_brokers: dict[str, MemoryBroker] = {}


def resolve_url(url: str, folder: Path) -> str:
    """Return the URL, which names a broker of this process."""
    del folder
    if not urlsplit(url).netloc:
        raise ValueError("must be like memory://name")
    return url


def create(options: ConnectOptions) -> MemoryTransport:
    """Return the transport of `memory://name`; equal names share a broker in this process."""
    return MemoryTransport(broker(urlsplit(options.url).netloc), options)


def broker(name: str) -> MemoryBroker:
    """Return the broker of `memory://name`, and make it at the first call."""
    return _brokers.setdefault(name, MemoryBroker())


@dataclass(slots=True)
class _ClientState:
    """The session state of a client (MQTT 5, 4.1): subscriptions, unacknowledged and queued messages.

    `again` are the packet identifiers of unacknowledged messages that are still to be sent on a new connection.
    """

    window: int
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    unacknowledged: dict[int, Message] = field(default_factory=dict)
    again: deque[int] = field(default_factory=deque)
    queued: deque[Message] = field(default_factory=deque)
    last_id: int = 0
    session: MemorySession | None = None

    def take(self, message: Message) -> None:
        """Queue a message and send it when possible; a client that is away loses QoS 0."""
        if message.qos or self.session is not None:
            self.queued.append(message)
            self.send()

    def send(self) -> None:
        """Send queued messages, as far as the session and Receive Maximum allow (MQTT 5, 4.9)."""
        while self.session is not None and not self.session.full:
            message = self._next_redelivery() or self._next()
            if message is None:
                return
            self.session.push(message)

    def _next_redelivery(self) -> Message | None:
        """Return the next message that an earlier connection did not acknowledge, with DUP (MQTT 5, 4.4)."""
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

    def redeliver(self) -> None:
        """Begin a connection: unacknowledged messages are sent first."""
        self.again = deque(self.unacknowledged)
        self.send()

    def _free_id(self) -> int:
        self.last_id = self.last_id % 65_535 + 1
        while self.last_id in self.unacknowledged:
            self.last_id = self.last_id % 65_535 + 1
        return self.last_id


class MemoryBroker:
    """The broker, and the faults that a test can cause in it.

    Attributes:
        reachable: whether clients can connect.
        allows: the ACL; called with the topic of each publication and the filter of each subscription.
        passwords: password by user name; empty lets everyone connect.
        retained: the retained publication by topic.
        published: every accepted publication, in order.
    """

    def __init__(self) -> None:
        self.reachable = True
        self.allows: Callable[[str], bool] = lambda _: True
        self.passwords: dict[str, str] = {}
        self.retained: dict[str, Publication] = {}
        self.published: list[Publication] = []
        self._frozen = False
        self._clients: dict[str, _ClientState] = {}

    # -- faults --------------------------------------------------------------------------------------------------

    def drop(self, client_id: str) -> None:
        """Cut a client's connection, as a network does: the will is published, the session is kept."""
        state = self._clients.get(client_id)
        if state is not None and state.session is not None:
            state.session.end(ConnectionLost("the connection was cut"), clean=False)

    def forget(self, client_id: str) -> None:
        """Lose a client's session, as a restarted broker without persistence does."""
        self.drop(client_id)
        self._clients.pop(client_id, None)

    def refuse(self, *filters: str) -> None:
        """From now on refuse publications and subscriptions that one of `filters` matches, with 0x87."""
        self.allows = lambda topic: not any(topic == each or matches(each, topic) for each in filters)

    def down(self) -> None:
        """Cut every connection and refuse new ones until `up`; sessions and retained messages are kept."""
        self.reachable = False
        for client_id in list(self._clients):
            self.drop(client_id)

    def up(self) -> None:
        """Accept connections again."""
        self.reachable = True

    def freeze(self) -> None:
        """Hang with every connection open: publications of clients wait until `thaw`."""
        self._frozen = True

    def thaw(self) -> None:
        """Continue after `freeze`, beginning with the publications that have waited."""
        self._frozen = False
        for state in list(self._clients.values()):
            if state.session is not None:
                state.session.confirm()

    # -- clients -------------------------------------------------------------------------------------------------

    def publish(self, publication: Publication) -> int:
        """Deliver a publication to the subscribers and return the PUBACK reason code."""
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
        for state in list(self._clients.values()):
            for subscription in list(state.subscriptions.values()):
                if matches(subscription.filter, publication.topic):
                    reached = True
                    state.take(message)
        return 0 if reached else NO_MATCHING_SUBSCRIBERS

    def publish_for(self, session: MemorySession, publication: Publication, future: asyncio.Future[int]) -> None:
        """Deliver a client's publication and set its future, or queue it while the broker is frozen."""
        session.unconfirmed.append((publication, future))
        if not self._frozen:
            session.confirm()

    def subscribe(self, state: _ClientState, subscription: Subscription) -> int:
        """Subscribe a client, send the retained messages if `replay`, and return the SUBACK reason code."""
        try:
            check_filter(subscription.filter)
        except ValueError:
            return TOPIC_FILTER_INVALID
        if not self.allows(subscription.filter):
            return NOT_AUTHORIZED
        state.subscriptions[subscription.filter] = subscription
        if subscription.replay:
            for publication in list(self.retained.values()):
                if matches(subscription.filter, publication.topic):
                    state.take(replace(_message(publication), retain=True))
        return 1

    def connect(self, options: ConnectOptions) -> MemorySession:
        """Begin a connection and resume the client's session; an earlier connection of the client id ends.

        Raises:
            ConnectionLost: the broker is down.
            ConnectionRefused: the user name or password is wrong.
        """
        if not self.reachable:
            raise ConnectionLost("the broker is down")
        if self.passwords and self.passwords.get(options.username or "") != options.password:
            raise ConnectionRefused("the broker refused the connection: bad user name or password")
        known = self._clients.get(options.client_id)
        if known is not None and known.session is not None:
            known.session.end(ClientIdTaken("another client connected with this client id"), clean=False)
        resumed = known is not None and not options.clean and options.client_id in self._clients
        state = known if known is not None and resumed else _ClientState(options.receive_maximum)
        self._clients[options.client_id] = state
        state.session = MemorySession(self, state, options, resumed=resumed)
        state.redeliver()
        return state.session

    def disconnect(self, client_id: str, state: _ClientState, *, keep: bool) -> None:
        """End a client's connection, and its session too unless `keep`."""
        state.session = None
        state.queued = deque(message for message in state.queued if message.qos)
        if not keep and self._clients.get(client_id) is state:
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

    def __init__(self, broker: MemoryBroker, state: _ClientState, options: ConnectOptions, *, resumed: bool) -> None:
        self.unconfirmed: deque[tuple[Publication, asyncio.Future[int]]] = deque()
        self._broker = broker
        self._state = state
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
        """Whether the session takes no more messages until some have been received."""
        return len(self._unread) >= MAX_UNREAD

    def push(self, message: Message) -> None:
        """Add a message from the broker to the received ones."""
        self._unread.append(message)
        self._arrived.set()

    def confirm(self) -> None:
        """Pass waiting publications to the broker, in order, and set their futures."""
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
        self._broker.disconnect(self._options.client_id, self._state, keep=not self._options.clean)
        while self.unconfirmed:
            _fail(self.unconfirmed.popleft()[1])
        if not clean and self._will is not None:
            self._broker.publish(self._will)

    async def receive(self, limit: int = 500) -> list[Message]:
        """See Session. Messages that arrived before a loss are not returned: the broker sends them again."""
        while self._lost is None and not self._unread:
            self._arrived.clear()
            await self._arrived.wait()
        self._check()
        messages = [self._unread.popleft() for _ in range(min(limit, len(self._unread)))]
        self._state.send()
        return messages

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See Session."""
        if self._lost is None:
            for message in messages:
                self._state.unacknowledged.pop(message.packet_id, None)
            self._state.send()

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> Sequence[int]:
        """See Session."""
        self._check()
        return [self._broker.subscribe(self._state, each) for each in subscriptions]

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """See Session."""
        self._check()
        for each in filters:
            self._state.subscriptions.pop(each, None)

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
        future.exception()  # the caller may be gone
