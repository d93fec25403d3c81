"""The real program killed: activation, requests, retries and schedules continue after the next start."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import MosquittoBroker
from tests.clients import Client
from tests.running import RunningService, StartService

OPERATIONS: dict[str, Any] = {
    "slow": {
        "type": "script",
        "text": 'while [ ! -e "$GO" ]; do sleep 0.02; done; echo \'{"done": true}\'',
        "env": {"GO": "{{ params.go }}"},
        "delivery": "at_least_once",
        "attach": {"object": "desk"},
    },
    "say": {"type": "mqtt", "topic": "said", "message": "{{ job.id }}", "attach": {"object": "desk"}},
    "again": {
        "type": "script",
        "text": 'echo once >> "$FILE"; [ -e "$GO" ]',
        "env": {"GO": "{{ params.go }}", "FILE": "{{ params.file }}"},
        "retry": {"attempts": 3, "first": "2s", "factor": 1},
        "attach": {"object": "desk"},
    },
    "follow": {
        "type": "mqtt",
        "topic": "followed",
        "message": "{{ state }}",
        "triggers": [{}],
        "attach": {"object": "desk"},
    },
    "timed": {
        "type": "script",
        "text": 'date +%s%3N >> "$FILE"; [ -e "$GO" ]',
        "env": {"GO": "{{ params.go }}", "FILE": "{{ params.file }}"},
        "retry": {"attempts": 3, "first": "3s", "factor": 1},
    },
    "patient": {
        "type": "script",
        "text": '[ -e "$GO" ]',
        "env": {"GO": "{{ params.go }}"},
        "retry": {"attempts": 2, "first": "1h", "max": "1h"},
    },
    "yearly": {"type": "mqtt", "topic": "yearly", "message": "{{ job.id }}", "schedule": "0 0 1 1 *"},
    "never": {"type": "mqtt", "topic": "never", "message": "", "schedule": "0 0 1 1 *", "catch_up": False},
}
DESK = {
    "users": {"anonymous": {"permissions": ["admin"]}},
    "service": {"poll_window": "30s"},
    "objects": {"desk": {}},
    "operations": OPERATIONS,
}


@pytest.fixture
def service(mosquitto: MosquittoBroker, start_service: StartService) -> RunningService:
    return start_service(mosquitto.port, DESK)


def kill_and_restart(service: RunningService) -> None:
    service.kill()
    service.run()


def new_correlation() -> bytes:
    return uuid.uuid4().bytes


def count(client: Client, **filters: Any) -> int:
    return int(client.data("jobs/list", {"limit": 1, **filters})["total_items"])


@pytest.mark.proves("common", "activation outlives a kill")
def test_activation_survives_a_kill(service: RunningService) -> None:
    with service.client() as client:
        assert client.data("operations/deactivate", {"id": "say"})["active"] is False
        kill_and_restart(service)
        refused = client.ask("operations/execute", {"id": "say"})
        assert (refused["code"], refused["reason"]) == (409, "inactive")
        operation = client.data("operations/get", {"id": "say"})
        assert (operation["active"], operation["metadata"]["updated_by"]) == (False, "anonymous")
        client.data("operations/activate", {"id": "say"})
        kill_and_restart(service)
        assert client.ask("operations/execute", {"id": "say"})["code"] == 201


@pytest.mark.proves("common", "activation outlives a kill")
def test_after_a_kill_state_changes_start_active_operations_and_no_deactivated_ones(
    service: RunningService,
) -> None:
    with service.client() as client:
        client.subscribe("followed")
        desk = "mqttjobs/state/objects/desk"
        client.publish(desk, "1")
        assert client.wait_topic("followed").payload == b"1"
        client.data("operations/deactivate", {"id": "follow"})
        kill_and_restart(service)
        client.publish(desk, "2")
        assert client.data("operations/activate", {"id": "follow"})["active"] is True
        assert client.data("service/health")["counters"]["skipped_by_reason"] == {"inactive": 1}
        kill_and_restart(service)
        client.publish(desk, "3")
        client.wait_for(lambda each: each.topic == "followed" and each.payload == b"3")
        jobs = client.data("jobs/list", {"operation_id": "follow"})["items"]
        assert [job["process_meta"]["state"] for job in jobs] == ["3", "1"]


@pytest.mark.proves("common", "a request that is asked twice is done once, also when the service is killed between")
@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("operations/execute", {"id": "say"}),
        ("jobs/send", {"object": "desk", "method_name": "say"}),
        ("jobs/create", {"operation": {"type": "mqtt", "topic": "said", "message": "inline"}}),
        ("jobs/retry", {"id": 1}),
    ],
)
def test_a_request_repeated_after_a_kill_gets_its_first_response(
    service: RunningService, method: str, body: dict[str, Any]
) -> None:
    with service.client() as client:
        client.data("operations/execute", {"id": "say", "wait": True})
        client.subscribe("said")
        correlation = new_correlation()
        first = client.ask(method, body, correlation=correlation)
        assert first["code"] == 201
        client.wait_topic("said")
        kill_and_restart(service)
        assert client.ask(method, body, correlation=correlation) == first
        assert count(client) == 2
        assert client.ask(method, body, correlation=new_correlation())["code"] == 201
        assert count(client) == 3


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("jobs/add_result", {"id": 1, "payload": {"n": 1}}),
    ("jobs/progress", {"id": 1, "message": "half way"}),
    ("jobs/stop", {"id": 1}),
    ("jobs/delete", {"id": 2}),
    ("operations/deactivate", {"id": "say"}),
    ("states/set", {"object": "desk", "state": "tidy"}),
]


@pytest.mark.proves("common", "a request that is asked twice is done once, also when the service is killed between")
def test_a_request_with_a_transaction_is_done_once_and_has_one_response_over_a_kill(
    service: RunningService, tmp_path: Path
) -> None:
    with service.client() as client:

        def ask(transaction: str) -> list[Any]:
            return [client.ask(method, body | {"transaction": transaction}, how="mirror") for method, body in CHANGES]

        for _ in range(2):
            params = {"go": str(tmp_path / "go")}
            wait_retried(client, client.data("operations/execute", {"id": "patient", "params": params})["id"], 1)
        answers = ask("once")
        assert {answer["status"] for answer in answers} == {"ok"}
        changed = everything(client)
        kill_and_restart(service)
        assert ask("once") == answers
        assert everything(client) == changed
        codes = [200, 409, 409, 404, 200, 200]
        assert [answer["code"] for answer in ask("another")] == codes
        assert everything(client) != changed


def everything(client: Client) -> list[Any]:
    """Return everything that the requests of these tests can change."""
    questions = [
        ("jobs/get", {"id": 1}),
        ("jobs/list", {}),
        ("operations/get", {"id": "say"}),
        ("objects/get", {"id": "desk"}),
        ("states/history", {"object": "desk"}),
    ]
    return [client.ask(method, body) for method, body in questions]


@pytest.mark.proves("common", "a request that is asked twice is done once, also when the service is killed between")
def test_a_request_that_got_no_response_before_a_kill_is_repeated_and_done_once(service: RunningService) -> None:
    with service.client() as client:
        for number in range(1, 4):
            request = {"id": "say", "transaction": number}
            client.publish("mqttjobs/request/operations/execute", request)
            kill_and_restart(service)
            answer = client.ask("operations/execute", request, how="mirror")
            assert (answer["code"], answer["data"]["uid"]) == (201, number)
        kill_and_restart(service)
        assert count(client) == 3


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("operations/execute", {"id": "slow", "wait": True}),
        ("jobs/send", {"object": "desk", "method_name": "slow", "poll_result": True}),
    ],
)
def test_a_waiting_request_repeated_after_a_kill_gets_the_end_of_the_same_job(
    service: RunningService, tmp_path: Path, method: str, body: dict[str, Any]
) -> None:
    go = tmp_path / "go"
    request = {**body, "params": {"go": str(go)}, "transaction": "once"}
    with service.client() as client:
        client.publish(f"mqttjobs/request/{method}", request)
        client.until(lambda each: count(each, status="processing") == 1)
        kill_and_restart(service)
        client.subscribe(f"mqttjobs/response/{method}")
        client.publish(f"mqttjobs/request/{method}", request)
        client.until(lambda each: count(each, status="processing") == 1)
        go.touch()
        answer = client.wait_topic(f"mqttjobs/response/{method}").json
        assert (answer["code"], answer["transaction"]) == (200, "once")
        assert answer["data"].get("result", answer["data"].get("content")) == {"done": True}
        assert answer["data"]["uid"] == 1
        assert count(client) == 1


@pytest.mark.proves("common", "a waiting attempt outlives a kill")
def test_a_waiting_attempt_is_made_by_the_next_start(service: RunningService, tmp_path: Path) -> None:
    go, file = tmp_path / "go", tmp_path / "file"
    with service.client() as client:
        params = {"go": str(go), "file": str(file)}
        job = client.data("operations/execute", {"id": "again", "params": params})

        def attempts(each: Client) -> Any:
            return each.data("jobs/get", {"id": job["id"]})["timeline"][-1]["event"] == "retried"

        client.until(attempts)
        service.kill()
        go.touch()
        service.run()
        ended = client.until(
            lambda each: (found := each.data("jobs/get", {"id": job["id"]}))["status"] == "completed" and found
        )
        assert ended["attempts"] == 2
        assert file.read_text() == "once\n" * 2
        messages = [each["message"] for each in ended["timeline"] if each["event"] == "retried"]
        assert messages == ["Attempt 1 of 3 failed, next in 2s"]


@pytest.mark.proves("common", "a waiting attempt outlives a kill")
def test_each_back_off_survives_a_kill_and_attempts_are_counted_on(service: RunningService, tmp_path: Path) -> None:
    go, file = tmp_path / "go", tmp_path / "file"
    with service.client() as client:
        job_id = client.data("operations/execute", {"id": "timed", "params": {"go": str(go), "file": str(file)}})["id"]
        wait_retried(client, job_id, 1)
        kill_and_restart(service)
        wait_retried(client, job_id, 2)
        go.touch()
        kill_and_restart(service)
        job = client.until(lambda each: ended(each, job_id))
        assert (job["status"], job["attempts"]) == ("completed", 3)
        retried = [each for each in job["timeline"] if each["event"] == "retried"]
        assert [each["message"] for each in retried] == [
            f"Attempt {number} of 3 failed, next in 3s" for number in (1, 2)
        ]
        _, second, third = (int(line) for line in file.read_text().splitlines())
        for attempt, before in zip((second, third), retried, strict=True):
            assert attempt >= in_milliseconds(before["timestamp"]) + 3000


@pytest.mark.proves("common", "a waiting attempt outlives a kill")
def test_an_attempt_that_became_due_while_the_service_was_away_is_made_at_the_next_start(
    service: RunningService, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    with service.client() as client:
        job_id = client.data("operations/execute", {"id": "patient", "params": {"go": str(go)}})["id"]
        wait_retried(client, job_id, 1)
        kill_and_restart(service)
        job = client.data("jobs/get", {"id": job_id})
        assert (job["status"], job["attempts"], job["timeline"][-1]["event"]) == ("processing", 1, "retried")
        service.kill()
        go.touch()
        _fell_due(service.database, job["uid"], in_milliseconds(job["timeline"][-1]["timestamp"]), 3600)
        service.run()
        job = client.until(lambda each: ended(each, job_id))
        assert (job["status"], job["attempts"]) == ("completed", 2)


def wait_retried(client: Client, job_id: str, count: int) -> None:
    """Wait until `count` attempts of a job have failed and another is to come."""

    def waits(each: Client) -> bool:
        timeline = each.data("jobs/get", {"id": job_id})["timeline"]
        return [event["event"] for event in timeline].count("retried") == count

    client.until(waits)


def ended(client: Client, job_id: str) -> Any:
    job = client.data("jobs/get", {"id": job_id})
    return job if job["status"] not in ("submitted", "processing") else None


def in_milliseconds(timestamp: str) -> int:
    return round(datetime.fromisoformat(timestamp).timestamp() * 1000)


def _fell_due(database: Path, uid: int, failed_ms: int, back_off_s: int) -> None:
    """Store that the back-off of a job has ended, as if the service had been away for so long."""
    with sqlite3.connect(database) as db:
        assert db.execute("SELECT due_ms FROM jobs WHERE uid = ?", (uid,)).fetchone() == (
            failed_ms + back_off_s * 1000,
        )
        db.execute("UPDATE jobs SET due_ms = ? WHERE uid = ?", (failed_ms, uid))
    db.close()


@pytest.mark.proves("common", "a missed schedule outlives a kill")
def test_missed_times_of_a_schedule_run_once_at_the_next_start(service: RunningService) -> None:
    """Two missed times of a yearly schedule are one run; without catch_up they are none."""
    with service.client() as client:
        client.subscribe("yearly", "never")
        service.kill()
        _last_due(service.database, 3 * 366)
        service.run()
        job_id = client.wait_topic("yearly").payload.decode()
        job = client.data("jobs/get", {"id": job_id})
        assert (job["operation_id"], job["user_id"], job["process_meta"]) == ("yearly", "system", None)
        kill_and_restart(service)
        client.until(lambda each: each.data("service/health")["broker"]["connected"])
        operation = client.data("operations/get", {"id": "yearly"})
        assert operation["job_instances"] == {"total": 1, "running": 0, "last_ids": [job_id]}
        assert operation["next_trigger"] == client.data("operations/get", {"id": "never"})["next_trigger"]
        assert count(client, operation_id="never") == 0


def _last_due(database: Path, days: int) -> None:
    """Store that schedules were last due `days` days ago, as if the service had been away since."""
    stamp = round((time.time() - days * 86400) * 1000)
    with sqlite3.connect(database) as db:
        for name in ("yearly", "never"):
            facts = json.loads(db.execute("SELECT facts FROM facts WHERE id = ?", (name,)).fetchone()[0])
            assert facts["due_at"] is None
            text = json.dumps(facts | {"due_at": stamp})
            db.execute("UPDATE facts SET facts = ? WHERE id = ?", (text, name))
    db.close()


def test_results_progress_and_retries_survive_a_kill(service: RunningService, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with service.client() as client:
        job = client.data("operations/execute", {"id": "slow", "params": {"go": str(go)}})
        client.data("jobs/add_result", {"id": job["id"], "payload": {"n": 1}})
        client.data("jobs/progress", {"id": job["id"], "message": "half way"})
        retry = client.data("jobs/retry", {"id": job["id"]})
        kill_and_restart(service)
        after = client.data("jobs/get", {"id": job["id"]})
        assert [each["payload"] for each in after["results"]] == [{"n": 1}]
        assert {"progress", "retried"} <= {each["event"] for each in after["timeline"]}
        assert client.data("jobs/get", {"id": retry["id"]})["retry_of"] == job["id"]
        go.touch()
        client.until(lambda each: count(each, status="completed") == 2)
