"""`mqttjobs jobs …`: list, show, watch, retry, stop and delete jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from mqttjobs.cli.access import Access, with_access
from mqttjobs.cli.answers import show, show_list
from mqttjobs.domain.status import Status

app = typer.Typer(name="jobs", help="Ask the running service about its jobs.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's number or uuid.")]
Statuses = Annotated[list[Status] | None, typer.Option("--status", help="Only these; may be repeated.")]


@app.command("list")
@with_access
def list_jobs(
    access: Access,
    *,
    status: Statuses = None,
    operation: Annotated[str | None, typer.Option(help="Only of this operation.")] = None,
    objects: Annotated[list[str] | None, typer.Option("--object", help="Only of these objects.")] = None,
    links: Annotated[list[str] | None, typer.Option("--link", help="Only of these links.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Only started by this user.")] = None,
    since: Annotated[str | None, typer.Option(help="From then on: ISO 8601, milliseconds, or -24h.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to then.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="How many of the newest to pass over.")] = 0,
) -> None:
    """List jobs, newest first."""
    from mqttjobs.cli import job_views

    params = {
        "status": [each.value for each in status] if status else None,
        "operation_id": operation,
        "object": objects or None,
        "link": links or None,
        "user_id": user_id,
        "since": since,
        "until": until,
        "limit": limit,
        "offset": offset,
        "fields": None if access.as_json else list(job_views.LIST_FIELDS),
    }
    show_list(access, "jobs/list", params, job_views.job_table, job_views.counts_line)


@app.command("get")
@with_access
def get_job(access: Access, job_id: JobId) -> None:
    """Show one job with its timeline."""
    _show(access, "jobs/get", job_id)


@app.command("watch")
@with_access
def watch_jobs(
    access: Access,
    *,
    status: Statuses = None,
    operation: Annotated[str | None, typer.Option(help="Only of this operation.")] = None,
    live: Annotated[
        bool | None, typer.Option("--live/--no-live", help="A table or lines; a table on a terminal.")
    ] = None,
) -> None:
    """Follow jobs live until Ctrl-C."""
    from mqttjobs.cli import board, watch
    from mqttjobs.cli.running import complete

    filters = watch.filters(access.base_topic, [each.value for each in status or ()], operation)
    with board.view(live=live, as_json=access.as_json) as show_job:
        complete(watch.follow(access, filters, show_job))


@app.command("retry")
@with_access
def retry_job(
    access: Access,
    job_id: JobId,
    *,
    target: Annotated[str | None, typer.Option(help="Where to run it: _local, _any, a hostname, label:value.")] = None,
) -> None:
    """Run a job again, as a new job."""
    from mqttjobs.cli import job_views

    show(access, "jobs/retry", {"id": job_id, "target": target}, job_views.started_line)


@app.command("stop")
@with_access
def stop_job(access: Access, job_id: JobId) -> None:
    """Stop a job that has not ended."""
    _show(access, "jobs/stop", job_id)


@app.command("delete")
@with_access
def delete_job(access: Access, job_id: JobId) -> None:
    """Delete a job and all that belongs to it; a running one is stopped first."""
    from mqttjobs.cli import terminal

    show(access, "jobs/delete", {"id": job_id}, lambda _: f"Job {terminal.plain(job_id)} is deleted.")


def _show(access: Access, method: str, job_id: str) -> None:
    from mqttjobs.cli import job_views

    show(access, method, {"id": job_id}, job_views.job_detail)
