"""The sending side of a connection: in call order, in few writes, with a future for each publication."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from paho.mqtt.enums import MQTTErrorCode

from mqttjobs.errors import ConnectionLost
from mqttjobs.transport.base import PACKET_TOO_LARGE, REFUSED, Publication
from mqttjobs.transport.packets import decode_puback, encode_publish

WRITE_AT_ONCE = 64 * 1024
MOST_IN_FLIGHT = 30_000
"""The most publications sent and not confirmed; there are packet identifiers for twice as many."""
DISCONNECT = bytes([0xE0, 0])
"""A normal DISCONNECT packet, the same in both versions."""


class Outbox:
    """The sending side of one connection; `broken` is called with an error that ends the connection.

    Attributes:
        most_in_flight: the broker's Receive Maximum, or MOST_IN_FLIGHT if that is less.
        largest_packet: the broker's Maximum Packet Size in bytes; None for any size.
    """

    def __init__(self, client: Any, *, five: bool, broken: Callable[[Exception], None]) -> None:
        self.most_in_flight = MOST_IN_FLIGHT
        self.largest_packet: int | None = None
        self._client = client
        self._five = five
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lost = False
        self._waiting: deque[tuple[Publication, asyncio.Future[int]]] = deque()
        self._unsent: list[asyncio.Future[int]] = []
        self._in_flight: dict[int, asyncio.Future[int]] = {}
        self._settled: asyncio.Future[None] | None = None
        self._descriptor: int | None = None
        self._flush_due = False
        self._blocked = False
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = None
        client.on_publish = None
        client._handle_pubackcomp = self._on_puback  # paho would record publications and resend them
        client._handle_pubrec = self._on_pubrec  # same

    def start(self, descriptor: int) -> None:
        """Start writing to a socket."""
        self._descriptor = descriptor

    def stop(self) -> None:
        """Stop writing: the socket is about to be closed."""
        if self._descriptor is not None:
            self._loop.remove_writer(self._descriptor)
            self._descriptor = None

    def lose(self) -> None:
        """Fail the future of every unconfirmed publication with ConnectionLost."""
        self._lost = True
        futures = [*self._in_flight.values(), *self._unsent, *(future for _, future in self._waiting)]
        self._in_flight.clear()
        self._unsent.clear()
        self._waiting.clear()
        for future in futures:
            _fail(future, ConnectionLost("the connection was lost before the broker confirmed"))
        self._notify_settled()

    def publish(self, publication: Publication) -> asyncio.Future[int]:
        """See Session.publish."""
        future: asyncio.Future[int] = self._loop.create_future()
        if self._lost:
            _fail(future, ConnectionLost("there is no connection"))
        elif self._waiting or not self._has_room(publication):
            self._waiting.append((publication, future))
        else:
            self._send(publication, future)
        return future

    async def settle(self, seconds: float) -> None:
        """Wait until every publication has been sent and confirmed, at most for `seconds`."""
        self._settled = self._loop.create_future()
        self._notify_settled()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._settled

    def send_disconnect(self) -> None:
        """Send DISCONNECT; paho's own would close the socket too, and unread bytes would turn that into a reset."""
        self._client._packet_queue(0, DISCONNECT, 0, 1)

    def _has_room(self, publication: Publication) -> bool:
        return not publication.qos or len(self._in_flight) < self.most_in_flight

    def _send(self, publication: Publication, future: asyncio.Future[int]) -> None:
        packet_id = self._free_id() if publication.qos else 0
        try:
            packet = encode_publish(publication, packet_id, five=self._five)
        except ValueError as error:
            _fail(future, error)
            return
        if self.largest_packet is not None and len(packet) > self.largest_packet:
            if not future.done():
                future.set_result(PACKET_TOO_LARGE)
            return
        if publication.qos:
            self._in_flight[packet_id] = future
        else:
            self._unsent.append(future)
        self._client._packet_queue(packet[0], packet, 0, 1)  # with QoS 1 for each, paho keeps no record of it

    def _send_waiting(self) -> None:
        while self._waiting and self._has_room(self._waiting[0][0]):
            self._send(*self._waiting.popleft())

    def _free_id(self) -> int:
        """Return a free packet identifier from paho, which uses some for SUBSCRIBE too."""
        packet_id: int = self._client._mid_generate()
        while packet_id in self._in_flight:
            packet_id = self._client._mid_generate()
        return packet_id

    def _on_register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        """Write all queued packets at the end of this turn of the event loop; CONNECT comes from another thread."""
        del client, userdata, sock
        if threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self._flush)
        elif not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        client = self._client
        self._flush_due = False
        if client.socket() is None:
            return
        queued = client._out_packet
        if len(queued) > 1 and not self._blocked:
            _merge(queued)
        try:
            client.loop_write()
        except Exception as error:  # noqa: BLE001 - packets that paho cannot write end the connection, not the service
            self._broken(error)
        self._flushed(everything=not queued)

    def _flushed(self, *, everything: bool) -> None:
        if everything:
            sent, self._unsent = self._unsent, []
            for future in sent:
                if not future.done():
                    future.set_result(0)
            self._notify_settled()
        if self._descriptor is not None and everything == self._blocked:
            self._blocked = not everything
            if self._blocked:
                self._loop.add_writer(self._descriptor, self._flush)
            else:
                self._loop.remove_writer(self._descriptor)

    def _notify_settled(self) -> None:
        open_ones = self._in_flight or self._waiting or self._unsent
        if self._settled is not None and not self._settled.done() and not open_ones:
            self._settled.set_result(None)

    def _on_pubrec(self) -> MQTTErrorCode:
        """Release a QoS 2 publication; a refusal of the broker is its end (MQTT 5, 4.3.3)."""
        packet_id, code = decode_puback(self._client._in_packet["packet"])
        if code >= REFUSED:
            return self._on_puback("PUBREC")
        released: MQTTErrorCode = self._client._send_pubrel(packet_id)
        return released

    def _on_puback(self, command: str) -> MQTTErrorCode:
        """Set the future of a publication at its end: PUBACK of QoS 1, PUBCOMP of QoS 2."""
        del command
        packet_id, code = decode_puback(self._client._in_packet["packet"])
        future = self._in_flight.pop(packet_id, None)
        if future is not None and not future.done():
            future.set_result(code)
        if self._waiting:
            self._send_waiting()
        self._notify_settled()
        return MQTTErrorCode.MQTT_ERR_SUCCESS


def _merge(queued: deque[dict[str, Any]]) -> None:
    """Merge paho's many small packets into few large ones: each costs a system call."""
    data = b"".join([each["packet"][each["pos"] :] if each["pos"] else each["packet"] for each in queued])
    queued.clear()
    for start in range(0, len(data), WRITE_AT_ONCE):
        part = data[start : start + WRITE_AT_ONCE]
        queued.append(
            {"command": 0, "mid": 0, "qos": 1, "pos": 0, "to_process": len(part), "packet": part, "info": None}
        )


def _fail(future: asyncio.Future[int], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # the caller may be gone
