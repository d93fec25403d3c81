"""Agents for people: a table, one agent in full, and a live table."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping
from typing import Self

from rich.console import RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mqttjobs.cli.access import Access
from mqttjobs.cli.client import connected
from mqttjobs.cli.terminal import brief, cell, exact_local_time, grid, local_time, output, plain, print_json, print_note
from mqttjobs.domain.model import Json
from mqttjobs.errors import ConnectionLost

PAUSE_S = 2.0
STATE_STYLES: Mapping[str, str] = {
    "ready": "green",
    "draining": "yellow",
    "cordoned": "yellow",
    "offline": "bright_black",
}


def agent_table(agents: Iterable[Mapping[str, Json]]) -> Table:
    """Return agents as a table."""
    table = grid("hostname", "state", "running", "load", "last seen", "version", "labels")
    table.columns[2].justify = table.columns[3].justify = "right"
    for agent in agents:
        facts = agent.get("facts") or {}
        table.add_row(
            cell(agent.get("hostname")),
            _state(agent),
            f"{brief(agent.get('running'))}/{brief(agent.get('max_jobs'))}",
            cell(facts.get("load")),
            local_time(agent.get("last_seen")),
            cell(agent.get("version")),
            cell(_labels(agent)),
        )
    return table


def agent_detail(agent: Mapping[str, Json]) -> RenderableType:
    """Return one agent in full."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("Agent", cell(agent.get("hostname")))
    table.add_row("State", _state(agent))
    table.add_row("Running", f"{brief(agent.get('running'))} of {brief(agent.get('max_jobs'))}")
    table.add_row("Labels", cell(_labels(agent)))
    table.add_row("Version", cell(agent.get("version")))
    table.add_row("Last seen", exact_local_time(agent.get("last_seen")))
    for name, value in (agent.get("facts") or {}).items():
        table.add_row(plain(str(name)), cell(value))
    return table


async def follow(access: Access, params: Mapping[str, Json]) -> None:
    """List the agents again and again until cancelled: a live table on a terminal, each changed list elsewhere."""
    live = sys.stdout.isatty() and not access.as_json
    console = output()
    with Live(console=console, auto_refresh=False) if live else _Lines(access) as shown:
        while True:
            try:
                async with connected(access) as client:
                    while True:
                        data = await client.ask("agents/list", params)
                        shown.update(agent_table(data["items"]) if live else data, refresh=True)
                        await asyncio.sleep(PAUSE_S)
            except ConnectionLost:
                print_note("the connection was lost; trying again", "yellow")
                await asyncio.sleep(PAUSE_S)


class _Lines:
    """Takes the place of the live table where there is no terminal: prints each list that has changed."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._last: Json = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, data: Json, *, refresh: bool) -> None:
        """Print a list that differs from the last one."""
        del refresh
        if data == self._last:
            return
        self._last = data
        if self._access.as_json:
            print_json(data, indent=None)
        else:
            output().print(agent_table(data["items"]))
        sys.stdout.flush()


def _state(agent: Mapping[str, Json]) -> Text:
    state = str(agent.get("state") or "")
    return Text(plain(state), style=STATE_STYLES.get(state, ""))


def _labels(agent: Mapping[str, Json]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted((agent.get("labels") or {}).items()))
