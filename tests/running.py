"""The real program as a process that can be started, signalled, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.clients import Client

READY_S = 30.0
STOP_S = 20.0


class _Process:
    """A process of the program, or None while it does not run."""

    process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End the process with SIGTERM, and return its exit code."""
        return self._end(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def _end(self, how: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # it may be stopped
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


class RunningService(_Process):
    """`mqttjobs run` with its configuration, database and log in `directory`.

    `config` is the configuration as a mapping, to which broker and database are added, or as text. `limits` is called
    in the child before the program starts.
    """

    def __init__(
        self,
        directory: Path,
        port: int,
        config: Mapping[str, Any] | str,
        *,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        base: str = "mqttjobs",
        limits: Any = None,
        python: str | Path = sys.executable,
    ) -> None:
        self.directory = directory
        self._python = python
        self.port = port
        self.base = base
        self.arguments = list(arguments)
        self.environment = {**os.environ, **(environment or {})}
        self.limits = limits
        self.file = directory / "mqttjobs.yaml"
        self.database = directory / "mqttjobs.db"
        self._log_start = 0
        directory.mkdir(parents=True, exist_ok=True)
        self.write_config(config)

    def write_config(self, config: Mapping[str, Any] | str) -> None:
        """Replace the configuration file."""
        if isinstance(config, str):
            self.file.write_text(config)
            return
        whole: dict[str, Any] = {"store": {"url": "sqlite:///mqttjobs.db"}, **config}
        whole["service"] = {"hostname": "hub", **config.get("service", {})}
        whole["mqtt"] = {"url": f"mqtt://127.0.0.1:{self.port}", **config.get("mqtt", {})}
        self.file.write_text(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))

    @property
    def log(self) -> str:
        """The output of all runs."""
        if not (self.directory / "service.log").exists():
            return ""
        return (self.directory / "service.log").read_text(errors="replace")

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of the log that are JSON."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def start(self) -> None:
        """Start the service without waiting until it is ready."""
        assert self.process is None, "the service is running"
        self._log_start = len(self.log)
        with (self.directory / "service.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._python, "-m", "mqttjobs", "run", str(self.file), "--log-format", "json", *self.arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.directory,
                env=self.environment,
                preexec_fn=self.limits,  # noqa: PLW1509 - sets limits in a child of a test
            )

    def wait_ready(self, within_s: float = READY_S) -> None:
        """Wait until the service has connected since the last start."""
        self.wait_event("connected", within_s=within_s)

    def wait_event(self, name: str, count: int = 1, *, within_s: float = READY_S) -> None:
        """Wait until the service has logged `count` events of this name since the last start."""
        deadline = time.monotonic() + within_s
        while self.log[self._log_start :].count(f'"event": "{name}"') < count:
            assert self.process is not None
            assert self.process.poll() is None, f"the service ended with {self.process.returncode}:\n{self.log[-3000:]}"
            assert time.monotonic() < deadline, f"{name!r} was not logged:\n{self.log[-3000:]}"
            threading.Event().wait(0.02)

    def run(self) -> None:
        """Start the service and wait until it is ready."""
        self.start()
        self.wait_ready()

    def wait_end(self, within_s: float = STOP_S) -> int:
        """Wait until the service ends by itself, and return its exit code."""
        assert self.process is not None
        code = self.process.wait(within_s)
        self.process = None
        return code

    def client(self, **how: Any) -> Client:
        """Return a client of the same broker; `how` are arguments of Client."""
        return Client(self.port, base=self.base, **how)


StartService = Callable[..., RunningService]
"""The type of the fixture start_service."""
StartShared = Callable[..., RunningService]
"""The type of the fixture start_shared."""


class RunningAgent(_Process):
    """`mqttjobs agent` with its state, key and log in `directory`; `cwd` is its working directory."""

    def __init__(
        self,
        directory: Path,
        port: int,
        hostname: str,
        key: str,
        *arguments: str,
        cwd: Path | None = None,
        python: str | Path = sys.executable,
    ) -> None:
        self.directory = directory
        self._python = python
        self.hostname = hostname
        self.cwd = cwd or directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = directory / "agent.key"
        self._key.write_text(key + "\n")
        self._arguments = ["--url", f"mqtt://127.0.0.1:{port}", "--hostname", hostname, *arguments]

    @property
    def log(self) -> str:
        return (self.directory / "agent.log").read_text(errors="replace")

    def start(self) -> None:
        """Start the agent without waiting until it is ready."""
        assert self.process is None, "the agent is running"
        options = ["--key-file", str(self._key), "--state-dir", str(self.directory / "state"), "--log-format", "json"]
        with (self.directory / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._python, "-m", "mqttjobs", "agent", *self._arguments, *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.cwd,
            )


def mqttjobs(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the program to its end; `environment` are more environment variables."""
    return subprocess.run(
        [sys.executable, "-m", "mqttjobs", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", **environment},
    )
