"""`mqttjobs run`, `check` and `schema`: run the service, validate a configuration, print the schema of all."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from mqttjobs import __version__
from mqttjobs.cli.running import BAD_CONFIG, INTERRUPTED, exit_on_error, serve
from mqttjobs.cli.terminal import fail, grid, output, print_json, print_note

if TYPE_CHECKING:
    from mqttjobs.service.settings import Settings

DEFAULT_CONFIG = Path("config/mqttjobs.yaml")
Config = Annotated[Path, typer.Argument(metavar="[CONFIG]", show_default=True, help="The configuration file.")]


class LogFormat(StrEnum):
    """The format of the log: for people or for machines."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def run(
    config: Config = DEFAULT_CONFIG,
    *,
    embedded_broker: Annotated[
        bool,
        typer.Option("--embedded-broker", help="Start a broker in this process too, at mqtt.url; to try things out."),
    ] = False,
    log_format: Annotated[LogFormat, typer.Option(help="For people, or JSON lines for machines.")] = LogFormat.CONSOLE,
    log_level: Annotated[LogLevel, typer.Option(help="The lowest level that is logged.")] = LogLevel.INFO,
) -> None:
    """Run the service in the foreground.

    SIGTERM and Ctrl-C stop it cleanly; SIGHUP reloads CONFIG.
    """
    from mqttjobs.cli import logs

    require_file(config)
    logs.configure(as_json=log_format is LogFormat.JSON, level=log_level)
    serve(_run(config, embedded_broker=embedded_broker))


async def _run(config: Path, *, embedded_broker: bool) -> None:
    import structlog

    from mqttjobs.config import load
    from mqttjobs.service import app

    stop, reload = asyncio.Event(), asyncio.Event()
    handle_signals(stop, reload)
    log = structlog.get_logger(__name__)

    def read() -> Settings:
        settings = load(config)
        for each in settings.warnings:
            log.warning("configuration", details=str(each))
        return settings

    settings = read()
    log.info("starting", version=__version__, config=str(config), broker=settings.connect.url, pid=os.getpid())
    async with _embedded(settings.connect.url) if embedded_broker else _nothing():
        await app.serve(settings, read, stop=stop, reload=reload)
    log.info("stopped")


def handle_signals(stop: asyncio.Event, reload: asyncio.Event | None = None) -> None:
    """Set `stop` at SIGTERM and the first Ctrl-C, exit at once at the second, and set `reload` at SIGHUP."""
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    if reload is not None:
        loop.add_signal_handler(signal.SIGHUP, reload.set)


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _embedded(url: str) -> AsyncIterator[None]:
    """Run the embedded broker at the address in `url`; exits unless `url` is mqtt:// (loopback only)."""
    import structlog

    from mqttjobs.transport.embedded import NOT_FOR_PRODUCTION, EmbeddedBroker

    parts = urlsplit(url)
    if parts.scheme != "mqtt":
        fail(f"--embedded-broker speaks mqtt:// only, and mqtt.url is {parts.scheme}://", BAD_CONFIG)
    async with EmbeddedBroker(parts.hostname or "127.0.0.1", parts.port or 1883) as broker:
        structlog.get_logger(__name__).warning("embedded-broker", url=broker.url, details=NOT_FOR_PRODUCTION)
        yield


def check(config: Config = DEFAULT_CONFIG) -> None:
    """Validate CONFIG: every problem as file:line: message, or a summary."""
    from mqttjobs.config import load, summary

    require_file(config)
    with exit_on_error():
        settings = load(config)
    table = grid("", "")
    table.show_header = False
    for name, count in summary(settings):
        table.add_row(name, str(count))
    for each in settings.warnings:
        print_note(str(each), "yellow")
    console = output()
    console.print(f"{config} is good.")
    console.print(table)


def schema() -> None:
    """Print the JSON Schema of configurations, with the operation types that are installed: for editors."""
    from mqttjobs.config.schema import configuration_schema

    print_json(configuration_schema())


def require_file(config: Path) -> None:
    """Exit with a message if there is no such file."""
    if config.exists():
        return
    print_note(f"{config}:0: there is no such file")
    if config == DEFAULT_CONFIG:
        print_note("Give the file's name, or try `mqttjobs demo`, which needs none.")
    sys.stderr.flush()
    raise typer.Exit(BAD_CONFIG)
