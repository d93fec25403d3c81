"""Output for people: consoles, tables, colours, local times, and texts without control characters."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, NoReturn

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mqttjobs.domain.model import Json

GAP = 2
"""Spaces between two columns of a table."""
PIPE_WIDTH = 1000
"""The width of a pipe, large enough for whole lines."""
STATUS_STYLES: Mapping[str, str] = {
    "submitted": "cyan",
    "processing": "blue",
    "running": "blue",
    "scheduled": "cyan",
    "completed": "green",
    "failed": "bold red",
    "partial_failure": "red",
    "stopped": "yellow",
    "cancelled": "yellow",
    "skipped": "bright_black",
}
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_CONTROL_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def plain(text: str) -> str:
    """Return a text with control and direction characters escaped, so that they cannot steer a terminal."""
    return _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def brief(value: Json) -> str:
    """Return a JSON value as one line without control characters; null is empty."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return plain(" ".join(text.split()) if "\n" in text or "\t" in text else text)


def as_json(value: Json, *, indent: int | None = 2) -> str:
    """Return a value as JSON text in which no character can steer a terminal."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _CONTROL_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_json(value: Json, *, indent: int | None = 2) -> None:
    """Print a value as JSON on standard output."""
    sys.stdout.write(as_json(value, indent=indent) + "\n")
    sys.stdout.flush()


def output() -> Console:
    """Return a console on standard output that does not wrap lines in a pipe."""
    return Console(
        file=sys.stdout,
        markup=False,
        emoji=False,
        highlight=False,
        width=None if sys.stdout.isatty() else PIPE_WIDTH,
    )


def print_note(text: str, style: str = "") -> None:
    """Print a note for people on standard error."""
    console = Console(file=sys.stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)
    console.print(Text(plain(text), style=style))


def fail(text: str, code: int = 1) -> NoReturn:
    """Print an error on standard error, and exit with `code`."""
    print_note(f"Error: {text}", "red" if sys.stderr.isatty() else "")
    raise typer.Exit(code)


def grid(*columns: str) -> Table:
    """Return an empty table whose cells are cut, not wrapped."""
    on_terminal = sys.stdout.isatty()
    table = Table(
        box=box.SIMPLE_HEAD if on_terminal else None,
        pad_edge=False,
        padding=(0, 1, 0, 0) if on_terminal else (0, GAP, 0, 0),
        header_style="bold",
        expand=False,
    )
    for name in columns:
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    return table


class Column(NamedTuple):
    """A column of a table. A narrow table cuts it to `preferred` characters, then to `minimum`; None: never."""

    name: str
    preferred: int | None = None
    minimum: int | None = None
    right: bool = False


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[Text | str]], width: int) -> Table:
    """Return a table at most `width` characters wide, if its columns may be cut so far; the last is cut first."""
    texts = [[Text(each) if isinstance(each, str) else each for each in row] for row in rows]
    widths = [
        max(cell_len(column.name), *(row[index].cell_len for row in texts), 1) for index, column in enumerate(columns)
    ]
    excess = sum(widths) + GAP * len(columns) - width
    for bounds in ([each.preferred for each in columns], [each.minimum for each in columns]):
        for index, bound in reversed(list(enumerate(bounds))):
            cut = 0 if bound is None else max(0, min(excess, widths[index] - bound))
            widths[index] -= cut
            excess -= cut
    table = grid()
    for column, column_width in zip(columns, widths, strict=True):
        table.add_column(
            column.name,
            no_wrap=True,
            overflow="ellipsis",
            width=column_width,
            justify="right" if column.right else "left",
        )
    for row in texts:
        table.add_row(*row)
    return table


def status_text(status: str) -> Text:
    """Return a job status in its colour."""
    return Text(plain(status), style=STATUS_STYLES.get(status, ""))


def cell(value: Json, style: str = "") -> Text:
    """Return a JSON value as the cell of a table."""
    return Text(brief(value), style=style)


def local_time(iso_text: Json, now: datetime | None = None) -> str:
    """Return an ISO 8601 text as local time: the time of day if it is today, else with the date."""
    at = _local(iso_text)
    if at is None:
        return brief(iso_text) if isinstance(iso_text, str) else ""
    today = (now or datetime.now().astimezone()).date()
    return at.strftime("%H:%M:%S" if at.date() == today else "%Y-%m-%d %H:%M")


def exact_local_time(iso_text: Json) -> str:
    """Return an ISO 8601 text as local date and time with milliseconds."""
    at = _local(iso_text)
    if at is None:
        return brief(iso_text) if isinstance(iso_text, str) else ""
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{at.microsecond // 1000:03d}"


def _local(iso_text: Json) -> datetime | None:
    try:
        return datetime.fromisoformat(iso_text).astimezone() if isinstance(iso_text, str) else None
    except ValueError:
        return None
