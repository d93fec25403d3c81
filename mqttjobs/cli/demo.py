"""`mqttjobs demo`: a broker, simulated devices, the service and a live view of its jobs in one process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from mqttjobs.cli.run import LogLevel, handle_signals
from mqttjobs.cli.running import serve

if TYPE_CHECKING:
    from mqttjobs.cli.watch import Show
    from mqttjobs.service.settings import Settings
    from mqttjobs.transport.embedded import EmbeddedBroker

DEFAULT_PORT = 1883
PROGRAM_VARIABLE = "MQTTJOBS_PROGRAM"
"""The environment variable with the command that people type in place of `mqttjobs`; scripts/run sets it."""

INTRODUCTION = """\
The demo's broker listens on {url}. In another terminal:

  {program} jobs list{option}
  {program} operations list{option}
  {program} operations execute greet --param to=Ada --wait{option}
  mosquitto_sub -V 311 -h 127.0.0.1 -p {port} -v -t '#'
  mosquitto_pub -V 311 -h 127.0.0.1 -p {port} -q 1 -t mqttjobs/request/jobs/list -m '{{"limit": 1}}'
  mosquitto_pub -V 311 -h 127.0.0.1 -p {port} -q 1 -t zigbee2mqtt/doorbell -m '{{"action": "double"}}'

Ctrl-C ends it; nothing is kept.
"""


def _duration(value: str | None) -> float | None:
    from mqttjobs.domain.durations import parse_duration

    try:
        return None if value is None else parse_duration(value).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def demo(
    *,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The broker's port: 1883, or a free one where it is taken.")
    ] = None,
    duration: Annotated[str | None, typer.Option(help="End by itself after this long, such as 20s.")] = None,
    live: Annotated[
        bool | None, typer.Option("--live/--no-live", help="A table or lines; a table on a terminal.")
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="The lowest level that is logged.")] = LogLevel.WARNING,
) -> None:
    """Run a demo with nothing else installed: broker, simulated devices, service and a live view of the jobs."""
    from mqttjobs.cli import board, logs

    duration_s = _duration(duration)
    logs.configure(as_json=False, level=log_level)
    with TemporaryDirectory(prefix="mqttjobs-demo-") as folder, installation() as config:
        serve(_demo(config, Path(folder), port, duration_s, lambda: board.view(live=live)))


@contextmanager
def installation() -> Iterator[Path]:
    """Yield the path of the demo's configuration; the package that contains it may be a zip file."""
    with resources.as_file(resources.files("mqttjobs.cli") / "demo.yaml") as path:
        yield path


async def _demo(
    config: Path,
    folder: Path,
    port: int | None,
    duration_s: float | None,
    view: Callable[[], AbstractContextManager[Show]],
) -> None:
    from mqttjobs.cli import devices, terminal, watch
    from mqttjobs.cli.access import Access
    from mqttjobs.service import app

    stop = asyncio.Event()
    handle_signals(stop)
    async with _broker(port) as broker:

        def load() -> Settings:
            return settings_for(config, broker.url, folder)

        option = "" if broker.port == DEFAULT_PORT else f" --url {broker.url}"
        program = os.environ.get(PROGRAM_VARIABLE, "mqttjobs")
        terminal.print_note(INTRODUCTION.format(program=program, url=broker.url, port=broker.port, option=option))
        with view() as show:
            service = asyncio.create_task(app.serve(load(), load, stop=stop, reload=asyncio.Event()), name="service")
            others = [
                asyncio.create_task(devices.simulate(broker.url), name="devices"),
                asyncio.create_task(watch.follow(Access(url=broker.url), ["mqttjobs/event/job/#"], show), name="view"),
            ]
            await _wait_for_end(stop, duration_s, [service, *others])
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await service


async def _wait_for_end(stop: asyncio.Event, duration_s: float | None, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for `stop`, the time limit or the end of a task, and set `stop`; raise the error of a task but the first."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait([stopping, *tasks], timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    stop.set()
    for task in tasks[1:]:
        if task.done():
            await task


@asynccontextmanager
async def _broker(port: int | None) -> AsyncIterator[EmbeddedBroker]:
    """Run the broker at `port`; None means port 1883, or a free one if that is taken."""
    from mqttjobs.errors import TransportError
    from mqttjobs.transport.embedded import EmbeddedBroker

    broker = EmbeddedBroker(port=port or DEFAULT_PORT)
    try:
        await broker.__aenter__()
    except TransportError:
        if port is not None:
            raise
        broker = EmbeddedBroker(port=0)
        await broker.__aenter__()
    try:
        yield broker
    finally:
        await broker.__aexit__(None, None, None)


def settings_for(config: Path, url: str, folder: Path) -> Settings:
    """Return the demo's settings with the broker at `url` and the database in `folder`."""
    from mqttjobs.config import load

    settings = load(config)
    mqtt = settings.mqtt.model_copy(update={"url": url, "protocol": "3.1.1"})
    store = settings.store.model_copy(update={"url": f"sqlite:///{folder / 'demo.db'}"})
    return replace(settings, mqtt=mqtt, store=store, config_dir=str(folder))
