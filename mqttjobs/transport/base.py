"""The interface of a transport; every transport passes tests/contracts/test_transport.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

from mqttjobs.errors import TransportError
from mqttjobs.registry import Family, for_url, schemes_of

MAXIMUM_PACKET_SIZE = 1024 * 1024
"""The largest packet, in bytes, that a client accepts unless it says otherwise: no payload can be larger."""
LARGEST_PACKET = 268_435_455
"""The largest packet that MQTT has, in bytes without its header (MQTT 5, 2.1.4)."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that arrived. `packet_id` is 0 for QoS 0; `duplicate` is the DUP flag of PUBLISH."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    duplicate: bool = False
    packet_id: int = 0
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    expiry_s: int | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """A message to send; the properties are left out on MQTT 3.1.1."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    response_topic: str | None = None
    correlation_data: bytes | None = None
    content_type: str | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    expiry_s: int | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """A filter to subscribe to at QoS 1; `replay` asks for its retained messages at every subscribe.

    Retain Handling 0 with replay, 2 without; Retain As Published stays 0, so that RETAIN marks a replay and never a
    live message (MQTT 5, 3.8.3.1).
    """

    filter: str
    replay: bool = True


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS of mqtts and wss."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """How to reach the broker. `protocol` is "auto", "5" or "3.1.1" (behaviour 6).

    `clean` is for short-lived clients such as the command line: no session is kept and nothing is resumed. A `will`
    that is a function is made anew for each connection.
    """

    url: str = "mqtt://127.0.0.1:1883"
    client_id: str = "mqttjobs"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    protocol: str = "auto"
    session_expiry: timedelta = timedelta(days=1)
    keepalive: timedelta = timedelta(seconds=60)
    tls: Tls = Tls()
    clean: bool = False
    receive_maximum: int = 500
    maximum_packet_size: int = MAXIMUM_PACKET_SIZE
    will: Publication | Callable[[], Publication] | None = None

    def last_will(self) -> Publication | None:
        """Return the will of a connection that is about to be made."""
        return self.will() if callable(self.will) else self.will


class Session(Protocol):
    """One connection's life. Methods raise ConnectionLost once it is gone; ClientIdTaken if that is why."""

    @property
    def resumed(self) -> bool:
        """Whether the broker had kept our session (CONNACK session present)."""

    @property
    def protocol(self) -> str:
        """Either "5" or "3.1.1"."""

    async def receive(self, limit: int = 500) -> list[Message]:
        """Wait for a message, then return it and what else has arrived, in order, at most `limit`.

        What is not yet received is bounded: reading from the connection pauses while too much is waiting.
        Safe to cancel: nothing is lost.
        """

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Let the broker forget these, in order; QoS 0 ones are passed over."""

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> Sequence[int]:
        """Subscribe and return the SUBACK reason code of each, in order; one of at least REFUSED is a refusal."""

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Unsubscribe; filters that were not subscribed do no harm."""

    def publish(self, publication: Publication) -> asyncio.Future[int]:
        """Send, in call order, without waiting; the future gives the PUBACK reason code (0 for QoS 0 once sent).

        MQTT 3.1.1 has no reason codes and gives 0. A future that raises ConnectionLost means unknown: the
        broker may or may not have it; one that raises ValueError that it cannot be sent at all. Cancelling the
        future changes nothing on the wire. A topic that is none raises ValueError at once.
        """


class Transport(Protocol):
    """Makes connections, one at a time."""

    def connect(self) -> AbstractAsyncContextManager[Session]:
        """Connect once, and disconnect cleanly (no will) on a normal exit.

        Raises on enter ConnectionLost when the broker cannot be reached, ConnectionRefused when it says no.
        """


class TransportModule(Protocol):
    """What the module of a transport offers.

    Attributes:
        SCHEMES: the schemes of the URLs that it takes, in lower case, such as `mqtt`.
        OPTIONS: which of CONFIGURABLE it takes; another one in a configuration is an error, not silently without
            effect.
    """

    SCHEMES: frozenset[str]
    OPTIONS: frozenset[str]

    def resolve_url(self, url: str, folder: Path) -> str:
        """Return a URL as `create` takes it: checked, its relative paths beginning at `folder`, the configuration's.

        Raises:
            ValueError: the URL cannot be used; the text says how it should look, such as "must be like mqtt://host".
        """

    def create(self, options: ConnectOptions) -> Transport:
        """Return the transport for `options`, whose URL `resolve_url` has returned; nothing is connected yet."""


CONFIGURABLE = frozenset({"username", "password", "protocol", "session_expiry", "tls"})
"""The fields of ConnectOptions that a configuration may set and not every transport takes."""


def _transports_of(module: ModuleType) -> Iterator[tuple[str, TransportModule]]:
    schemes = schemes_of(module, "resolve_url", "create")
    options = getattr(module, "OPTIONS", None)
    if not isinstance(options, frozenset | set | tuple | list) or not CONFIGURABLE.issuperset(options):
        raise ValueError(f"{module.__name__} has no OPTIONS: which of {', '.join(sorted(CONFIGURABLE))} it takes")
    for scheme in schemes:
        yield scheme, cast("TransportModule", module)


TRANSPORTS = Family("mqttjobs.transport.backends", "mqttjobs.transport", noun="URL scheme", read=_transports_of)
"""The modules of the transports, by URL scheme."""
EXAMPLE = "mqtt://host:1883"


def resolve_broker_url(url: str, folder: Path) -> str:
    """Return an `mqtt.url` as `create_transport` takes it, its relative paths beginning at `folder`.

    Raises:
        ValueError: the URL cannot be used; the text says how it should look, and lists the schemes if that is unknown.
    """
    return for_url(TRANSPORTS.members(), url, EXAMPLE).resolve_url(url, folder)


def unused_options(url: str, given: Iterable[str]) -> list[str]:
    """Return which of the `given` fields of ConnectOptions the transport of a URL does not take, sorted."""
    taken = for_url(TRANSPORTS.members(), url, EXAMPLE).OPTIONS
    return sorted(CONFIGURABLE.intersection(given).difference(taken))


def create_transport(options: ConnectOptions) -> Transport:
    """Return the transport of `options.url`; nothing is connected yet.

    Raises:
        TransportError: no transport knows the scheme.
    """
    try:
        module = for_url(TRANSPORTS.members(), options.url, EXAMPLE)
    except ValueError as error:
        raise TransportError(f"the URL of the broker {error}") from None
    return module.create(options)


NO_MATCHING_SUBSCRIBERS = 0x10
"""The reason code of a publication that nobody has subscribed to."""
REFUSED = 0x80
"""The lowest reason code that is a refusal: unspecified error, and the only one of MQTT 3.1.1."""
NOT_AUTHORIZED = 0x87
TOPIC_FILTER_INVALID = 0x8F
PACKET_TOO_LARGE = 0x95

REASONS: Mapping[int, str] = {
    NO_MATCHING_SUBSCRIBERS: "no matching subscribers",
    REFUSED: "unspecified error",
    0x83: "implementation specific error",
    NOT_AUTHORIZED: "not authorized",
    TOPIC_FILTER_INVALID: "topic filter invalid",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    PACKET_TOO_LARGE: "packet too large",
    0x97: "quota exceeded",
    0x99: "payload format invalid",
}
"""PUBACK and SUBACK reason codes in words (MQTT 5, 2.4)."""


def describe_refusal(code: int) -> str:
    """Return a reason code of at least REFUSED in words: `not authorized (0x87)`."""
    return f"{REASONS.get(code, 'refused')} (0x{code:02X})"
