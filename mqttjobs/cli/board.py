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

MAX_JOBS = 500
"""The most jobs that the live view remembers."""
OTHER_LINES = 8
"""Lines of a terminal that the rows of the table cannot use."""


class Board:
    """The newest jobs, a bounded number; an older event never replaces a newer one of the same job."""

    def __init__(self) -> None:
        self._jobs: dict[int, Mapping[str, Json]] = {}

    def show(self, job: Mapping[str, Json]) -> None:
        """Record the job document of one event."""
        uid = job["uid"]
        known = self._jobs.get(uid)
        if known is None or str(job.get("updated_at")) >= str(known.get("updated_at")):
            self._jobs[uid] = job
        while len(self._jobs) > MAX_JOBS:
            del self._jobs[min(self._jobs)]

    def newest(self, count: int) -> list[Mapping[str, Json]]:
        """Return the `count` newest jobs, newest first."""
        return [self._jobs[uid] for uid in sorted(self._jobs, reverse=True)[:count]]

    def table(self, rows: int, width: int) -> Table:
        """Return the newest jobs as a table with the counts below it."""
        table = job_table(self.newest(rows), width)
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
    """Yield a function that shows one job event; `live` None means a table on a terminal, and lines elsewhere."""
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
        return board.table(max(3, console.height - OTHER_LINES), console.width)

    with Live(console=console, refresh_per_second=8, get_renderable=table):
        yield board.show
