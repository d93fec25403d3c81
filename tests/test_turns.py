"""Ordinary tests run side by side; a test that runs alone waits for them, and later ones wait for it."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.turns import Turns

WAIT_S = 10.0


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Turns]]:
    turns = [Turns(tmp_path) for _ in range(3)]
    yield turns
    for each in turns:
        each.close()


def in_thread(turns: Turns, order: list[str], name: str, *, alone: bool) -> threading.Thread:
    """Take a turn as another worker would, and note it."""

    def run() -> None:
        with turns.take(alone=alone):
            order.append(name)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def wait_until_queued(folder: Path) -> None:
    """Wait until somebody holds the queue, who waits for the room."""
    pause = threading.Event()
    with (folder / "queue.lock").open("w") as queue:
        while True:
            try:
                fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(queue, fcntl.LOCK_UN)
            pause.wait(0.01)


def test_ordinary_tests_run_side_by_side(workers: list[Turns]) -> None:
    order: list[str] = []
    with workers[0].take(alone=False):
        in_thread(workers[1], order, "beside", alone=False).join(WAIT_S)
        assert order == ["beside"]


def test_a_test_that_is_alone_waits_for_those_that_run_and_nobody_overtakes_it(
    workers: list[Turns], tmp_path: Path
) -> None:
    order: list[str] = []
    with workers[0].take(alone=False):
        alone = in_thread(workers[1], order, "alone", alone=True)
        wait_until_queued(tmp_path)
        later = in_thread(workers[2], order, "later", alone=False)
        order.append("first")
    for thread in (alone, later):
        thread.join(WAIT_S)
    assert order == ["first", "alone", "later"]


def test_nothing_begins_while_a_test_is_alone(workers: list[Turns], tmp_path: Path) -> None:
    order: list[str] = []
    with workers[0].take(alone=True):
        beside = in_thread(workers[1], order, "beside", alone=False)
        wait_until_queued(tmp_path)
        order.append("alone")
    beside.join(WAIT_S)
    assert order == ["alone", "beside"]


def test_a_test_that_fails_gives_its_turn_back(workers: list[Turns]) -> None:
    order: list[str] = []
    with pytest.raises(ValueError, match="failed"), workers[0].take(alone=True):
        raise ValueError("failed")
    in_thread(workers[1], order, "next", alone=True).join(WAIT_S)
    assert order == ["next"]
