"""Messages over a real broker: the only module that knows aiomqtt and paho."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import aiomqtt
from paho.mqtt.enums import MessageType, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from mqttjobs.domain.topics import check_filter, check_topic
from mqttjobs.errors import ClientIdTaken, ConnectionLost, ConnectionRefused, TransportError
from mqttjobs.transport.base import ConnectOptions, Message, Publication, Session, Subscription
from mqttjobs.transport.packets import PacketError, decode_puback, decode_publish, encode_publish

SCHEMES = frozenset({"mqtt", "mqtts", "ws", "wss"})
PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}

UNREAD_HIGH = 2000
"""Messages waiting to be received beyond which the connection is not read…"""
UNREAD_LOW = 1000
"""…until so few are left."""
READ_AT_ONCE = 16 * 1024
WRITE_AT_ONCE = 64 * 1024
FILTERS_AT_ONCE = 100
MOST_IN_FLIGHT = 30_000
"""Publications sent and not confirmed; the packet identifiers would reach for twice as many."""
CONNECT_S = 10.0
GOODBYE_S = 2.0
KEEPALIVE_CHECK_S = 1.0

SESSION_TAKEN_OVER = 0x8E
UNSUPPORTED_VERSION = 0x84
REFUSED = 0x80
FILTER_INVALID = 0x8F
PACKET_TOO_LARGE = 0x95

_quiet = logging.getLogger("mqttjobs.mqtt")
_quiet.setLevel(logging.CRITICAL)


def create(options: ConnectOptions) -> MqttTransport:
    """Return the transport of an mqtt, mqtts, ws or wss URL."""
    return MqttTransport(options)


class _UnsupportedVersion(ConnectionRefused):
    """The broker knows MQTT 5 well enough to say that it does not speak it."""


class _ClosedBeforeConnack(ConnectionLost):
    """The broker closed the connection without a word: with `auto`, twice means that it does not know MQTT 5."""


class MqttTransport:
    """See Transport. With `auto`, what has worked is kept, and MQTT 5 that has worked is left only for 0x84."""

    def __init__(self, options: ConnectOptions) -> None:
        self._options = options
        self._worked: str | None = None if options.protocol == "auto" else options.protocol
        self._closed_early = 0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """See Transport. An exception in the body cuts the connection, so that the broker publishes the will."""
        session = await self._open()
        try:
            yield session
        except BaseException:
            session.cut()
            raise
        await session.close()

    async def _open(self) -> MqttSession:
        if self._worked == "3.1.1":
            return await self._attempt("3.1.1")
        try:
            return await self._attempt("5")
        except _UnsupportedVersion:
            if self._options.protocol != "auto":
                raise
        except _ClosedBeforeConnack:
            self._closed_early += 1
            if self._worked == "5" or self._closed_early < 2:
                raise
        self._closed_early = 0
        return await self._attempt("3.1.1")

    async def _attempt(self, protocol: str) -> MqttSession:
        session = MqttSession(self._options, protocol)
        await session.open()
        self._worked = protocol
        self._closed_early = 0
        return session


class MqttSession:
    """See Session.

    aiomqtt makes the connection and subscribes. Messages, acknowledgements and publications go straight to paho, as
    aiomqtt acknowledges what nobody has seen yet and hides DUP and PUBACK reasons. Its and paho's private names are
    used in this module alone, and the contract suite tells when one of them changes.
    """

    def __init__(self, options: ConnectOptions, protocol: str) -> None:
        self._options = options
        self._protocol = protocol
        self._where = _shown(options.url)
        self._resumed = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lost: TransportError | None = None
        self._gone = asyncio.Event()
        self._keeping_alive: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Future[Any]] = set()

        self._unread: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._descriptor: int | None = None
        self._paused = False
        self._ahead = b""
        self._ahead_at = 0
        self._may_fill = False
        self._dry = False

        self._waiting: deque[tuple[Publication, asyncio.Future[int]]] = deque()
        self._unsent: list[asyncio.Future[int]] = []
        self._in_flight: dict[int, asyncio.Future[int]] = {}
        self._most_in_flight = MOST_IN_FLIGHT
        self._largest_packet: int | None = None
        self._flush_due = False
        self._blocked = False

        self._aio = _client(options, protocol)
        self._paho: Any = self._aio._client  # noqa: SLF001 - see above
        self._receive_bytes = self._paho._sock_recv  # noqa: SLF001 - see above
        self._hook()

    def _hook(self) -> None:
        client = self._paho
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = None
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_socket_register_write
        client.on_socket_unregister_write = None
        client._sock_recv = self._read_ahead  # noqa: SLF001 - three system calls a packet otherwise
        client._handle_pubackcomp = self._on_puback_packet  # noqa: SLF001 - paho keeps books to send again by itself
        client._handle_pubrec = self._on_pubrec_packet  # noqa: SLF001 - same
        client._handle_publish = self._on_publish_packet  # noqa: SLF001 - paho ends the connection for one odd property
        client._handle_pubrel = self._on_pubrel_packet  # noqa: SLF001 - QoS 2 of filters that others left behind

    @property
    def resumed(self) -> bool:
        """See Session."""
        return self._resumed

    @property
    def protocol(self) -> str:
        """See Session."""
        return self._protocol

    # -- the connection's life -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect; see Transport.connect for what it raises."""
        try:
            await self._aio.__aenter__()
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            failure = self._translated(error)
            self.cut()
            raise failure from None
        except BaseException:
            self.cut()
            raise

    def _translated(self, error: Exception) -> TransportError:
        """Return our error for one of the libraries: the one place where they meet."""
        if self._lost is not None and not isinstance(error, aiomqtt.exceptions.MqttConnectError):
            return self._lost
        if isinstance(error, aiomqtt.exceptions.MqttConnectError):
            kind = _UnsupportedVersion if _code(error.rc) == UNSUPPORTED_VERSION else ConnectionRefused
            return kind(f"{self._where} refused the connection: {error.rc}")
        return ConnectionLost(f"{self._where}: {error}")

    async def close(self) -> None:
        """Disconnect cleanly, after what has been published and acknowledged has been sent."""
        if self._lost is None and self._paho.disconnect() == MQTTErrorCode.MQTT_ERR_SUCCESS:
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._gone.wait()
        self.cut()

    def cut(self) -> None:
        """End the connection without a goodbye, if there is one; the broker publishes our will."""
        self._lose(ConnectionLost("disconnected"))
        if self._paho.socket() is not None:
            self._paho._sock_close()  # noqa: SLF001 - see MqttSession

    def _lose(self, error: TransportError) -> None:
        if self._lost is None:
            self._lost = error
        self._arrived.set()
        self._gone.set()
        if not self._aio._connected.done():  # noqa: SLF001 - it would wait for its time-out
            self._aio._connected.set_exception(aiomqtt.MqttError(str(error)))  # noqa: SLF001 - same
            self._aio._connected.exception()  # noqa: SLF001 - whoever waited may have been cancelled
        for asked in self._asking:
            asked.cancel()
        futures = [*self._in_flight.values(), *self._unsent, *(future for _, future in self._waiting)]
        self._in_flight.clear()
        self._unsent.clear()
        self._waiting.clear()
        for future in futures:
            _fail(future, "the connection was lost before the broker confirmed")

    async def _keep_alive(self) -> None:
        """Ping when paho says so; while we do not read, a missing answer proves nothing."""
        while self._paho.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS:
            await asyncio.sleep(KEEPALIVE_CHECK_S)
            if self._paused:
                self._paho._ping_t = 0  # noqa: SLF001 - see MqttSession

    # -- what paho tells -----------------------------------------------------------------------------------------

    def _on_connect(self, client: Any, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        self._resumed = bool(flags.session_present)
        self._most_in_flight = min(MOST_IN_FLIGHT, getattr(properties, "ReceiveMaximum", MOST_IN_FLIGHT))
        self._largest_packet = getattr(properties, "MaximumPacketSize", None)
        self._aio._on_connect(client, userdata, flags, code, properties)  # noqa: SLF001 - hooked, see _hook

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        del client, userdata, flags, properties
        if _code(code) == SESSION_TAKEN_OVER:
            words = f"another client uses the client id {self._options.client_id!r} at {self._where}; give each its own"
            self._lose(ClientIdTaken(words))
        elif self._aio._connected.done():  # noqa: SLF001 - see MqttSession
            self._lose(ConnectionLost(f"{self._where}: {code}"))
        else:
            self._lose(_ClosedBeforeConnack(f"{self._where} closed the connection before it answered CONNECT"))

    def _on_socket_open(self, client: Any, userdata: Any, sock: Any) -> None:
        """Take the new socket over; called in the thread that connects, maybe after everyone has given up."""
        del client, userdata
        if self._lost is not None:
            sock.close()
            raise ConnectionAbortedError("no longer wanted")
        tcp = getattr(sock, "_socket", sock)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        sock = self._paho.socket()
        if sock is not None:
            self._descriptor = sock.fileno()
            self._loop.add_reader(self._descriptor, self._read)
            self._keeping_alive = self._loop.create_task(self._keep_alive(), name="mqtt-keepalive")

    def _on_socket_close(self, client: Any, userdata: Any, sock: Any) -> None:
        del client, userdata, sock
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._descriptor = None
        if self._keeping_alive is not None:
            self._keeping_alive.cancel()

    # -- reading -------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Handle what has arrived, a bounded part of it, so that others have their turn."""
        client = self._paho
        self._may_fill, self._dry = True, False
        try:
            while not self._dry and not self._is_full():
                if client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    return
        except Exception as error:  # noqa: BLE001 - what paho cannot read ends the connection, not the service
            self._break(error)
            return
        if self._is_full():
            self._paused = True
            if self._descriptor is not None:
                self._loop.remove_reader(self._descriptor)
        elif _has_more(client.socket()):
            self._loop.call_soon(self._read)

    def _is_full(self) -> bool:
        """Whether reading must pause; never while we wait for an answer, which comes after retained messages."""
        return len(self._unread) >= UNREAD_HIGH and not self._asking

    def _resume_reading(self) -> None:
        if self._paused and self._descriptor is not None:
            self._paused = False
            self._loop.add_reader(self._descriptor, self._read)
            self._loop.call_soon(self._read)  # what was read ahead is nothing the event loop could see

    def _read_ahead(self, size: int) -> bytes:
        """Stand in for paho's recv: one system call for many packets, and one of them for each turn."""
        if self._ahead_at == len(self._ahead):
            if not self._may_fill:
                self._dry = True
                raise BlockingIOError
            self._may_fill = False
            try:
                self._ahead = self._receive_bytes(max(READ_AT_ONCE, min(size, WRITE_AT_ONCE)))
            except BlockingIOError:
                self._dry = True
                raise
            self._ahead_at = 0
        start = self._ahead_at
        self._ahead_at = min(start + size, len(self._ahead))
        return self._ahead[start : self._ahead_at]

    def _break(self, error: Exception) -> None:
        self._lose(ConnectionLost(f"{self._where}: {type(error).__name__}: {error}"))
        self.cut()

    def _on_publish_packet(self) -> MQTTErrorCode:
        packet = self._paho._in_packet  # noqa: SLF001 - see MqttSession
        try:
            message = decode_publish(packet["command"], packet["packet"], five=self._protocol == "5")
        except PacketError:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        self._unread.append(message)
        self._arrived.set()
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _on_pubrel_packet(self) -> MQTTErrorCode:
        client = self._paho
        packet_id = int.from_bytes(client._in_packet["packet"][:2])  # noqa: SLF001 - see MqttSession
        code: MQTTErrorCode = client._send_pubcomp(packet_id)  # noqa: SLF001 - see MqttSession
        return code

    # -- writing -------------------------------------------------------------------------------------------------

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        """Write once at the end of this turn, all that it has queued; CONNECT comes from another thread."""
        del client, userdata, sock
        if threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self._flush)
        elif not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        client = self._paho
        self._flush_due = False
        if client.socket() is None:
            return
        queued = client._out_packet  # noqa: SLF001 - see MqttSession
        if len(queued) > 1 and not self._blocked:
            _merge(queued)
        try:
            client.loop_write()
        except Exception as error:  # noqa: BLE001 - as in _read
            self._break(error)
        self._flushed(everything=not queued)

    def _flushed(self, *, everything: bool) -> None:
        if everything:
            sent, self._unsent = self._unsent, []
            for future in sent:
                if not future.done():
                    future.set_result(0)
        if self._descriptor is not None and everything == self._blocked:
            self._blocked = not everything
            if self._blocked:
                self._loop.add_writer(self._descriptor, self._flush)
            else:
                self._loop.remove_writer(self._descriptor)

    # -- what we are asked ---------------------------------------------------------------------------------------

    async def receive(self, limit: int = 500) -> list[Message]:
        """See Session. What had arrived before a loss is not handed out: the broker sends it again."""
        while self._lost is None and not self._unread:
            self._arrived.clear()
            await self._arrived.wait()
        self._check()
        unread = self._unread
        messages = [unread.popleft() for _ in range(min(limit, len(unread)))]
        if self._paused and len(unread) <= UNREAD_LOW:
            self._resume_reading()
        return messages

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See Session."""
        if self._lost is None:
            client = self._paho
            for message in messages:
                if message.qos == 1:
                    client._send_puback(message.packet_id)  # noqa: SLF001 - ack() looks for its own books first
                elif message.qos == 2:
                    client._send_pubrec(message.packet_id)  # noqa: SLF001 - same

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> Sequence[int]:
        """See Session."""
        good = [each for each in subscriptions if _is_filter(each.filter)]
        codes: list[int] = []
        for start in range(0, len(good), FILTERS_AT_ONCE):
            wanted: Any = [
                (each.filter, self._subscribe_options(each)) for each in good[start : start + FILTERS_AT_ONCE]
            ]
            codes += map(_code, await self._ask(self._aio.subscribe(wanted)))
        answers = iter(codes)
        return [next(answers) if _is_filter(each.filter) else FILTER_INVALID for each in subscriptions]

    def _subscribe_options(self, subscription: Subscription) -> SubscribeOptions | int:
        if self._protocol != "5":
            return 1
        options = SubscribeOptions
        replay = options.RETAIN_SEND_ON_SUBSCRIBE if subscription.replay else options.RETAIN_DO_NOT_SEND
        return SubscribeOptions(qos=1, retainAsPublished=False, retainHandling=replay)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """See Session."""
        good = [each for each in filters if _is_filter(each)]
        for start in range(0, len(good), FILTERS_AT_ONCE):
            await self._ask(self._aio.unsubscribe(good[start : start + FILTERS_AT_ONCE]))

    async def _ask(self, question: Coroutine[Any, Any, Any]) -> Any:
        """Wait for the answer to a packet, or for the loss of the connection."""
        asked = asyncio.ensure_future(question)
        self._asking.add(asked)
        if self._lost is not None:
            asked.cancel()
        self._resume_reading()
        try:
            return await asked
        except asyncio.CancelledError:
            self._check()
            raise
        except (aiomqtt.MqttError, OSError) as error:
            self._break(error)
            self._check()
        finally:
            self._asking.discard(asked)

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def publish(self, publication: Publication) -> asyncio.Future[int]:
        """See Session."""
        check_topic(publication.topic)
        future: asyncio.Future[int] = self._loop.create_future()
        if self._lost is not None:
            _fail(future, "there is no connection")
        elif self._waiting or not self._has_room(publication):
            self._waiting.append((publication, future))
        else:
            self._send(publication, future)
        return future

    def _has_room(self, publication: Publication) -> bool:
        return not publication.qos or len(self._in_flight) < self._most_in_flight

    def _send(self, publication: Publication, future: asyncio.Future[int]) -> None:
        packet_id = self._free_id() if publication.qos else 0
        packet = encode_publish(publication, packet_id, five=self._protocol == "5")
        if self._largest_packet is not None and len(packet) > self._largest_packet:
            if not future.done():
                future.set_result(PACKET_TOO_LARGE)
            return
        if publication.qos:
            self._in_flight[packet_id] = future
        else:
            self._unsent.append(future)
        self._queue(packet)

    def _queue(self, packet: bytes) -> None:
        """Let paho write a packet; it is told QoS 1 of each, which makes it ask no further."""
        self._paho._packet_queue(packet[0], packet, 0, 1)  # noqa: SLF001 - see MqttSession

    def _free_id(self) -> int:
        """Return a packet identifier from paho, which needs some for SUBSCRIBE too."""
        packet_id: int = self._paho._mid_generate()  # noqa: SLF001 - see MqttSession
        while packet_id in self._in_flight:
            packet_id = self._paho._mid_generate()  # noqa: SLF001 - see MqttSession
        return packet_id

    def _on_pubrec_packet(self) -> MQTTErrorCode:
        """Release a QoS 2 publication, or take the broker's no for its end (MQTT 5, 4.3.3)."""
        packet = self._paho._in_packet["packet"]  # noqa: SLF001 - see MqttSession
        packet_id, code = decode_puback(packet)
        if code >= REFUSED:
            return self._on_puback_packet("PUBREC")
        released: MQTTErrorCode = self._paho._send_pubrel(packet_id)  # noqa: SLF001 - see MqttSession
        return released

    def _on_puback_packet(self, command: str) -> MQTTErrorCode:
        """Take the end of a publication: PUBACK of QoS 1, PUBCOMP of QoS 2."""
        del command
        packet_id, code = decode_puback(self._paho._in_packet["packet"])  # noqa: SLF001 - see MqttSession
        future = self._in_flight.pop(packet_id, None)
        if future is not None and not future.done():
            future.set_result(code)
        if self._waiting:
            self._send_waiting()
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _send_waiting(self) -> None:
        while self._waiting and self._has_room(self._waiting[0][0]):
            self._send(*self._waiting.popleft())


def _merge(queued: deque[dict[str, Any]]) -> None:
    """Make few big packets of paho's many small ones: each costs a system call. DISCONNECT stays, for paho to see."""
    last = queued.pop() if queued[-1]["command"] & 0xF0 == MessageType.DISCONNECT else None
    data = b"".join([each["packet"][each["pos"] :] if each["pos"] else each["packet"] for each in queued])
    queued.clear()
    for start in range(0, len(data), WRITE_AT_ONCE):
        part = data[start : start + WRITE_AT_ONCE]
        queued.append(
            {
                "command": 0,
                "mid": 0,
                "qos": 1,
                "pos": 0,
                "to_process": len(part),
                "packet": part,
                "info": None,
            }
        )
    if last is not None:
        queued.append(last)


def _fail(future: asyncio.Future[int], words: str) -> None:
    if not future.done():
        future.set_exception(ConnectionLost(words))
        future.exception()  # its caller may have gone


def _has_more(sock: Any) -> bool:
    """Whether TLS has decoded bytes that the event loop cannot see."""
    return sock is not None and hasattr(sock, "pending") and sock.pending() > 0


def _code(code: Any) -> int:
    return int(getattr(code, "value", code))


def _is_filter(text: str) -> bool:
    try:
        check_filter(text)
    except ValueError:
        return False
    return True


def _shown(url: str) -> str:
    """Return a URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or PORTS[parts.scheme]}"


def _client(options: ConnectOptions, protocol: str) -> aiomqtt.Client:
    """Return aiomqtt's client of one connection: a used one would send again what its caller was told had failed."""
    parts = urlsplit(options.url)
    five = protocol == "5"
    more: dict[str, Any] = {"clean_session": options.clean}
    if five:
        more = {"clean_start": options.clean, "properties": _connect_properties(options)}
    if parts.scheme in ("ws", "wss"):
        more |= {"transport": "websockets", "websocket_path": parts.path or "/mqtt"}
    if parts.scheme in ("mqtts", "wss"):
        more |= {"tls_context": _tls_context(options, parts), "tls_insecure": options.tls.insecure}
    client = aiomqtt.Client(
        parts.hostname or "127.0.0.1",
        parts.port or PORTS[parts.scheme],
        identifier=options.client_id,
        username=options.username or (unquote(parts.username) if parts.username else None),
        password=options.password or (unquote(parts.password) if parts.password else None),
        protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311,
        keepalive=min(max(1, round(options.keepalive.total_seconds())), 0xFFFF),
        timeout=CONNECT_S,
        max_inflight_messages=0,
        will=_will(options),
        logger=_quiet,
        **more,
    )
    client.pending_calls_threshold = 100_000
    return client


def _will(options: ConnectOptions) -> aiomqtt.Will | None:
    will = options.last_will()
    return None if will is None else aiomqtt.Will(will.topic, will.payload, will.qos, will.retain)


def _connect_properties(options: ConnectOptions) -> Properties:
    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types for it
    if not options.clean:
        properties.SessionExpiryInterval = min(int(options.session_expiry.total_seconds()), 0xFFFFFFFF)
    properties.ReceiveMaximum = options.receive_maximum
    properties.MaximumPacketSize = options.maximum_packet_size
    made: Properties = properties
    return made


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
