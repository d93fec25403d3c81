"""Publishes one message of any size without building it in memory: `python big_sender.py PORT SIZE`."""

from __future__ import annotations

import socket
import sys

PIECE = b"x" * 65_536


def main(port: int, size: int) -> None:
    """Connect with MQTT 3.1.1, publish in pieces, and wait for PUBACK."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x00\x00\x03big")
        assert connection.recv(4) == b"\x20\x02\x00\x00"
        head = b"\x00\x03t/a\x00\x01"
        left, length = len(head) + size, bytearray()
        while left:
            left, digit = divmod(left, 128)
            length.append(digit | (128 if left else 0))
        connection.sendall(b"\x32" + length + head)
        for start in range(0, size, len(PIECE)):
            connection.sendall(PIECE[: size - start])
        assert connection.recv(4) == b"\x40\x02\x00\x01"


main(int(sys.argv[1]), int(sys.argv[2]))
