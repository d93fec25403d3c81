"""What loadgen.c does, for machines without a C compiler: `loadgen.py PORT COUNT OUTSTANDING DEVICES`.

It takes several times the processor time of the C program, which slows down what is measured where cores are few.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from contextlib import suppress

STALLED_S = 15.0
PUBLISH, SUBACK = 3, 9
_NUMBER = re.compile(rb'"(n|t)"\s*:\s*"?([\d.]+)')


def packet(first: int, body: bytes) -> bytes:
    """Return a control packet."""
    length, rest = bytearray(), len(body)
    while True:
        rest, byte = divmod(rest, 128)
        length.append(byte | (128 if rest else 0))
        if not rest:
            return bytes([first]) + bytes(length) + body


def text(value: str) -> bytes:
    """Return a text with its length."""
    return len(value).to_bytes(2, "big") + value.encode()


class Load:
    """A closed loop over one connection."""

    def __init__(self, port: int, count: int, outstanding: int, devices: int) -> None:
        self.count, self.outstanding, self.devices = count, outstanding, devices
        self.sent = self.duplicates = 0
        self.latencies: list[float] = []
        self.seen = bytearray(count)
        self.granted = False
        self._out, self._in = bytearray(), bytearray()
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._out += packet(0x10, text("MQTT") + b"\x04\x02\x00\x00" + text("loadgen"))
        self._out += packet(0x82, b"\x00\x01" + text("out/#") + b"\x01")
        while not self.granted:
            self.write_lock()

    def run(self) -> dict[str, float]:
        """Send everything, wait for everything, and return the figures."""
        started = last = time.monotonic()
        while self.sent < min(self.count, self.outstanding):
            self._put_state()
        while len(self.latencies) < self.count and time.monotonic() - last < STALLED_S:
            before = len(self.latencies)
            self.write_lock()
            if len(self.latencies) != before:
                last = time.monotonic()
        seconds = time.monotonic() - started
        ordered = sorted(self.latencies) or [0.0]
        return {
            "sent": self.sent,
            "received": len(self.latencies),
            "duplicates": self.duplicates,
            "seconds": round(seconds, 4),
            "p50_ms": round(ordered[len(ordered) // 2] * 1e3, 3),
            "p99_ms": round(ordered[len(ordered) * 99 // 100] * 1e3, 3),
        }

    def write_lock(self) -> None:
        """Write what can be written and take in what has come."""
        if self._out:
            with suppress(BlockingIOError):
                del self._out[: self._socket.send(self._out)]
        for _ in self._selector.select(0.001 if self._out else 0.2):
            came = self._socket.recv(1 << 20)
            if not came:
                raise SystemExit("loadgen: the broker closed the connection")
            self._in += came
            self._take_input()

    def _put_state(self) -> None:
        state = "OFF" if self.sent // self.devices % 2 else "ON"
        payload = f'{{"state":"{state}","n":{self.sent},"t":{time.monotonic():.9f}}}'
        packet_id = (self.sent % 65535 + 1).to_bytes(2, "big")
        self._out += packet(
            PUBLISH << 4 | 2, text(f"state/dev{self.sent % self.devices}") + packet_id + payload.encode()
        )
        self.sent += 1

    def _take_input(self) -> None:
        at = 0
        while True:
            used, length, shift, byte = at + 1, 0, 0, 128
            while byte & 128 and used < len(self._in):
                byte = self._in[used]
                length |= (byte & 127) << shift
                shift += 7
                used += 1
            if byte & 128 or used + length > len(self._in):
                break
            self._take_packet(self._in[at], bytes(self._in[used : used + length]))
            at = used + length
        del self._in[:at]

    def _take_packet(self, first: int, body: bytes) -> None:
        if first >> 4 == SUBACK:
            self.granted = True
        if first >> 4 != PUBLISH:
            return
        topic = 2 + int.from_bytes(body[:2], "big")
        if first >> 1 & 3:
            self._out += packet(0x40, body[topic : topic + 2])
        found = {name: float(value) for name, value in _NUMBER.findall(body[topic:])}
        n = int(found[b"n"])
        if self.seen[n]:
            self.duplicates += 1
            return
        self.seen[n] = 1
        self.latencies.append(time.monotonic() - found[b"t"])
        if self.sent < self.count:
            self._put_state()


if __name__ == "__main__":
    load = Load(*map(int, sys.argv[1:5]))
    print(json.dumps(load.run()))
    sys.exit(len(load.latencies) < load.count)
