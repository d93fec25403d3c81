"""What a program writes: kept up to a bound, head and tail, with progress lines taken out (behaviour 3.11)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

PROGRESS_PREFIX = b"::message:: "
LONGEST_PROGRESS = 4096


class Capture:
    """Keeps the head and the tail of a stream; what lies between is counted and forgotten.

    Args:
        limit: bytes kept, half of them for the tail.
        progress: told the text of each line `::message:: TEXT`, which is then left out; None keeps all lines.
    """

    def __init__(self, limit: int, progress: Callable[[str], object] | None = None) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self.left_out = 0
        self._progress = progress
        self._line = b""
        self._line_start = True

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        if self._progress is None:
            self._keep(data)
            return
        for piece in _lines(data):
            self._feed_piece(piece)

    def _feed_piece(self, piece: bytes) -> None:
        """Hold a line back as long as it may still become a progress line."""
        if not self._line_start:
            self._keep(piece)
        else:
            self._line += piece
            begins = self._line[: len(PROGRESS_PREFIX)]
            may_be = PROGRESS_PREFIX.startswith(begins) or begins == PROGRESS_PREFIX
            if may_be and not piece.endswith(b"\n") and len(self._line) < LONGEST_PROGRESS:
                return
            self._let_go()
        self._line_start = piece.endswith(b"\n")

    def _let_go(self) -> None:
        line, self._line = self._line, b""
        if self._progress is not None and line.startswith(PROGRESS_PREFIX):
            text = line[len(PROGRESS_PREFIX) :].decode(errors="replace").replace("\0", "\ufffd").strip()
            if text:
                self._progress(text)
        else:
            self._keep(line)

    def _keep(self, data: bytes) -> None:
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        if len(data) > self._half:
            self.left_out += len(data) - self._half
            data = data[-self._half :]
        self._tail.append(data)
        self._tail_bytes += len(data)
        while self._tail_bytes - len(self._tail[0]) >= self._half:
            gone = len(self._tail.popleft())
            self._tail_bytes -= gone
            self.left_out += gone

    def close(self) -> None:
        """Take the stream's end."""
        if self._line:
            self._let_go()

    def text(self, hidden: Sequence[tuple[str, str]]) -> str:
        """Return what was kept, with every `hidden` text replaced by its name.

        Where something was left out, as much more is as the longest hidden text is long: half of one tells too.
        """
        tail = b"".join(self._tail)
        left_out = self.left_out
        if left_out and len(tail) > self._half:
            left_out += len(tail) - self._half
            tail = tail[-self._half :]
        if self.left_out == 0:
            return mask(_decode(bytes(self._head) + tail), hidden)
        margin = max((len(secret.encode()) for secret, _ in hidden), default=0)
        head = mask(_decode(bytes(self._head)[: len(self._head) - margin]), hidden)
        rest = mask(_decode(tail[margin:]), hidden)
        return f"{head}\n[… {left_out + 2 * margin} bytes left out …]\n{rest}"


def _lines(data: bytes) -> list[bytes]:
    """Split at newlines alone: a carriage return redraws a line, it does not end it."""
    lines = data.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _decode(data: bytes) -> str:
    return data.decode(errors="replace").replace("\0", "\ufffd")


def mask(text: str, hidden: Sequence[tuple[str, str]]) -> str:
    """Return a text with every hidden one in it replaced by its name, the longest first."""
    for secret, name in sorted(hidden, key=lambda each: -len(each[0])):
        if secret:
            text = text.replace(secret, name)
    return text
