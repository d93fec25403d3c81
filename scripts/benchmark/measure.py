"""Measures mqttjobs on this machine, beside a bare client in the same run: absolute figures vary, ratios hold.

Mosquitto, the service and the load are processes of their own. A round measures the echo client, then the service:
state changes into completed jobs as fast as they go, then one at a time. In the end it counts that every state change
is one completed job, stores more jobs, kills the service and measures how long a start takes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
DEVICES = 100
WHOLE = 20 * DEVICES
"""Counts go up to a multiple of this: a load, and one of a tenth, begins with ON everywhere and must end with OFF."""
READY_S = 60.0
TICKS = os.sysconf("SC_CLK_TCK")
CONFIG = """\
mqtt: {{url: "mqtt://127.0.0.1:{port}"}}
service: {{hostname: bench}}
classes:
  device:
    ids: ["dev{{0..99}}"]
    state: {{topic: "state/{{{{ id }}}}", value: state}}
operations:
  answer:
    attach: {{class: device}}
    type: mqtt
    topic: "out/{{{{ id }}}}"
    message: {{n: "{{{{ payload.n }}}}", t: "{{{{ payload.t }}}}"}}
    trigger_states: ["ON", "OFF"]
"""


class Process(AbstractContextManager["Process"]):
    """A process that says `ready` in a line of its output, measured from outside."""

    def __init__(self, command: list[str], log: Path, ready: str) -> None:
        self.command, self.log, self.ready = command, log, ready

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.log.parent)
        deadline = time.monotonic() + READY_S
        while self.ready not in self.log.read_text(errors="replace"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(self.command)} did not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGTERM)

    def end(self, how: signal.Signals) -> None:
        """End it and wait until it is gone."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)

    def cpu_s(self) -> float:
        """Return the processor time it has taken so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_mib(self) -> float:
        """Return its memory: resident, now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def load_generator(folder: Path) -> list[str]:
    """Return the command of the load: the C program where it can be compiled, else the one in Python."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print("No C compiler: the load comes from Python, which takes processor time from what is measured.")
        return [sys.executable, str(HERE / "loadgen.py")]
    program = folder / "loadgen"
    subprocess.run([compiler, "-O2", "-o", str(program), str(HERE / "loadgen.c")], check=True)
    return [str(program)]


class Bench:
    """What is measured, in a folder that goes away.

    The echo client has a broker of its own: the service's would keep for it what is sent while it is away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.echo_port = free_port(), free_port()
        self.load = load_generator(folder)
        self.config = folder / "bench.yaml"
        self.config.write_text(CONFIG.format(port=self.port))
        self.changes = 0

    def broker(self, port: int) -> Process:
        """Return a Mosquitto that keeps nothing on disk."""
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        if program is None:
            raise SystemExit("scripts/bench needs Mosquitto: apt install mosquitto")
        lines = [
            f"listener {port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true", "log_dest stderr",
            "max_queued_messages 100000", *(["user root"] if os.geteuid() == 0 else []),
        ]  # fmt: skip
        config = self.folder / f"mosquitto-{port}.conf"
        config.write_text("\n".join(lines) + "\n")
        return Process([program, "-c", str(config)], self.folder / f"mosquitto-{port}.log", "running")

    def service(self) -> Process:
        """Return the service, logging as in production."""
        command = [sys.executable, "-m", "mqttjobs", "run", str(self.config), "--log-format", "json"]
        return Process(command, self.folder / "service.log", '"event": "connected"')

    def echo(self) -> Process:
        """Return the yardstick."""
        return Process([sys.executable, str(HERE / "echo.py"), str(self.echo_port)], self.folder / "echo.log", "ready")

    def run(self, port: int, count: int, outstanding: int) -> dict[str, float]:
        """Send `count` state changes and return what the load says."""
        command = [*self.load, str(port), str(count), str(outstanding), str(DEVICES)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the load did not get through: {done.stdout}{done.stderr}")
        figures: dict[str, float] = json.loads(done.stdout)
        figures["rate"] = figures["received"] / figures["seconds"]
        return figures

    def saturate(self, process: Process, port: int, count: int, outstanding: int) -> dict[str, float]:
        """Warm up, then measure how fast `process` goes and what that takes."""
        self.run(port, count // 10, outstanding)
        before_s = process.cpu_s()
        figures = self.run(port, count, outstanding)
        figures["cpu_us"] = (process.cpu_s() - before_s) / count * 1e6
        figures["memory_mib"] = process.memory_mib()
        return figures

    def round(self, count: int, outstanding: int) -> dict[str, dict[str, float]]:
        """Measure the yardstick and the service, one right after the other."""
        with self.echo() as echo:
            bare = self.saturate(echo, self.echo_port, count, outstanding)
            bare_alone = self.run(self.echo_port, count // 10, 1)
        with self.service() as service:
            own = self.saturate(service, self.port, count, outstanding)
            alone = self.run(self.port, count // 10, 1)
            self.changes += count // 10 * 2 + count
        return {"echo": bare, "echo_alone": bare_alone, "service": own, "alone": alone}

    def ask(self, method: str) -> Any:
        """Ask the running service."""
        command = [
            sys.executable,
            "-m",
            "mqttjobs",
            *method.split(),
            "--json",
            "--url",
            f"mqtt://127.0.0.1:{self.port}",
        ]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def completed(self) -> int:
        """Return how many jobs are completed, once none is waiting."""
        while True:
            counts = self.ask("jobs list --limit 1")["status_counts"]
            if not counts["submitted"] and not counts["processing"]:
                return int(counts["completed"])
            time.sleep(0.1)

    def start_with(self, stored: int, outstanding: int) -> tuple[int, list[float]]:
        """Store jobs until there are `stored`, kill the service, and return how long three starts take."""
        with self.service() as service:
            missing = stored - self.completed()
            if missing > 0:
                self.run(self.port, missing, outstanding)
            stored = self.completed()
            service.end(signal.SIGKILL)
        taken = []
        for _ in range(3):
            started = time.monotonic()
            with self.service() as service:
                taken.append(time.monotonic() - started)
                service.end(signal.SIGKILL)
        return stored, taken


def median(rounds: list[dict[str, dict[str, float]]], who: str, what: str) -> float:
    """Return the median of a figure over the rounds."""
    return statistics.median(each[who][what] for each in rounds)


def report(rounds: list[dict[str, dict[str, float]]]) -> None:
    """Print the figures."""
    ratios = [each["service"]["rate"] / each["echo"]["rate"] for each in rounds]
    print(f"\n{'median of ' + str(len(rounds)) + ' rounds':<34}{'mqttjobs':>12}{'bare echo':>12}")
    for message, figure, alone in (
        ("state changes a second", "rate", False),
        ("processor time of each, µs", "cpu_us", False),
        ("resident memory, MiB", "memory_mib", False),
        ("one at a time: p50, ms", "p50_ms", True),
        ("one at a time: p99, ms", "p99_ms", True),
    ):
        own = median(rounds, "alone" if alone else "service", figure)
        bare = median(rounds, "echo_alone" if alone else "echo", figure)
        digits = 2 if alone else 0
        print(f"{message:<34}{own:>12,.{digits}f}{bare:>12,.{digits}f}")
    print(
        f"{'ratio to the bare echo':<34}{statistics.median(ratios):>12.2f}   ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20_000, help="state changes in each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure")
    parser.add_argument("--outstanding", type=int, default=100, help="state changes under way at once")
    parser.add_argument("--stored", type=int, default=100_000, help="jobs stored before starts are measured; 0: not")
    wanted = parser.parse_args()
    count = -(-wanted.count // WHOLE) * WHOLE
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mqttjobs-bench-")))
        bench = Bench(folder)
        stack.enter_context(bench.broker(bench.port))
        stack.enter_context(bench.broker(bench.echo_port))
        rounds = []
        for number in range(wanted.rounds):
            rounds.append(bench.round(count, wanted.outstanding))
            own, bare = rounds[-1]["service"]["rate"], rounds[-1]["echo"]["rate"]
            print(
                f"round {number + 1}: mqttjobs {own:,.0f}/s, bare echo {bare:,.0f}/s, ratio {own / bare:.2f}",
                flush=True,
            )
        report(rounds)
        with bench.service():
            completed = bench.completed()
        print(f"{'state changes and completed jobs':<34}{bench.changes:>12,}{completed:>12,}")
        if completed != bench.changes:
            raise SystemExit("they are not the same")
        if wanted.stored:
            stored, taken = bench.start_with(wanted.stored, wanted.outstanding)
            shown = ", ".join(f"{each:.2f}" for each in taken)
            print(f"{f'ready with {stored:,} stored jobs, s':<34}{min(taken):>12.2f}   ({shown})")


if __name__ == "__main__":
    main()
