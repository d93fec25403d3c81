"""Operation documents, field by field: what is configured, and what follows from runs and changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import MosquittoBroker
from tests.clients import Client, milliseconds_now
from tests.running import RunningService, StartService, StartShared

KEYS = {name: f"{name}-has-this-key-alone" for name in ("root", "alice", "carol")}
WAIT = 'echo "::message:: waiting"; while [ ! -e "$GO" ]; do sleep 0.02; done'
PLANT: dict[str, Any] = {
    "service": {"concurrency": 4, "time_zone": "Europe/Berlin"},
    "users": {
        "root": {"api_key": KEYS["root"], "permissions": ["admin"]},
        "alice": {
            "api_key": KEYS["alice"],
            "permissions": ["operation:execute", "operation:read", "operation:manage", "job:read"],
            "display_name": "Alice Liddell",
            "email": "alice@example.org",
            "role": "operator",
        },
        "carol": {"api_key": KEYS["carol"], "permissions": ["operation:execute"]},
        "robot": {"display_name": "The night shift", "role": "service"},
    },
    "objects": {"belt": {"state": {"topic": "belt"}}, "lamp": {}},
    "links": {"cable": {"source": "belt", "target": "lamp"}},
    "operations": {
        "oil": {
            "attach": {"object": "belt"},
            "name": "Oil the belt",
            "description": "A drop for each roller",
            "type": "script",
            "text": WAIT,
            "env": {"GO": "{{ params.go }}"},
            "environment": "hall-2",
            "version": "7",
            "priority": 3,
            "max": 2,
            "preferences": [
                {"key": "brand", "value": "fine", "description": "Which oil"},
                {"key": "secret", "value": "${ENV:PLANT_SECRET}"},
                {"key": "drops", "value": 3},
            ],
        },
        "told": {
            "attach": {"object": "belt"},
            "type": "script",
            "text": 'printf \'{"brand": "%s", "drops": "%s", "secret": %s}\''
            ' "$MQTTJOBS_PREF_BRAND" "$MQTTJOBS_PREF_DROPS" "${#MQTTJOBS_PREF_SECRET}"',
            "preferences": [
                {"key": "brand", "value": "fine"}, {"key": "drops", "value": 3},
                {"key": "secret", "value": "${ENV:PLANT_SECRET}"},
            ],
        },
        "count": {"attach": {"object": "belt"}, "type": "program", "path": "/bin/true"},
        "file": {"attach": {"object": "belt"}, "type": "script", "ref": "tidy.sh"},
        "lamp_on": {"attach": {"link": "cable"}, "type": "mqtt", "topic": "lamp/set", "message": "ON",
                    "trigger_states": ["moving"]},
        "nightly": {"attach": {"object": "belt"}, "type": "mqtt", "topic": "night", "message": "",
                    "schedule": "30 2 * * *"},
        "often": {"attach": {"object": "belt"}, "type": "mqtt", "topic": "often", "message": "{{ job.id }}",
                  "schedule": {"every": "1s"}, "run_as": "robot"},
        "both": {"attach": {"object": "belt"}, "type": "mqtt", "topic": "both", "message": "", "schedule": "0 0 1 1 *",
                 "triggers": [{"states": ["moving"]}]},
        "deaf": {"attach": {"object": "belt"}, "type": "mqtt", "topic": "deaf", "message": "", "event_driven": False,
                 "triggers": [{"states": ["moving"]}], "run_as": "robot"},
        "fail": {"attach": {"object": "belt"}, "type": "script", "text": "exit 1"},
        "alone": {"type": "mqtt", "topic": "alone", "message": ""},
        "twelve": {"type": "mqtt", "topic": "twelve", "message": ""},
    },
}  # fmt: skip
FIELDS = {
    "id", "job_name", "process_name", "process_id", "process_version", "environment_id", "status",
    "job_execution_strategy", "job_instances", "scheduled", "priority", "active", "previous_trigger", "next_trigger",
    "force_user_context", "eo_flow_enabled", "job_context", "preferences", "description", "type", "metadata",
    "start_date", "end_date", "attach", "params", "triggers", "conditions", "mode", "max", "target",
}  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def service(start_shared: StartShared, tmp_path_factory: pytest.TempPathFactory) -> RunningService:
    folder = tmp_path_factory.mktemp("plant")
    (folder / "tidy.sh").write_text("exit 0\n")
    return start_shared(PLANT, environment={"PLANT_SECRET": "whale-oil"}, directory=folder)


@pytest.fixture
def plant(service: RunningService) -> Iterator[Client]:
    with service.client() as client:
        yield client


def get(client: Client, operation: str, user: str = "alice") -> Any:
    return client.data("operations/get", {"id": operation}, api_key=KEYS[user])


def run(client: Client, operation: str, user: str = "alice", **more: Any) -> Any:
    return client.data("operations/execute", {"id": operation, "wait": True, **more}, api_key=KEYS[user])


def begin(client: Client, go: Path, user: str = "alice") -> Any:
    started = client.data("operations/execute", {"id": "oil", "params": {"go": str(go)}}, api_key=KEYS[user])

    def runs(each: Client) -> Any:
        job = each.data("jobs/get", {"id": started["id"]}, api_key=KEYS["alice"])
        return job if job["status"] == "processing" else None

    return client.until(runs)


@pytest.mark.proves("definitions", "get one by id", "Id", "type", "metadata: Created_by, Created_at")
def test_an_operation_that_never_ran_in_every_field(plant: Client) -> None:
    operation = get(plant, "alone")
    assert operation.keys() >= FIELDS
    assert (operation["job_name"], operation["description"], operation["type"]) == ("alone", "", "mqtt")
    assert (operation["process_name"], operation["process_id"]) == ("alone", "alone")
    assert re.fullmatch(r"[0-9a-f]{12}", operation["process_version"])
    assert (operation["environment_id"], operation["status"]) == (None, "scheduled")
    assert operation["job_execution_strategy"] == "on_demand"
    assert operation["job_instances"] == {"total": 0, "running": 0, "last_ids": []}
    assert (operation["scheduled"], operation["priority"], operation["active"]) == (None, 0, True)
    assert (operation["previous_trigger"], operation["next_trigger"]) == (None, None)
    assert (operation["start_date"], operation["end_date"]) == (None, None)
    assert (operation["force_user_context"], operation["eo_flow_enabled"]) == (False, True)
    assert operation["preferences"] == []
    assert operation["job_context"] == {
        "machine_id": None, "device_name": None, "user_identifier": None, "dynamic_robots": 0, "robot_id": None,
        "robot_name": None, "user_name": None,
        "user_details": {"id": None, "display_name": None, "email": None, "rpa_role": None},
    }  # fmt: skip
    metadata = operation["metadata"]
    assert (metadata["created_by"], metadata["updated_by"], metadata["completed_at"]) == ("system", "system", None)
    assert TIME.fullmatch(metadata["created_at"])
    assert metadata["created_at"] == metadata["updated_at"]
    assert (operation["attach"], operation["params"], operation["triggers"], operation["conditions"]) == (
        [], None, [], None,
    )  # fmt: skip
    assert (operation["mode"], operation["max"], operation["target"]) == ("parallel", None, "_local")
    assert (operation["topic"], operation["message"]) == ("alone", "")


@pytest.mark.proves(
    "definitions", "Job_name", "Environement_id", "Preferences: Id, Key, Value, description", "description"
)
def test_an_operation_document_has_what_is_configured(plant: Client) -> None:
    operation = get(plant, "oil")
    assert (operation["job_name"], operation["description"]) == ("Oil the belt", "A drop for each roller")
    assert (operation["process_name"], operation["process_id"], operation["process_version"]) == (
        "script:oil", "script:oil", "7",
    )  # fmt: skip
    assert (operation["environment_id"], operation["priority"], operation["max"]) == ("hall-2", 3, 2)
    assert operation["attach"] == [{"object": "belt"}]
    assert operation["preferences"] == [
        {"id": "brand", "key": "brand", "value": "fine", "description": "Which oil"},
        {"id": "secret", "key": "secret", "value": "${ENV:PLANT_SECRET}", "description": ""},
        {"id": "drops", "key": "drops", "value": 3, "description": ""},
    ]


@pytest.mark.proves("definitions", "Process_name", "Process_id")
@pytest.mark.parametrize(
    ("operation", "name", "process_id"),
    [
        ("oil", "script:oil", "script:oil"),
        ("file", "tidy.sh", "tidy.sh"),
        ("count", "true", "/bin/true"),
        ("lamp_on", "lamp/set", "lamp/set"),
    ],
)
def test_the_process_is_the_program_the_script_or_the_topic(
    plant: Client, operation: str, name: str, process_id: str
) -> None:
    document = get(plant, operation)
    assert (document["process_name"], document["process_id"]) == (name, process_id)


@pytest.mark.proves("definitions", "Job_execution_strategy", "Scheduled")
@pytest.mark.parametrize(
    ("operation", "strategy", "scheduled"),
    [
        ("oil", "on_demand", None),
        ("lamp_on", "event_driven", None),
        ("nightly", "scheduled", "30 2 * * *"),
        ("often", "scheduled", {"every": "1s"}),
        ("both", "scheduled+event_driven", "0 0 1 1 *"),
        ("deaf", "on_demand", None),
    ],
)
def test_the_strategy_shows_how_jobs_are_started(plant: Client, operation: str, strategy: str, scheduled: Any) -> None:
    document = get(plant, operation)
    assert (document["job_execution_strategy"], document["scheduled"]) == (strategy, scheduled)
    assert (document["next_trigger"] is None) == (scheduled is None)


@pytest.mark.proves("definitions", "Next_trigger")
def test_the_next_trigger_is_the_next_half_past_two_in_the_configured_zone(plant: Client) -> None:
    due = datetime.fromisoformat(get(plant, "nightly")["next_trigger"])
    now = datetime.now(due.tzinfo)
    assert now < due <= now + timedelta(hours=25)
    assert (due.minute, due.second) == (30, 0)
    assert due.hour in (0, 1)


@pytest.mark.proves(
    "definitions",
    "_execute",
    "Job_context",
    "Machine_id, Device_name",
    "User_identifier, User_name",
    "Dynamic_robots, Robot_id, Robot_name",
    "User_details: Id, Display_name, Email, Rpa_role",
    "metadata: Completed_at",
)
def test_the_document_follows_a_run_from_its_start_to_its_end(plant: Client, tmp_path: Path) -> None:
    before = get(plant, "oil")
    job = begin(plant, tmp_path / "go")
    running = get(plant, "oil")
    assert running["status"] == "running"
    instances = running["job_instances"]
    assert instances["total"] == before["job_instances"]["total"] + 1
    assert (instances["running"], instances["last_ids"][0]) == (1, job["id"])
    assert running["previous_trigger"] == job["created"]
    assert running["start_date"] is not None
    assert running["start_date"] == (before["start_date"] or job["timeline"][2]["timestamp"])
    context = running["job_context"]
    assert context == {
        "machine_id": "hub", "device_name": "hub", "user_identifier": "alice", "dynamic_robots": 1, "robot_id": "hub",
        "robot_name": "hub", "user_name": "Alice Liddell",
        "user_details": {
            "id": "alice", "display_name": "Alice Liddell", "email": "alice@example.org", "rpa_role": "operator",
        },
    }  # fmt: skip
    (tmp_path / "go").touch()
    ended = plant.until(lambda each: (found := get(each, "oil"))["status"] == "completed" and found)
    job = plant.data("jobs/get", {"id": job["id"]}, api_key=KEYS["alice"])
    assert ended["job_instances"] == instances | {"running": 0}
    assert ended["end_date"] == ended["metadata"]["completed_at"] == job["updated_at"]
    assert (ended["start_date"], ended["job_context"]) == (running["start_date"], context)


@pytest.mark.proves("definitions", "Status", "End_date")
def test_a_stop_ends_a_run_too(plant: Client, tmp_path: Path) -> None:
    job = begin(plant, tmp_path / "go")
    stopped = plant.data("jobs/stop", {"id": job["id"]}, api_key=KEYS["root"])
    operation = get(plant, "oil")
    assert (operation["status"], operation["end_date"]) == ("cancelled", stopped["updated_at"])


def test_a_failed_run_is_failed_and_completes_nothing(plant: Client) -> None:
    job = run(plant, "fail")
    operation = get(plant, "fail")
    assert (operation["status"], operation["end_date"]) == ("failed", job["updated_at"])
    assert operation["metadata"]["completed_at"] is None


@pytest.mark.proves("definitions", "Job_Instances")
def test_at_most_ten_instances_are_named_newest_first(plant: Client) -> None:
    ids = [run(plant, "twelve")["id"] for _ in range(12)]
    instances = get(plant, "twelve")["job_instances"]
    assert (instances["total"], instances["last_ids"]) == (12, ids[:1:-1])


@pytest.mark.proves("definitions", "preferences define how the job behaves")
def test_preferences_are_passed_to_programs_and_their_secrets_are_not_shown(plant: Client) -> None:
    job = run(plant, "told")
    assert job["result"] == {"brand": "fine", "drops": "3", "secret": len("whale-oil")}
    for answer in (job, get(plant, "told"), plant.data("operations/list", {"limit": 100}, api_key=KEYS["alice"])):
        assert "whale-oil" not in str(answer)


@pytest.mark.proves("definitions", "Force_user_context")
def test_a_forced_user_context_holds_however_the_job_is_started(plant: Client) -> None:
    plant.subscribe("often")
    assert get(plant, "often")["force_user_context"] is True
    plant.wait_topic("often")
    job = plant.data("jobs/list", {"operation_id": "often", "limit": 1}, api_key=KEYS["alice"])["items"][0]
    assert (job["user_id"], job["process_meta"]) == ("robot", None)
    by_hand = run(plant, "deaf")
    assert by_hand["user_id"] == "robot"
    context = get(plant, "deaf")["job_context"]
    assert (context["user_identifier"], context["user_name"]) == ("robot", "The night shift")
    assert context["user_details"] == {
        "id": "robot", "display_name": "The night shift", "email": None, "rpa_role": "service",
    }  # fmt: skip


@pytest.mark.proves("definitions", "Eo_flow_enabled")
def test_an_operation_that_is_not_event_driven_is_started_by_no_state_change(plant: Client) -> None:
    assert get(plant, "deaf")["eo_flow_enabled"] is False
    total = get(plant, "deaf")["job_instances"]["total"]
    plant.subscribe("lamp/set", "both")
    plant.publish("belt", "moving")
    plant.wait_topic("lamp/set")
    plant.wait_topic("both")
    assert get(plant, "deaf")["job_instances"]["total"] == total
    both = get(plant, "both")
    assert both["previous_trigger"] is not None
    job = plant.data("jobs/get", {"id": both["job_instances"]["last_ids"][0]}, api_key=KEYS["alice"])
    assert (job["user_id"], job["process_meta"]["triggerStates"]) == ("system", ["moving"])
    counters = plant.data("service/health", api_key=KEYS["alice"])["counters"]
    assert counters["skipped_by_reason"]["event_driven"] >= 1


@pytest.mark.proves("definitions", "Previous_trigger: by schedule, event, or hand")
def test_the_previous_trigger_is_when_the_latest_job_was_started_by_hand_by_event_and_by_schedule(
    mosquitto: MosquittoBroker, start_service: StartService
) -> None:
    operation = {"attach": {"object": "belt"}, "type": "mqtt", "topic": "started", "message": "{{ job.id }}",
                 "triggers": [{"states": ["moving"]}]}  # fmt: skip
    config = {"users": PLANT["users"], "objects": PLANT["objects"], "operations": {"start": operation}}
    service = start_service(mosquitto.port, config)
    with service.client() as client:
        client.subscribe("started")
        assert get(client, "start")["previous_trigger"] is None

        since = milliseconds_now()
        by_hand = run(client, "start")
        job = previously_triggered(client, since)
        assert (job["id"], job["user_id"], job["process_meta"]) == (by_hand["id"], "alice", None)

        since = milliseconds_now()
        client.publish("belt", "moving")
        event_id = wait_started(client, by_hand["id"])
        job = previously_triggered(client, since)
        assert (job["id"], job["user_id"], job["process_meta"]["state"]) == (event_id, "system", "moving")

        client.data("operations/deactivate", {"id": "start"}, api_key=KEYS["alice"])
        client.publish("belt", "standing")
        client.publish("belt", "moving")
        assert client.ask("operations/execute", {"id": "start"}, api_key=KEYS["alice"])["code"] == 409
        client.data("operations/activate", {"id": "start"}, api_key=KEYS["alice"])
        assert previously_triggered(client, since)["id"] == event_id, "what did not run triggered nothing"

        since = milliseconds_now()
        service.write_config(config | {"operations": {"start": operation | {"schedule": {"every": "1s"}}}})
        client.data("config/reload", api_key=KEYS["root"])
        wait_started(client, by_hand["id"], event_id)
        job = previously_triggered(client, since)
        assert (job["user_id"], job["process_meta"]) == ("system", None)
        earlier = [message.payload.decode() for message in client.messages if message.topic == "started"]
        wait_started(client, *earlier, job["id"])
        assert previously_triggered(client, since)["created"] > job["created"]


def previously_triggered(client: Client, since: int) -> Any:
    """Return the latest job of `start`; assert that `previous_trigger` is its time, and not before `since`."""
    operation = get(client, "start")
    job = client.data("jobs/get", {"id": operation["job_instances"]["last_ids"][0]}, api_key=KEYS["alice"])
    assert operation["previous_trigger"] == job["created"]
    assert TIME.fullmatch(operation["previous_trigger"])
    at = round(datetime.fromisoformat(operation["previous_trigger"]).timestamp() * 1000)
    assert since <= at <= milliseconds_now()
    return job


def wait_started(client: Client, *known: str) -> str:
    """Wait for the message of a job of `start` that is not in `known`, and return the job's id."""
    message = client.wait_for(lambda each: each.topic == "started" and each.payload.decode() not in known)
    return message.payload.decode()


@pytest.mark.proves("definitions", "active")
def test_activation_is_changed_and_shown(plant: Client) -> None:
    off = plant.data("operations/deactivate", {"id": "count"}, api_key=KEYS["alice"])
    assert (off["active"], off["metadata"]["updated_by"], off["metadata"]["created_by"]) == (False, "alice", "system")
    assert off["metadata"]["updated_at"] > off["metadata"]["created_at"]
    for method, body in (
        ("operations/execute", {"id": "count"}),
        ("jobs/send", {"object": "belt", "method_name": "count"}),
    ):
        refused = plant.ask(method, body, api_key=KEYS["alice"])
        assert (refused["code"], refused["reason"], refused["error"]) == (409, "inactive", "The operation is inactive.")
    listed = plant.data("operations/list", {"active": False}, api_key=KEYS["alice"])
    assert [each["id"] for each in listed["items"]] == ["count"]
    assert plant.data("operations/activate", {"id": "count"}, api_key=KEYS["root"])["active"] is True
    assert run(plant, "count")["status"] == "completed"
    assert get(plant, "count")["metadata"]["updated_by"] == "root"


@pytest.mark.proves("definitions", "list of definitions")
def test_operations_are_listed_by_owner_environment_and_type(plant: Client) -> None:
    def ids(**filters: Any) -> list[str]:
        return [each["id"] for each in plant.data("operations/list", filters, api_key=KEYS["alice"])["items"]]

    assert ids(limit=100) == list(PLANT["operations"])
    assert ids(limit=2, offset=1) == ["told", "count"]
    assert ids(link="cable") == ["lamp_on"]
    assert ids(object=["lamp"]) == []
    assert ids(environment="hall-2") == ["oil"]
    assert ids(type="program") == ["count"]
    assert ids(type="mqtt", object="belt") == ["nightly", "often", "both", "deaf"]


def test_an_unknown_operation_is_404_and_a_wrong_request_400(plant: Client) -> None:
    for method in ("operations/get", "operations/execute", "operations/activate", "operations/deactivate"):
        answer = plant.ask(method, {"id": "nothing"}, api_key=KEYS["root"])
        assert (answer["code"], answer["error"], answer["reason"]) == (404, "Operation not found.", "not_found")
        assert plant.ask(method, {}, api_key=KEYS["root"])["invalid_fields"] == {"id": ["Field required"]}
    lamp = plant.ask("operations/execute", {"id": "oil", "object": "lamp"}, api_key=KEYS["root"])
    assert (lamp["code"], lamp["error"]) == (404, "Operation not found.")


@pytest.mark.proves("listing", "operation: the operation data")
@pytest.mark.proves("definitions", "Process_version", "metadata: Updated_by, Updated_at")
def test_a_changed_definition_has_another_version_and_the_user_who_changed_it(
    mosquitto: MosquittoBroker, start_service: StartService
) -> None:
    config = {"users": PLANT["users"], "operations": {"alone": PLANT["operations"]["alone"]}}
    service = start_service(mosquitto.port, config)
    with service.client() as client:
        before = get(client, "alone")
        run(client, "alone")
        changed = {**PLANT["operations"]["alone"], "message": "changed"}
        service.write_config(config | {"operations": {"alone": changed}})
        reported = client.data("config/reload", api_key=KEYS["root"])
        assert reported["changed"]["operations"] == ["alone"]
        after = get(client, "alone")
        assert after["process_version"] != before["process_version"]
        assert (after["metadata"]["created_by"], after["metadata"]["updated_by"]) == ("system", "root")
        assert after["metadata"]["created_at"] == before["metadata"]["created_at"]
        assert after["metadata"]["updated_at"] > before["metadata"]["updated_at"]
        assert after["job_instances"]["total"] == 1
        old = client.data("jobs/get", {"id": after["job_instances"]["last_ids"][0]}, api_key=KEYS["root"])
        assert old["operation"]["message"] == ""


@pytest.mark.proves("definitions", "Start_date")
def test_totals_and_the_first_run_outlive_the_jobs(mosquitto: MosquittoBroker, start_service: StartService) -> None:
    service = start_service(mosquitto.port, {"operations": {"alone": PLANT["operations"]["alone"]}})
    with service.client() as client:
        ids = [client.data("operations/execute", {"id": "alone", "wait": True})["id"] for _ in range(3)]
        first = client.data("operations/get", {"id": "alone"})
        for job_id in ids:
            client.data("jobs/delete", {"id": job_id})
        service.kill()
        service.run()
        after = client.data("operations/get", {"id": "alone"})
        assert after["job_instances"] == {"total": 3, "running": 0, "last_ids": []}
        for name in ("start_date", "end_date", "previous_trigger", "metadata"):
            assert after[name] == first[name]
        assert after["status"] == "scheduled"
