"""One connection to a broker, from CONNECT to DISCONNECT."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

import aiomqtt
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from mqttjobs.domain.topics import check_filter, check_topic
from mqttjobs.errors import ClientIdTaken, ConnectionLost, ConnectionRefused, TransportError
from mqttjobs.transport.backends.mqtt.client import display_url, make_client
from mqttjobs.transport.backends.mqtt.inbox import Inbox
from mqttjobs.transport.backends.mqtt.outbox import MOST_IN_FLIGHT, Outbox
from mqttjobs.transport.base import TOPIC_FILTER_INVALID, ConnectOptions, Message, Publication, Subscription

FILTERS_AT_ONCE = 100
SETTLE_S = 4.0
"""How long a clean exit waits for the broker to confirm publications…"""
DISCONNECT_S = 1.0
"""…and then for the broker to close the connection."""
KEEPALIVE_CHECK_S = 1.0

SESSION_TAKEN_OVER = 0x8E
UNSUPPORTED_VERSION = 0x84
CLOSED = 0x80
"""paho's code for a closed connection; a time-out and bytes that are not MQTT have codes of their own."""


class UnsupportedVersion(ConnectionRefused):
    """The broker refused MQTT 5 with reason 0x84, unsupported protocol version."""


class ClosedBeforeConnack(ConnectionLost):
    """The broker closed the connection before CONNACK; with `auto`, twice means that it does not speak MQTT 5."""


class MqttSession:
    """See Session.

    aiomqtt connects and subscribes. Messages, acknowledgements and publications go directly to paho, because aiomqtt
    acknowledges messages before they are taken, and hides DUP and PUBACK reasons. Private names of both libraries are
    used in this package only; the contract suite fails when one of them changes.
    """

    def __init__(self, options: ConnectOptions, protocol: str) -> None:
        self._options = options
        self._protocol = protocol
        self._where = display_url(options.url)
        self._resumed = False
        self._loop = asyncio.get_running_loop()
        self._lost: TransportError | None = None
        self._gone = asyncio.Event()
        self._keeping_alive: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Future[Any]] = set()
        self._aio = make_client(options, protocol)
        self._paho: Any = self._aio._client
        self._inbox = Inbox(self._paho, five=protocol == "5", longest=options.maximum_packet_size, broken=self._break)
        self._outbox = Outbox(self._paho, five=protocol == "5", broken=self._break)
        self._paho.on_connect = self._on_connect
        self._paho.on_disconnect = self._on_disconnect
        self._paho.on_socket_open = self._on_socket_open
        self._paho.on_socket_close = self._on_socket_close

    @property
    def resumed(self) -> bool:
        """See Session."""
        return self._resumed

    @property
    def protocol(self) -> str:
        """See Session."""
        return self._protocol

    # -- connect and disconnect ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect; raises the errors of Transport.connect."""
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
        """Return the TransportError for an error of aiomqtt; nowhere else are errors translated."""
        if self._lost is not None and not isinstance(error, aiomqtt.exceptions.MqttConnectError):
            return self._lost
        if isinstance(error, aiomqtt.exceptions.MqttConnectError):
            kind = UnsupportedVersion if _code(error.rc) == UNSUPPORTED_VERSION else ConnectionRefused
            return kind(f"{self._where} refused the connection: {error.rc}")
        return ConnectionLost(f"{self._where}: {error}")

    async def close(self) -> None:
        """Disconnect cleanly: wait for open confirmations, send DISCONNECT, and let the broker close the connection.

        Closing a socket with unread bytes resets the connection. The broker would then not read the last packets,
        DISCONNECT among them, and would publish the will. So reading goes on until the broker has closed its side.
        """
        self._inbox.closing = True
        self._inbox.resume()
        if self._lost is None:
            await self._outbox.settle(SETTLE_S)
        if self._lost is None:
            self._outbox.send_disconnect()
            with suppress(TimeoutError):
                async with asyncio.timeout(DISCONNECT_S):
                    await self._gone.wait()

    def cut(self) -> None:
        """Close the socket at once, if there is one; unless `close` came before, the broker publishes the will."""
        self._lose(ConnectionLost("disconnected"))
        if self._paho.socket() is not None:
            self._paho._sock_close()

    def _lose(self, error: TransportError) -> None:
        if self._lost is None:
            self._lost = error
            self._inbox.lose(error)
        self._gone.set()
        if not self._aio._connected.done():  # otherwise aiomqtt waits for its time-out
            self._aio._connected.set_exception(aiomqtt.MqttError(str(error)))
            self._aio._connected.exception()  # the task that waited may be cancelled
        for asked in self._asking:
            asked.cancel()
        self._outbox.lose()

    def _break(self, error: Exception) -> None:
        self._lose(ConnectionLost(f"{self._where}: {type(error).__name__}: {error}"))
        self.cut()

    async def _keep_alive(self) -> None:
        """Let paho ping when due; while reading is paused, a missing PINGRESP proves nothing."""
        while self._paho.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS:
            await asyncio.sleep(KEEPALIVE_CHECK_S)
            if self._inbox.paused:
                self._paho._ping_t = 0

    # -- callbacks of paho ---------------------------------------------------------------------------------------

    def _on_connect(self, client: Any, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        self._resumed = bool(flags.session_present)
        self._outbox.most_in_flight = min(MOST_IN_FLIGHT, getattr(properties, "ReceiveMaximum", MOST_IN_FLIGHT))
        self._outbox.largest_packet = getattr(properties, "MaximumPacketSize", None)
        self._aio._on_connect(client, userdata, flags, code, properties)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        del client, userdata, properties
        if _code(code) == SESSION_TAKEN_OVER:
            message = (
                f"another client uses the client id {self._options.client_id!r} at {self._where}; give each its own"
            )
            self._lose(ClientIdTaken(message))
        elif flags.is_disconnect_packet_from_server or _code(code) != CLOSED:
            self._lose(ConnectionLost(f"{self._where}: {code}"))
        elif self._aio._connected.done():
            self._lose(ConnectionLost(f"{self._where} closed the connection"))
        else:
            self._lose(ClosedBeforeConnack(f"{self._where} closed the connection before it answered CONNECT"))

    def _on_socket_open(self, client: Any, userdata: Any, sock: Any) -> None:
        """Start using the new socket; called in the connecting thread, possibly after the caller has given up."""
        del client, userdata
        if self._lost is not None:
            sock.close()
            raise ConnectionAbortedError("no longer wanted")
        self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        sock = self._paho.socket()
        if sock is not None:
            self._inbox.start(sock.fileno())
            self._outbox.start(sock.fileno())
            self._keeping_alive = self._loop.create_task(self._keep_alive(), name="mqtt-keepalive")

    def _on_socket_close(self, client: Any, userdata: Any, sock: Any) -> None:
        del client, userdata, sock
        self._inbox.stop()
        self._outbox.stop()
        if self._keeping_alive is not None:
            self._keeping_alive.cancel()

    # -- Session -------------------------------------------------------------------------------------------------

    async def receive(self, limit: int = 500) -> list[Message]:
        """See Session."""
        return await self._inbox.take(limit)

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See Session."""
        if self._lost is None:
            self._inbox.acknowledge(messages)

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
        return [next(answers) if _is_filter(each.filter) else TOPIC_FILTER_INVALID for each in subscriptions]

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
        """Wait for the broker's response to a packet, or for the loss of the connection."""
        asked = asyncio.ensure_future(question)
        self._asking.add(asked)
        if self._lost is not None:
            asked.cancel()
        self._inbox.urgent += 1
        self._inbox.resume()
        try:
            return await asked
        except asyncio.CancelledError:
            self._check()
            raise
        except (aiomqtt.MqttError, OSError) as error:
            self._break(error)
            self._check()
        finally:
            self._inbox.urgent -= 1
            self._asking.discard(asked)

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def publish(self, publication: Publication) -> asyncio.Future[int]:
        """See Session."""
        check_topic(publication.topic)
        return self._outbox.publish(publication)


def _code(code: Any) -> int:
    return int(getattr(code, "value", code))


def _is_filter(text: str) -> bool:
    try:
        check_filter(text)
    except ValueError:
        return False
    return True
