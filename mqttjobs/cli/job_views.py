"""Jobs for people: a table, one line, and one job in full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mqttjobs.cli.terminal import Column, brief, cell, exact_local_time, fitted, local_time, plain, status_text
from mqttjobs.domain.jobs import duration_text
from mqttjobs.domain.model import Json
from mqttjobs.domain.status import TERMINAL_STATUSES

LIST_FIELDS = (
    "id", "uid", "status", "operation_id", "operation", "owner_id", "user_id", "created", "updated_at", "timestamp",
    "error", "message", "agent_states",
)  # fmt: skip
"""The fields of a table; requesting only these keeps a response with a hundred jobs small."""
ENDED = frozenset(status.value for status in TERMINAL_STATUSES)
FULL_WIDTH = 100
"""Terminal columns from which on a table shows every field."""
USER_COLUMN = 4
"""Index of the table column that a narrower terminal leaves out."""
_TIMELINE_STYLES = {"failed": "red", "completed": "green", "stopped": "yellow", "retried": "yellow"}


def job_table(jobs: Iterable[Mapping[str, Json]], width: int) -> Table:
    """Return jobs as a table at most `width` characters wide; a narrow table leaves the user out."""
    columns = [
        Column("uid", right=True),
        Column("status"),
        Column("operation", 16, 10),
        Column("owner", 12, 8),
        Column("user", 10, 6),
        Column("created"),
        Column("took"),
        Column("error or message", 24, 8),
    ]
    rows: list[list[Text | str]] = [
        [
            cell(job.get("uid")),
            status_text(str(job.get("status"))),
            operation_name(job),
            cell(job.get("owner_id")),
            cell(job.get("user_id")),
            local_time(job.get("created")),
            took(job),
            _last_message(job),
        ]
        for job in jobs
    ]
    if width < FULL_WIDTH:
        columns = columns[:USER_COLUMN] + columns[USER_COLUMN + 1 :]
        rows = [row[:USER_COLUMN] + row[USER_COLUMN + 1 :] for row in rows]
    return fitted(columns, rows, width)


def job_line(job: Mapping[str, Json]) -> Text:
    """Return one job as one line, for pipes and logs."""
    parts = [
        exact_local_time(job.get("updated_at"))[11:],
        f"#{brief(job.get('uid'))}",
        f"{brief(job.get('status')):<10}",
        operation_name(job),
        brief(job.get("owner_id")),
        took(job),
        _last_message(job).plain,
    ]
    return Text("  ".join(part for part in parts if part))


def operation_name(job: Mapping[str, Json]) -> str:
    """Return the operation's id, or the type of an inline operation in parentheses."""
    if job.get("operation_id"):
        return brief(job["operation_id"])
    definition = job.get("operation")
    kind = definition.get("type") if isinstance(definition, Mapping) else None
    return f"({brief(kind)})" if kind else ""


def took(job: Mapping[str, Json]) -> str:
    """Return how long a job ran, as text: the duration that its one agent reported, else from its start to its end."""
    states = job.get("agent_states")
    if isinstance(states, Mapping) and len(states) == 1:
        return brief(next(iter(states.values())).get("duration"))
    started, created = job.get("timestamp"), job.get("created")
    if job.get("status") in ENDED and isinstance(started, int) and isinstance(created, str):
        ended = datetime.fromisoformat(str(job.get("updated_at") or created)).timestamp()
        return duration_text(timedelta(seconds=max(0.0, ended - started / 1000)))
    return ""


def _last_message(job: Mapping[str, Json]) -> Text:
    error = brief(job.get("error"))
    return Text(error, style="red") if error else Text(brief(job.get("message")))


def counts_line(data: Mapping[str, Json]) -> str:
    """Return the summary of a list: how many jobs there are, and of which status."""
    shown, total = len(data["items"]), data["total_items"]
    counts = ", ".join(f"{count} {status}" for status, count in data.get("status_counts", {}).items() if count)
    more = "" if data.get("total_exact", True) else "more than "
    return f"{shown} of {more}{total} jobs" + (f" (in all: {counts})" if counts else "")


def started_line(job: Mapping[str, Json]) -> str:
    """Return a job that was just started in one line."""
    return f"Job {brief(job.get('uid'))} {brief(job.get('status'))}: {brief(job.get('id'))}"


def job_detail(job: Mapping[str, Json]) -> RenderableType:
    """Return one job in full: its fields, output, results and timeline."""
    head = _facts(
        ("Job", f"{brief(job.get('uid'))}  ({brief(job.get('id'))})"),
        ("Status", status_text(str(job.get("status")))),
        ("Operation", f"{operation_name(job)}  {_kind(job)}".rstrip()),
        ("Owner", _owner(job)),
        ("User", job.get("user_id")),
        ("Created", exact_local_time(job.get("created"))),
        ("Updated", exact_local_time(job.get("updated_at"))),
        ("Took", took(job)),
        ("Host", job.get("hostname")),
        ("Target", None if job.get("target") == "_local" else job.get("target")),
        ("Attempts", job.get("attempts") if (job.get("attempts") or 0) > 1 else None),
        ("Retry of", job.get("retry_of")),
        ("Params", job.get("params") or None),
        ("Events", job.get("events") or None),
        ("Started by", _started_by(job)),
        ("Message", job.get("message")),
        ("Result", job.get("result")),
        ("Error", Text(plain(job.get("error") or ""), style="red")),
    )
    parts: list[RenderableType] = [head]
    description = job.get("description") or {}
    for name, value in description.items():
        if value not in (None, ""):
            parts += _block(name, value)
    for result in job.get("results") or []:
        parts += _block(f"result added by {brief(result.get('by'))}", result.get("payload"))
    parts += [Text("\nTimeline", style="bold"), _timeline(job.get("timeline") or [])]
    return Group(*parts)


def _facts(*facts: tuple[str, Json | Text]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        text = value if isinstance(value, Text) else cell(value)
        if text.plain:
            table.add_row(name, text)
    return table


def _kind(job: Mapping[str, Json]) -> str:
    definition = job.get("operation")
    kind = definition.get("type") if isinstance(definition, Mapping) else None
    return f"[{brief(kind)}]" if kind and job.get("operation_id") else ""


def _owner(job: Mapping[str, Json]) -> str:
    kind = {"1": "object ", "2": "link "}.get(str(job.get("owner_type")), "")
    return kind + brief(job.get("owner_id")) if job.get("owner_id") else ""


def _started_by(job: Mapping[str, Json]) -> str:
    """Return the state change that started the job, as text; empty without one."""
    meta = job.get("process_meta")
    if not isinstance(meta, Mapping):
        return ""
    value = f"attribute {brief(meta['attribute'])}" if meta.get("attribute") else "state"
    text = f"{value} {brief(meta.get('previous_state')) or 'nothing'} -> {brief(meta.get('state'))}"
    topic, by = brief(meta.get("topic")), brief(meta.get("reported_by"))
    return text + (f" on {topic}" if topic else "") + (f", reported by {by}" if by else "")


def _block(name: str, value: Json) -> list[RenderableType]:
    """Return a name with its value: a text of several lines below the name, anything else beside it."""
    text = value if isinstance(value, str) else brief(value)
    if "\n" not in text.strip():
        return [_facts((brief(name), text.strip()))]
    return [Text(f"\n{brief(name)}", style="bold"), Text(plain(text.rstrip()))]


def _timeline(events: Iterable[Mapping[str, Json]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bright_black")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for event in events:
        kind = str(event.get("event"))
        message = Text(plain(str(event.get("message") or "")))
        error = plain(str(event.get("error") or "")).strip()
        if error:
            message.append(("\n" if message.plain else "") + error, style="red")
        when = exact_local_time(event.get("timestamp"))
        table.add_row(when, Text(brief(kind), style=_TIMELINE_STYLES.get(kind, "")), message)
    return table
