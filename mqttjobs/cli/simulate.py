"""`mqttjobs test`: simulate the rules of a configuration, without a broker and without effects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mqttjobs.cli.run import require_file
from mqttjobs.cli.running import BAD_CONFIG, complete, exit_on_error
from mqttjobs.domain.model import Json

_ORDER = "mqttjobs.order"
_OPTIONS_WITH_VALUE = ("--report", "--topic", "--payload", "--after")


class OrderedCommand(TyperCommand):
    """A command that remembers the order in which its options were given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, and keep them as written."""
        ctx.meta[_ORDER] = list(args)
        return super().parse_args(ctx, args)


def simulate(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration file.")],
    *,
    report: Annotated[
        list[str] | None,
        typer.Option(metavar="OBJECT=STATE", help="A report of an object or link; OBJECT.ATTRIBUTE=VALUE too."),
    ] = None,
    topic: Annotated[list[str] | None, typer.Option(help="A message on this topic; --payload follows it.")] = None,
    payload: Annotated[list[str] | None, typer.Option(help="The message's payload.")] = None,
    retained: Annotated[bool, typer.Option("--retained", help="The last message was retained.")] = False,
    after: Annotated[list[str] | None, typer.Option(metavar="TIME", help="Time that passes: 5m.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the raw data as JSON, and nothing else.")] = False,
) -> None:
    """Run the rules of CONFIG over reports and time, in the order given, without a broker and without effects.

    Prints the values that are read, the triggers that match, what would run, rendered, or why not.
    """
    del report, topic, payload, retained, after
    from mqttjobs.cli import terminal
    from mqttjobs.cli.explaining import simulated_step

    require_file(config)
    steps = parse_steps(context.meta[_ORDER])
    if not steps:
        raise typer.BadParameter("give at least one --report, --topic or --after")
    with exit_on_error():
        results = complete(_simulate(config, steps))
    if as_json:
        terminal.print_json(results)
        return
    console = terminal.output()
    for result in results:
        for line in simulated_step(result):
            console.print(line, soft_wrap=True)


async def _simulate(config: Path, steps: Sequence[Json]) -> list[Json]:
    from mqttjobs.clock import SystemClock
    from mqttjobs.config import load
    from mqttjobs.errors import InvalidRequest
    from mqttjobs.service.app import new_uuid
    from mqttjobs.service.simulation.documents import document, play, read_steps
    from mqttjobs.service.simulation.simulation import Simulation, TooManyRuns

    settings = load(config)
    simulation = Simulation(settings, SystemClock().now(), new_uuid)
    try:
        parsed = read_steps(settings.installation, steps)
        start = document(simulation, await simulation.begin())
        first = [{"step": None, "seen": [start]}] if start["runs"] or start["not_run"] else []
        return [*first, *await play(simulation, parsed)]
    except (InvalidRequest, TooManyRuns) as error:
        from mqttjobs.cli.terminal import fail

        fail(str(error).removeprefix("wrong reports: "), BAD_CONFIG)


def parse_steps(arguments: Sequence[str]) -> list[Json]:
    """Return the steps of a command line in its order: {"report": …}, {"topic": …, "payload": …} or {"after": …}."""
    steps: list[dict[str, Json]] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name == "--retained":
            _topic_step(steps, argument)["retained"] = True
        if name not in _OPTIONS_WITH_VALUE:
            continue
        given = value if equals else next(rest, "")
        if name == "--payload":
            _topic_step(steps, argument)["payload"] = given
        else:
            steps.append({name.removeprefix("--"): given})
    return list(steps)


def _topic_step(steps: Sequence[dict[str, Json]], option: str) -> dict[str, Json]:
    """Return the last step, which `option` completes; raises BadParameter unless that is a topic."""
    if not steps or "topic" not in steps[-1]:
        raise typer.BadParameter(f"{option} belongs to a --topic: write it right after")
    return steps[-1]
