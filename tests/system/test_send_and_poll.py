"""Send a job, poll for its result: every parameter and every status of that job system (contract 4 and 5)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import MosquittoBroker
from tests.clients import Client
from tests.running import RunningService, StartService, StartShared

GREETING = {
    "type": "object",
    "properties": {"to": {"type": "string", "minLength": 3}, "times": {"type": "integer", "default": 1}},
    "required": ["to"],
}
DESK: dict[str, Any] = {
    "service": {"poll_window": "600ms", "concurrency": 8},
    "objects": {"desk": {"properties": {"command_topic": "desk/set"}}, "lamp": {}},
    "links": {"cable": {"source": "desk", "target": "lamp"}},
    "operations": {
        "greet": {
            "attach": {"object": "desk"},
            "type": "script",
            "params": GREETING,
            "text": 'printf \'{"greeted": "%s", "times": %s}\' "$MQTTJOBS_PARAMS_TO" "$MQTTJOBS_PARAMS_TIMES"',
        },
        "told": {"attach": {"object": "desk"}, "type": "script", "text": "cat"},
        "session": {
            "attach": {"object": "desk"},
            "type": "script",
            "text": 'printf \'"%s"\' "$MQTTJOBS_EDITOR_SESSION"',
        },
        "say": {"attach": {"object": "desk"}, "type": "script", "text": "echo plain words"},
        "number": {"attach": {"object": "desk"}, "type": "script", "text": "echo 42"},
        "press": {
            "attach": [{"object": "desk"}, {"link": "cable"}],
            "type": "mqtt",
            "topic": "desk/set",
            "message": {"press": "{{ params.key }}"},
        },
        "slow": {
            "attach": {"object": "desk"},
            "type": "script",
            "text": 'echo "::message:: half way"; while [ ! -e "$GO" ]; do sleep 0.02; done; echo \'{"done": true}\'',
            "env": {"GO": "{{ params.go }}"},
        },
        "broken": {"attach": {"object": "desk"}, "type": "script", "text": "echo oh no >&2; exit 3"},
        "usage": {"attach": {"object": "desk"}, "type": "script", "text": "echo bad input >&2; exit 64"},
        "data": {"attach": {"object": "desk"}, "type": "script", "text": "echo bad data >&2; exit 65"},
        "nothing": {"attach": {"object": "desk"}, "type": "mqtt", "topic": "desk/set", "message": "{{ params.none }}"},
    },
}
FIELDS = {
    "uid", "id", "status", "message", "kind", "error_message", "error_stack_trace", "invalid_fields", "content",
}  # fmt: skip


@pytest.fixture(scope="module")
def service(start_shared: StartShared) -> RunningService:
    return start_shared(DESK)


@pytest.fixture
def desk(service: RunningService) -> Iterator[Client]:
    with service.client() as client:
        yield client


def send(client: Client, method: str, **more: Any) -> Any:
    return client.ask("jobs/send", {"object": "desk", "method_name": method, **more})


def count(client: Client) -> int:
    """Return how many jobs there are."""
    return int(client.data("jobs/list", {"limit": 1})["total_items"])


def polled(client: Client, job_id: str | int) -> Any:
    """Poll until the job has ended, as a caller of jobs/send does."""

    def ended(each: Client) -> Any:
        answer = each.ask("jobs/poll", {"id": job_id})
        assert answer["code"] in (200, 202), answer
        return answer["code"] == 200 and answer["data"]

    return client.until(ended)


@pytest.mark.proves("sending", "send a job", "the polling endpoint", "uid", "kind", "status success")
def test_a_job_is_sent_and_polled_until_it_has_ended(desk: Client) -> None:
    answer = send(desk, "greet", params={"to": "Ada"})
    assert answer["code"] == 201
    first = answer["data"]
    assert set(first) == FIELDS
    assert (first["status"], first["message"], first["kind"]) == ("message", "Job submitted", "script")
    assert all(first[name] is None for name in FIELDS - {"uid", "id", "status", "message", "kind"})
    last = polled(desk, first["id"])
    assert set(last) == FIELDS
    assert (last["uid"], last["id"], last["status"], last["kind"]) == (first["uid"], first["id"], "success", "script")
    assert last["content"] == {"greeted": "Ada", "times": 1}
    assert all(last[name] is None for name in ("message", "error_message", "error_stack_trace", "invalid_fields"))
    assert polled(desk, first["uid"]) == last


@pytest.mark.proves("sending", "poll_result, default false", "200: the full response")
def test_with_poll_result_the_response_comes_at_the_end(desk: Client) -> None:
    answer = send(desk, "greet", params={"to": "Ada", "times": 2}, poll_result=True)
    assert (answer["code"], answer["data"]["status"]) == (200, "success")
    assert answer["data"]["content"] == {"greeted": "Ada", "times": 2}


@pytest.mark.proves("sending", "201: poll for it", "message: progress", "status message")
def test_when_the_window_ends_first_the_response_is_201_with_the_progress(desk: Client, tmp_path: Path) -> None:
    go = tmp_path / "go"
    answer = send(desk, "slow", params={"go": str(go)}, poll_result=True)
    assert (answer["code"], answer["data"]["status"]) == (201, "message")
    job = answer["data"]["id"]
    desk.until(lambda each: each.data("jobs/poll", {"id": job})["message"] == "half way")
    answer = desk.ask("jobs/poll", {"id": job})
    assert (answer["code"], answer["data"]["status"], answer["data"]["content"]) == (202, "message", None)
    assert desk.data("jobs/progress", {"id": job, "message": "nearly there"})["message"] == "nearly there"
    assert desk.data("jobs/poll", {"id": job})["message"] == "nearly there"
    go.touch()
    last = polled(desk, job)
    assert (last["status"], last["message"], last["content"]) == ("success", None, {"done": True})
    timeline = desk.data("jobs/get", {"id": job})["timeline"]
    assert [each["message"] for each in timeline if each["event"] == "progress"] == ["half way", "nearly there"]
    again = desk.ask("jobs/progress", {"id": job, "message": "too late"})
    assert (again["code"], again["reason"]) == (409, "terminal_state")


@pytest.mark.proves("sending", "polling in the backend")
def test_a_waiting_send_delays_no_other_request(
    mosquitto: MosquittoBroker, start_service: StartService, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    service = start_service(mosquitto.port, DESK | {"service": {"poll_window": "60s", "concurrency": 40}})
    with service.client() as client:
        client.subscribe("mqttjobs/response/jobs/send")
        body = {"object": "desk", "method_name": "slow", "params": {"go": str(go)}, "poll_result": True}
        for number in range(30):
            client.publish("mqttjobs/request/jobs/send", {**body, "transaction": number})
        client.until(lambda each: each.data("jobs/list", {"status": "processing"})["total_items"] == 30)
        assert send(client, "say", poll_result=True)["data"]["status"] == "success"
        assert client.data("operations/list")["total_items"] == len(DESK["operations"])
        assert not [each for each in client.messages if each.topic == "mqttjobs/response/jobs/send"]
        go.touch()
        client.wait_count(lambda each: each.topic == "mqttjobs/response/jobs/send" and each.json["code"] == 200, 30)


@pytest.mark.proves("sending", "content")
@pytest.mark.parametrize(
    ("method", "content"),
    [
        ("greet", {"greeted": "Ada", "times": 1}),
        ("number", {"value": 42}),
        ("say", {"exitCode": 0, "stdout": "plain words\n"}),
        ("press", {"topic": "desk/set", "message": '{"press":"F1"}'}),
    ],
)
def test_content_is_the_result_if_it_is_an_object_else_the_value_else_the_description(
    desk: Client, method: str, content: Any
) -> None:
    answer = send(desk, method, params={"to": "Ada", "key": "F1"}, poll_result=True)
    assert answer["data"]["content"] == content


@pytest.mark.proves("sending", "status error", "error_message", "error_stack_trace")
@pytest.mark.parametrize(
    ("method", "status", "error", "trace"),
    [
        ("broken", "error", "exit code 3", {"exit_code": 3, "stderr": "oh no\n"}),
        ("usage", "error_user", "exit code 64", {"exit_code": 64, "stderr": "bad input\n"}),
        ("data", "error_user", "exit code 65", {"exit_code": 65, "stderr": "bad data\n"}),
        ("nothing", "error", "unknown variable", None),
    ],
)
def test_a_failed_job_has_its_cause_and_whether_the_input_was_wrong(
    desk: Client, method: str, status: str, error: str, trace: Any
) -> None:
    answer = send(desk, method, poll_result=True)
    assert (answer["code"], answer["status"], answer["data"]["status"]) == (200, "ok", status)
    assert error in answer["data"]["error_message"]
    assert answer["data"]["error_stack_trace"] == trace
    assert (answer["data"]["content"], answer["data"]["message"]) == (None, None)


@pytest.mark.proves("sending", "status stopped")
def test_a_stopped_job_has_the_status_stopped(desk: Client, tmp_path: Path) -> None:
    job = send(desk, "slow", params={"go": str(tmp_path / "never")})["data"]
    desk.data("jobs/stop", {"id": job["id"]})
    last = polled(desk, job["id"])
    assert last["status"] == "stopped"
    assert all(last[name] is None for name in FIELDS - {"uid", "id", "status", "kind"})


@pytest.mark.proves("sending", "status error_user", "invalid_fields")
@pytest.mark.parametrize("poll_result", [False, True])
def test_params_that_break_the_schema_are_a_recorded_failure_of_the_caller(desk: Client, poll_result: bool) -> None:
    answer = send(desk, "greet", params={"to": "x", "times": "often"}, poll_result=poll_result)
    assert (answer["code"], answer["status"]) == (200, "ok")
    sent = answer["data"]
    assert (sent["status"], sent["content"]) == ("error_user", None)
    assert sent["invalid_fields"] == {"to": ["must have at least 3 characters"], "times": ["must be of type integer"]}
    assert sent["error_message"] == "wrong params: to, times"
    job = desk.data("jobs/get", {"id": sent["id"]})
    assert (job["status"], job["error"], job["timestamp"], job["attempts"]) == (
        "failed", "wrong params: to, times", None, 0,
    )  # fmt: skip
    assert [each["event"] for each in job["timeline"]] == ["submitted", "failed"]
    assert job["params"] == {"to": "x", "times": "often"}
    assert desk.ask("jobs/poll", {"id": sent["uid"]}) | {"transaction": None} == answer | {"transaction": None}
    assert desk.data("jobs/list", {"status": "failed"})["items"][0] == job
    missing = send(desk, "greet")["data"]
    assert missing["invalid_fields"] == {"to": ["is required"]}


def test_the_end_of_a_refused_job_is_published_like_any_other(desk: Client) -> None:
    desk.subscribe("mqttjobs/event/job/#")
    sent = send(desk, "greet")["data"]
    event = desk.wait_topic("mqttjobs/event/job/failed/greet/desk").json
    assert (event["id"], event["error"]) == (sent["id"], "wrong params: to")


@pytest.mark.proves("sending", "editor_session", "events")
def test_params_events_and_session_reach_the_program_with_their_types(desk: Client) -> None:
    params = {"n": 1.5, "flag": True, "none": None, "deep": {"list": [1, "2"]}}
    answer = send(desk, "told", params=params, events=["opened", "saved"], poll_result=True)
    assert answer["data"]["content"]["params"] == params
    assert answer["data"]["content"]["events"] == ["opened", "saved"]
    job = desk.data("jobs/get", {"id": answer["data"]["id"]})
    assert (job["params"], job["events"]) == (params, ["opened", "saved"])
    assert (job["owner_id"], job["owner_type"], job["user_id"], job["process_meta"]) == (
        "desk", "1", "anonymous", None,
    )  # fmt: skip
    session = str(uuid.uuid4())
    assert send(desk, "session", editor_session=session, poll_result=True)["data"]["content"] == {"value": session}


@pytest.mark.proves("sending", "params, nullable")
def test_null_params_are_none(desk: Client) -> None:
    answer = send(desk, "told", params=None, poll_result=True, editor_session=None, arguments=None)
    assert answer["data"]["content"]["params"] == {}


@pytest.mark.proves("sending", "arguments (deprecated)", "method (deprecated)")
def test_the_deprecated_names_do_the_same(desk: Client) -> None:
    before = count(desk)
    answer = desk.ask("jobs/send", {"object": "desk", "method": "told", "arguments": {"a": 1}, "poll_result": True})
    assert answer["data"]["content"]["params"] == {"a": 1}
    both = {
        "object": "desk", "method": "told", "method_name": "told", "params": {"a": 1, "b": 2},
        "arguments": {"b": 2, "a": 1}, "poll_result": True,
    }  # fmt: skip
    assert desk.ask("jobs/send", both)["data"]["content"]["params"] == {"a": 1, "b": 2}
    for differing in ({"arguments": {"a": 1}}, {"arguments": {"a": True, "b": 2}}, {"method": "say"}):
        refused = desk.ask("jobs/send", both | differing)
        assert (refused["code"], refused["reason"]) == (400, "invalid_request")
        assert list(refused["invalid_fields"]) == list(differing)[:1]
    assert count(desk) == before + 2


@pytest.mark.proves("sending", "method_type")
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"method_name": None}, "method_name"),
        ({"method_name": ""}, "method_name"),
        ({"method_name": 5}, "method_name"),
        ({"method_type": ""}, "method_type"),
        ({"method_type": "mqtt"}, "method_type"),
        ({"params": [1]}, "params"),
        ({"params": "text"}, "params"),
        ({"events": "saved"}, "events"),
        ({"events": [1]}, "events"),
        ({"editor_session": "not-a-uuid"}, "editor_session"),
        ({"editor_session": ""}, "editor_session"),
        ({"editor_session": 5}, "editor_session"),
        ({"poll_result": "yes"}, "poll_result"),
        ({"poll_result": 1}, "poll_result"),
        ({"link": "cable"}, "object"),
        ({"object": None}, "object"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_a_wrong_parameter_is_named_and_nothing_is_recorded(desk: Client, wrong: dict[str, Any], field: str) -> None:
    good = {"object": "desk", "method_name": "told", "method_type": "script"}
    before = count(desk)
    refused = desk.ask("jobs/send", good | wrong)
    assert (refused["code"], refused["reason"], list(refused["invalid_fields"])) == (400, "invalid_request", [field])
    assert count(desk) == before
    assert desk.ask("jobs/send", good)["code"] == 201


@pytest.mark.proves("sending", "id of the entity", "method_name")
def test_a_method_runs_only_for_objects_and_links_that_it_is_attached_to(desk: Client) -> None:
    desk.subscribe("desk/set")
    for body in (
        {"object": "lamp", "method_name": "told"},
        {"link": "cable", "method_name": "told"},
        {"object": "desk", "method_name": "unheard_of"},
    ):
        refused = desk.ask("jobs/send", body)
        assert (refused["code"], refused["reason"], refused["error"]) == (404, "not_found", "Operation not found.")
    nobody = desk.ask("jobs/send", {"object": "nobody", "method_name": "told"})
    assert (nobody["code"], nobody["error"]) == (404, "Object not found.")
    body = {"link": "cable", "method_name": "press", "method_type": "mqtt", "params": {"key": "F1"}}
    sent = desk.ask("jobs/send", body)["data"]
    assert desk.wait_topic("desk/set").json == {"press": "F1"}
    job = desk.data("jobs/get", {"id": sent["id"]})
    assert (job["owner_id"], job["owner_type"]) == ("cable", "2")


def test_an_inactive_operation_cannot_be_sent(mosquitto: MosquittoBroker, start_service: StartService) -> None:
    off = {**DESK["operations"]["say"], "active": False}
    service = start_service(mosquitto.port, DESK | {"operations": {"say": off}})
    with service.client() as client:
        refused = send(client, "say")
        assert (refused["code"], refused["reason"]) == (409, "inactive")


@pytest.mark.parametrize("job_id", ["nonsense", "", 0, -1, 1.5, None, True, "x" * 100])
def test_an_invalid_id_is_400_and_an_unknown_one_404(desk: Client, job_id: Any) -> None:
    refused = desk.ask("jobs/poll", {"id": job_id})
    assert (refused["code"], list(refused["invalid_fields"])) == (400, ["id"])
    for unknown in (str(uuid.uuid4()), 999, "999"):
        gone = desk.ask("jobs/poll", {"id": unknown})
        assert (gone["code"], gone["reason"], gone["error"]) == (404, "not_found", "Job not found.")
