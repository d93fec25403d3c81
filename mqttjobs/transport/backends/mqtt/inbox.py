"""The receiving side of a connection: few system calls, bounded memory, and acknowledgements by the caller."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt.enums import MQTTErrorCode

from mqttjobs.errors import TransportError
from mqttjobs.transport.base import Message
from mqttjobs.transport.packets import PacketError, decode_publish

UNREAD_HIGH = 2000
UNREAD_BYTES_HIGH = 16 * 1024 * 1024
"""The number and bytes of unread messages above which reading from the connection pauses…"""
UNREAD_LOW = 1000
UNREAD_BYTES_LOW = 8 * 1024 * 1024
"""…until only so many are left."""
READ_AT_ONCE = 16 * 1024
READ_AT_MOST = 64 * 1024
READS_AT_ONCE = 4
"""System calls in one turn of the event loop, so that other tasks have their turn."""


class Inbox:
    """The receiving side of one connection; `broken` is called with an error that ends the connection.

    A packet over `longest` bytes is cut to that length: MQTT 3.1.1 cannot ask the broker for a Maximum Packet Size, and
    a message that is never seen is never acknowledged, so the broker would send it again for ever.

    Attributes:
        unread: messages that are not taken yet; unread_bytes: the bytes of their payloads.
        urgent: how many calls wait for a response of the broker; it comes behind other packets, so reading goes on.
        paused: whether reading has paused.
        closing: whether new messages are dropped unacknowledged, for the broker to send on the next connection.
    """

    def __init__(self, client: Any, *, five: bool, longest: int, broken: Callable[[Exception], None]) -> None:
        self.unread: deque[Message] = deque()
        self.unread_bytes = 0
        self.urgent = 0
        self.paused = False
        self.closing = False
        self._client = client
        self._five = five
        self._longest = longest
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._lost: TransportError | None = None
        self._arrived = asyncio.Event()
        self._descriptor: int | None = None
        self._ahead = b""
        self._ahead_at = 0
        self._reads_left = 0
        self._dry = False
        self._receive_bytes = client._sock_recv
        client._sock_recv = self._read_ahead  # paho makes three system calls for each packet
        client._handle_publish = self._on_publish  # paho ends the connection for one invalid property
        client._handle_pubrel = self._on_pubrel  # QoS 2 from subscriptions that an earlier client left in the session

    def start(self, descriptor: int) -> None:
        """Start reading from a socket."""
        self._descriptor = descriptor
        self._loop.add_reader(descriptor, self._read)

    def stop(self) -> None:
        """Stop reading: the socket is about to be closed."""
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._descriptor = None

    def lose(self, error: TransportError) -> None:
        """Raise `error` from `take`, now and later: no message will come."""
        self._lost = error
        self._arrived.set()

    async def take(self, limit: int) -> list[Message]:
        """See Session.receive. Messages that arrived before a loss are not returned: the broker sends them again."""
        while self._lost is None and not self.unread:
            self._arrived.clear()
            await self._arrived.wait()
        if self._lost is not None:
            raise self._lost
        messages = [self.unread.popleft() for _ in range(min(limit, len(self.unread)))]
        self.unread_bytes -= sum([len(message.payload) for message in messages])
        if self.paused and len(self.unread) <= UNREAD_LOW and self.unread_bytes <= UNREAD_BYTES_LOW:
            self.resume()
        return messages

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See Session.acknowledge; paho's own ack() needs records that paho does not keep here."""
        for message in messages:
            if message.qos == 1:
                self._client._send_puback(message.packet_id)
            elif message.qos == 2:
                self._client._send_pubrec(message.packet_id)

    def resume(self) -> None:
        """Continue reading after a pause, and call `_read` for bytes read ahead, which the event loop cannot see."""
        if self.paused and self._descriptor is not None:
            self.paused = False
            self._loop.add_reader(self._descriptor, self._read)
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        """Handle packets until no more bytes have arrived, or other tasks must have their turn.

        Until no more: TLS may hold bytes that the event loop cannot see, and uvloop does not report a reset that came
        together with data.
        """
        client = self._client
        self._reads_left, self._dry = READS_AT_ONCE, False
        try:
            while not self._dry and not self._is_full():
                if client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    return
        except Exception as error:  # noqa: BLE001 - bytes that paho cannot read end the connection, not the service
            self._broken(error)
            return
        if self._is_full():
            self.paused = True
            if self._descriptor is not None:
                self._loop.remove_reader(self._descriptor)
        elif self._reads_left <= 0:
            self._loop.call_soon(self._read)

    def _is_full(self) -> bool:
        much = len(self.unread) >= UNREAD_HIGH or self.unread_bytes >= UNREAD_BYTES_HIGH
        return much and not self.urgent and not self.closing

    def _read_ahead(self, size: int) -> bytes:
        """Replace paho's recv: one system call reads many packets, and each call returns the part that paho needs."""
        if self._ahead_at == len(self._ahead):
            if self._reads_left <= 0:
                self._dry = True
                raise BlockingIOError
            wanted = max(READ_AT_ONCE, min(size, READ_AT_MOST))
            try:
                self._ahead = self._receive_bytes(wanted)
            except BlockingIOError:
                self._dry = True
                raise
            self._ahead_at = 0
            self._reads_left = self._reads_left - 1 if len(self._ahead) < wanted else 0
        packet = self._client._in_packet
        if packet["remaining_length"] > self._longest:
            del packet["packet"][self._longest :]
        start = self._ahead_at
        self._ahead_at = min(start + size, len(self._ahead))
        return self._ahead[start : self._ahead_at]

    def _on_publish(self) -> MQTTErrorCode:
        if self.closing:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        packet = self._client._in_packet
        try:
            message = decode_publish(packet["command"], packet["packet"], five=self._five)
        except PacketError:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        self.unread.append(message)
        self.unread_bytes += len(message.payload)
        self._arrived.set()
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _on_pubrel(self) -> MQTTErrorCode:
        packet_id = int.from_bytes(self._client._in_packet["packet"][:2])
        code: MQTTErrorCode = self._client._send_pubcomp(packet_id)
        return code
