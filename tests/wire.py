"""MQTT packets by hand: sends to a broker what client libraries refuse to send."""

from __future__ import annotations

import itertools
import socket
import threading
from typing import Self

WAIT_S = 20.0
CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x20, 0x40, 0x50, 0x60, 0x70
_names = itertools.count()


def binary(data: bytes) -> bytes:
    """Return data with its length in two bytes before it (MQTT 5, 1.5.6)."""
    return len(data).to_bytes(2) + data


def number(value: int) -> bytes:
    """Return a Variable Byte Integer (MQTT 5, 1.5.5)."""
    data = bytearray()
    while True:
        value, byte = divmod(value, 128)
        data.append(byte | 128 if value else byte)
        if not value:
            return bytes(data)


def response_topic(topic: bytes) -> bytes:
    return b"\x08" + binary(topic)


def correlation(data: bytes) -> bytes:
    return b"\x09" + binary(data)


def user_property(key: bytes, value: bytes) -> bytes:
    return b"\x26" + binary(key) + binary(value)


def expires_in(seconds: int) -> bytes:
    return b"\x02" + seconds.to_bytes(4)


class Wire:
    """A connection to a broker on loopback, MQTT 5 or 3.1.1."""

    def __init__(self, port: int, *, five: bool = True) -> None:
        self.five = five
        self._packet_ids = itertools.count(1)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self._read_ahead = self._socket.makefile("rb")
        level, properties = (b"\x05", b"\x00") if five else (b"\x04", b"")
        client_id = binary(b"wire-%d" % next(_names))
        self.send(0x10, binary(b"MQTT") + level + b"\x02" + (60).to_bytes(2) + properties + client_id)
        kind, answer = self.read()
        assert (kind, answer[1]) == (CONNACK, 0), "the broker refused the connection"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._read_ahead.close()
        self._socket.close()

    def send(self, first: int, body: bytes) -> None:
        """Send a packet: its first byte, its length, and `body`."""
        self._socket.sendall(bytes([first]) + number(len(body)) + body)

    def read(self) -> tuple[int, bytes]:
        """Return the type of the next packet, and its bytes after the length; raises EOFError if there is none."""
        first = self._take(1)[0]
        size = shift = 0
        while True:
            byte = self._take(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first & 0xF0, self._take(size)

    def _take(self, size: int) -> bytes:
        data = self._read_ahead.read(size)
        if len(data) < size:
            raise EOFError("the broker has closed the connection")
        return data

    def publish(
        self, topic: bytes, payload: bytes = b"", *, properties: bytes = b"", qos: int = 1, retain: bool = False
    ) -> None:
        """Publish, and wait for the acknowledgement (QoS 1 and 2)."""
        packet_id = next(self._packet_ids) % 0xFFFF + 1
        body = binary(topic) + (packet_id.to_bytes(2) if qos else b"")
        if self.five:
            body += number(len(properties)) + properties
        self.send(0x30 | qos << 1 | retain, body + payload)
        if qos == 1:
            assert self.read()[0] == PUBACK
        elif qos == 2:
            assert self.read()[0] == PUBREC
            self.send(PUBREL | 2, packet_id.to_bytes(2))
            assert self.read()[0] == PUBCOMP


class TakingOver:
    """A broker that accepts every client, and at once sends DISCONNECT 0x8E: another client took the session over."""

    def __init__(self) -> None:
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(WAIT_S)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(WAIT_S)
                client.recv(65_536)
                client.sendall(b"\x20\x03\x00\x00\x00")
                self.connections += 1
                client.sendall(b"\xe0\x01\x8e")
                while client.recv(65_536):
                    pass
