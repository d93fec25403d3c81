"""Tests of several worker processes run side by side; a test that measures time runs alone."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """Decides which tests run at the same time: any number of ordinary tests, or one test that has to be alone.

    All workers of a test run open the same two files in `folder` and lock them; a worker that dies loses its locks.
    """

    def __init__(self, folder: Path) -> None:
        self._queue = (folder / "queue.lock").open("w")
        self._room = (folder / "room.lock").open("w")

    @contextmanager
    def take(self, *, alone: bool) -> Iterator[None]:
        """Wait for the turn of a test, and hold it while the test runs.

        The queue makes the turns fair: nobody overtakes a test that waits until the room is empty.
        """
        fcntl.flock(self._queue, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files."""
        self._queue.close()
        self._room.close()
