"""The command line as people and scripts use it: what it prints, where, and how it exits (contract 1)."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any, Self

import pytest

from tests.brokers import MosquittoBroker, StartMosquitto, free_port
from tests.running import RunningService, StartService, mqttjobs

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-alice-0123456789"

HALL: dict[str, Any] = {
    "objects": {"lamp": {"name": "Hall lamp", "state": {"topic": "home/lamp"}}, "door": {}},
    "links": {"both": {"source": "door", "target": "lamp"}},
    "operations": {
        "greet": {
            "attach": [{"object": "lamp"}, {"object": "door"}],
            "name": "Greet",
            "type": "script",
            "text": 'printf \'{"greeted": "%s", "n": %s}\' "$MQTTJOBS_PARAMS_TO" "${MQTTJOBS_PARAMS_N:-0}"',
            "params": {
                "type": "object",
                "properties": {"to": {"type": "string"}, "n": {"type": "integer"}},
                "required": ["to"],
            },
        },
        "fail": {"attach": {"object": "lamp"}, "type": "script", "text": "printf 'no \\033[31mpaper' >&2; exit 3"},
        "wait": {"attach": {"link": "both"}, "type": "script", "text": "echo '::message:: half'; exec sleep 600"},
        "an_operation_whose_name_is_longer_than_any_table_likes": {
            "attach": {"object": "lamp"},
            "type": "script",
            "text": "echo 'a long story about what went wrong, which nobody reads to its end' >&2; exit 1",
        },
    },
}


@pytest.fixture(params=["mosquitto", "embedded"])
def hall(
    request: pytest.FixtureRequest, start_service: StartService, start_mosquitto: StartMosquitto
) -> Iterator[RunningService]:
    """The service on a broker with MQTT 5, and on the embedded broker, which speaks only 3.1.1."""
    if request.param == "embedded":
        yield start_service(free_port(), HALL, arguments=["--embedded-broker"])
    else:
        yield start_service(start_mosquitto(autosave=False).port, HALL)


@pytest.fixture
def plain(start_service: StartService, start_mosquitto: StartMosquitto) -> RunningService:
    return start_service(start_mosquitto(autosave=False).port, HALL)


def run(service: RunningService, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a client command against a service."""
    return mqttjobs(*arguments, MQTTJOBS_URL=f"mqtt://127.0.0.1:{service.port}", **environment)


def test_jobs_are_started_listed_read_stopped_and_deleted(hall: RunningService) -> None:
    greeted = run(
        hall, "operations", "execute", "greet", "--object", "door", "--param", "to=Ada", "--param", "n=5", "--wait"
    )
    assert (greeted.returncode, greeted.stderr) == (0, "")
    assert "completed" in greeted.stdout
    assert '{"greeted": "Ada", "n": 5}' in greeted.stdout
    assert "object door" in greeted.stdout

    failed = run(hall, "operations", "execute", "fail", "--wait", "--json")
    assert (failed.returncode, json.loads(failed.stdout)["status"]) == (1, "failed")

    started = run(hall, "operations", "execute", "wait")
    assert started.returncode == 0
    uid = re.match(r"Job (\d+) (submitted|processing): [0-9a-f-]{36}\n", started.stdout)
    assert uid, started.stdout

    listed = run(hall, "jobs", "list")
    lines = listed.stdout.splitlines()
    assert lines[0].split() == [
        "uid",
        "status",
        "operation",
        "owner",
        "user",
        "created",
        "took",
        "error",
        "or",
        "message",
    ]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["3", "processing", "wait"], ["2", "failed", "fail"], ["1", "completed", "greet"],
    ]  # fmt: skip
    assert listed.stderr == "3 of 3 jobs (in all: 1 processing, 1 completed, 1 failed)\n"
    only = run(hall, "jobs", "list", "--status", "failed", "--status", "completed", "--limit", "1", "--json")
    assert json.loads(only.stdout)["total_items"] == 2
    assert [job["uid"] for job in json.loads(only.stdout)["items"]] == [2]

    stopped = run(hall, "jobs", "stop", uid[1])
    assert (stopped.returncode, "stopped" in stopped.stdout) == (0, True)
    again = run(hall, "jobs", "stop", uid[1])
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "Error: The job has already ended: the job is stopped\n"
    assert run(hall, "jobs", "delete", uid[1]).stdout == f"Job {uid[1]} is deleted.\n"
    gone = run(hall, "jobs", "get", uid[1])
    assert (gone.returncode, gone.stderr) == (1, f"Error: Job not found: no job has the id {uid[1]}\n")
    shown = run(hall, "jobs", "get", "2")
    assert "exit code 3: no \\x1b[31mpaper" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_operations_are_listed_and_read(plain: RunningService) -> None:
    listed = run(plain, "operations", "list", "--object", "lamp")
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == [
        "greet",
        "fail",
        list(HALL["operations"])[3],
    ]
    assert listed.stderr == "3 of 3 operations\n"
    shown = run(plain, "operations", "get", "greet")
    assert re.search(r"^Attached to +object lamp, object door *$", shown.stdout, re.MULTILINE), shown.stdout
    raw = json.loads(run(plain, "operations", "get", "greet", "--json").stdout)
    assert (raw["id"], raw["job_name"], raw["type"]) == ("greet", "Greet", "script")


def test_wrong_usage_is_reported_and_exits_with_2(plain: RunningService) -> None:
    for arguments, message in [
        (["jobs", "list", "--status", "done"], "'done' is not one of"),
        (["jobs", "list", "--limit", "101"], "Invalid value for '--limit'"),
        (["jobs", "lst"], "No such command 'lst'"),
        (["jobs", "get"], "Missing argument 'ID'"),
        (["operations", "execute", "greet", "--param", "to"], "to"),
        (["operations", "execute", "greet", "--object", "lamp", "--link", "both"], "not both"),
        (["jobs", "list", "--user", "a/b"], "a user name has no"),
        (["jobs", "list", "--base-topic", "a/#"], "must be a plain topic"),
        (["run", "--log-format", "xml", "x.yaml"], "'xml' is not one of"),
        (["demo", "--duration", "soon"], "a duration is"),
    ]:
        refused = run(plain, *arguments)
        assert (refused.returncode, refused.stdout) == (2, ""), arguments
        assert message in refused.stderr, (arguments, refused.stderr)
    asked = run(plain, "operations", "execute", "greet", "--object", "lamp", "--wait")
    assert (asked.returncode, asked.stderr) == (1, "Error: Invalid request: wrong params: to\n  to: is required\n")
    several = run(plain, "operations", "execute", "greet", "--param", "to=Ada")
    assert several.returncode == 1
    assert "object" in several.stderr


def test_without_a_response_the_error_says_what_to_check(plain: RunningService, mosquitto: MosquittoBroker) -> None:
    nobody = mqttjobs("jobs", "list", "--url", f"mqtt://127.0.0.1:{free_port()}")
    assert nobody.returncode == 1
    assert "cannot reach the broker" in nobody.stderr
    assert "--url (MQTTJOBS_URL)" in nobody.stderr
    empty = mqttjobs("jobs", "list", "--url", f"mqtt://someone:s3cret@127.0.0.1:{mosquitto.port}", "--timeout", "3")
    assert empty.returncode == 1
    assert "no service runs there with the base topic 'mqttjobs'" in empty.stderr
    assert "s3cret" not in empty.stderr
    plain.stop()
    offline = run(plain, "jobs", "get", "1", "--timeout", "1")
    assert offline.returncode == 1
    assert "nobody listens" in offline.stderr or "offline" in offline.stderr
    for failed in (nobody, empty, offline):
        assert failed.stderr.startswith("Error: ")
        assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("url", ["http://hub:1883", "hub", "mqtt://", "mqtt://someone:s3cret@hub:99999"])
def test_a_url_of_no_broker_is_refused_with_how_it_should_look(url: str) -> None:
    for command in (("jobs", "list"), ("jobs", "watch")):
        refused = mqttjobs(*command, "--url", url)
        assert refused.returncode == 1
        assert refused.stderr.startswith("Error: --url (MQTTJOBS_URL) must be like mqtt://host:1883"), refused.stderr
        assert "s3cret" not in refused.stderr


def test_a_3_1_1_broker_without_a_service_is_reported_too(start_service: StartService) -> None:
    service = start_service(free_port(), HALL, arguments=["--embedded-broker"])
    silent = run(service, "jobs", "list", "--base-topic", "elsewhere", "--timeout", "1")
    assert silent.returncode == 1
    assert "no answer within 1 s to elsewhere/request/jobs/list" in silent.stderr
    assert "No service has announced itself on elsewhere/status" in silent.stderr


def test_keys_lanes_and_permissions(start_service: StartService, start_mosquitto: StartMosquitto) -> None:
    users = {"alice": {"api_key": KEY, "permissions": ["job:read"]}, "bob": {"permissions": ["operation:read"]}}
    config = HALL | {"users": users, "mqtt": {"trust_user_lanes": True}}
    service = start_service(start_mosquitto(autosave=False).port, config)
    for wrong in ({}, {"MQTTJOBS_API_KEY": KEY[:-1] + "x"}):
        refused = run(service, "jobs", "list", **wrong)
        assert refused.returncode == 1
        assert refused.stderr.startswith("Error: API key required: ")
        assert "Give a key with --api-key or MQTTJOBS_API_KEY" in refused.stderr
        assert KEY[:-1] not in refused.stderr
    assert run(service, "jobs", "list", MQTTJOBS_API_KEY=KEY).returncode == 0
    assert run(service, "jobs", "list", "--api-key", KEY, "--user", "alice").returncode == 0
    refused = run(service, "operations", "execute", "fail", MQTTJOBS_API_KEY=KEY)
    assert (refused.returncode, refused.stderr) == (1, "Error: Forbidden: missing permission: operation:execute\n")
    assert run(service, "operations", "list", MQTTJOBS_USER="bob").returncode == 0


def test_jobs_are_followed_until_interrupted(hall: RunningService) -> None:
    as_json = "--embedded-broker" in hall.arguments
    with watching(hall, *(["--json"] if as_json else [])) as watch:
        with hall.client(protocol="3.1.1") as client:
            # until the first job is printed: nothing shows that the watcher has subscribed
            while not watch.lines:
                client.data("operations/execute", {"id": "greet", "object": "lamp", "params": {"to": "Ada"}})
                watch.wait(0.3)
            client.data("operations/execute", {"id": "fail"})
            watch.wait_for("failed")
        watch.process.send_signal(signal.SIGINT)
        assert watch.process.wait(20) == 130
    if as_json:
        assert {json.loads(line)["status"] for line in watch.lines} >= {"completed", "failed"}
    else:
        assert any(
            re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  #\d+  failed +fail  lamp  .*exit code 3.*", line.rstrip())
            for line in watch.lines
        ), watch.lines
    assert watch.errors == ""


def test_following_survives_a_restart_of_the_broker(mosquitto: MosquittoBroker, start_service: StartService) -> None:
    service = start_service(mosquitto.port, HALL)
    with watching(service) as watch:
        with service.client() as client:
            while not watch.lines:
                client.data("operations/execute", {"id": "fail", "wait": True})
                watch.wait(0.3)
        mosquitto.restart()
        service.wait_event("connected", 2)
        before = len(watch.lines)
        with service.client() as client:
            while len(watch.lines) == before:
                client.data("operations/execute", {"id": "fail", "wait": True})
                watch.wait(0.3)
        watch.process.send_signal(signal.SIGTERM)
        watch.process.wait(20)
    assert "was lost; trying again" in watch.errors
    assert "connected again" in watch.errors


class Watching:
    """`mqttjobs jobs watch` in a pipe, and the lines that it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.errors = ""
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line

    def wait(self, seconds: float) -> None:
        """Wait for a line, at most for `seconds`."""
        with self._changed:
            self._changed.wait(seconds)

    def wait_for(self, word: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: any(word in line for line in self.lines), 20), self.lines


def watching(service: RunningService, *arguments: str) -> Watching:
    return Watching(
        subprocess.Popen(
            [sys.executable, "-m", "mqttjobs", "jobs", "watch", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "MQTTJOBS_URL": f"mqtt://127.0.0.1:{service.port}"},
        )
    )


def test_a_wait_that_is_interrupted_exits_with_130_and_the_job_goes_on(plain: RunningService) -> None:
    environment = {**os.environ, "MQTTJOBS_URL": f"mqtt://127.0.0.1:{plain.port}"}
    command = [sys.executable, "-m", "mqttjobs", "operations", "execute", "wait", "--wait"]
    with (
        plain.client() as client,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        client.until(lambda each: each.data("jobs/list", {"status": "processing"})["total_items"] == 1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
        assert b"Traceback" not in errors
        assert client.data("jobs/list", {"status": "processing"})["total_items"] == 1


def on_terminal(service: RunningService, *arguments: str, columns: int) -> list[str]:
    """Run a command on a terminal of `columns` columns and return the lines that are shown, without colours."""
    leader, follower = pty.openpty()
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    environment |= {"MQTTJOBS_URL": f"mqtt://127.0.0.1:{service.port}", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "mqttjobs", *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
    )
    os.close(follower)
    shown = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and select.select([leader], [], [], 30)[0]:
        try:
            data = os.read(leader, 65_536)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(leader)
    assert process.wait(20) == 0, shown
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "").splitlines()


def test_tables_fit_the_terminal_and_show_the_error(plain: RunningService) -> None:
    with plain.client() as client:
        for operation in ("fail", list(HALL["operations"])[3]):
            client.data("operations/execute", {"id": operation, "wait": True})
        client.data("operations/execute", {"id": "wait"})
        client.until(lambda each: each.data("jobs/list", {"status": "processing"})["total_items"] == 1)
    jobs = on_terminal(plain, "jobs", "list", columns=80)
    operations = on_terminal(plain, "operations", "list", columns=80)
    assert max(map(len, jobs + operations)) <= 80
    text = "\n".join(jobs)
    assert re.search(r"^ *1 +failed +fail +lamp +\d\d:\d\d:\d\d +\d\S*s +exit code 3: ", text, re.MULTILINE), text
    assert re.search(r"^ *2 +failed +an_operati\w*… +lamp ", text, re.MULTILINE), text
    assert "user" not in text
    assert re.search(r"^ *greet +script +yes +none yet +on_demand", "\n".join(operations), re.MULTILINE)
    wide = on_terminal(plain, "jobs", "list", columns=140)
    assert max(map(len, wide)) <= 140
    assert " anonymous " in "\n".join(wide)


def test_the_shipped_configurations_are_valid(tmp_path: Path) -> None:
    for file in ("config/mqttjobs.yaml", "config/demo.yaml"):
        checked = mqttjobs("check", str(ROOT / file), cwd=tmp_path)
        assert (checked.returncode, checked.stderr) == (0, "")
        assert checked.stdout.startswith(f"{ROOT / file} is good.\nobjects ")
    nothing = mqttjobs("check", cwd=tmp_path)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "config/mqttjobs.yaml:0: there is no such file" in nothing.stderr
    assert re.fullmatch(r"mqttjobs \d+\.\d+\.\d+\n", mqttjobs("--version").stdout)
    for command in ([], ["jobs"], ["operations"], ["run"], ["check"], ["demo"], ["jobs", "watch"]):
        helped = mqttjobs(*command, "--help")
        assert (helped.returncode, helped.stderr) == (0, "")


def test_the_demo_runs_shows_jobs_and_ends_by_itself(tmp_path: Path) -> None:
    shown = mqttjobs("demo", "--duration", "4s", "--port", str(free_port()), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3}  #1  completed   light_on  hall_lights", shown.stdout, re.MULTILINE)
    assert "mqttjobs jobs list" in shown.stderr
    assert not list(tmp_path.iterdir()), "nothing is kept"


def test_the_demo_fails_when_the_requested_port_is_taken(mosquitto: MosquittoBroker) -> None:
    taken = mqttjobs("demo", "--duration", "1s", "--port", str(mosquitto.port))
    assert taken.returncode == 1
    assert taken.stderr.splitlines()[-1].startswith("Error: the embedded broker cannot listen on 127.0.0.1:")


def test_the_embedded_broker_listens_on_this_machine_only(tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text("mqtt: {url: 'mqtt://0.0.0.0:1883'}\nobjects: {lamp: {}}\n")
    refused = mqttjobs("run", "far.yaml", "--embedded-broker", cwd=tmp_path)
    assert refused.returncode == 1
    assert "listens on loopback addresses only" in refused.stderr
    (tmp_path / "tls.yaml").write_text("mqtt: {url: 'mqtts://127.0.0.1:1883'}\nobjects: {lamp: {}}\n")
    assert mqttjobs("run", "tls.yaml", "--embedded-broker", cwd=tmp_path).returncode == 2
