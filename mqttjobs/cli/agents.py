"""`mqttjobs agents …`: list, show, drain and undrain agents."""

from __future__ import annotations

from typing import Annotated

import typer

from mqttjobs.cli.access import Access, with_access

app = typer.Typer(name="agents", help="Ask the running service about its agents.", no_args_is_help=True)

Hostname = Annotated[str, typer.Argument(metavar="HOSTNAME", help="The agent's hostname.")]


@app.command("list")
@with_access
def list_agents(
    access: Access,
    *,
    live: Annotated[bool, typer.Option("--live", help="Keep the table up to date until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 100,
    offset: Annotated[int, typer.Option(min=0, help="How many to pass over.")] = 0,
) -> None:
    """List agents, by hostname."""
    from mqttjobs.cli import agent_views, client, terminal
    from mqttjobs.cli.running import complete

    params = {"limit": limit, "offset": offset}
    if live:
        complete(agent_views.follow(access, params))
        return
    data = complete(client.ask(access, "agents/list", params))
    if access.as_json:
        terminal.print_json(data)
        return
    if data["items"]:
        terminal.output().print(agent_views.agent_table(data["items"]))
    following = offset + len(data["items"])
    more = f"; more with --offset {following}" if data["items"] and following < data["total_items"] else ""
    terminal.print_note(f"{len(data['items'])} of {data['total_items']} agents{more}", "bright_black")


@app.command("get")
@with_access
def get_agent(access: Access, hostname: Hostname) -> None:
    """Show one agent."""
    _show(access, "agents/get", hostname)


@app.command("drain")
@with_access
def drain_agent(access: Access, hostname: Hostname) -> None:
    """Let an agent finish its jobs and take no new ones."""
    _show(access, "agents/drain", hostname)


@app.command("undrain")
@with_access
def undrain_agent(access: Access, hostname: Hostname) -> None:
    """Let an agent take jobs again."""
    _show(access, "agents/undrain", hostname)


def _show(access: Access, method: str, hostname: str) -> None:
    from mqttjobs.cli import agent_views, client, terminal
    from mqttjobs.cli.running import complete

    data = complete(client.ask(access, method, {"hostname": hostname}))
    if access.as_json:
        terminal.print_json(data)
    else:
        terminal.output().print(agent_views.agent_detail(data))
