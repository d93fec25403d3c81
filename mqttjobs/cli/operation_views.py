"""Operations for people: a table, and one operation in full."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mqttjobs.cli.job_views import FULL_WIDTH
from mqttjobs.cli.terminal import Column, brief, cell, exact_local_time, fitted, local_time, status_text
from mqttjobs.domain.model import Json

_DETAIL = (
    ("Description", "description"), ("Type", "type"), ("Strategy", "job_execution_strategy"),
    ("Attached to", "attach"), ("Triggers", "triggers"), ("Conditions", "conditions"), ("Schedule", "scheduled"),
    ("Params", "params"), ("Mode", "mode"), ("Max", "max"), ("Timeout", "timeout"), ("Target", "target"),
    ("Version", "process_version"), ("Environment", "environment_id"), ("Topic", "topic"), ("Message", "message"),
    ("Path", "path"), ("Args", "args"),
)  # fmt: skip


def operation_table(operations: Iterable[Mapping[str, Json]], width: int) -> Table:
    """Return operations as a table at most `width` characters wide.

    A caller without the permission to read operations gets ids, names and descriptions only. A narrow table leaves
    the names out, which are much like the ids.
    """
    columns = [
        Column("id", 20, 10),
        Column("type"),
        Column("active"),
        Column("last run"),
        Column("starts", 12, 8),
        Column("runs", right=True),
        Column("next"),
        Column("name", 16, 8),
    ]
    rows = [_row(operation) for operation in operations]
    if width < FULL_WIDTH:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return fitted(columns, rows, width)


def _row(operation: Mapping[str, Json]) -> list[Text | str]:
    active = operation.get("active")
    return [
        cell(operation.get("id"), "" if active is not False else "bright_black"),
        cell(operation.get("type")),
        "" if active is None else "yes" if active else Text("no", style="yellow"),
        _last_run(operation),
        cell(operation.get("job_execution_strategy")),
        cell((operation.get("job_instances") or {}).get("total")),
        local_time(operation.get("next_trigger")),
        cell(operation.get("name")),
    ]


def operation_detail(operation: Mapping[str, Json]) -> RenderableType:
    """Return one operation in full."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("Operation", cell(operation.get("id")))
    table.add_row("Name", cell(operation.get("name")))
    active = operation.get("active")
    if active is not None:
        table.add_row("Active", "yes" if active else Text("no", style="yellow"))
        table.add_row("Last run", _last_run(operation))
    for title, key in _DETAIL:
        value = operation.get(key)
        if value not in (None, "", [], {}):
            table.add_row(title, cell(_FORMATTERS.get(key, _unchanged)(value)))
    instances = operation.get("job_instances")
    if isinstance(instances, Mapping):
        running = f", {brief(instances['running'])} of them now" if instances.get("running") else ""
        table.add_row("Runs", f"{brief(instances.get('total'))}{running}")
        if instances.get("last_ids"):
            table.add_row("Last jobs", cell(", ".join(map(str, instances["last_ids"]))))
    for title, key in (("Last started", "previous_trigger"), ("Next", "next_trigger"), ("First run", "start_date")):
        if operation.get(key):
            table.add_row(title, exact_local_time(operation[key]))
    return table


def _unchanged(value: Json) -> Json:
    return value


def _attach_text(value: Json) -> Json:
    """Return `attach` as text: link hall_lights."""
    attachments = [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
    return ", ".join(f"{kind} {brief(name)}" for each in attachments for kind, name in each.items() if name) or value


def _triggers_text(value: Json) -> Json:
    """Return `triggers` as text: states clear, duration 3s."""
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        return value
    return "; ".join(
        ", ".join(f"{key} {_alternatives(item)}" for key, item in each.items() if item is not None) or "any change"
        for each in value
    )


def _schedule_text(value: Json) -> Json:
    return f"every {brief(value['every'])}" if isinstance(value, Mapping) and "every" in value else value


def _alternatives(value: Json) -> str:
    return " or ".join(map(brief, value)) if isinstance(value, list) else brief(value)


_FORMATTERS: Mapping[str, Callable[[Json], Json]] = {
    "attach": _attach_text,
    "triggers": _triggers_text,
    "scheduled": _schedule_text,
}


def _last_run(operation: Mapping[str, Json]) -> Text:
    """Return the status of the latest run; the status `scheduled` means that there was no run yet."""
    status = str(operation.get("status") or "")
    return Text("none yet" if status else "") if status in ("scheduled", "") else status_text(status)
