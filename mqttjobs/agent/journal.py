"""The journal of an agent: JSON lines in its state directory, each written before the step that it records.

A crash can cut only the last line short; that line is skipped. A start, and growth, rewrite the journal without the
lines that are no longer needed; the new file replaces the old one in one step.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any

import orjson

from mqttjobs.domain.model import Json
from mqttjobs.domain.protocol import encode, milliseconds
from mqttjobs.errors import StoreError, StoreRefused

DELIVERED_KEPT = timedelta(hours=1)
"""How long a delivered report is kept, to be sent again if the broker lost it."""
LINES_KEPT = 5000
"""The journal is rewritten when it has more lines than this, and most of them are no longer needed."""


class Step(IntEnum):
    """How far an assignment has come."""

    TAKEN = 0
    STARTED = 1
    ENDED = 2
    DELIVERED = 3


@dataclass(slots=True)
class Entry:
    """One assignment: its message as received, its step, its last report, and until when it is kept."""

    token: str
    message: Mapping[str, Json]
    step: Step = Step.TAKEN
    report: Mapping[str, Json] | None = None
    until_ms: int = 0


class Journal:
    """The journal of one agent.

    Attributes:
        entries: the assignments by token.
        seen: the signatures of handled messages, each with its expiry in milliseconds since 1970.
        drained: whether the agent takes no new jobs.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "agent.journal"
        self._lock_path = folder / "agent.lock"
        self.entries: dict[str, Entry] = {}
        self.seen: dict[str, int] = {}
        self.drained = False
        self._file: int | None = None
        self._lock: int | None = None
        self._lines = 0
        self._pending: list[bytes] = []
        self._flushing: asyncio.Task[None] | None = None

    def open(self, now: datetime) -> None:
        """Lock the state directory and read the journal.

        Raises:
            StoreRefused: another agent uses the directory, or the directory cannot be read and written.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreRefused(f"{self._path.parent} is used by another agent; give each a --state-dir") from None
        except OSError as error:
            raise StoreRefused(f"{self._path.parent} cannot be used ({error.strerror}); see --state-dir") from None
        self._read()
        self._rewrite(now)

    def close(self) -> None:
        """Write what is still pending and unlock the state directory."""
        if self._file is not None:
            self._write()
            os.close(self._file)
        if self._lock is not None:
            os.close(self._lock)
        self._file = self._lock = None

    # -- steps ---------------------------------------------------------------------------------------------------

    def take(self, token: str, message: Mapping[str, Json]) -> Entry:
        """Record a new assignment; durable after `flush`, as every record here."""
        entry = self.entries[token] = Entry(token, message)
        self._add({"take": token, "message": message})
        return entry

    def start(self, entry: Entry) -> None:
        """Record that an assignment is about to start."""
        entry.step = Step.STARTED
        self._add({"start": entry.token})

    def end(self, entry: Entry, report: Mapping[str, Json]) -> None:
        """Record the last report of an assignment, which is sent until the broker confirms it."""
        entry.step, entry.report = Step.ENDED, report
        self._add({"end": entry.token, "report": report})

    def delivered(self, entry: Entry, now: datetime) -> None:
        """Record that the broker has confirmed the last report."""
        entry.step, entry.until_ms = Step.DELIVERED, milliseconds(now + DELIVERED_KEPT)
        entry.message = {}
        self._add({"delivered": entry.token, "until": entry.until_ms})

    def mark_seen(self, signature: str, until: datetime) -> None:
        """Record the signature of a handled message; `until` is the expiry of the message."""
        self.seen[signature] = milliseconds(until)
        self._add({"seen": signature, "until": self.seen[signature]})

    def drain(self, *, drained: bool) -> None:
        """Record whether the agent is drained."""
        self.drained = drained
        self._add({"drained": drained})

    async def flush(self) -> None:
        """Return when everything recorded so far is durable; lines recorded meanwhile share one write.

        Raises:
            StoreError: the file could not be written; the next flush tries again.
        """
        while self._pending or self._flushing is not None:
            if self._flushing is None:
                self._flushing = asyncio.create_task(self._flush(), name="journal")
            await asyncio.shield(self._flushing)

    async def _flush(self) -> None:
        lines, self._pending = self._pending, []
        try:
            await asyncio.to_thread(self._append, b"".join(lines))
            self._lines += len(lines)
        except OSError as error:
            self._pending = [b"\n", *lines, *self._pending]  # a half-written line is skipped when read
            raise StoreError(f"{self._path} cannot be written ({error.strerror})") from error
        finally:
            self._flushing = None

    def compact(self, now: datetime) -> None:
        """Rewrite the journal if it has grown; does nothing during a flush."""
        if self._flushing is None and self._lines > LINES_KEPT + 4 * len(self.entries):
            self._rewrite(now)

    # -- the file ------------------------------------------------------------------------------------------------

    def _add(self, line: Mapping[str, Json]) -> None:
        self._pending.append(encode(line) + b"\n")

    def _append(self, data: bytes) -> None:
        if self._file is not None and data:
            if os.write(self._file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(self._file)

    def _write(self) -> None:
        lines, self._pending = self._pending, []
        self._append(b"".join(lines))

    def _read(self) -> None:
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            try:
                self._replay(orjson.loads(line))
            except (orjson.JSONDecodeError, KeyError):
                continue

    def _replay(self, line: dict[str, Any]) -> None:
        if "take" in line:
            self.entries[line["take"]] = Entry(line["take"], line["message"])
        elif "start" in line:
            self.entries[line["start"]].step = Step.STARTED
        elif "end" in line:
            entry = self.entries[line["end"]]
            entry.step, entry.report = Step.ENDED, line["report"]
        elif "delivered" in line:
            entry = self.entries.setdefault(line["delivered"], Entry(line["delivered"], {}))
            entry.step, entry.message, entry.until_ms = Step.DELIVERED, {}, line["until"]
        elif "seen" in line:
            self.seen[line["seen"]] = line["until"]
        else:
            self.drained = bool(line["drained"])

    def _rewrite(self, now: datetime) -> None:
        """Write the lines that are still needed into a new file, and replace the journal with it."""
        now_ms = milliseconds(now)
        self.seen = {signature: until for signature, until in self.seen.items() if until > now_ms}
        self.entries = {
            token: entry
            for token, entry in self.entries.items()
            if entry.step is not Step.DELIVERED or entry.until_ms > now_ms
        }
        self._pending.clear()
        lines = [encode({"drained": self.drained}), *map(encode, self._lines_needed())]
        new_path = self._path.with_suffix(".new")
        file = os.open(new_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.write(file, b"\n".join(lines) + b"\n")
        os.fsync(file)
        new_path.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        if self._file is not None:
            os.close(self._file)
        self._file, self._lines = file, len(lines)

    def _lines_needed(self) -> list[Mapping[str, Json]]:
        lines: list[Mapping[str, Json]] = [{"seen": each, "until": until} for each, until in self.seen.items()]
        for token, entry in self.entries.items():
            lines.append({"take": token, "message": entry.message})
            if entry.step is Step.STARTED:
                lines.append({"start": token})
            if entry.report is not None:
                lines.append({"end": token, "report": entry.report})
            if entry.step is Step.DELIVERED:
                lines.append({"delivered": token, "until": entry.until_ms})
        return lines
