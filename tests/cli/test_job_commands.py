"""`mqttjobs jobs …` and `mqttjobs operations …` on a running service, for people and for scripts."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.running import RunningService, StartShared, mqttjobs

KEYS = {name: f"{name}-has-this-key-alone" for name in ("alice", "carol")}
WAIT = 'echo "::message:: half way"; while [ ! -e "$GO" ]; do sleep 0.02; done; echo \'{"done": true}\''
DESK: dict[str, Any] = {
    "mqtt": {"trust_user_lanes": True},
    "users": {
        "alice": {"api_key": KEYS["alice"], "permissions": ["admin"]},
        "carol": {"api_key": KEYS["carol"], "permissions": ["operation:execute"]},
    },
    "objects": {"desk": {}, "lamp": {}},
    "operations": {
        "slow": {
            "attach": [{"object": "desk"}, {"object": "lamp"}],
            "type": "script",
            "text": WAIT,
            "env": {"GO": "{{ params.go }}"},
        },
        "say": {"attach": {"object": "desk"}, "type": "mqtt", "topic": "said", "message": "{{ params.word }}"},
        "broken": {"attach": {"object": "desk"}, "type": "script", "text": "echo oh no >&2; exit 3"},
    },
}


@pytest.fixture(scope="module")
def service(start_shared: StartShared) -> RunningService:
    return start_shared(DESK)


class Shell:
    """Runs commands against the service, as alice unless the environment names another user."""

    def __init__(self, port: int) -> None:
        self.environment = {"MQTTJOBS_URL": f"mqtt://127.0.0.1:{port}", "MQTTJOBS_API_KEY": KEYS["alice"]}

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return mqttjobs(*arguments, **{**self.environment, **environment})

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mqttjobs", *arguments]
        environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm", **self.environment}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, **more)


@pytest.fixture
def shell(service: RunningService) -> Shell:
    return Shell(service.port)


def started(shell: Shell, go: Path) -> Any:
    """Start a job that runs until the file `go` exists."""
    return shell.json("operations", "execute", "slow", "--object", "desk", "--param", f"go={go}")


@pytest.mark.proves("common", "all of it from the command line")
def test_executing_with_wait_prints_the_progress_messages_and_the_result(shell: Shell, tmp_path: Path) -> None:
    go = tmp_path / "go"
    arguments = ["operations", "execute", "slow", "--object", "desk", "--param", f"go={go}", "--wait"]
    with shell.start(*arguments, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline().decode().strip() == "half way"
        assert process.poll() is None
        go.touch()
        output = process.stdout.read().decode()
        assert process.wait(30) == 0
    assert "completed" in output
    assert '{"done": true}' in output


def test_on_a_terminal_the_wait_is_one_live_line(shell: Shell, tmp_path: Path) -> None:
    go = tmp_path / "go"
    ours, theirs = pty.openpty()
    arguments = ["operations", "execute", "slow", "--object", "desk", "--param", f"go={go}", "--wait"]
    with shell.start(*arguments, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while b"half way" not in seen:
            seen += os.read(ours, 1000)
        shown = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen).decode()
        assert re.search(r"job \d+ processing \d+ s +half way", shown), shown
        go.touch()
        drained = threading.Thread(target=_drain, args=(ours,))
        drained.start()
        assert process.wait(30) == 0
        drained.join(10)
    os.close(ours)


def _drain(terminal: int) -> None:
    """Read the rest, so that the program does not hang on a full terminal."""
    try:
        while os.read(terminal, 1000):
            pass
    except OSError:
        pass  # the other end is closed


def test_a_script_gets_the_job_as_json_and_an_exit_code(shell: Shell) -> None:
    good = shell("operations", "execute", "say", "--param", "word=hello", "--wait", "--json")
    assert (good.returncode, good.stderr) == (0, "")
    job = json.loads(good.stdout)
    assert (job["status"], job["description"]["message"], job["user_id"]) == ("completed", "hello", "alice")
    bad = shell("operations", "execute", "broken", "--wait")
    assert bad.returncode == 1
    assert "oh no" in bad.stdout
    nothing = shell("operations", "execute", "nothing", "--wait")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "Operation not found" in nothing.stderr


def test_ctrl_c_ends_the_wait_with_130_and_the_job_goes_on(shell: Shell, tmp_path: Path) -> None:
    go = tmp_path / "go"
    arguments = ["operations", "execute", "slow", "--object", "lamp", "--param", f"go={go}", "--wait"]
    with shell.start(*arguments, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    [job] = shell.json("jobs", "list", "--object", "lamp")["items"]
    assert job["status"] == "processing"
    go.touch()


def test_a_job_is_stopped_retried_and_deleted(shell: Shell, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = started(shell, go)
    stopped = shell("jobs", "stop", str(job["uid"]))
    assert stopped.returncode == 0
    assert "stopped" in stopped.stdout
    again = shell("jobs", "stop", job["id"])
    assert (again.returncode, "already ended" in again.stderr) == (1, True)
    go.touch()
    retried = shell.json("jobs", "retry", job["id"])
    assert retried.keys() == {"id", "uid", "status"}
    assert shell.json("jobs", "get", retried["id"])["retry_of"] == job["id"]
    elsewhere = shell("jobs", "retry", job["id"], "--target", "elsewhere")
    assert (elsewhere.returncode, "target" in elsewhere.stderr) == (1, True)
    deleted = shell("jobs", "delete", str(job["uid"]))
    assert deleted.stdout.strip() == f"Job {job['uid']} is deleted."
    assert shell("jobs", "get", job["id"]).returncode == 1
    assert shell("jobs", "get", "nonsense").returncode == 1


def test_an_operation_is_switched_off_and_on(shell: Shell) -> None:
    assert shell.json("operations", "deactivate", "broken")["active"] is False
    refused = shell("operations", "execute", "broken")
    assert (refused.returncode, "inactive" in refused.stderr) == (1, True)
    assert [each["id"] for each in shell.json("operations", "list", "--inactive")["items"]] == ["broken"]
    on = shell("operations", "activate", "broken")
    assert on.returncode == 0
    assert shell.json("operations", "get", "broken")["active"] is True


def test_a_key_or_a_lane_in_an_option_or_the_environment_names_the_caller(shell: Shell) -> None:
    def caller(*arguments: str, **environment: str) -> Any:
        done = shell("operations", "execute", "say", "--param", "word=hi", "--json", *arguments, **environment)
        if done.returncode:
            return done.stderr
        return shell.json("jobs", "get", json.loads(done.stdout)["id"])["user_id"]

    no_key = {"MQTTJOBS_API_KEY": ""}
    assert caller() == "alice"
    assert caller("--api-key", KEYS["carol"]) == "carol"
    assert caller(MQTTJOBS_API_KEY=KEYS["carol"]) == "carol"
    assert caller("--user", "carol", **no_key) == "carol"
    assert caller(MQTTJOBS_USER="carol", **no_key) == "carol"
    assert "API key required" in caller("--api-key", "wrong")
    assert "API key required" in caller("--user", "carol")


def test_a_caller_that_may_run_and_not_read_sees_the_missing_permission(shell: Shell) -> None:
    listed = shell("operations", "list", MQTTJOBS_API_KEY=KEYS["carol"])
    assert listed.returncode == 0
    assert "say" in listed.stdout
    ran = shell("operations", "execute", "say", "--param", "word=hi", "--wait", MQTTJOBS_API_KEY=KEYS["carol"])
    assert ran.returncode == 1
    assert "was started" in ran.stderr
    assert "job:read" in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["operations", "execute", "say", "--param", "word"],
        ["operations", "execute", "say", "--param", "a=1", "--param", "a=2"],
        ["operations", "execute", "slow", "--object", "desk", "--link", "x"],
        ["operations", "execute"],
        ["jobs", "list", "--limit", "101"],
        ["jobs", "list", "--status", "finished"],
        ["jobs", "retry"],
    ],
)
def test_wrong_usage_exits_with_2(shell: Shell, arguments: list[str]) -> None:
    assert shell(*arguments).returncode == 2
