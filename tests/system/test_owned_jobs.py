"""Jobs of operations attached to objects, links and classes: that job system, field by field."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.clients import Client, milliseconds_now
from tests.running import RunningService, StartShared

CONFIG: dict[str, Any] = {
    "users": {
        "anonymous": {"permissions": ["admin"]},
        "alice": {"api_key": "alice-has-this-key", "permissions": ["job:read", "job:write", "operation:execute"]},
    },
    "classes": {
        "belt": {
            "ids": ["belt_{1..3}"],
            "name": "Belt {{ id }}",
            "properties": {"hall": 2},
            "state": {"topic": "plant/{{ id }}/belt", "value": "speed"},
            "attributes": {"motor": {"topic": "plant/{{ id }}/motor"}},
        }
    },
    "objects": {
        "motion": {"state": {"topic": "motion", "value": "occupancy", "map": {"true": "occupied", "false": "clear"}}},
        "lamp": {"name": "Lamp", "properties": {"command_topic": "lamp/set"}},
        "sensor": {},
    },
    "links": {"motion_lamp": {"source": "motion", "target": "lamp"}},
    "operations": {
        "light": {
            "attach": {"link": "motion_lamp"},
            "type": "mqtt",
            "topic": "{{ target.properties.command_topic }}",
            "message": {"state": "{{ state }}", "was": "{{ previous_state }}"},
            "triggers": [{"states": ["occupied", "clear"]}],
        },
        "seen": {
            "attach": {"object": "motion"},
            "type": "script",
            "text": 'printf "%s after %s" "$MQTTJOBS_STATE" "$MQTTJOBS_PREVIOUS_STATE"',
            "triggers": [{"states": ["occupied"]}],
        },
        "any": {"attach": {"object": "sensor"}, "type": "mqtt", "topic": "any", "message": "", "triggers": [{}]},
        "halt": {
            "attach": {"class": "belt"},
            "type": "mqtt",
            "topic": "halt/{{ id }}",
            "message": {"hall": "{{ properties.hall }}", "name": "{{ name }}"},
            "triggers": [{"states": ["0"]}, {"attribute": "motor", "states": ["hot"]}],
        },
        "exit": {"attach": {"object": "lamp"}, "type": "script", "text": "echo words; exit 7"},
        "press": {"attach": {"object": "lamp"}, "type": "mqtt", "topic": "lamp/press", "message": "{{ params.key }}"},
    },
}


@pytest.fixture(scope="module")
def service(start_shared: StartShared) -> RunningService:
    return start_shared(CONFIG)


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with service.client() as client:
        client.subscribe("mqttjobs/event/job/#")
        yield client


def job_of_next_event(client: Client, status: str, operation: str, owner: str, since: int = 0) -> Any:
    """Return the whole document of the job of the next matching job event."""
    event = client.wait_topic(f"mqttjobs/event/job/{status}/{operation}/{owner}", since=since).json
    return client.data("jobs/get", {"id": event["id"]})


def run(client: Client, operation: str, **more: Any) -> Any:
    return client.data("operations/execute", {"id": operation, "wait": True, **more})


@pytest.mark.proves(
    "operations",
    "every execution of an operation creates a job",
    "operation_id",
    "description.topic",
    "description.message",
)
def test_a_job_of_a_link_in_every_field_of_the_model(client: Client) -> None:
    client.publish("motion", {"occupancy": False})
    client.publish("motion", {"occupancy": True})
    client.wait_count(lambda each: each.topic.endswith("completed/light/motion_lamp"), 2)
    job = client.data("jobs/list", {"operation_id": "light", "limit": 1})["items"][0]
    assert (job["operation_id"], job["user_id"]) == ("light", "system")
    assert (job["owner_id"], job["owner_type"]) == ("motion_lamp", "2")
    assert isinstance(job["timestamp"], int)
    created = datetime.fromisoformat(job["created"]).timestamp() * 1000
    assert abs(job["timestamp"] - created) < 10_000
    assert job["description"] == {"topic": "lamp/set", "message": '{"state":"occupied","was":"clear"}'}
    assert job["results"] == []
    meta = job["process_meta"]
    assert meta["triggerStates"] == ["occupied", "clear"]
    assert (meta["state"], meta["previous_state"], meta["attribute"]) == ("occupied", "clear", None)
    assert (meta["topic"], meta["reported_by"]) == ("motion", None)
    assert abs(datetime.fromisoformat(meta["received_at"]).timestamp() * 1000 - created) < 10_000


@pytest.mark.proves("operations", "owner_type 1 object, 2 link", "description")
def test_a_job_of_an_object_in_every_field_of_the_model(client: Client) -> None:
    client.publish("motion", {"occupancy": False})
    client.publish("motion", {"occupancy": True})
    job = job_of_next_event(client, "completed", "seen", "motion")
    assert (job["owner_id"], job["owner_type"], job["user_id"]) == ("motion", "1", "system")
    assert job["description"] == {"exitCode": 0, "stdout": "occupied after clear"}
    assert job["process_meta"]["triggerStates"] == ["occupied"]


@pytest.mark.proves("operations", "process_meta.triggerStates")
def test_the_states_of_a_trigger_without_states_are_the_new_one(client: Client) -> None:
    topic = "mqttjobs/state/objects/sensor"
    report = {"state": 21.5, "by": "thermometer", "event_id": "e-1", "reason": "hourly"}
    client.publish(topic, report)
    client.publish(topic, report | {"state": 22})
    client.publish(topic, "23")
    client.wait_count(lambda each: each.topic.endswith("completed/any/sensor"), 2)
    jobs = client.until(lambda each: len(found := each.data("jobs/list", {"object": "sensor"})["items"]) == 2 and found)
    metas = [job["process_meta"] for job in jobs[::-1]]
    assert [meta["triggerStates"] for meta in metas] == [["21.5"], ["23"]]
    assert [meta["reported_by"] for meta in metas] == ["thermometer", None]
    assert [job["user_id"] for job in jobs] == ["system", "system"]


@pytest.mark.proves("operations", "owner_id")
def test_the_time_that_a_report_gives_is_shown_beside_the_time_of_its_receipt(client: Client) -> None:
    topic = "mqttjobs/state/objects/sensor"
    sent = {"state": 30.5, "by": "thermometer", "timestamp": 1_772_366_400_007}
    client.subscribe("mqttjobs/event/rejected")
    before = time.time()
    client.publish(topic, sent)
    client.publish(topic, sent | {"state": 31, "timestamp": "now"})
    refused = client.wait_topic("mqttjobs/event/rejected").json
    assert (refused["topic"], refused["reason"]) == (topic, "invalid_report")
    client.publish(topic, "32")
    client.wait_count(lambda each: each.topic.endswith("completed/any/sensor"), 2)
    jobs = client.data("jobs/list", {"object": "sensor", "limit": 2})["items"][::-1]
    metas = [job["process_meta"] for job in jobs]
    assert [meta["state"] for meta in metas] == ["30.5", "32"]
    assert [meta["reported_at"] for meta in metas] == ["2026-03-01T12:00:00.007Z", None]
    assert all(datetime.fromisoformat(meta["received_at"]).timestamp() > before - 1 for meta in metas)
    entries = client.data("states/history", {"object": "sensor", "limit": 2})["items"][::-1]
    assert [(each["state"], each["reported_at"]) for each in entries] == [
        ("30.5", "2026-03-01T12:00:00.007Z"),
        ("32", None),
    ]
    assert [each["timestamp"] for each in entries] == [meta["received_at"] for meta in metas]


def test_an_operation_of_a_class_runs_for_the_changed_member_which_owns_the_job(client: Client) -> None:
    client.subscribe("halt/+")
    client.publish("plant/belt_2/belt", {"speed": 3})
    client.publish("plant/belt_2/belt", {"speed": 0})
    assert client.wait_topic("halt/belt_2").json == {"hall": 2, "name": "Belt belt_2"}
    job = job_of_next_event(client, "completed", "halt", "belt_2")
    assert (job["owner_id"], job["owner_type"]) == ("belt_2", "1")
    client.publish("plant/belt_3/motor", "hot")
    hot = job_of_next_event(client, "completed", "halt", "belt_3")
    assert (hot["process_meta"]["attribute"], hot["process_meta"]["triggerStates"]) == ("motor", ["hot"])
    by_hand = run(client, "halt", object="belt_1")
    assert (by_hand["owner_id"], by_hand["process_meta"]) == ("belt_1", None)
    which = client.ask("operations/execute", {"id": "halt"})
    assert (which["code"], list(which["invalid_fields"])) == (400, ["object"])
    assert not [each for each in client.messages if each.topic == "halt/belt_1" and b"belt_2" in each.payload]


@pytest.mark.proves("operations", "user_id: who executed it", "process_meta, null if no state change triggered it")
def test_a_job_by_hand_has_its_callers_name_and_no_states(client: Client) -> None:
    alice = client.data("operations/execute", {"id": "press", "params": {"key": "F1"}}, api_key="alice-has-this-key")
    job = job_of_next_event(client, "completed", "press", "lamp")
    assert job["id"] == alice["id"]
    assert (job["user_id"], job["process_meta"], job["params"]) == ("alice", None, {"key": "F1"})
    assert job["description"] == {"topic": "lamp/press", "message": "F1"}


@pytest.mark.proves("operations", "description.exitCode")
def test_the_description_of_a_failed_program_has_its_exit_code_and_output(client: Client) -> None:
    job = run(client, "exit")
    assert (job["status"], job["description"]) == ("failed", {"exitCode": 7, "stdout": "words\n"})


# -- custom results --------------------------------------------------------------------------------------------------

PAYLOADS: list[dict[str, Any]] = [
    {},
    {"note": "seen", "é": "\u2028"},
    {"n": 1, "f": 1.0, "big": 2**63, "small": -(2**63), "e": 1e-300, "flag": True, "no": False, "none": None},
    {"deep": {"list": [1, "2", 3.5, None, [{"a": []}]]}},
    {"id": 1, "payload": {"payload": {}}, "by": "somebody", "timestamp": 0, "status": "completed"},
]


def add(client: Client, job_id: Any, payload: Any, api_key: str | None = None) -> Any:
    return client.ask("jobs/add_result", {"id": job_id, "payload": payload}, api_key=api_key)


@pytest.mark.proves(
    "operations",
    "results",
    "results.payload: an arbitrary set of parameters",
    "the user who added a result",
    "Add Custom Job Result",
)
def test_any_object_is_a_result_with_its_types_order_author_and_time(client: Client) -> None:
    job = run(client, "press", params={"key": "F1"})
    for number, payload in enumerate(PAYLOADS):
        by = ("anonymous", None) if number % 2 else ("alice", "alice-has-this-key")
        answer = add(client, job["id"], payload, by[1])
        assert (answer["code"], answer["data"]["payload"], answer["data"]["by"]) == (200, payload, by[0])
    after = client.data("jobs/get", {"id": job["id"]})
    assert json.dumps([each["payload"] for each in after["results"]]) == json.dumps(PAYLOADS)
    assert [each["by"] for each in after["results"]] == ["alice", "anonymous"] * 2 + ["alice"]
    stamps = [each["timestamp"] for each in after["results"]]
    assert stamps == sorted(stamps)
    assert all(isinstance(each, int) for each in stamps)
    assert all(set(each) == {"payload", "by", "timestamp"} for each in after["results"])
    assert {**after, "results": []} == job


@pytest.mark.proves("operations", "results.timestamp")
def test_the_timestamp_of_a_result_is_when_it_was_added_in_milliseconds(client: Client) -> None:
    job = run(client, "press", params={"key": "F1"})
    stamps = []
    for number in range(3):
        before = milliseconds_now()
        stamp = add(client, job["id"], {"n": number})["data"]["timestamp"]
        assert type(stamp) is int
        assert before <= stamp <= milliseconds_now()
        stamps.append(stamp)
    assert [each["timestamp"] for each in client.data("jobs/get", {"id": job["id"]})["results"]] == stamps


def test_results_may_be_added_to_a_job_of_any_status(client: Client) -> None:
    for status in ("completed", "failed"):
        job = client.data("jobs/list", {"status": status, "limit": 1})["items"][0]
        assert add(client, job["uid"], {"late": True})["code"] == 200
        after = client.data("jobs/get", {"id": job["id"]})
        assert after["results"][-1]["payload"] == {"late": True}
        assert after["status"] == status


@pytest.mark.parametrize("payload", [None, "text", 1, [1], True])
def test_a_result_that_is_not_an_object_is_refused(client: Client, payload: Any) -> None:
    job = run(client, "press", params={"key": "F1"})
    answer = add(client, job["id"], payload)
    assert (answer["code"], list(answer["invalid_fields"])) == (400, ["payload"])
    assert client.data("jobs/get", {"id": job["id"]})["results"] == []


@pytest.mark.proves("operations", "many custom results, one operation result")
def test_a_job_has_one_operation_result_whatever_is_added(client: Client) -> None:
    job = run(client, "exit")
    for number in range(50):
        assert add(client, job["id"], {"n": number})["code"] == 200
    after = client.data("jobs/get", {"id": job["id"]})
    assert [each["payload"]["n"] for each in after["results"]] == list(range(50))
    assert (after["description"], after["responses"]) == (job["description"], job["responses"])


# -- history ---------------------------------------------------------------------------------------------------------


@pytest.mark.proves("operations", "the jobs of one owner, and of several")
def test_the_history_of_one_and_of_several_owners_between_two_times(client: Client) -> None:
    first = run(client, "press", params={"key": "F1"})
    second = run(client, "halt", object="belt_1")
    third = run(client, "light")
    wanted = {first["uid"]: "lamp", second["uid"]: "belt_1", third["uid"]: "motion_lamp"}

    def history(**filters: Any) -> list[str]:
        page = client.data("jobs/list", {"since": first["created"], "limit": 100, **filters})
        assert page["total_items"] == len(page["items"])
        return [wanted[each["uid"]] for each in page["items"] if each["uid"] in wanted]

    assert history(object="lamp") == ["lamp"]
    assert history(link="motion_lamp") == ["motion_lamp"]
    assert history(object=["lamp", "belt_1", "sensor"]) == ["belt_1", "lamp"]
    assert history(object=["lamp", "belt_1"], link=["motion_lamp"]) == ["motion_lamp", "belt_1", "lamp"]
    assert history(object="motion_lamp", link="lamp") == []
    assert history(object=["lamp", "belt_1"], until=first["created"]) == []
    assert history(object="lamp", until="-1h", since="-2h") == []
    assert history(object="lamp", since="-1h", user_id="anonymous", operation_id="press") == ["lamp"]


def test_states_have_a_history_too(client: Client) -> None:
    client.publish("mqttjobs/state/objects/lamp", {"state": "on", "by": "switch", "reason": "dark"})
    client.until(lambda each: each.data("objects/get", {"id": "lamp"})["state"] == "on")
    page = client.data("states/history", {"object": "lamp", "limit": 1})
    assert page["items"][0] == {
        "state": "on", "previous_state": None, "timestamp": page["items"][0]["timestamp"], "reported_at": None,
        "reported_by": "switch", "reason": "dark",
    }  # fmt: skip
