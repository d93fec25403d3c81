"""The progress of a job while its caller waits: one live line on a terminal, elsewhere a line for each message."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from mqttjobs.cli.terminal import brief, print_note, status_text
from mqttjobs.domain.model import Json

Show = Callable[[Mapping[str, Json]], None]
_MESSAGE_EVENTS = ("progress", "retried")
"""The events whose messages are shown."""


@contextmanager
def showing_progress(*, quiet: bool) -> Iterator[Show]:
    """Yield a function that shows a job's document, to be called at each poll; `quiet` prints only on a terminal."""
    if sys.stderr.isatty():
        with _live_line() as show:
            yield show
    elif quiet:
        yield lambda _: None
    else:
        yield _Lines()


@contextmanager
def _live_line() -> Iterator[Show]:
    console = Console(file=sys.stderr, markup=False, emoji=False, highlight=False)
    began_s = time.monotonic()
    with console.status(Text("starting"), spinner="dots") as status:

        def show(job: Mapping[str, Json]) -> None:
            line = Text(f"job {brief(job.get('uid'))} ").append_text(status_text(brief(job.get("status"))))
            line.append(f" {time.monotonic() - began_s:.0f} s", style="bright_black")
            messages = progress_messages(job)
            if messages:
                line.append(f"  {messages[-1]}")
            line.truncate(max(20, console.width - 4), overflow="ellipsis")
            status.update(line)

        yield show


class _Lines:
    """Prints each message once."""

    def __init__(self) -> None:
        self._printed = 0

    def __call__(self, job: Mapping[str, Json]) -> None:
        messages = progress_messages(job)
        for message in messages[self._printed :]:
            print_note(message, "bright_black")
        self._printed = max(self._printed, len(messages))


def progress_messages(job: Mapping[str, Json]) -> list[str]:
    """Return the progress messages of a job's timeline, each as one line without control characters."""
    timeline = job.get("timeline")
    events = timeline if isinstance(timeline, list) else []
    return [brief(str(event.get("message"))) for event in events if event.get("event") in _MESSAGE_EVENTS]
