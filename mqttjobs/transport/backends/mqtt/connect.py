"""The socket of a connection: TCP, then TLS, then WebSocket; a failed step leaves nothing open."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import _WebsocketWrapper

STEP_S = 5.0
"""The time limit of each step."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a broker; `tls` None means no TLS, and `path` None no WebSocket."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    path: str | None = None


def open_socket(address: Address) -> Any:
    """Return a connected socket for paho; blocks, and raises OSError or paho's error for a bad handshake."""
    tcp = socket.create_connection((address.host, address.port), timeout=STEP_S)
    opened: socket.socket = tcp
    try:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.tls is not None:
            opened = address.tls.wrap_socket(tcp, server_hostname=address.host, do_handshake_on_connect=False)
            opened.do_handshake()
        if address.path is None:
            return opened
        wrapped: Any = _WebsocketWrapper(
            opened, address.host, address.port, address.tls is not None, address.path, extra_headers=None
        )
    except BaseException:
        opened.close()
        raise
    wrapped._create_frame = make_frame
    return wrapped


FINAL = 0x80
MASKED = 0x80


def make_frame(opcode: int, data: bytearray, do_masking: int = 1) -> bytearray:
    """Return an unfragmented WebSocket frame (RFC 6455, 5.2).

    Replaces paho's own function, which masks byte by byte: a megabyte would block the event loop for 0.1 s.
    """
    frame = bytearray([FINAL | opcode])
    mask = MASKED if do_masking else 0
    size = len(data)
    if size < 126:
        frame.append(mask | size)
    elif size < 65_536:
        frame.append(mask | 126)
        frame += size.to_bytes(2)
    else:
        frame.append(mask | 127)
        frame += size.to_bytes(8)
    if not do_masking:
        return frame + data
    key = os.urandom(4)
    keys = (key * (size // 4 + 1))[:size]
    return frame + key + (int.from_bytes(data) ^ int.from_bytes(keys)).to_bytes(size)
