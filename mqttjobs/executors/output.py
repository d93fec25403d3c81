"""Captured output of a program: head and tail up to a limit, without progress lines (behaviour 3.11)."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable

from mqttjobs.executors.masking import Masking

PROGRESS_PREFIX = b"::message:: "
LONGEST_PROGRESS = 4096
"""The most bytes of a progress message; the rest of its line is left out."""


class Capture:
    """Keeps the head and the tail of a stream; the bytes between are counted in `left_out` and dropped.

    Args:
        limit: the most bytes kept, half of them for the tail.
        masking: masks the secrets in the text and in progress messages.
        progress: called with the TEXT of each line `::message:: TEXT`, which is then left out; None keeps all lines.
    """

    def __init__(self, limit: int, masking: Masking, progress: Callable[[str], object] | None = None) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._forgotten = 0
        self._masking = masking
        self._progress = progress
        self._line = b""
        self._line_start = True
        self._was_progress = False

    @property
    def left_out(self) -> int:
        """Return how many bytes lie between the head and the tail."""
        return self._forgotten + max(0, self._tail_bytes - self._half)

    def feed(self, data: bytes) -> None:
        """Add bytes that were read from the stream."""
        if self._progress is None:
            self._keep(data)
            return
        for piece in _lines(data):
            self._feed_piece(piece)

    def _feed_piece(self, piece: bytes) -> None:
        """Add a piece of a line; a line is held back while it may still become a progress line."""
        ends = piece.endswith(b"\n")
        if self._line_start:
            self._line += piece
            begins = self._line[: len(PROGRESS_PREFIX)]
            is_progress = begins == PROGRESS_PREFIX
            if (
                not ends
                and len(self._line) < len(PROGRESS_PREFIX) + LONGEST_PROGRESS
                and (is_progress or PROGRESS_PREFIX.startswith(begins))
            ):
                return
            self._end_line()
            self._was_progress = is_progress
        elif not self._was_progress:
            self._keep(piece)
        self._line_start = ends

    def _end_line(self) -> None:
        line, self._line = self._line, b""
        if self._progress is None or not line.startswith(PROGRESS_PREFIX):
            self._keep(line)
            return
        message = line[len(PROGRESS_PREFIX) :]
        if len(message) < LONGEST_PROGRESS:
            text = self._masking(_decode(message))
        else:
            text = self._masking.head(_decode_beginning(message[:LONGEST_PROGRESS]))
        if text.strip():
            self._progress(text.strip())

    def _keep(self, data: bytes) -> None:
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        if len(data) > self._half:
            self._forgotten += len(data) - self._half
            data = data[-self._half :]
        self._tail.append(data)
        self._tail_bytes += len(data)
        while self._tail_bytes - len(self._tail[0]) >= self._half:
            gone = len(self._tail.popleft())
            self._tail_bytes -= gone
            self._forgotten += gone

    def close(self) -> None:
        """End the stream: the last line may have no newline."""
        if self._line:
            self._end_line()

    def text(self) -> str:
        """Return the kept output, with every secret replaced by its name.

        Between head and tail a line says how many bytes were left out; a secret that was cut there is left out too.
        """
        tail = b"".join(self._tail)
        left_out = self.left_out
        if left_out == 0:
            return self._masking(_decode(bytes(self._head) + tail))
        head = self._masking.head(_decode_beginning(bytes(self._head)))
        rest = self._masking.tail(_decode_end(tail[-self._half :]))
        return f"{head}\n[… {left_out} bytes left out …]\n{rest}"


def _lines(data: bytes) -> list[bytes]:
    """Split at newlines only: a carriage return redraws a line and does not end it."""
    lines = data.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _decode(data: bytes) -> str:
    return data.decode(errors="replace").replace("\0", "\ufffd")


def _decode_beginning(data: bytes) -> str:
    """Decode the beginning of longer data, without a character that is cut off at its end."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data).replace("\0", "\ufffd")


def _decode_end(data: bytes) -> str:
    """Decode the end of longer data, without the rest of a character that was cut off before it."""
    cut = 0
    while cut < min(3, len(data)) and data[cut] & 0xC0 == 0x80:
        cut += 1
    return _decode(data[cut:])
