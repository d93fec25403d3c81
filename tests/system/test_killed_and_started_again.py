"""The real program killed: what was promised by hand, by clock or by back-off is kept by the next start."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
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


def killed_and_started(service: RunningService) -> None:
    service.kill()
    service.run()


def mark() -> bytes:
    return uuid.uuid4().bytes


def count(client: Client, **filters: Any) -> int:
    return int(client.data("jobs/list", {"limit": 1, **filters})["total_items"])


def test_activation_survives(service: RunningService) -> None:
    with service.client() as client:
        assert client.data("operations/deactivate", {"id": "say"})["active"] is False
        killed_and_started(service)
        refused = client.ask("operations/execute", {"id": "say"})
        assert (refused["code"], refused["reason"]) == (409, "inactive")
        operation = client.data("operations/get", {"id": "say"})
        assert (operation["active"], operation["metadata"]["updated_by"]) == (False, "anonymous")
        client.data("operations/activate", {"id": "say"})
        killed_and_started(service)
        assert client.ask("operations/execute", {"id": "say"})["code"] == 201


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("operations/execute", {"id": "say"}),
        ("jobs/send", {"object": "desk", "method_name": "say"}),
        ("jobs/create", {"operation": {"type": "mqtt", "topic": "said", "message": "inline"}}),
        ("jobs/retry", {"id": 1}),
    ],
)
def test_a_request_asked_again_after_a_kill_is_given_its_first_answer(
    service: RunningService, method: str, body: dict[str, Any]
) -> None:
    with service.client() as client:
        client.data("operations/execute", {"id": "say", "wait": True})
        client.subscribe("said")
        correlation = mark()
        first = client.ask(method, body, correlation=correlation)
        assert first["code"] == 201
        client.wait_topic("said")
        killed_and_started(service)
        assert client.ask(method, body, correlation=correlation) == first
        assert count(client) == 2
        assert client.ask(method, body, correlation=mark())["code"] == 201
        assert count(client) == 3


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("operations/execute", {"id": "slow", "wait": True}),
        ("jobs/send", {"object": "desk", "method_name": "slow", "poll_result": True}),
    ],
)
def test_who_waited_while_it_was_killed_asks_again_and_gets_the_end_of_the_same_job(
    service: RunningService, tmp_path: Path, method: str, body: dict[str, Any]
) -> None:
    go = tmp_path / "go"
    question = {**body, "params": {"go": str(go)}, "transaction": "once"}
    with service.client() as client:
        client.publish(f"mqttjobs/request/{method}", question)
        client.until(lambda each: count(each, status="processing") == 1)
        killed_and_started(service)
        client.subscribe(f"mqttjobs/response/{method}")
        client.publish(f"mqttjobs/request/{method}", question)
        client.until(lambda each: count(each, status="processing") == 1)
        go.touch()
        answer = client.wait_topic(f"mqttjobs/response/{method}").json
        assert (answer["code"], answer["transaction"]) == (200, "once")
        assert answer["data"].get("result", answer["data"].get("content")) == {"done": True}
        assert answer["data"]["uid"] == 1
        assert count(client) == 1


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


@pytest.mark.proves("common", "activation, waiting attempts, missed schedules and repeated requests outlive a kill")
def test_what_a_schedule_missed_runs_once_at_the_next_start(service: RunningService) -> None:
    """Two new years that passed while nobody was there are one run; without catch_up they are none."""
    with service.client() as client:
        client.subscribe("yearly", "never")
        service.kill()
        _last_due(service.database, 3 * 366)
        service.run()
        job_id = client.wait_topic("yearly").payload.decode()
        job = client.data("jobs/get", {"id": job_id})
        assert (job["operation_id"], job["user_id"], job["process_meta"]) == ("yearly", "system", None)
        killed_and_started(service)
        client.until(lambda each: each.data("service/health")["broker"]["connected"])
        operation = client.data("operations/get", {"id": "yearly"})
        assert operation["job_instances"] == {"total": 1, "running": 0, "last_ids": [job_id]}
        assert operation["next_trigger"] == client.data("operations/get", {"id": "never"})["next_trigger"]
        assert count(client, operation_id="never") == 0


def _last_due(database: Path, days: int) -> None:
    """Write that schedules were last due so many days ago, as if the service had been away since."""
    stamp = round((time.time() - days * 86400) * 1000)
    with sqlite3.connect(database) as db:
        for name in ("yearly", "never"):
            facts = json.loads(db.execute("SELECT facts FROM facts WHERE id = ?", (name,)).fetchone()[0])
            assert facts["due_at"] is None
            text = json.dumps(facts | {"due_at": stamp})
            db.execute("UPDATE facts SET facts = ? WHERE id = ?", (text, name))
    db.close()


def test_results_progress_and_retries_of_before_the_kill_are_all_there(service: RunningService, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with service.client() as client:
        job = client.data("operations/execute", {"id": "slow", "params": {"go": str(go)}})
        client.data("jobs/add_result", {"id": job["id"], "payload": {"n": 1}})
        client.data("jobs/progress", {"id": job["id"], "message": "half way"})
        retry = client.data("jobs/retry", {"id": job["id"]})
        killed_and_started(service)
        after = client.data("jobs/get", {"id": job["id"]})
        assert [each["payload"] for each in after["results"]] == [{"n": 1}]
        assert {"progress", "retried"} <= {each["event"] for each in after["timeline"]}
        assert client.data("jobs/get", {"id": retry["id"]})["retry_of"] == job["id"]
        go.touch()
        client.until(lambda each: count(each, status="completed") == 2)
