"""What arrives on a connection: few system calls, bounded memory, and our own acknowledgements."""

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
"""Messages waiting to be received, and bytes in them, beyond which the connection is not read…"""
UNREAD_LOW = 1000
UNREAD_BYTES_LOW = 8 * 1024 * 1024
"""…until so few are left."""
READ_AT_ONCE = 16 * 1024
READ_AT_MOST = 64 * 1024
READS_AT_ONCE = 4
"""System calls in one turn of the event loop, so that others have their turn."""


class Inbox:
    """The reading side of one connection; `broken` is told what ends it.

    Of a packet over `longest` bytes only so much is kept: MQTT 3.1.1 has no Maximum Packet Size to ask the broker for,
    and the message must reach who refuses and acknowledges it, or it would come again for ever.

    Attributes:
        unread: messages that nobody has taken yet; unread_bytes: what their payloads come to.
        urgent: how many wait for an answer: it comes behind whatever was sent before, so reading may not pause.
        paused: whether reading has paused.
        closing: whether messages are left to the broker from now on, for the next connection.
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
        client._sock_recv = self._read_ahead  # three system calls a packet otherwise
        client._handle_publish = self._on_publish  # paho ends the connection for one odd property
        client._handle_pubrel = self._on_pubrel  # QoS 2 of filters that others left behind

    def start(self, descriptor: int) -> None:
        """Read from now on."""
        self._descriptor = descriptor
        self._loop.add_reader(descriptor, self._read)

    def stop(self) -> None:
        """Read no more: the socket is about to be closed."""
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._descriptor = None

    def lose(self, error: TransportError) -> None:
        """Let whoever waits for a message know that none will come."""
        self._lost = error
        self._arrived.set()

    async def take(self, limit: int) -> list[Message]:
        """See Session.receive. What had arrived before a loss is not handed out: the broker sends it again."""
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
        """See Session.acknowledge; paho's own ack() would look for books that it does not keep here."""
        for message in messages:
            if message.qos == 1:
                self._client._send_puback(message.packet_id)
            elif message.qos == 2:
                self._client._send_pubrec(message.packet_id)

    def resume(self) -> None:
        """Read on after a pause; what was read ahead is nothing that the event loop could see."""
        if self.paused and self._descriptor is not None:
            self.paused = False
            self._loop.add_reader(self._descriptor, self._read)
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        """Handle what has arrived, until there is no more or others must have their turn.

        Until there is no more: TLS may hold bytes that the event loop cannot see, and uvloop never tells of a reset
        that came together with data.
        """
        client = self._client
        self._reads_left, self._dry = READS_AT_ONCE, False
        try:
            while not self._dry and not self._is_full():
                if client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    return
        except Exception as error:  # noqa: BLE001 - what paho cannot read ends the connection, not the service
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
        """Stand in for paho's recv: one system call for many packets, and one of them for each turn."""
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
