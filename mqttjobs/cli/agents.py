"""`mqttjobs agents …`: list, show, drain and undrain agents."""

from __future__ import annotations

from typing import Annotated

import typer

from mqttjobs.cli.access import Access, with_access
from mqttjobs.cli.answers import show, show_list, shown_of_all

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
    from mqttjobs.cli import agent_views
    from mqttjobs.cli.running import complete

    params = {"limit": limit, "offset": offset}
    if live:
        complete(agent_views.follow(access, params))
        return
    show_list(access, "agents/list", params, lambda items, _: agent_views.agent_table(items), shown_of_all("agents"))


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
    from mqttjobs.cli import agent_views

    show(access, method, {"hostname": hostname}, agent_views.agent_detail)
