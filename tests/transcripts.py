"""The documentation as a test: its configurations are checked, and its terminal sessions are run and compared.

In a Markdown file a `yaml` block is a configuration; a first line `# hall.yaml` is its file name. A `console` block is
a session: lines that begin with `$ ` are commands, and the lines after a command are its output. A command that does
not end (a service, a subscriber) runs in the background; a `console` block without `$ ` has its later output.

Times, durations and ids differ from run to run and count as equal; `…` stands for any text.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

WAIT_S = 60.0
LONG_RUNNING = ("mosquitto_sub ", "./scripts/run run ", "./scripts/run agent ", "./scripts/run jobs watch")
CLIENTS = ("mosquitto_pub", "mosquitto_sub", "mosquitto_rr")
DOCUMENTED_ADDRESS = "127.0.0.1:1883"
SETTLE_S = 10.0

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"# ([\w./-]+\.\w+|[\w./-]+/\w+)\n")
_QUERY = re.compile(r"request/\w+/(list|get|poll|history|health|info|explain)\b|run (jobs|operations) (list|get)\b")
_VARYING = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "<clock>"),
    (re.compile(r"\b1[78]\d{11}\b"), "<ms>"),
    (re.compile(r"\b(\d+m)?\d+(\.\d+)?m?s\b"), "<duration>"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r" $", re.MULTILINE), ""),
)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the line number where the text begins."""

    language: str
    text: str
    line: int

    @property
    def file_name(self) -> str | None:
        """The file name in the first line, or None."""
        found = _FILE_NAME.match(self.text)
        return found[1] if found else None

    def steps(self) -> list[tuple[str, str]]:
        """Return the commands of a session, each with its output; the command '' stands for later output."""
        steps: list[tuple[str, str]] = []
        for line in self.text.splitlines():
            command, printed = steps[-1] if steps else ("", "")
            if line.startswith("$ "):
                steps.append((line[2:], ""))
            elif command.endswith("\\") and not printed:
                steps[-1] = (f"{command}\n{line}", "")
            else:
                steps[-1:] = [(command, f"{printed}{line}\n")]
        return steps


def blocks(file: Path) -> list[Block]:
    """Return the fenced blocks of a Markdown file, also indented ones in lists."""
    text = file.read_text()
    found = []
    for match in _FENCE.finditer(text):
        indent = match[1]
        body = "".join(line.removeprefix(indent) for line in match[3].splitlines(keepends=True))
        found.append(Block(match[2], body, text.count("\n", 0, match.start(3)) + 1))
    return found


def expected(printed: str) -> re.Pattern[str]:
    """Return a pattern for normalized output, from output as written in the documentation."""
    parts = _normalized(printed).strip().split("…")
    return re.compile(".*?".join(re.escape(part.strip(" ")) for part in parts), re.DOTALL)


def _normalized(text: str) -> str:
    for varying, name in _VARYING:
        text = varying.sub(name, text)
    return re.sub(r" ?… ?", "…", text)


class Terminal:
    """Runs the sessions of one document in a folder, with the broker at `port`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._running: list[subprocess.Popen[bytes]] = []
        self._output: Path | None = None
        self._read = 0
        settings = folder / "clients"
        settings.mkdir(parents=True)
        for client in CLIENTS:
            (settings / client).write_text(f"-p {port}\n")
        script = folder / "scripts" / "run"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m mqttjobs "$@"\n')
        script.chmod(0o755)
        self.environment: Mapping[str, str] = {
            **os.environ,
            "XDG_CONFIG_HOME": str(settings),
            "MQTTJOBS_URL": f"mqtt://127.0.0.1:{port}",
            "COLUMNS": "120",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(folder),
        }

    def write(self, name: str, text: str) -> None:
        """Write a file of the documentation, with the address of this test's broker."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace(DOCUMENTED_ADDRESS, f"127.0.0.1:{self.port}"))

    def play(self, block: Block, where: str) -> None:
        """Run the commands of a session and compare their output."""
        for command, printed in block.steps():
            if not command:
                self._expect_later(printed, where)
            elif command.startswith(LONG_RUNNING):
                self._start(command)
                self._expect_later(printed, f"{where}: {command}")
            else:
                self._expect(command, printed, where)

    def play_service(self, file: str) -> None:
        """Start the service on a file and wait until it is ready."""
        self._start(f"./scripts/run run {file}")
        self._expect_later("… connected", f"the service on {file}")

    def _expect(self, command: str, printed: str, where: str) -> None:
        """Run a command and compare its output; a query is repeated for a while, as its result may still change."""
        deadline = time.monotonic() + (SETTLE_S if _QUERY.search(command) else 0)
        while not expected(printed).fullmatch(_normalized(output := self._run(command)).strip()):
            if time.monotonic() > deadline:
                pytest.fail(f"{where}: {command}\nprints\n{output}\nand not\n{printed}", pytrace=False)
            threading.Event().wait(0.2)

    def _run(self, command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command],
            check=False,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            cwd=self.folder,
            env=self.environment,
        )
        return self._with_documented_address(done.stdout + done.stderr)

    def _start(self, command: str) -> None:
        self._output = self.folder / f"output-{len(self._running)}"
        self._read = 0
        with self._output.open("wb") as output:
            self._running.append(
                subprocess.Popen(
                    ["sh", "-c", f"exec {command}"],
                    stdout=output,
                    stderr=output,
                    cwd=self.folder,
                    env=self.environment,
                )
            )

    def _expect_later(self, printed: str, where: str) -> None:
        """Wait until the running command prints this, after the output that was already compared."""
        assert self._output is not None, f"{where}: nothing is running"
        pattern = expected(printed)
        deadline = time.monotonic() + WAIT_S
        while True:
            output = self._with_documented_address(self._output.read_text())[self._read :]
            normalized = _normalized(output).lstrip()
            if pattern.match(normalized):
                self._read += len(output)
                return
            if time.monotonic() > deadline or self._running[-1].poll() is not None:
                pytest.fail(f"{where}\nprints\n{output}\nand not\n{printed}", pytrace=False)
            threading.Event().wait(0.05)

    def _with_documented_address(self, output: str) -> str:
        return output.replace(f"127.0.0.1:{self.port}", DOCUMENTED_ADDRESS)

    def close(self) -> None:
        """End the running commands."""
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def documents(root: Path) -> Iterator[Path]:
    """Yield the path of every Markdown file of the documentation."""
    yield root / "README.md"
    yield from sorted((root / "docs").rglob("*.md"))
