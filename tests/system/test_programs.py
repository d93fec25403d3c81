"""Programs and scripts of the real service: ended in time with all their processes, and recovered after a kill."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import StartMosquitto
from tests.clients import Client
from tests.running import RunningService, StartService

GRACE_S = 0.5
STUBBORN = """
trap '' TERM
(trap '' TERM; exec sleep 300) &
echo $$ $! > pids-$MQTTJOBS_JOB_ID.new && mv pids-$MQTTJOBS_JOB_ID.new pids-$MQTTJOBS_JOB_ID
while :; do sleep 300; done
"""
"""A shell and a child that both ignore TERM and write their process ids to a file."""

CONFIG: dict[str, Any] = {
    "service": {"grace": GRACE_S},
    "objects": {"press": {"state": {"topic": "plant/press"}}},
    "operations": {
        "limited": {"attach": {"object": "press"}, "type": "script", "text": STUBBORN, "timeout": 1},
        "endless": {"attach": {"object": "press"}, "type": "script", "text": STUBBORN},
        "hung": {"attach": {"object": "press"}, "type": "script", "text": "exec sleep 600"},
        "again": {"attach": {"object": "press"}, "type": "script", "text": STUBBORN, "delivery": "at_least_once"},
        "exec": {
            "attach": {"object": "press"},
            "type": "program",
            "path": "/bin/echo",
            "args": ["{{ state }}", "; id"],
        },
        "missing": {"attach": {"object": "press"}, "type": "program", "path": "/no/such/program"},
        "flood": {"attach": {"object": "press"}, "type": "script", "text": "yes 0123456789 | head -c 20000000; exit 0"},
        "print": {
            "attach": {"object": "press"},
            "type": "script",
            "text": 'cat "$FILE"; [ -z "$FAULT" ] || { echo "$FAULT" >&2; exit 3; }',
            "env": {"FILE": "{{ params.file }}", "FAULT": "{{ params.fault }}"},
        },
        "progress": {
            "attach": {"object": "press"},
            "type": "script",
            "text": "echo '::message:: half'; cat; echo; env | cut -d= -f1 | sort | tr '\\n' ' '",
        },
        "pass_on": {
            "attach": {"object": "press"},
            "type": "mqtt",
            "topic": "out/press",
            "message": "{{ state }}",
            "triggers": [{}],
        },
    },
}


@pytest.fixture
def plant(start_mosquitto: StartMosquitto, start_service: StartService) -> Iterator[tuple[RunningService, Client]]:
    service = start_service(start_mosquitto(autosave=False).port, CONFIG)
    with service.client() as client:
        client.subscribe("out/#", "mqttjobs/event/job/#")
        yield service, client


def start(client: Client, operation: str) -> str:
    """Start an operation and return its job's id."""
    job_id: str = client.data("operations/execute", {"id": operation})["id"]
    return job_id


def job_of(client: Client, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = client.data("jobs/get", {"id": job_id})
    return job


def pids_of(service: RunningService, job_id: str) -> list[int]:
    """Return the processes of a stubborn job once it has written their ids."""
    file = _folder(service) / f"pids-{job_id}"
    _wait(file.exists, f"{file} was not written")
    pids = [int(each) for each in file.read_text().split()]
    file.unlink()
    return pids


def _folder(service: RunningService) -> Path:
    return service.directory


def _wait(check: Any, message: str, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, message
        threading.Event().wait(0.02)


def gone(pids: list[int]) -> bool:
    """Whether none of these processes runs; a zombie does not run."""
    for pid in pids:
        with suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z":
                return False
    return True


def test_a_time_limit_ends_the_whole_group_even_one_that_ignores_term(plant: tuple[RunningService, Client]) -> None:
    service, client = plant
    job_id = start(client, "limited")
    pids = pids_of(service, job_id)
    reported = client.wait_for(lambda each: each.topic == "mqttjobs/event/job/failed/limited/press").json
    job = job_of(client, job_id)
    assert reported["id"] == job_id
    assert (job["status"], job["error"], job["description"]["exitCode"]) == ("failed", "timed out after 1s", 124)
    assert gone(pids)
    began, ended = (_at(job, event) for event in ("started", "failed"))
    assert 1.0 + GRACE_S <= ended - began < 1.0 + GRACE_S + 3.0, "limit + grace, and some time on a busy machine"


def _at(job: dict[str, Any], event: str) -> float:
    return datetime.fromisoformat(
        next(each for each in job["timeline"] if each["event"] == event)["timestamp"]
    ).timestamp()


@pytest.mark.parametrize("method", ["jobs/stop", "jobs/delete"])
def test_a_stop_ends_the_whole_group(plant: tuple[RunningService, Client], method: str) -> None:
    service, client = plant
    job_id = start(client, "endless")
    pids = pids_of(service, job_id)
    assert not gone(pids)
    assert client.ask(method, {"id": job_id})["status"] == "ok"
    _wait(lambda: gone(pids), "the processes are still running")
    if method == "jobs/stop":
        assert job_of(client, job_id)["status"] == "stopped"
    else:
        assert client.ask("jobs/get", {"id": job_id})["code"] == 404
    _wait(lambda: client.data("service/health")["queue"]["running"] == 0, "its slot is not free again")


def test_a_clean_stop_of_the_service_ends_running_programs(plant: tuple[RunningService, Client]) -> None:
    service, client = plant
    pids = pids_of(service, start(client, "endless"))
    assert service.stop() == 0
    assert gone(pids)


def test_no_program_outlives_a_kill_and_each_job_is_recovered_by_its_delivery(
    plant: tuple[RunningService, Client],
) -> None:
    service, client = plant
    once, again = start(client, "endless"), start(client, "again")
    pids = [*pids_of(service, once), *pids_of(service, again)]
    shells = pids[::2]
    service.kill()
    _wait(lambda: gone(shells), "a program outlives the service")
    service.run()
    assert (job_of(client, once)["status"], job_of(client, once)["error"]) == ("failed", "interrupted")
    pids += pids_of(service, again)
    job = job_of(client, again)
    assert job["status"] == "processing"
    assert job["attempts"] == 1, "the interrupted attempt is not counted"
    assert client.data("jobs/stop", {"id": again})["status"] == "stopped"
    _wait(lambda: gone(pids[4:]), "the processes are still running")
    for shell in shells:
        with suppress(ProcessLookupError):
            os.killpg(shell, signal.SIGKILL)  # children of a killed service's scripts are still running


@pytest.mark.alone
def test_thirty_hung_scripts_do_not_delay_the_lights(plant: tuple[RunningService, Client]) -> None:
    _, client = plant
    for _ in range(40):
        start(client, "hung")
    client.until(lambda each: each.data("jobs/list", {"status": "processing"})["total_items"] == 32)
    took_s = []
    for number in range(20):
        since = len(client.messages)
        began = time.monotonic()
        client.publish("plant/press", str(number))
        assert client.wait_topic("out/press", since=since).payload == str(number).encode()
        took_s.append(time.monotonic() - began)
    assert sorted(took_s)[10] < 0.5, took_s
    assert client.data("jobs/list", {"status": "submitted"})["total_items"] == 8, "eight jobs wait for a slot"


def test_a_program_gets_its_arguments_input_and_environment_without_a_shell(
    plant: tuple[RunningService, Client],
) -> None:
    _, client = plant
    client.publish("plant/press", b"$(id) `id` 'on'")
    client.wait_topic("out/press")
    job = client.data("operations/execute", {"id": "exec", "wait": True})
    assert job["description"] == {"exitCode": 0, "stdout": "$(id) `id` 'on' ; id\n"}
    missing = client.data("operations/execute", {"id": "missing", "wait": True})
    assert (missing["status"], missing["description"]["exitCode"]) == ("failed", 127)
    assert missing["error"] == "/no/such/program not found"
    job = client.data("operations/execute", {"id": "progress", "wait": True})
    given, names = job["description"]["stdout"].splitlines()
    assert '"state":"$(id) `id` \'on\'"' in given
    assert {"HOME", "PATH", "MQTTJOBS_ID", "MQTTJOBS_STATE", "MQTTJOBS_JOB_ID", "MQTTJOBS_AGENT"} <= set(names.split())
    others = {each for each in names.split() if not each.startswith("MQTTJOBS_")}
    assert others <= {"HOME", "LANG", "PATH", "PWD", "SHLVL", "_", "OLDPWD"}, "the shell's own at most"
    assert [each["message"] for each in job["timeline"] if each["event"] == "progress"] == ["half"]


def test_a_flood_of_output_is_kept_in_part_without_growing_memory(plant: tuple[RunningService, Client]) -> None:
    service, client = plant
    assert service.process is not None
    before = _peak_kib(service.process.pid)
    job = client.data("operations/execute", {"id": "flood", "wait": True})
    assert (job["status"], job["result"]) == ("completed", None)
    assert len(job["description"]["stdout"]) < 70_000
    assert "left out" in job["description"]["stdout"]
    assert "truncated" in job["timeline"][-1]["message"] + job["timeline"][-1]["error"]
    assert _peak_kib(service.process.pid) - before < 20_000


def _peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


# -- output at the limit of 64 KiB and beyond it -----------------------------------------------------------------------

LIMIT = 64 * 1024
HALF = LIMIT // 2
OVER = [LIMIT + 1, LIMIT + HALF - 1, 20 * LIMIT]


def json_of_size(size: int) -> str:
    """Return a JSON array of `size` bytes over many different lines, so that every cut shows."""
    numbers = [str(10**11 + number) for number in range((size - 2) // 14)]
    text = "[" + ",\n".join(numbers)
    return text + " " * (size - 1 - len(text)) + "]"


def printed(client: Client, file: Path, text: str, fault: str = "") -> dict[str, Any]:
    """Return the ended job of a script that prints `text`, and fails with `fault` if there is one."""
    file.write_text(text)
    params = {"file": str(file), "fault": fault}
    job: dict[str, Any] = client.data("operations/execute", {"id": "print", "params": params, "wait": True})
    return job


@pytest.mark.proves("operations", "description.stdout")
@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT])
def test_output_of_up_to_64_kib_is_whole(plant: tuple[RunningService, Client], tmp_path: Path, size: int) -> None:
    _, client = plant
    text = json_of_size(size)
    assert len(text) == size
    job = printed(client, tmp_path / "text", text)
    assert (job["status"], job["description"]) == ("completed", {"exitCode": 0, "stdout": text})
    assert job["result"] == json.loads(text)
    assert job["responses"]["hub"]["data"] == job["result"]
    last = job["timeline"][-1]
    assert (last["event"], last["message"], last["error"]) == ("completed", "Job completed successfully on hub", "")


@pytest.mark.proves("operations", "description.stdout")
@pytest.mark.parametrize("size", OVER)
def test_output_beyond_64_kib_has_head_and_tail_and_no_result(
    plant: tuple[RunningService, Client], tmp_path: Path, size: int
) -> None:
    _, client = plant
    text = json_of_size(size)
    job = printed(client, tmp_path / "text", text)
    left_out = size - LIMIT
    kept = f"{text[:HALF]}\n[… {left_out} bytes left out …]\n{text[-HALF:]}"
    assert (job["status"], job["description"], job["result"]) == ("completed", {"exitCode": 0, "stdout": kept}, None)
    assert job["responses"]["hub"]["data"] == job["description"]
    last = job["timeline"][-1]
    assert (last["event"], last["message"], last["error"]) == (
        "completed", "Job completed successfully on hub",
        f"output truncated: {left_out} bytes of standard output left out",
    )  # fmt: skip


def test_a_failure_with_more_than_64_kib_of_output_keeps_the_programs_error(
    plant: tuple[RunningService, Client], tmp_path: Path
) -> None:
    _, client = plant
    text = json_of_size(2 * LIMIT)
    job = printed(client, tmp_path / "text", text, fault="no paper")
    assert (job["status"], job["error"], job["result"]) == ("failed", "exit code 3: no paper", None)
    assert job["description"]["stdout"].startswith(f"{text[:HALF]}\n[… {LIMIT} bytes left out …]\n")
    error = job["timeline"][-1]["error"]
    assert error.startswith("exit code 3: no paper\nno paper\n")
    assert error.endswith(f"\noutput truncated: {LIMIT} bytes of standard output left out")
