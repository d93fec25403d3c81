"""What is shown while somebody waits for a job: one live line on a terminal, else each new message on its own."""

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
_PRINTED = ("progress", "retried")
"""Events whose message is news to who waits."""


@contextmanager
def following(*, quiet: bool) -> Iterator[Show]:
    """Give what shows a job's document again and again as it goes on; `quiet` shows nothing where nobody looks."""
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
            messages = news(job)
            if messages:
                line.append(f"  {messages[-1]}")
            line.truncate(max(20, console.width - 4), overflow="ellipsis")
            status.update(line)

        yield show


class _Lines:
    """Tells each message once."""

    def __init__(self) -> None:
        self._printed = 0

    def __call__(self, job: Mapping[str, Json]) -> None:
        messages = news(job)
        for message in messages[self._printed :]:
            print_note(message, "bright_black")
        self._printed = max(self._printed, len(messages))


def news(job: Mapping[str, Json]) -> list[str]:
    """Return the messages of a job's timeline that are news to who waits for it, each one harmless line."""
    timeline = job.get("timeline")
    events = timeline if isinstance(timeline, list) else []
    return [brief(str(event.get("message"))) for event in events if event.get("event") in _PRINTED]
