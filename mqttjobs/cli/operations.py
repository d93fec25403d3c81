"""`mqttjobs operations …`: list, show, execute, explain, activate and deactivate operations."""

from __future__ import annotations

from typing import Annotated

import typer

from mqttjobs.cli.access import Access, with_access
from mqttjobs.cli.answers import show, show_list, shown_of_all

app = typer.Typer(name="operations", help="Ask the running service about its operations.", no_args_is_help=True)

OperationId = Annotated[str, typer.Argument(metavar="OPERATION", help="The operation's id.")]


@app.command("list")
@with_access
def list_operations(
    access: Access,
    *,
    objects: Annotated[list[str] | None, typer.Option("--object", help="Only attached to these objects.")] = None,
    links: Annotated[list[str] | None, typer.Option("--link", help="Only attached to these links.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Only of this type.")] = None,
    environment: Annotated[str | None, typer.Option(help="Only of this environment.")] = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 100,
    offset: Annotated[int, typer.Option(min=0, help="How many to pass over.")] = 0,
) -> None:
    """List operations, in the order of the configuration."""
    from mqttjobs.cli import operation_views

    params = {
        "object": objects or None,
        "link": links or None,
        "type": kind,
        "environment": environment,
        "active": active,
        "limit": limit,
        "offset": offset,
    }
    show_list(access, "operations/list", params, operation_views.operation_table, shown_of_all("operations"))


@app.command("get")
@with_access
def get_operation(access: Access, operation: OperationId) -> None:
    """Show one operation."""
    _show(access, "operations/get", operation)


@app.command("execute")
@with_access
def execute(
    access: Access,
    operation: OperationId,
    *,
    object_id: Annotated[str | None, typer.Option("--object", help="For this object.")] = None,
    link: Annotated[str | None, typer.Option("--link", help="For this link.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="A parameter; V is JSON where it can be read as such, else text."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job's end; exit 1 if it fails.")] = False,
) -> None:
    """Run an operation by hand."""
    from mqttjobs.cli import execution
    from mqttjobs.cli.running import complete

    if object_id is not None and link is not None:
        raise typer.BadParameter("give --object or --link, not both")
    params = execution.parse_params(param or [])
    request = {"id": operation, "object": object_id, "link": link, "params": params or None}
    work = execution.run_and_wait(access, request) if wait else execution.start(access, request)
    raise typer.Exit(execution.print_outcome(access, complete(work)))


@app.command("explain")
@with_access
def explain(
    access: Access,
    operation: OperationId,
    *,
    object_id: Annotated[str | None, typer.Option("--object", help="For this object.")] = None,
    link: Annotated[str | None, typer.Option("--link", help="For this link.")] = None,
) -> None:
    """Say what an operation watches, what it waits for and until when, and why matches did not run."""
    from mqttjobs.cli import client, explaining, terminal
    from mqttjobs.cli.running import complete

    if object_id is not None and link is not None:
        raise typer.BadParameter("give --object or --link, not both")
    request = {"id": operation, "object": object_id, "link": link}
    data = complete(client.ask(access, "operations/explain", request))
    if access.as_json:
        terminal.print_json(data)
        return
    console = terminal.output()
    for line in explaining.explanation(data):
        console.print(line, soft_wrap=True)


@app.command("activate")
@with_access
def activate(access: Access, operation: OperationId) -> None:
    """Let an operation run again; survives restarts."""
    _show(access, "operations/activate", operation)


@app.command("deactivate")
@with_access
def deactivate(access: Access, operation: OperationId) -> None:
    """Keep an operation from running; survives restarts."""
    _show(access, "operations/deactivate", operation)


def _show(access: Access, method: str, operation: str) -> None:
    from mqttjobs.cli import operation_views

    show(access, method, {"id": operation}, operation_views.operation_detail)
