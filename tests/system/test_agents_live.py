"""Real agents over a real broker: killed, drained, frozen, and sent forged messages (contract 6; behaviour 3.3)."""

from __future__ import annotations

import json
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mqttjobs.domain.signatures import signed
from tests.brokers import MosquittoBroker
from tests.clients import Client
from tests.running import RunningAgent, RunningService, mqttjobs

StartService = Callable[..., RunningService]
KEY = "what only we and the service know"
SHELL = {"type": "script", "attach": {"object": "hall"}}
INSTALLATION: dict[str, Any] = {
    "agents": {"key": KEY},
    "users": {"anonymous": {"permissions": ["admin"]}},
    "objects": {"hall": {"properties": {"place": "first floor"}}},
    "operations": {
        "where": {**SHELL, "target": "_all", "text": 'echo "::message:: here"; echo "$MQTTJOBS_AGENT"'},
        "slow": {**SHELL, "target": "_all", "timeout": "4s", "text": "sleep 3"},
        "steady": {**SHELL, "target": "web1", "timeout": "60s", "text": "sleep 3"},
        "any": {**SHELL, "target": "_any", "text": "echo done"},
        "hang": {**SHELL, "target": "web1", "timeout": "60s", "text": "sleep 600 & echo $! > pid; sleep 600"},
        "again": {
            **SHELL, "target": "web1", "delivery": "at_least_once", "text": "echo run >> runs; sleep 600 & sleep 600",
        },
        "say": {
            "type": "mqtt", "attach": {"object": "hall"}, "target": "group:web.dev", "topic": "said/{{ id }}",
            "message": {"place": "{{ properties.place }}", "to": "{{ params.to }}"},
        },
        "close": {
            **SHELL, "target": "group:web", "timeout": "60s", "env": {"GO": "{{ params.go }}"},
            "text": 'while [ ! -e "$GO-$MQTTJOBS_AGENT" ]; do sleep 0.02; done\n'
            '[ "$MQTTJOBS_AGENT" = web1 ] || { echo "it is stuck" >&2; exit 3; }\n'
            'echo \'{"closed": 4, "changed": true}\'',
        },
        "secret": {**SHELL, "target": "web1", "env": {"TOKEN": "${ENV:AGENT_TOKEN}"}, "text": 'echo "$TOKEN"'},
    },
}  # fmt: skip

StartAgent = Callable[..., RunningAgent]


@pytest.fixture
def start_agent(tmp_path: Path, mosquitto: MosquittoBroker) -> Iterator[StartAgent]:
    """Start the real program as an agent; running agents are killed after the test."""
    agents: list[RunningAgent] = []

    def start(hostname: str, *arguments: str, key: str = KEY, cwd: Path | None = None) -> RunningAgent:
        folder = tmp_path / f"agent-{hostname}"
        agent = RunningAgent(folder, mosquitto.port, hostname, key, *arguments, cwd=cwd)
        agents.append(agent)
        agent.start()
        return agent

    yield start
    for agent in agents:
        agent.kill()


@pytest.fixture
def service(mosquitto: MosquittoBroker, start_service: StartService) -> RunningService:
    return start_service(mosquitto.port, INSTALLATION, environment={"AGENT_TOKEN": "of the service"})


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with service.client() as connected:
        connected.subscribe("mqttjobs/event/rejected", "said/#")
        yield connected


def wait_state(client: Client, *hostnames: str, state: str = "ready") -> None:
    def all_in_state(asked: Client) -> bool:
        agents = {each["hostname"]: each["state"] for each in asked.data("agents/list")["items"]}
        return all(agents.get(hostname) == state for hostname in hostnames)

    client.until(all_in_state, within_s=40)


def run(client: Client, operation: str, **more: Any) -> str:
    started: str = client.data("operations/execute", {"id": operation, **more})["id"]
    return started


def ended(client: Client, job_id: str) -> dict[str, Any]:
    return client.ended(job_id, within_s=40)


def started_on(client: Client, job_id: str, *hostnames: str) -> None:
    def have(asked: Client) -> bool:
        states = asked.data("jobs/get", {"id": job_id})["agent_states"]
        return all(states.get(hostname, {}).get("status") == "started" for hostname in hostnames)

    client.until(have)


@pytest.mark.slow
def test_three_agents_of_which_one_is_killed_one_drained_and_one_frozen(
    client: Client, start_agent: StartAgent
) -> None:
    web1, _, web3 = (start_agent(name) for name in ("web1", "web2", "web3"))
    wait_state(client, "web1", "web2", "web3")
    job = ended(client, run(client, "where"))
    assert (job["status"], job["result"], set(job["responses"])) == ("completed", None, {"web1", "web2", "web3"})
    for hostname, answer in job["responses"].items():
        assert answer["data"] == {"exitCode": 0, "stdout": f"{hostname}\n"}
    messages = {each["hostname"]: each["message"] for each in job["timeline"] if each["event"] == "progress"}
    assert messages == dict.fromkeys(("web1", "web2", "web3"), "here")

    job_id = run(client, "slow")
    started_on(client, job_id, "web1", "web2", "web3")
    web1.kill()
    assert client.data("agents/drain", {"hostname": "web2"})["state"] == "draining"
    web3.signal(signal.SIGSTOP)
    job = ended(client, job_id)
    assert job["status"] == "partial_failure"
    assert {host: answer["status"] for host, answer in job["responses"].items()} == {
        "web1": "failed", "web2": "completed", "web3": "failed",
    }  # fmt: skip
    for silent in ("web1", "web3"):
        assert job["responses"][silent]["error"] == "timeout: agent did not respond"
    wait_state(client, "web2", state="cordoned")

    web3.signal(signal.SIGCONT)
    web1.start()

    def late(asked: Client) -> Any:
        found = asked.data("jobs/get", {"id": job_id})
        reported = [(each["hostname"], each["event"]) for each in found["timeline"]]
        return found if reported.count(("web1", "failed")) == 2 and ("web3", "completed") in reported else None

    job = client.until(late, within_s=40)
    assert (job["status"], job["responses"]["web3"]["status"]) == ("partial_failure", "completed")
    assert "interrupted" in [each["error"] for each in job["timeline"]]
    wait_state(client, "web1", "web3")
    job = ended(client, run(client, "where"))
    assert (job["status"], set(job["responses"])) == ("completed", {"web1", "web3"})


@pytest.mark.proves("listing", "partial_failure", "responses with status, data, changed, error, hostname")
@pytest.mark.proves("definitions", "Dynamic_robots, Robot_id, Robot_name")
def test_a_broadcast_that_fails_on_one_agent_is_a_partial_failure(
    client: Client, start_agent: StartAgent, tmp_path: Path
) -> None:
    client.subscribe("mqttjobs/event/job/#")
    for hostname, group in (("web1", "web.hall"), ("web2", "web.attic"), ("db1", "db")):
        start_agent(hostname, "--label", f"group={group}")
    wait_state(client, "web1", "web2", "db1")
    assert robots(client) == ("scheduled", 0, None, None)

    job_id = run(client, "close", params={"go": str(tmp_path / "go")})
    started_on(client, job_id, "web1", "web2")
    (tmp_path / "go-web1").touch()
    job = client.until(lambda asked: (found := asked.data("jobs/get", {"id": job_id}))["responses"] and found)
    assert (job["status"], list(job["responses"]), job["error"]) == ("processing", ["web1"], "")
    assert robots(client) == ("running", 2, "web1", "web1")

    (tmp_path / "go-web2").touch()
    event = client.wait_topic("mqttjobs/event/job/partial_failure/close/hall").json
    job = client.data("jobs/get", {"id": job_id})
    for document in (event, job):
        assert (document["id"], document["status"], document["error"]) == (job_id, "partial_failure", "")
        assert (document["result"], document["changed"], document["hostname"]) == (None, True, "web2")
    error = "exit code 3: it is stuck"
    assert job["responses"] == {
        "web1": {"status": "completed", "data": {"closed": 4, "changed": True}, "changed": True, "error": "",
                 "hostname": "web1"},
        "web2": {"status": "failed", "data": {"exitCode": 3, "stdout": ""}, "changed": None, "error": error,
                 "hostname": "web2"},
    }  # fmt: skip
    assert {host: (state["status"], state["error"]) for host, state in job["agent_states"].items()} == {
        "web1": ("completed", ""), "web2": ("failed", error),
    }  # fmt: skip
    listed = client.data("jobs/list", {"status": "partial_failure"})
    assert [each["id"] for each in listed["items"]] == [job_id]
    assert (listed["total_items"], listed["status_counts"]["partial_failure"]) == (1, 1)
    assert robots(client) == ("failed", 2, "web2", "web2")

    client.data("agents/drain", {"hostname": "web2"})
    wait_state(client, "web2", state="cordoned")
    job = ended(client, run(client, "close", params={"go": str(tmp_path / "go")}))
    assert (job["status"], list(job["responses"])) == ("completed", ["web1"])
    assert robots(client) == ("completed", 1, "web1", "web1")


def robots(client: Client) -> tuple[str, int, str | None, str | None]:
    """Return the status of the operation `close`, how many agents took part, and the id and name of the last."""
    operation = client.data("operations/get", {"id": "close"})
    context = operation["job_context"]
    assert context["machine_id"] == context["device_name"] == context["robot_id"]
    return operation["status"], context["dynamic_robots"], context["robot_id"], context["robot_name"]


def test_an_agent_that_is_killed_leaves_no_orphans_and_reports_by_delivery(
    client: Client, start_agent: StartAgent
) -> None:
    agent = start_agent("web1")
    wait_state(client, "web1")
    for operation in ("hang", "again"):
        job_id = run(client, operation)
        started_on(client, job_id, "web1")
        sleepers = wait_for_sleepers(job_id)
        agent.kill()
        agent.start()
        wait_until(lambda: not sleepers & working_on(job_id))  # noqa: B023 - it is called here
        if operation == "hang":
            job = ended(client, job_id)
            assert (job["status"], job["error"]) == ("failed", "interrupted")
            assert not working_on(job_id)
        else:
            assert wait_for_sleepers(job_id)
            client.data("jobs/stop", {"id": job_id})
            wait_until(lambda: not working_on(job_id))  # noqa: B023 - it is called here
    assert not [each for each in client.messages if each.topic == "mqttjobs/event/rejected"]


def working_on(job_id: str) -> set[int]:
    """Return the processes that have a job in their environment."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if f"MQTTJOBS_JOB_ID={job_id}".encode() in (entry / "environ").read_bytes():
                    found.add(int(entry.name))
    return found


def wait_until(check: Callable[[], Any], within_s: float = 20) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := check()):
        assert time.monotonic() < deadline, "the condition did not become true"
        threading.Event().wait(0.05)
    return found


def wait_for_sleepers(job_id: str) -> set[int]:
    """Wait until the script and both of its children run, and return the processes."""
    found: set[int] = wait_until(lambda: working_on(job_id) if len(working_on(job_id)) >= 3 else None)
    return found


def test_forged_and_replayed_messages_run_nothing(client: Client, start_agent: StartAgent, tmp_path: Path) -> None:
    start_agent("web1")
    wait_state(client, "web1")
    client.subscribe("mqttjobs/agents/web1/assign", "mqttjobs/agents/web1/report")
    proof = tmp_path / "proof"
    assignment = {
        "hostname": "web1",
        "job_id": "0193aaaa-0000-7000-8000-000000000001",
        "attempt": 1,
        "token": "t" * 32,
        "operation": {"type": "script", "text": f"echo run >> {proof}"},
        "params": {},
        "timeout": 10,
        "expires_at": milliseconds_from_now(60),
    }
    stale = {**assignment, "expires_at": milliseconds_from_now(-1), "token": "u" * 32}
    tries = [
        (assignment, "unsigned"),
        (signed(assignment, "a guess"), "forged"),
        ({**signed(assignment, KEY), "token": "v" * 32}, "forged"),
        (signed({**assignment, "hostname": "web2"}, KEY), "forged"),
        (signed(stale, KEY), "stale"),
        (signed({**assignment, "attempt": 0}, KEY), "invalid_message"),
        ({"command": "drain", "expires_at": milliseconds_from_now(60)}, "unsigned"),
    ]
    for body, reason in tries:
        since = len(client.messages)
        topic = f"mqttjobs/agents/web1/{'control' if 'command' in body else 'assign'}"
        client.publish(topic, body)
        reported = client.wait_topic("mqttjobs/event/rejected", since=since).json
        assert (reported["topic"], reported["reason"]) == (topic, reason)
    assert not proof.exists()

    good = json.dumps(signed(assignment, KEY))
    client.publish("mqttjobs/agents/web1/assign", good)
    client.wait_for(lambda each: each.topic.endswith("/report") and each.json["event"] == "completed")
    assert proof.read_text() == "run\n"
    since = len(client.messages)
    client.publish("mqttjobs/agents/web1/assign", good)
    reasons = client.wait_for(
        lambda each: each.topic.endswith("/rejected") and each.json["reason"] == "replayed", since=since
    )
    assert reasons.json["topic"] == "mqttjobs/agents/web1/assign"
    ended(client, run(client, "any"))
    assert proof.read_text() == "run\n"


def milliseconds_from_now(seconds: float) -> int:
    return round((time.time() + seconds) * 1000)


def test_an_agent_runs_a_program_that_only_its_machine_has(
    client: Client, start_agent: StartAgent, tmp_path: Path, service: RunningService
) -> None:
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    program = cwd / "only-here"
    program.write_text('#!/bin/sh\necho "{\\"at\\": \\"$MQTTJOBS_AGENT\\", \\"changed\\": true}"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    config = {**INSTALLATION, "operations": {"own": {"type": "program", "path": str(program), "target": "web1"}}}
    service.write_config(config)
    client.data("config/reload")
    start_agent("web1", cwd=cwd)
    wait_state(client, "web1")
    job = ended(client, run(client, "own"))
    assert (job["status"], job["result"], job["changed"]) == ("completed", {"at": "web1", "changed": True}, True)


def test_an_mqtt_operation_is_published_by_the_agent(client: Client, start_agent: StartAgent) -> None:
    start_agent("web1", "--label", "group=web.dev.blue")
    start_agent("web2", "--label", "group=web.prod")
    wait_state(client, "web1", "web2")
    job = ended(client, run(client, "say", params={"to": "Ada"}))
    assert client.wait_topic("said/hall").json == {"place": "first floor", "to": "Ada"}
    assert (job["status"], job["changed"], set(job["responses"])) == ("completed", True, {"web1"})
    assert job["description"] == {"topic": "said/hall", "message": '{"place":"first floor","to":"Ada"}'}


def test_a_secret_is_the_agents_own_and_never_sent(client: Client, start_agent: StartAgent) -> None:
    client.subscribe("mqttjobs/agents/#")
    start_agent("web1")
    wait_state(client, "web1")
    job = ended(client, run(client, "secret"))
    assert (job["status"], job["error"]) == ("failed", "the agent web1 has no ENV:AGENT_TOKEN")
    assert not [each for each in client.messages if b"of the service" in each.payload or KEY.encode() in each.payload]


def test_a_stopped_agent_ends_its_jobs_and_publishes_offline(client: Client, start_agent: StartAgent) -> None:
    agent = start_agent("web1")
    wait_state(client, "web1")
    job_id = run(client, "hang")
    started_on(client, job_id, "web1")
    wait_for_sleepers(job_id)
    assert agent.stop() == 0
    job = ended(client, job_id)
    assert (job["status"], job["error"]) == ("failed", "interrupted")
    assert client.data("agents/get", {"hostname": "web1"})["state"] == "offline"
    assert not working_on(job_id)


@pytest.mark.slow
def test_outcomes_while_the_broker_is_away_are_reported_after_the_reconnect(
    client: Client, start_agent: StartAgent, mosquitto: MosquittoBroker, service: RunningService
) -> None:
    start_agent("web1")
    wait_state(client, "web1")
    job_id = run(client, "steady")
    started_on(client, job_id, "web1")
    mosquitto.kill()
    threading.Event().wait(4)
    mosquitto.start()
    service.wait_event("connected", 2)  # a killed broker may have lost the session, and then queues nothing
    with Client(mosquitto.port) as again:
        job = ended(again, job_id)
        assert job["status"] == "completed"
        assert [each["event"] for each in job["timeline"]] == ["submitted", "acknowledged", "started", "completed"]


def test_the_command_line_of_agents(client: Client, start_agent: StartAgent, mosquitto: MosquittoBroker) -> None:
    start_agent("web1", "--label", "group=web")
    wait_state(client, "web1")
    url = f"--url=mqtt://127.0.0.1:{mosquitto.port}"
    listed = mqttjobs("agents", "list", url)
    assert (listed.returncode, "web1" in listed.stdout, "group=web" in listed.stdout) == (0, True, True)
    assert json.loads(mqttjobs("agents", "get", "web1", "--json", url).stdout)["labels"] == {"group": "web"}
    assert "draining" in mqttjobs("agents", "drain", "web1", url).stdout
    wait_state(client, "web1", state="cordoned")
    assert mqttjobs("agents", "undrain", "web1", url).returncode == 0
    wait_state(client, "web1")
    assert mqttjobs("agents", "get", "nobody", url).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "MQTTJOBS_AGENT_KEY"),
        (("--key-file", "/nowhere"), "cannot be read"),
        (("--key-file", "/etc/hostname", "--hostname", "a b"), "--hostname"),
        (("--key-file", "/etc/hostname", "--hostname", "_all"), "--hostname"),
        (("--key-file", "/etc/hostname", "--label", "group"), "--label"),
        (
            ("--url", "http://hub"),
            "--url must be like mqtt://host:1883; the known schemes are memory, mqtt, mqtts",
        ),
        (("--url", "mqtt://"), "--url must be like mqtt://host:1883"),
        (("--url", "memory://hub", "--ca-file", "ca.pem"), "have no use with memory: URLs"),
    ],
)
def test_wrong_options_of_an_agent_exit_with_2_and_a_message(arguments: tuple[str, ...], message: str) -> None:
    ran = mqttjobs("agent", *arguments, MQTTJOBS_AGENT_KEY="")
    assert ran.returncode == 2
    assert message in ran.stderr


def test_two_agents_cannot_share_a_state_directory(start_agent: StartAgent, client: Client, tmp_path: Path) -> None:
    agent = start_agent("web1")
    wait_state(client, "web1")
    ran = mqttjobs("agent", "--hostname", "web2", "--state-dir", str(agent.directory / "state"), MQTTJOBS_AGENT_KEY=KEY)
    assert ran.returncode == 1
    assert "another agent" in ran.stderr
