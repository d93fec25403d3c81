"""Runs coroutines for commands; the exit code is 0 done, 1 failed, 2 bad usage or configuration, 130 interrupted."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer

from mqttjobs.cli.terminal import fail, print_note
from mqttjobs.errors import ConfigError, MqttJobsError

T = TypeVar("T")
INTERRUPTED = 130
BAD_CONFIG = 2


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn a MqttJobsError or Ctrl-C into a message on standard error and the exit code that belongs to it."""
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            print_note(str(problem))
        raise typer.Exit(BAD_CONFIG) from None
    except MqttJobsError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run a short coroutine on a plain event loop and return its result; errors exit as in `exit_on_error`."""
    with exit_on_error():
        return asyncio.run(work)
    raise AssertionError  # exit_on_error() never swallows


def serve(work: Coroutine[Any, Any, None]) -> None:
    """Run a long coroutine on uvloop if there is one; errors exit as in `exit_on_error`."""
    with exit_on_error(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work)


def _loop_factory() -> Any:
    if sys.platform == "win32":
        return None
    try:
        import uvloop  # importing takes a while
    except ImportError:
        return None
    return uvloop.new_event_loop
