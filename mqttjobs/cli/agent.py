"""`mqttjobs agent`: an agent in the foreground."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mqttjobs import __version__
from mqttjobs.cli.access import DEFAULT_URL, URL_VARIABLE, parse_base_topic
from mqttjobs.cli.run import LogFormat, LogLevel, handle_signals
from mqttjobs.cli.running import BAD_CONFIG, serve
from mqttjobs.cli.terminal import fail
from mqttjobs.domain.names import LABEL_VALUE, NAME, is_hostname

if TYPE_CHECKING:
    from mqttjobs.agent.settings import AgentSettings

KEY_VARIABLE = "MQTTJOBS_AGENT_KEY"
TLS_PANEL = "TLS"
_LABEL = re.compile(f"({NAME})=({LABEL_VALUE})")


def agent(
    *,
    url: Annotated[
        str,
        typer.Option(
            envvar=URL_VARIABLE,
            help="The service's broker: mqtt, mqtts, ws or wss; its user and password as mqtt://user:password@host.",
        ),
    ] = DEFAULT_URL,
    base_topic: Annotated[
        str, typer.Option(callback=parse_base_topic, help="The service's mqtt.base_topic.")
    ] = "mqttjobs",
    hostname: Annotated[
        str | None, typer.Option(help="The agent's name, different from all others; by default this host's.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A label that targets can name; may be repeated.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help=f"A file with the service's agents.key; left out, {KEY_VARIABLE} has the key.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Where the agent keeps its journal; one for each agent.")
    ] = None,
    max_jobs: Annotated[int, typer.Option(min=1, max=10_000, help="Programs and scripts at once.")] = 8,
    program_dir: Annotated[
        list[Path] | None,
        typer.Option(help="Where programs may be; may be repeated. Left out: anywhere."),
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(rich_help_panel=TLS_PANEL, help="The CAs that the broker's certificate may be from.")
    ] = None,
    cert_file: Annotated[Path | None, typer.Option(rich_help_panel=TLS_PANEL, help="The agent's certificate.")] = None,
    cert_key_file: Annotated[Path | None, typer.Option(rich_help_panel=TLS_PANEL, help="Its private key.")] = None,
    log_format: Annotated[LogFormat, typer.Option(help="For people, or JSON lines for machines.")] = LogFormat.CONSOLE,
    log_level: Annotated[LogLevel, typer.Option(help="The lowest level that is logged.")] = LogLevel.INFO,
) -> None:
    """Run an agent in the foreground: it runs operations on this machine for a service.

    SIGTERM and Ctrl-C stop it cleanly: running jobs are ended and reported. Drain it first to let them finish.
    """
    from mqttjobs.agent.settings import KEEPALIVE, AgentSettings
    from mqttjobs.cli import logs
    from mqttjobs.transport.base import ConnectOptions, Tls

    name = hostname or socket.gethostname()
    if not is_hostname(name):
        fail(f"--hostname {name[:64]!r}: letters, digits, dots, dashes and underscores, at most 64", BAD_CONFIG)
    tls = Tls(_absolute(ca_file), _absolute(cert_file), _absolute(cert_key_file))
    broker = _broker(url, has_tls=tls != Tls())
    options = ConnectOptions(url=broker, client_id=f"mqttjobs-agent-{name}", keepalive=KEEPALIVE, tls=tls)
    folder = (state_dir or _state_dir(name)).absolute()
    programs = tuple(str(each.absolute()) for each in program_dir or ())
    key = _key(key_file)
    settings = AgentSettings(name, key, folder, options, base_topic, _labels(label or []), max_jobs, programs)
    logs.configure(as_json=log_format is LogFormat.JSON, level=log_level)
    serve(_run(settings))


async def _run(settings: AgentSettings) -> None:
    import structlog

    from mqttjobs.agent import app
    from mqttjobs.executors.base import EXECUTORS
    from mqttjobs.transport.base import TRANSPORTS

    stop = asyncio.Event()
    handle_signals(stop)
    log = structlog.get_logger(__name__)
    log.info(
        "starting",
        version=__version__,
        hostname=settings.hostname,
        broker=settings.connect.url,
        state_dir=str(settings.state_dir),
        pid=os.getpid(),
    )
    for problem in (*EXECUTORS.problems(), *TRANSPORTS.problems()):
        log.warning("plugin", details=str(problem))
    await app.serve(settings, stop=stop)
    log.info("stopped")


def _broker(url: str, *, has_tls: bool) -> str:
    """Return the broker's URL as its transport takes it."""
    from mqttjobs.transport.base import resolve_broker_url, unused_options

    try:
        resolved = resolve_broker_url(url, Path.cwd())
    except ValueError as error:
        fail(f"--url {error}", BAD_CONFIG)
    if has_tls and unused_options(resolved, ["tls"]):
        scheme = resolved.partition(":")[0]
        fail(f"--ca-file, --cert-file and --cert-key-file have no use with {scheme}: URLs", BAD_CONFIG)
    return resolved


def _key(file: Path | None) -> str:
    """Return the key that the service and its agents share; exits without one."""
    if file is None:
        key = os.environ.get(KEY_VARIABLE, "")
        if not key:
            fail(f"give the service's agents.key with --key-file or in {KEY_VARIABLE}", BAD_CONFIG)
        return key
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        fail(f"--key-file {file} cannot be read", BAD_CONFIG)
    if not key:
        fail(f"--key-file {file} is empty", BAD_CONFIG)
    return key


def _labels(given: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for each in given:
        found = _LABEL.fullmatch(each)
        if found is None:
            fail(f"--label {each[:64]!r}: write it as name=value, in letters, digits and ._-", BAD_CONFIG)
        if labels.setdefault(found[1], found[2]) != found[2]:
            fail(f"--label {found[1]} is given twice", BAD_CONFIG)
    return labels


def _state_dir(name: str) -> Path:
    """Return the default state directory of an agent: systemd's, or one in the user's folder for state."""
    given = os.environ.get("STATE_DIRECTORY")
    if given:
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "mqttjobs-agent" / name


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
