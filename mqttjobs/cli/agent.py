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
from mqttjobs.cli.access import base_topic_of
from mqttjobs.cli.run import LogFormat, LogLevel, obey_signals
from mqttjobs.cli.running import BAD_CONFIG, serve
from mqttjobs.cli.terminal import fail

if TYPE_CHECKING:
    from mqttjobs.agent.settings import AgentSettings

KEY_VARIABLE = "MQTTJOBS_AGENT_KEY"
TLS_PANEL = "TLS"
_HOSTNAME = re.compile(r"[A-Za-z0-9.-][A-Za-z0-9_.-]{0,63}\Z")
_LABEL = re.compile(r"([A-Za-z0-9_.-]{1,64})=([A-Za-z0-9_.-]{1,128})\Z")


def agent(
    *,
    url: Annotated[
        str,
        typer.Option(
            envvar="MQTTJOBS_URL",
            help="The service's broker: mqtt, mqtts, ws or wss; its user and password as mqtt://user:password@host.",
        ),
    ] = "mqtt://127.0.0.1:1883",
    base_topic: Annotated[str, typer.Option(callback=base_topic_of, help="As the service's.")] = "mqttjobs",
    hostname: Annotated[
        str | None, typer.Option(help="The agent's name, unlike any other's; by default this host's.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A label that targets can name; may be repeated.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help=f"Holds the service's agents.key; without it {KEY_VARIABLE} does.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Where the agent keeps what it must not forget; one for each agent.")
    ] = None,
    max_jobs: Annotated[int, typer.Option(min=1, max=10_000, help="Programs and scripts at once.")] = 8,
    program_dir: Annotated[
        list[Path] | None,
        typer.Option(help="Where programs may be; may be repeated. Left out: anywhere."),
    ] = None,
    ca_file: Annotated[Path | None, typer.Option(rich_help_panel=TLS_PANEL, help="Who may have signed it.")] = None,
    cert_file: Annotated[Path | None, typer.Option(rich_help_panel=TLS_PANEL, help="Our certificate.")] = None,
    cert_key_file: Annotated[Path | None, typer.Option(rich_help_panel=TLS_PANEL, help="Its private key.")] = None,
    log_format: Annotated[LogFormat, typer.Option(help="For people, or JSON lines for machines.")] = LogFormat.CONSOLE,
    log_level: Annotated[LogLevel, typer.Option(help="The least that is logged.")] = LogLevel.INFO,
) -> None:
    """Run an agent in the foreground: it runs operations on this machine for a service.

    SIGTERM and Ctrl-C stop it cleanly: what runs is ended and reported. Drain it first to let that finish.
    """
    from mqttjobs.agent.settings import KEEPALIVE, AgentSettings
    from mqttjobs.cli import logs
    from mqttjobs.transport.base import ConnectOptions, Tls

    name = hostname or socket.gethostname()
    if not _HOSTNAME.match(name):
        fail(f"--hostname {name[:64]!r}: letters, digits, dots, dashes and underscores, at most 64", BAD_CONFIG)
    tls = Tls(_text(ca_file), _text(cert_file), _text(cert_key_file))
    options = ConnectOptions(
        url=_broker(url, has_tls=tls != Tls()),
        client_id=f"mqttjobs-agent-{name}",
        keepalive=KEEPALIVE,
        tls=tls,
    )
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
    obey_signals(stop)
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
    """Return the secret that is shared with the service."""
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
        found = _LABEL.match(each)
        if found is None:
            fail(f"--label {each[:64]!r}: write it as name=value, in letters, digits and ._-", BAD_CONFIG)
        if labels.setdefault(found[1], found[2]) != found[2]:
            fail(f"--label {found[1]} is given twice", BAD_CONFIG)
    return labels


def _state_dir(name: str) -> Path:
    """Return where an agent of this name keeps its state: what systemd gives it, or the user's place for such."""
    given = os.environ.get("STATE_DIRECTORY")
    if given:
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "mqttjobs-agent" / name


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
