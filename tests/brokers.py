"""Real brokers for tests: a Mosquitto process that can be stopped, killed, frozen and started again."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MOSQUITTO = shutil.which(
    "mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
)
MISSING = "the program mosquitto is not on PATH"
READY_S = 10.0
STOP_S = 10.0


PORTS = range(10_000, 32_000)
"""Below the ports that systems give to outgoing connections: none of these takes the port of a stopped broker."""
_chance = random.SystemRandom()
_reserved: list[socket.socket] = []


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on; no other test process gets the same one while this one runs.

    The port is reserved by a UDP socket with the same number, which the system closes when the process ends.
    """
    while True:
        port = _chance.choice(PORTS)
        reservation = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            reservation.bind(("127.0.0.1", port))
            with socket.create_server(("127.0.0.1", port)):
                _reserved.append(reservation)
                return port
        except OSError:
            reservation.close()


def password_file(path: Path, **users: str) -> Path:
    """Write a password file for Mosquitto, and return its path."""
    lines = []
    for name, password in users.items():
        salt = os.urandom(12)
        digest = hashlib.sha512(password.encode() + salt).digest()
        lines.append(f"{name}:$6${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n")
    path.write_text("".join(lines))
    return path


def wait_until_listening(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until connections to `port` are accepted; raises TimeoutError, or ChildProcessError if `process` ended."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise ChildProcessError(f"the broker ended with exit code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            select.select([], [], [], 0.01)
        else:
            return
    raise TimeoutError(f"nobody listens on port {port}")


class MosquittoBroker:
    """One Mosquitto on a loopback port, with its data in `directory`; `config` are more lines of its configuration.

    Sessions and retained messages survive `stop`. With `autosave` they survive `kill` too, because they are saved at
    every change; without `autosave` the broker is ten times as fast.
    """

    def __init__(
        self, directory: Path, config: Sequence[str] = (), *, anonymous: bool = True, autosave: bool = True
    ) -> None:
        self.directory = directory
        self.config = list(config)
        self.anonymous = anonymous
        self.autosave = autosave
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.directory / "mosquitto.log").read_text(errors="replace")

    @property
    def saved(self) -> bytes:
        """The saved sessions, queues and retained messages, in Mosquitto's format."""
        file = self.directory / "mosquitto.db"
        return file.read_bytes() if file.exists() else b""

    def start(self) -> None:
        """Start the broker and wait until it accepts connections; the port and the data stay the same."""
        assert MOSQUITTO is not None, MISSING
        assert self._process is None, "the broker is running"
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "mosquitto.conf"
        file.write_text("\n".join(self._lines()) + "\n")
        with (self.directory / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(file)], stdout=log, stderr=log)
        try:
            wait_until_listening(self.port, self._process)
        except (TimeoutError, ChildProcessError) as error:
            self.kill()
            raise RuntimeError(f"mosquitto did not start: {error}\n{self.log}") from error

    def _lines(self) -> list[str]:
        return [
            *(["user root"] if os.geteuid() == 0 else []),
            "persistence true",
            f"persistence_location {self.directory}/",
            *(["autosave_on_changes true", "autosave_interval 1"] if self.autosave else []),
            "max_queued_messages 100000",
            "set_tcp_nodelay true",
            "log_dest stderr",
            f"allow_anonymous {'true' if self.anonymous else 'false'}",
            f"listener {self.port} 127.0.0.1",
            *self.config,
        ]

    def stop(self) -> None:
        """End the broker with SIGTERM; it saves its data first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker with SIGKILL."""
        self._end(signal.SIGKILL)

    def forget(self) -> None:
        """Delete the data of the stopped broker: sessions, queues and retained messages."""
        assert self._process is None, "the broker is running"
        (self.directory / "mosquitto.db").unlink(missing_ok=True)

    def restart(self, *, kill: bool = False) -> None:
        """Stop or kill the broker, and start it again."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        self.start()

    def freeze(self) -> None:
        """Let the broker hang with open connections until `thaw`."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the broker continue after `freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)


StartMosquitto = Callable[..., MosquittoBroker]
"""The type of the fixture start_mosquitto."""
