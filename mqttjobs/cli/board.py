"""The live view of jobs: a table that changes in place on a terminal, lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.live import Live
from rich.table import Table

from mqttjobs.cli.job_views import job_line, job_table
from mqttjobs.cli.terminal import output, print_json, status_text
from mqttjobs.cli.watch import Show
from mqttjobs.domain.model import Json

KEPT = 500
ROOM = 8
"""Lines of a terminal that are not the table's rows."""


class Board:
    """The latest jobs by number, bounded; an event that arrives late does not undo a later one."""

    def __init__(self) -> None:
        self._jobs: dict[int, Mapping[str, Json]] = {}

    def show(self, job: Mapping[str, Json]) -> None:
        """Take in one event."""
        uid = job["uid"]
        known = self._jobs.get(uid)
        if known is None or str(job.get("updated_at")) >= str(known.get("updated_at")):
            self._jobs[uid] = job
        while len(self._jobs) > KEPT:
            del self._jobs[min(self._jobs)]

    def newest(self, count: int) -> list[Mapping[str, Json]]:
        """Return the newest jobs, newest first."""
        return [self._jobs[uid] for uid in sorted(self._jobs, reverse=True)[:count]]

    def table(self, rows: int, room: int) -> Table:
        """Return the newest jobs as a table with the counts below it."""
        table = job_table(self.newest(rows), room)
        counts: dict[str, int] = {}
        for job in self._jobs.values():
            counts[str(job.get("status"))] = counts.get(str(job.get("status")), 0) + 1
        caption = status_text("")
        for status, count in sorted(counts.items()):
            caption.append(f" {count} ").append_text(status_text(status))
        table.caption = caption
        table.caption_justify = "left"
        return table


@contextmanager
def view(*, live: bool | None = None, as_json: bool = False) -> Iterator[Show]:
    """Give a function that shows one job event; `live` None means a table on a terminal and lines in a pipe."""
    if as_json:
        yield lambda job: print_json(job, indent=None)
        return
    console = output()
    if not (sys.stdout.isatty() if live is None else live):

        def line(job: Mapping[str, Json]) -> None:
            console.print(job_line(job), soft_wrap=True)
            sys.stdout.flush()

        yield line
        return
    board = Board()

    def table() -> Table:
        return board.table(max(3, console.height - ROOM), console.width)

    with Live(console=console, refresh_per_second=8, get_renderable=table):
        yield board.show
