"""Messages over a real broker: the only module that knows aiomqtt and paho."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from mqttjobs.errors import ClientIdTaken, ConnectionLost, ConnectionRefused, TransportError
from mqttjobs.transport.base import ConnectOptions, Message, Publication, Session, Subscription

SCHEMES = frozenset({"mqtt", "mqtts", "ws", "wss"})
PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}

UNREAD_HIGH = 2000
"""Messages waiting to be received beyond which the socket is not read…"""
UNREAD_LOW = 500
"""…until so few are left."""
FILTERS_AT_ONCE = 100
CONNECT_S = 10.0
SESSION_TAKEN_OVER = 0x8E
UNSUPPORTED_VERSION = (0x84, 1)
RETURN_CODES = {
    1: "unacceptable protocol version",
    2: "client id rejected",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
}

_quiet = logging.getLogger("mqttjobs.mqtt")
_quiet.setLevel(logging.CRITICAL)


def create(options: ConnectOptions) -> MqttTransport:
    """Return the transport of an mqtt, mqtts, ws or wss URL."""
    return MqttTransport(options)


class _ClosedBeforeConnack(ConnectionLost):
    """The broker closed the connection without a word: with `auto`, twice means that it does not know MQTT 5."""


class MqttTransport:
    """See Transport. Remembers which protocol worked, so that `auto` asks once."""

    def __init__(self, options: ConnectOptions) -> None:
        self._options = options
        self._protocol = "5" if options.protocol == "auto" else options.protocol
        self._closed_early = 0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """See Transport."""
        session = MqttSession(self._options, self._protocol)
        try:
            await session.open()
        except _ClosedBeforeConnack:
            self._closed_early += 1
            if self._closed_early >= 2:
                self._fall_back()
            raise
        except ConnectionRefused as error:
            if error.reason == "unsupported_version":
                self._fall_back()
            raise
        self._closed_early = 0
        try:
            yield session
        finally:
            await session.close()

    def _fall_back(self) -> None:
        if self._options.protocol == "auto" and self._protocol == "5":
            self._protocol = "3.1.1"


class MqttSession:
    """See Session."""

    def __init__(self, options: ConnectOptions, protocol: str) -> None:
        self._options = options
        self._protocol = protocol
        self._resumed = False
        self._loop = asyncio.get_running_loop()
        self._unread: deque[paho.MQTTMessage] = deque()
        self._arrived = asyncio.Event()
        self._publishing: dict[int, asyncio.Future[int]] = {}
        self._lost: TransportError | None = None
        self._connected = False
        self._reading: int | None = None
        self._paused = False
        self._aio = _client(options, protocol)
        self._paho: Any = self._aio._client  # noqa: SLF001 - aiomqtt hides acknowledgement, DUP and PUBACK reasons
        self._hook()

    def _hook(self) -> None:
        """Take over the callbacks that aiomqtt answers for us: it acknowledges what nobody has seen yet."""
        client = self._paho
        client.manual_ack_set(True)
        self._aio.pending_calls_threshold = 100_000
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_socket_open = self._on_socket_open

    @property
    def resumed(self) -> bool:
        """See Session."""
        return self._resumed

    @property
    def protocol(self) -> str:
        """See Session."""
        return self._protocol

    async def open(self) -> None:
        """Connect; see Transport.connect for what it raises."""
        try:
            await self._aio.__aenter__()
        except aiomqtt.MqttError as error:
            raise self._translated(error) from None
        except (OSError, ValueError, ssl.SSLError) as error:
            raise ConnectionLost(f"{_shown(self._options.url)}: {error}") from None
        self._connected = True

    def _translated(self, error: Exception) -> TransportError:
        """Return our error for one of aiomqtt's: the one place where they meet."""
        where = _shown(self._options.url)
        code: Any = getattr(error, "rc", None)
        if isinstance(error, aiomqtt.exceptions.MqttConnectError) and code is not None:
            value = int(getattr(code, "value", code))
            words = RETURN_CODES.get(value) or str(code)
            reason = "unsupported_version" if value in UNSUPPORTED_VERSION else "connection_refused"
            if "nsupported protocol" in str(code):
                reason = "unsupported_version"
            return ConnectionRefused(f"{where} refused the connection: {words}", reason=reason)
        if isinstance(self._lost, _ClosedBeforeConnack):
            return self._lost
        return ConnectionLost(f"{where}: {error}")

    async def close(self) -> None:
        """Disconnect cleanly if there is a connection, and fail what is still waiting."""
        if self._lost is None:
            with suppress(aiomqtt.MqttError, OSError, TimeoutError):
                await self._aio.__aexit__(None, None, None)
            self._lose(ConnectionLost("disconnected"))
        elif self._paho.socket() is not None:
            self._paho._sock_close()  # noqa: SLF001 - a lost connection is not said goodbye to

    # -- what paho tells ----------------------------------------------------------------------------------------

    def _on_connect(self, client: Any, userdata: Any, flags: Any, code: Any, properties: Any = None) -> None:
        self._resumed = bool(flags.session_present)
        limit = getattr(properties, "ReceiveMaximum", None)
        if limit is not None:
            client._max_inflight_messages = limit  # noqa: SLF001 - its setter refuses after CONNACK, where it is told
        self._aio._on_connect(client, userdata, flags, code, properties)  # noqa: SLF001 - hooked, see _hook

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, code: Any, properties: Any = None) -> None:
        where = _shown(self._options.url)
        if getattr(code, "value", None) == SESSION_TAKEN_OVER:
            words = f"another client uses the client id {self._options.client_id!r} at {where}; give each its own"
            self._lose(ClientIdTaken(words))
        elif self._connected or self._aio._connected.done():  # noqa: SLF001 - hooked, see _hook
            self._lose(ConnectionLost(f"{where}: {code}"))
        else:
            self._lose(_ClosedBeforeConnack(f"{where} closed the connection before it answered CONNECT"))
            self._aio._connected.set_exception(aiomqtt.MqttError("closed"))  # noqa: SLF001 - it would wait for a time-out
        self._aio._on_disconnect(client, userdata, flags, code, properties)  # noqa: SLF001 - hooked, see _hook

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        del client, userdata
        self._unread.append(message)
        self._arrived.set()
        if len(self._unread) >= UNREAD_HIGH and not self._paused and self._reading is not None:
            self._paused = True
            self._loop.remove_reader(self._reading)

    def _on_publish(self, client: Any, userdata: Any, mid: int, code: Any = None, properties: Any = None) -> None:
        del client, userdata, properties
        future = self._publishing.pop(mid, None)
        if future is not None and not future.done():
            future.set_result(int(getattr(code, "value", 0) or 0))

    def _on_socket_open(self, client: Any, userdata: Any, sock: Any) -> None:
        """Read for ourselves, so that reading can pause; called in the thread that connects."""
        self._aio._on_socket_open(client, userdata, sock)  # noqa: SLF001 - it starts the keepalive
        self._loop.call_soon_threadsafe(self._start_reading, sock.fileno())

    def _start_reading(self, fileno: int) -> None:
        if self._paho.socket() is None or fileno < 0:
            return
        self._reading = fileno
        self._paused = False
        self._loop.add_reader(fileno, self._read)

    def _read(self) -> None:
        try:
            while True:
                code = self._paho.loop_read()
                sock = self._paho.socket()
                if code != MQTTErrorCode.MQTT_ERR_SUCCESS or not _has_more(sock):
                    break
        except Exception as error:  # noqa: BLE001 - a packet that paho cannot read ends the connection, not the service
            self._lose(ConnectionLost(f"{_shown(self._options.url)}: unreadable packet ({type(error).__name__})"))
            if self._paho.socket() is not None:
                self._paho._sock_close()  # noqa: SLF001 - nothing sensible follows on this connection

    def _lose(self, error: TransportError) -> None:
        if self._lost is None:
            self._lost = error
        self._reading = None
        self._arrived.set()
        waiting, self._publishing = self._publishing, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(ConnectionLost("the connection was lost before the broker confirmed"))
                future.exception()  # its caller may have gone

    # -- what we are asked --------------------------------------------------------------------------------------

    async def receive(self, limit: int = 500) -> list[Message]:
        """See Session. What had arrived before a loss is not handed out: the broker sends it again."""
        while True:
            if self._lost is not None:
                raise self._lost
            if self._unread:
                break
            self._arrived.clear()
            await self._arrived.wait()
        count = min(limit, len(self._unread))
        messages = [_message(self._unread.popleft()) for _ in range(count)]
        if self._paused and len(self._unread) <= UNREAD_LOW:
            sock = self._paho.socket()
            if sock is not None:
                self._start_reading(sock.fileno())
                self._loop.call_soon(self._read)
        return messages

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See Session."""
        if self._lost is not None:
            return
        for message in messages:
            if message.qos == 1:
                self._paho.ack(message.packet_id, 1)

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> Sequence[int]:
        """See Session."""
        codes: list[int] = []
        for start in range(0, len(subscriptions), FILTERS_AT_ONCE):
            part = subscriptions[start : start + FILTERS_AT_ONCE]
            wanted: Any = [(each.filter, self._subscribe_options(each)) for each in part]
            answer = await self._call(lambda wanted=wanted: self._aio.subscribe(wanted))
            codes += [int(getattr(code, "value", code)) for code in answer]
        return codes

    def _subscribe_options(self, subscription: Subscription) -> SubscribeOptions | int:
        if self._protocol != "5":
            return 1
        handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if subscription.replay else SubscribeOptions.RETAIN_DO_NOT_SEND
        return SubscribeOptions(qos=1, retainAsPublished=False, retainHandling=handling)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """See Session."""
        for start in range(0, len(filters), FILTERS_AT_ONCE):
            part = list(filters[start : start + FILTERS_AT_ONCE])
            await self._call(lambda part=part: self._aio.unsubscribe(part))

    async def _call(self, call: Callable[[], Any]) -> Any:
        if self._lost is not None:
            raise self._lost
        try:
            return await call()
        except (aiomqtt.MqttError, OSError) as error:
            raise self._lost or ConnectionLost(f"{_shown(self._options.url)}: {error}") from None

    def publish(self, publication: Publication) -> asyncio.Future[int]:
        """See Session."""
        future: asyncio.Future[int] = self._loop.create_future()
        if self._lost is not None:
            future.set_exception(ConnectionLost("there is no connection"))
            future.exception()  # its caller may have gone
            return future
        properties = _publish_properties(publication) if self._protocol == "5" else None
        info = self._paho.publish(
            publication.topic, publication.payload, publication.qos, publication.retain, properties
        )
        if info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN:
            future.set_exception(ConnectionLost("there is no connection"))
            future.exception()  # its caller may have gone
        else:
            self._publishing[info.mid] = future
        return future


def _has_more(sock: Any) -> bool:
    """Whether TLS has decoded bytes that the event loop cannot see."""
    return sock is not None and hasattr(sock, "pending") and sock.pending() > 0


def _shown(url: str) -> str:
    """Return a URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or PORTS.get(parts.scheme, 1883)}"


def _client(options: ConnectOptions, protocol: str) -> aiomqtt.Client:
    parts = urlsplit(options.url)
    five = protocol == "5"
    username = options.username or (unquote(parts.username) if parts.username else None)
    password = options.password or (unquote(parts.password) if parts.password else None)
    will = None
    if options.will is not None:
        will = aiomqtt.Will(options.will.topic, options.will.payload, options.will.qos, options.will.retain)
    more: dict[str, Any] = {"clean_session": options.clean}
    if five:
        more = {"clean_start": options.clean, "properties": _connect_properties(options)}
    if parts.scheme in ("ws", "wss"):
        more |= {"transport": "websockets", "websocket_path": parts.path or "/mqtt"}
    if parts.scheme in ("mqtts", "wss"):
        more["tls_context"] = _tls_context(options, parts)
    return aiomqtt.Client(
        parts.hostname or "127.0.0.1",
        parts.port or PORTS[parts.scheme],
        identifier=options.client_id,
        username=username,
        password=password,
        protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311,
        keepalive=int(options.keepalive.total_seconds()),
        timeout=CONNECT_S,
        max_inflight_messages=60_000,
        will=will,
        logger=_quiet,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        **more,
    )


def _tls_context(options: ConnectOptions, parts: SplitResult) -> ssl.SSLContext:
    tls = options.tls
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ssl.SSLError) as error:
        raise TransportError(f"mqtt.tls for {parts.hostname}: {error}") from None
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _connect_properties(options: ConnectOptions) -> Properties:
    properties: Any = Properties(PacketTypes.CONNECT)
    if not options.clean:
        properties.SessionExpiryInterval = min(int(options.session_expiry.total_seconds()), 0xFFFFFFFF)
    properties.ReceiveMaximum = options.receive_maximum
    properties.MaximumPacketSize = options.maximum_packet_size
    return properties


def _publish_properties(publication: Publication) -> Properties | None:
    if not (
        publication.content_type
        or publication.response_topic
        or publication.user_properties
        or publication.correlation_data is not None
        or publication.expiry_s is not None
    ):
        return None
    properties: Any = Properties(PacketTypes.PUBLISH)
    if publication.content_type:
        properties.ContentType = publication.content_type
    if publication.response_topic:
        properties.ResponseTopic = publication.response_topic
    if publication.correlation_data is not None:
        properties.CorrelationData = publication.correlation_data
    if publication.user_properties:
        properties.UserProperty = list(publication.user_properties)
    if publication.expiry_s is not None:
        properties.MessageExpiryInterval = publication.expiry_s
    made: Properties = properties
    return made


def _message(message: paho.MQTTMessage) -> Message:
    """Return our form of a message; a topic that is not UTF-8 keeps its place with replacement characters."""
    raw: Any = message
    topic = raw._topic.decode(errors="replace")  # noqa: SLF001 - paho's own property raises on a bad topic
    properties: Any = message.properties
    if properties is None or properties.isEmpty():
        return Message(topic, message.payload, message.qos, message.retain, message.dup, message.mid)
    return Message(
        topic,
        message.payload,
        message.qos,
        message.retain,
        message.dup,
        message.mid,
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation_data=getattr(properties, "CorrelationData", None),
        user_properties=tuple(getattr(properties, "UserProperty", ())),
        expiry_s=getattr(properties, "MessageExpiryInterval", None),
    )
