"""Any MQTT client can list, read, start, stop and annotate jobs (contract 4)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.brokers import MosquittoBroker, StartMosquitto, free_port
from tests.clients import Client
from tests.running import RunningService, StartService, StartShared

HALL: dict[str, Any] = {
    "objects": {
        "hall_motion": {
            "name": "Hall motion",
            "properties": {"battery_type": "CR2450"},
            "state": {
                "topic": "zigbee2mqtt/hall_motion",
                "value": "occupancy",
                "map": {"true": "occupied", "false": "clear"},
            },
            "attributes": {"battery": {"value": "battery"}},
        },
        "hall_light": {"properties": {"command_topic": "zigbee2mqtt/hall_light/set"}},
    },
    "links": {"hall_lights": {"source": "hall_motion", "target": "hall_light"}},
    "operations": {
        "light_on": {
            "attach": {"link": "hall_lights"},
            "name": "Light on",
            "description": "Switches the hall light on",
            "type": "mqtt",
            "topic": "{{ target.properties.command_topic }}",
            "message": {"state": "ON"},
            "trigger_states": ["occupied"],
        },
        "greet": {
            "attach": {"object": "hall_light"},
            "type": "script",
            "text": 'printf \'{"greeted": "%s"}\' "$MQTTJOBS_PARAMS_TO"',
            "params": {
                "type": "object",
                "properties": {"to": {"type": "string", "minLength": 3}},
                "required": ["to"],
            },
        },
        "wait": {"attach": {"object": "hall_light"}, "type": "script", "text": "exec sleep 60"},
        "fail": {"attach": {"object": "hall_light"}, "type": "script", "text": "echo broken >&2; exit 3"},
    },
}


@pytest.fixture(params=["mosquitto-5", "mosquitto-3.1.1", "embedded"])
def hall(
    request: pytest.FixtureRequest, start_service: StartService, start_mosquitto: StartMosquitto
) -> Iterator[tuple[RunningService, Client]]:
    """The service with a client, on each broker and protocol."""
    if request.param == "embedded":
        service = start_service(free_port(), HALL, arguments=["--embedded-broker"])
    else:
        service = start_service(start_mosquitto().port, HALL)
    with service.client(protocol="5" if request.param == "mosquitto-5" else "3.1.1") as client:
        yield service, client


@pytest.fixture
def plain(mosquitto: MosquittoBroker, start_service: StartService) -> Iterator[Client]:
    """An MQTT 5 client of the service on Mosquitto."""
    service = start_service(mosquitto.port, HALL)
    with service.client() as client:
        yield client


@pytest.fixture(scope="module")
def shared(start_shared: StartShared) -> RunningService:
    """The service on Mosquitto for the tests that leave it as it was."""
    return start_shared(HALL)


@pytest.fixture
def untouched(shared: RunningService) -> Iterator[Client]:
    """An MQTT 5 client of the shared service, which has no job before the test and none after it."""
    with shared.client() as client:
        yield client
        assert client.data("jobs/list")["total_items"] == 0, "this test needs a service of its own"


def test_a_state_change_becomes_a_job_that_any_client_can_read(hall: tuple[RunningService, Client]) -> None:
    _, client = hall
    client.subscribe("zigbee2mqtt/hall_light/set", "mqttjobs/event/job/#")
    client.publish("zigbee2mqtt/hall_motion", {"occupancy": True, "battery": 87})
    assert client.wait_topic("zigbee2mqtt/hall_light/set").json == {"state": "ON"}
    reported = client.wait_topic("mqttjobs/event/job/completed/light_on/hall_lights").json
    listed = client.data("jobs/list")
    assert listed["total_items"] == 1
    assert listed["status_counts"] == {
        "submitted": 0, "processing": 0, "completed": 1, "failed": 0, "partial_failure": 0, "stopped": 0, "skipped": 0,
    }  # fmt: skip
    assert listed["next_cursor"] is None
    job = client.data("jobs/get", {"id": listed["items"][0]["id"]})
    assert job == listed["items"][0]
    assert job == client.data("jobs/get", {"id": job["uid"]})
    assert {name: reported[name] for name in ("id", "uid", "status", "result")} == {
        name: job[name] for name in ("id", "uid", "status", "result")
    }
    assert not {"responses", "agent_states", "timeline"} & reported.keys()
    assert job["description"] == {"topic": "zigbee2mqtt/hall_light/set", "message": '{"state":"ON"}'}
    assert job["operation"]["type"] == "mqtt"
    assert (job["owner_id"], job["owner_type"], job["user_id"]) == ("hall_lights", "2", "system")
    assert (job["status"], job["changed"], job["error"], job["hostname"]) == ("completed", True, "", "hub")
    meta = job["process_meta"]
    assert (meta["triggerStates"], meta["state"], meta["previous_state"]) == (["occupied"], "occupied", None)
    assert meta["topic"] == "zigbee2mqtt/hall_motion"
    assert [event["event"] for event in job["timeline"]] == ["submitted", "acknowledged", "started", "completed"]
    assert job["timeline"][0]["message"] == "Job submitted"
    assert job["timeline"][3]["message"] == "Job completed successfully on hub"
    assert job["responses"] == {
        "hub": {"status": "completed", "data": None, "changed": True, "error": "", "hostname": "hub"}
    }
    assert job["agent_states"]["hub"]["status"] == "completed"


def test_status_and_info_are_retained(hall: tuple[RunningService, Client]) -> None:
    service, client = hall
    client.subscribe("mqttjobs/status")
    client.wait_for(lambda each: each.topic == "mqttjobs/status" and each.payload == b"online")
    client.subscribe("mqttjobs/info")  # it was published before
    info = client.wait_topic("mqttjobs/info")
    assert info.retain
    assert {"name", "version", "started_at", "limits", "methods", "objects", "links", "operations"} <= info.json.keys()
    assert (info.json["objects"], info.json["links"], info.json["operations"]) == (2, 1, 4)
    if "--embedded-broker" not in service.arguments:
        assert service.stop() == 0
        client.wait_for(lambda each: each.topic == "mqttjobs/status" and each.payload == b"offline")


def test_a_run_by_hand_that_waits_returns_the_ended_job(hall: tuple[RunningService, Client]) -> None:
    _, client = hall
    answer = client.ask("operations/execute", {"id": "greet", "params": {"to": "Ada"}, "wait": True})
    assert answer["code"] == 200
    job = answer["data"]
    assert job["status"] == "completed"
    assert job["result"] == {"greeted": "Ada"}
    assert job["description"] == {"exitCode": 0, "stdout": '{"greeted": "Ada"}'}
    assert job["process_meta"] is None
    assert job["user_id"] == "anonymous"
    assert job["params"] == {"to": "Ada"}
    started = client.ask("operations/execute", {"id": "light_on"})
    assert started["code"] == 201
    assert set(started["data"]) == {"id", "uid", "status"}


def test_params_that_break_the_schema_are_named(untouched: Client) -> None:
    answer = untouched.ask("operations/execute", {"id": "greet", "params": {"to": "x"}})
    assert (answer["code"], answer["reason"]) == (400, "invalid_request")
    assert answer["invalid_fields"] == {"to": ["must have at least 3 characters"]}
    assert untouched.data("jobs/list")["total_items"] == 0


def test_a_running_job_can_be_stopped_and_deleted(hall: tuple[RunningService, Client]) -> None:
    _, client = hall
    started = client.data("operations/execute", {"id": "wait"})
    client.until(lambda each: each.data("jobs/get", {"id": started["id"]})["status"] == "processing")
    stopped = client.data("jobs/stop", {"id": started["id"]})
    assert stopped["status"] == "stopped"
    again = client.ask("jobs/stop", {"id": started["id"]})
    assert (again["code"], again["reason"]) == (409, "terminal_state")
    assert client.ask("jobs/delete", {"id": started["uid"]})["code"] == 204
    gone = client.ask("jobs/get", {"id": started["id"]})
    assert (gone["code"], gone["reason"], gone["error"]) == (404, "not_found", "Job not found.")


def test_custom_results_are_appended_and_change_nothing_else(hall: tuple[RunningService, Client]) -> None:
    _, client = hall
    job = client.data("operations/execute", {"id": "greet", "params": {"to": "Ada"}, "wait": True})
    payloads = [{"note": "seen"}, {"n": 1.5, "flag": True, "none": None, "deep": {"list": [1, "2", 3.0]}}, {}]
    for payload in payloads:
        added = client.data("jobs/add_result", {"id": job["id"], "payload": payload})
        assert (added["payload"], added["by"]) == (payload, "anonymous")
    after = client.data("jobs/get", {"id": job["id"]})
    assert [each["payload"] for each in after["results"]] == payloads
    assert {**after, "results": []} == job


def test_a_failed_script_has_its_error(plain: Client) -> None:
    job = plain.data("operations/execute", {"id": "fail", "wait": True})
    assert job["status"] == "failed"
    assert "broken" in job["timeline"][-1]["error"]
    assert job["description"]["exitCode"] == 3
    assert job["changed"] is None


@pytest.mark.parametrize("how", ["response_topic", "reply_to", "mirror"])
def test_a_response_goes_to_the_reply_topic(untouched: Client, how: str) -> None:
    assert untouched.ask("service/info", {"transaction": "t-1"}, how=how)["transaction"] == "t-1"


@pytest.mark.parametrize("how", ["reply_to", "mirror"])
def test_a_3_1_1_client_gets_a_response_too(shared: RunningService, how: str) -> None:
    with shared.client(protocol="3.1.1") as client:
        assert client.ask("service/info", how=how)["status"] == "ok"


def test_a_request_in_a_lane_gets_its_response_in_the_lane(untouched: Client) -> None:
    untouched.subscribe("mqttjobs/users/alice/response/service/info")
    untouched.publish("mqttjobs/users/alice/request/service/info", {"transaction": 7})
    answer = untouched.wait_topic("mqttjobs/users/alice/response/service/info").json
    assert (answer["status"], answer["transaction"]) == ("ok", 7)


def test_correlation_data_comes_back_byte_for_byte_as_json(untouched: Client) -> None:
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "mqttjobs/response/here"
    properties.CorrelationData = bytes(range(256))
    untouched.subscribe("mqttjobs/response/here")
    untouched.publish("mqttjobs/request/service/info", b"", properties=properties)
    answer = untouched.wait_topic("mqttjobs/response/here")
    assert answer.correlation == bytes(range(256))
    assert answer.content_type == "application/json"
    assert not answer.retain


@pytest.mark.parametrize(
    "reply",
    [
        "zigbee2mqtt/hall_light/set",
        "mqttjobs/response/+/x",
        "mqttjobs/response/#",
        "$SYS/x",
        "mqttjobs/event/job/x",
        "",
    ],
)
def test_a_response_is_never_published_on_a_topic_outside_the_response_topics(untouched: Client, reply: str) -> None:
    untouched.subscribe("#", "mqttjobs/response/#")
    answer = untouched.ask(
        "operations/execute", {"id": "greet", "params": {"to": "Ada"}, "reply_to": reply}, how="mirror"
    )
    assert (answer["code"], answer["reason"]) == (403, "reply_topic_not_allowed")
    assert untouched.data("jobs/list")["total_items"] == 0
    assert not [each for each in untouched.messages if each.topic == reply]


def test_errors_are_checked_in_the_documented_order(untouched: Client) -> None:
    assert untouched.ask("no/such", b"{", how="response_topic")["reason"] == "unknown_method"
    assert untouched.ask("config/reload", b"{")["reason"] == "forbidden"
    assert untouched.ask("jobs/list", b"{")["reason"] == "invalid_json"
    assert untouched.ask("jobs/list", b"[]")["reason"] == "invalid_request"
    wrong = untouched.ask("jobs/list", {"limit": 101, "offset": -1, "lmit": 1})
    assert (wrong["code"], set(wrong["invalid_fields"])) == (400, {"limit", "offset", "lmit"})
    assert untouched.ask("jobs/get", {"id": "no-uuid"})["code"] == 400
    assert untouched.ask("jobs/get", {"id": "01890000-0000-7000-8000-000000000000"})["code"] == 404
    assert untouched.ask("jobs/get", {"id": 99})["code"] == 404
    assert untouched.ask("operations/execute", {"id": "nope"})["reason"] == "not_found"
    assert untouched.ask("jobs/list", b'{"a": "' + b"x" * 70_000 + b'"}')["code"] == 413


def test_the_caller_is_checked_before_the_transaction(mosquitto: MosquittoBroker, start_service: StartService) -> None:
    users = {"admin": {"api_key": "0123456789abcdef", "permissions": ["admin"]}}
    service = start_service(mosquitto.port, HALL | {"users": users})
    with service.client() as client:
        body = {"transaction": ["no", "scalar"]}
        refused = client.ask("jobs/list", body)
        assert (refused["reason"], refused["transaction"]) == ("unauthorized", None)
        wrong = client.ask("jobs/list", body, api_key="0123456789abcdef")
        assert (wrong["code"], set(wrong["invalid_fields"]), wrong["transaction"]) == (400, {"transaction"}, None)


def test_availability_may_be_reported_with_any_texts(mosquitto: MosquittoBroker, start_service: StartService) -> None:
    availability = {"topic": "hall/there", "online": "available", "offline": "unavailable"}
    objects = {**HALL["objects"], "door": {"availability": availability}}
    service = start_service(mosquitto.port, HALL | {"objects": objects})
    with service.client() as client:
        for reported, meant in (("unavailable", "offline"), ("available", "online")):
            client.publish("hall/there", reported)
            client.until(lambda each, want=meant: each.data("objects/get", {"id": "door"})["availability"] == want)


def test_no_error_repeats_the_input(untouched: Client) -> None:
    secret = "hunter2-" * 30
    for method, body in [
        ("jobs/get", {"id": secret}),
        ("jobs/list", {"status": secret}),
        ("jobs/list", {secret: 1}),
        ("operations/execute", {"id": "greet", "params": {"to": 5, "x": secret}}),
        ("objects/get", {"id": secret}),
    ]:
        assert secret not in json.dumps(untouched.ask(method, body))


def test_a_repeated_request_does_its_work_once(hall: tuple[RunningService, Client]) -> None:
    _, client = hall
    body = {"id": "greet", "params": {"to": "Ada"}, "transaction": "once"}
    first = client.ask("operations/execute", body, how="mirror")
    since = len(client.messages)
    client.publish("mqttjobs/request/operations/execute", body)
    second = client.wait_topic("mqttjobs/response/operations/execute", since=since).json
    assert second == first
    assert client.data("jobs/list")["total_items"] == 1


def test_jobs_are_filtered_and_paged(plain: Client) -> None:
    for name in ("Ada", "Bob", "Cyd"):
        plain.data("operations/execute", {"id": "greet", "params": {"to": name}, "wait": True})
    plain.data("operations/execute", {"id": "fail", "wait": True})
    assert [job["uid"] for job in plain.data("jobs/list")["items"]] == [4, 3, 2, 1]
    page = plain.data("jobs/list", {"limit": 2, "fields": ["uid"]})
    assert page["items"] == [{"uid": 4}, {"uid": 3}]
    rest = plain.data("jobs/list", {"limit": 2, "cursor": page["next_cursor"], "fields": ["uid"]})
    assert (rest["items"], rest["next_cursor"]) == ([{"uid": 2}, {"uid": 1}], None)
    assert plain.data("jobs/list", {"status": "failed"})["total_items"] == 1
    assert plain.data("jobs/list", {"status": ["failed", "completed"], "offset": 3})["total_items"] == 4
    assert plain.data("jobs/list", {"operation_id": "greet"})["total_items"] == 3
    assert plain.data("jobs/list", {"object": "hall_light"})["total_items"] == 4
    assert plain.data("jobs/list", {"object": ["hall_motion"], "link": "hall_lights"})["total_items"] == 0
    assert plain.data("jobs/list", {"user_id": "anonymous"})["total_items"] == 4
    assert plain.data("jobs/list", {"since": "-1h"})["total_items"] == 4
    assert plain.data("jobs/list", {"until": "-1h"})["total_items"] == 0
    created = plain.data("jobs/get", {"id": 2})["created"]
    assert plain.data("jobs/list", {"since": created})["total_items"] == 3


def test_entities_are_listed_with_their_values(plain: Client) -> None:
    plain.subscribe("mqttjobs/event/job/completed/#")
    plain.publish("zigbee2mqtt/hall_motion", {"occupancy": True, "battery": 87})
    plain.wait_topic("mqttjobs/event/job/completed/light_on/hall_lights")
    objects = plain.data("objects/list")
    assert [each["id"] for each in objects["items"]] == ["hall_motion", "hall_light"]
    motion = plain.data("objects/get", {"id": "hall_motion"})
    assert (motion["state"], motion["attributes"]) == ("occupied", {"battery": "87"})
    assert motion["properties"] == {"battery_type": "CR2450"}
    link = plain.data("links/get", {"id": "hall_lights"})
    assert (link["state"], link["source"], link["target"]) == ("occupied", "hall_motion", "hall_light")
    assert link["operations"] == ["light_on"]
    history = plain.data("states/history", {"object": "hall_motion"})
    assert [(each["state"], each["previous_state"]) for each in history["items"]] == [("occupied", None)]


def test_a_state_can_be_set_as_if_reported(plain: Client) -> None:
    plain.subscribe("zigbee2mqtt/hall_light/set")
    data = plain.data("states/set", {"object": "hall_motion", "state": "occupied", "reason": "tried out"})
    assert data["state"] == "occupied"
    plain.wait_topic("zigbee2mqtt/hall_light/set")
    job = plain.until(lambda each: each.data("jobs/list", {"status": "completed"})["items"])[0]
    assert (job["user_id"], job["process_meta"]["reported_by"]) == ("anonymous", "anonymous")
    entry = plain.data("states/history", {"object": "hall_motion"})["items"][0]
    assert (entry["reported_by"], entry["reason"]) == ("anonymous", "tried out")


def test_operations_have_documents(plain: Client) -> None:
    plain.data("operations/execute", {"id": "greet", "params": {"to": "Ada"}, "wait": True})
    operations = plain.data("operations/list", {"object": "hall_light"})
    assert [each["id"] for each in operations["items"]] == ["greet", "wait", "fail"]
    greet = plain.data("operations/get", {"id": "greet"})
    assert greet["status"] == "completed"
    assert greet["job_instances"]["total"] == 1
    assert greet["job_execution_strategy"] == "on_demand"
    light = plain.data("operations/get", {"id": "light_on"})
    assert (light["job_name"], light["job_execution_strategy"], light["status"]) == (
        "Light on", "event_driven", "scheduled",
    )  # fmt: skip


def test_health_adds_up(plain: Client) -> None:
    plain.subscribe("mqttjobs/event/job/completed/#")
    plain.publish("zigbee2mqtt/hall_motion", {"occupancy": True})
    plain.publish("zigbee2mqtt/hall_motion", {"occupancy": True})
    plain.publish("zigbee2mqtt/hall_motion", {"nothing": 1})
    plain.publish("zigbee2mqtt/hall_motion", b"{broken")
    plain.publish("mqttjobs/state/objects/nobody", b"on")
    plain.wait_topic("mqttjobs/event/job/completed/light_on/hall_lights")
    health = plain.data("service/health")
    counters = health["counters"]
    assert health["status"] == "ok"
    expected = {"received": 5, "changed": 1, "unchanged": 1, "ignored": 1, "invalid": 1, "unmatched": 1}
    assert {name: counters[name] for name in expected} == expected
    assert (counters["fired"], counters["jobs"], counters["skipped"]) == (1, 1, 0)


def test_a_good_reload_is_reported_and_a_bad_one_changes_nothing(
    mosquitto: MosquittoBroker, start_service: StartService
) -> None:
    users = {"admin": {"api_key": "0123456789abcdef", "permissions": ["admin"]}}
    service = start_service(mosquitto.port, HALL | {"users": users})
    with service.client() as client:
        key = "0123456789abcdef"
        bad = {**HALL["operations"]["light_on"], "attach": {"link": "hall_light"}, "tpe": 1}
        service.write_config(HALL | {"users": users, "operations": {"light_on": bad}})
        refused = client.ask("config/reload", {"transaction": "x"}, api_key=key)
        assert refused["code"] == 400
        assert "mqttjobs.yaml:" in refused["details"]
        assert client.data("operations/list", api_key=key)["total_items"] == 4
        service.write_config(HALL | {"users": users, "operations": {"light_on": HALL["operations"]["light_on"]}})
        reloaded = client.data("config/reload", api_key=key)
        assert reloaded["removed"]["operations"] == ["fail", "greet", "wait"]
        assert client.data("operations/list", api_key=key)["total_items"] == 1


@pytest.mark.mosquitto
def test_mosquitto_rr_is_enough_for_a_request(shared: RunningService) -> None:
    program = shutil.which("mosquitto_rr")
    if program is None:
        pytest.skip("the program mosquitto_rr is not on PATH")
    asked = subprocess.run(
        [
            program, "-p", str(shared.port), "-t", "mqttjobs/request/jobs/list", "-e", "mqttjobs/response/rr",
            "-m", '{"limit": 1}', "-W", "10",
        ],
        check=True,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert json.loads(asked.stdout)["data"]["total_items"] == 0
