"""From a coroutine to an exit code: 0 done, 1 the work failed, 2 bad usage or configuration, 130 interrupted."""

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
def explained() -> Iterator[None]:
    """Turn our own exceptions into a sentence on standard error and the exit code that belongs to it."""
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
    """Run a short piece of work to its end on a plain event loop; Ctrl-C ends it with 130."""
    with explained():
        return asyncio.run(work)
    raise AssertionError  # explained() never swallows


def serve(work: Coroutine[Any, Any, None]) -> None:
    """Run something long on the fastest event loop there is."""
    with explained(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work)


def _loop_factory() -> Any:
    if sys.platform == "win32":
        return None
    try:
        import uvloop  # it takes a moment
    except ImportError:
        return None
    return uvloop.new_event_loop
