"""`mqttjobs jobs …`: list, show, watch, retry, stop and delete jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from mqttjobs.cli.access import Access, with_access
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
    from mqttjobs.cli import client, job_views, terminal
    from mqttjobs.cli.running import complete

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
    data = complete(client.ask(access, "jobs/list", params))
    if access.as_json:
        terminal.print_json(data)
        return
    if data["items"]:
        console = terminal.output()
        console.print(job_views.job_table(data["items"], console.width))
    terminal.print_note(job_views.counts_line(data, offset), "bright_black")


@app.command("get")
@with_access
def get_job(access: Access, job_id: JobId) -> None:
    """Show one job with its timeline."""
    _show(access, "jobs/get", {"id": job_id})


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
    with board.view(live=live, as_json=access.as_json) as show:
        complete(watch.follow(access, filters, show))


@app.command("retry")
@with_access
def retry_job(
    access: Access,
    job_id: JobId,
    *,
    target: Annotated[str | None, typer.Option(help="Where to run it: _local, _any, a hostname, label:value.")] = None,
) -> None:
    """Run a job again, as a new job."""
    from mqttjobs.cli import client, terminal
    from mqttjobs.cli.running import complete

    data = complete(client.ask(access, "jobs/retry", {"id": job_id, "target": target}))
    if access.as_json:
        terminal.print_json(data)
    else:
        terminal.output().print(f"Job {data['uid']} {data['status']}: {data['id']}")


@app.command("stop")
@with_access
def stop_job(access: Access, job_id: JobId) -> None:
    """Stop a job that has not ended."""
    _show(access, "jobs/stop", {"id": job_id})


@app.command("delete")
@with_access
def delete_job(access: Access, job_id: JobId) -> None:
    """Delete a job and all that belongs to it; a running one is stopped first."""
    from mqttjobs.cli import client, terminal
    from mqttjobs.cli.running import complete

    data = complete(client.ask(access, "jobs/delete", {"id": job_id}))
    if access.as_json:
        terminal.print_json(data)
    else:
        terminal.output().print(f"Job {terminal.plain(job_id)} is deleted.")


def _show(access: Access, method: str, params: dict[str, str]) -> None:
    from mqttjobs.cli import client, job_views, terminal
    from mqttjobs.cli.running import complete

    job = complete(client.ask(access, method, params))
    if access.as_json:
        terminal.print_json(job)
    else:
        terminal.output().print(job_views.job_detail(job))
