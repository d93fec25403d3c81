"""Operations as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mqttjobs.cli.terminal import brief, cell, exact_moment, grid, moment, status_text
from mqttjobs.domain.model import Json

_DETAIL = (
    ("Description", "description"), ("Type", "type"), ("Strategy", "job_execution_strategy"),
    ("Attached to", "attach"), ("Triggers", "triggers"), ("Conditions", "conditions"), ("Schedule", "scheduled"),
    ("Params", "params"), ("Mode", "mode"), ("Max", "max"), ("Timeout", "timeout"), ("Target", "target"),
    ("Version", "process_version"), ("Environment", "environment_id"), ("Topic", "topic"), ("Message", "message"),
    ("Path", "path"), ("Args", "args"),
)  # fmt: skip


def operation_table(operations: Iterable[Mapping[str, Json]]) -> Table:
    """Return operations as a table; a caller who may not read them sees ids, names and descriptions."""
    table = grid("id", "type", "active", "last run", "starts", "runs", "next", "name")
    for number, least in ((0, 10), (1, 4), (3, 9), (4, 6)):
        table.columns[number].min_width = least
    table.columns[5].justify = "right"
    for operation in operations:
        active = operation.get("active")
        instances = operation.get("job_instances") or {}
        table.add_row(
            cell(operation.get("id"), "" if active is not False else "bright_black"),
            cell(operation.get("type")),
            "" if active is None else "yes" if active else Text("no", style="yellow"),
            _last_run(operation),
            cell(operation.get("job_execution_strategy")),
            cell(instances.get("total")),
            moment(operation.get("next_trigger")),
            cell(operation.get("name")),
        )
    return table


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
            table.add_row(title, cell(value))
    instances = operation.get("job_instances")
    if isinstance(instances, Mapping):
        table.add_row("Runs", f"{brief(instances.get('total'))}, {brief(instances.get('running'))} going on")
        table.add_row("Last jobs", cell(", ".join(map(str, instances.get("last_ids") or []))))
    for title, key in (("Last started", "previous_trigger"), ("Next", "next_trigger"), ("First run", "start_date")):
        if operation.get(key):
            table.add_row(title, exact_moment(operation[key]))
    return table


def _last_run(operation: Mapping[str, Json]) -> Text:
    """Return the status of the latest run; `scheduled` means that there was none yet."""
    status = str(operation.get("status") or "")
    return Text("none yet" if status else "") if status in ("scheduled", "") else status_text(status)
