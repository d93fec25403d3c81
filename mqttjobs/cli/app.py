"""The tree of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from mqttjobs import __version__
from mqttjobs.cli import agent, agents, demo, jobs, operations, run, simulate

app = typer.Typer(
    name="mqttjobs",
    help="Event-driven MQTT automation: a state change becomes a durable job that any MQTT client can query.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mqttjobs {__version__}")
        raise typer.Exit


@app.callback()
def mqttjobs(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Event-driven MQTT automation: a state change becomes a durable job that any MQTT client can query."""
    del version


app.command()(run.run)
app.command()(run.check)
app.command()(run.schema)
app.command("test", cls=simulate.OrderedCommand)(simulate.simulate)
app.command()(demo.demo)
app.command()(agent.agent)
app.add_typer(jobs.app)
app.add_typer(operations.app)
app.add_typer(agents.app)
