"""Asks one method for a command and prints the answer, as JSON or for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mqttjobs.cli.access import Access
from mqttjobs.domain.model import Json

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(access: Access, method: str, params: Mapping[str, Json], view: Callable[[Json], RenderableType]) -> None:
    """Ask a method and print its data, for people as `view` returns it."""
    from mqttjobs.cli import client, terminal
    from mqttjobs.cli.running import complete

    data = complete(client.ask(access, method, params))
    if access.as_json:
        terminal.print_json(data)
    else:
        terminal.output().print(view(data))


def show_list(
    access: Access,
    method: str,
    params: Mapping[str, Json],
    table: Callable[[Sequence[Json], int], RenderableType],
    summary: Callable[[Json], str],
) -> None:
    """Ask a method that lists and print its data: for people a `table` of a width, and a `summary` below it.

    The summary ends with how to see what follows; `params` has the `offset`.
    """
    from mqttjobs.cli import client, terminal
    from mqttjobs.cli.running import complete

    data = complete(client.ask(access, method, params))
    if access.as_json:
        terminal.print_json(data)
        return
    items = data["items"]
    if items:
        console = terminal.output()
        console.print(table(items, console.width))
    following = params["offset"] + len(items)
    more = f"; more with --offset {following}" if items and following < data["total_items"] else ""
    terminal.print_note(f"{summary(data)}{more}", "bright_black")


def shown_of_all(noun: str) -> Callable[[Json], str]:
    """Return the summary of a list: `10 of 25 agents`."""
    return lambda data: f"{len(data['items'])} of {data['total_items']} {noun}"
