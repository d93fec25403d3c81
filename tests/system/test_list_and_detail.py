"""List jobs, read one in detail, create, retry, stop and delete them: that job system, field by field."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import MosquittoBroker
from tests.clients import Client, milliseconds_now
from tests.running import RunningService, StartService, StartShared

STATUSES = ["submitted", "processing", "completed", "failed", "partial_failure", "stopped", "skipped"]
WAIT = 'echo "::message:: waiting"; while [ ! -e "$GO" ]; do sleep 0.02; done'
SHOP: dict[str, Any] = {
    "service": {"concurrency": 2, "inline_operations": ["mqtt", "script"]},
    "users": {"anonymous": {"permissions": ["admin"]}},
    "objects": {
        "lamp": {"name": "Lamp", "properties": {"command_topic": "lamp/set", "token": "${ENV:SHOP_TOKEN}"}},
        "door": {"state": {"topic": "door"}},
    },
    "links": {"cable": {"source": "door", "target": "lamp"}},
    "operations": {
        "on": {"attach": {"object": "lamp"}, "type": "mqtt", "topic": "lamp/set", "message": "ON", "priority": 3},
        "wait": {
            "attach": [{"object": "lamp"}, {"link": "cable"}],
            "type": "script",
            "text": WAIT,
            "env": {"GO": "{{ params.go }}"},
        },
        "answer": {"attach": {"object": "lamp"}, "type": "script", "text": 'echo \'{"n": 1, "changed": true}\''},
        "broken": {"attach": {"object": "lamp"}, "type": "script", "text": "echo oh no >&2; exit 3"},
        "opened": {
            "attach": {"object": "door"},
            "type": "mqtt",
            "topic": "hall/door",
            "message": {"from": "{{ previous_state }}", "to": "{{ state }}"},
            "trigger_states": ["open", "ajar"],
        },
        "single": {"attach": {"object": "lamp"}, "type": "script", "text": WAIT, "env": {"GO": "{{ params.go }}"},
                   "mode": "single"},
    },
}  # fmt: skip
JOB_FIELDS = {
    "id", "uid", "status", "created", "updated_at", "timestamp", "operation_id", "operation", "owner_id", "owner_type",
    "user_id", "target", "priority", "params", "events", "description", "result", "changed", "error", "hostname",
    "message", "attempts", "results", "process_meta", "responses", "agent_states", "timeline", "parent_id", "root_id",
    "retry_of",
}  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
DURATION = re.compile(r"\d+ms|\d+(\.\d+)?s|\d+m\d+s|\d+h\d+m\d+s")


@pytest.fixture(scope="module")
def service(start_shared: StartShared) -> RunningService:
    return start_shared(SHOP, environment={"SHOP_TOKEN": "do-not-tell-this"})


@pytest.fixture
def shop(service: RunningService) -> Iterator[Client]:
    with service.client() as client:
        yield client


def run(client: Client, operation: str, **more: Any) -> Any:
    """Run an operation by hand and return the ended job's document."""
    answer = client.ask("operations/execute", {"id": operation, "object": "lamp", "wait": True, **more})
    assert answer["code"] == 200, answer
    return answer["data"]


def begin(client: Client, go: Path, operation: str = "wait") -> Any:
    """Start a job that runs until the file `go` exists, and return its document once it runs."""
    started = client.data("operations/execute", {"id": operation, "object": "lamp", "params": {"go": str(go)}})
    return client.until(lambda each: of_status(each, started["id"], "processing"))


def of_status(client: Client, job_id: str | int, status: str) -> Any:
    job = client.data("jobs/get", {"id": job_id})
    return job if job["status"] == status else None


def ended(client: Client, job_id: str | int) -> Any:
    def look(each: Client) -> Any:
        job = each.data("jobs/get", {"id": job_id})
        return job if job["status"] not in ("submitted", "processing") else None

    return client.until(look)


# -- the detail ------------------------------------------------------------------------------------------------------


@pytest.mark.proves("operations", "id")
@pytest.mark.proves(
    "listing",
    "completed",
    "GET /job/:id",
    "id, status, created",
    "result",
    "hostname",
    "timeline with timestamp, event, hostname, message, error",
    "events submitted, acknowledged, started, completed",
    "200",
)
def test_a_completed_job_in_every_field(shop: Client) -> None:
    job = run(shop, "answer")
    assert set(job) == JOB_FIELDS
    assert str(uuid.UUID(job["id"])) == job["id"]
    assert (job["status"], job["result"], job["changed"], job["error"]) == (
        "completed", {"n": 1, "changed": True}, True, "",
    )  # fmt: skip
    assert (job["hostname"], job["target"], job["attempts"]) == ("hub", "_local", 1)
    assert all(TIME.fullmatch(job[name]) for name in ("created", "updated_at"))
    assert job["operation"]["type"] == "script"
    assert job["responses"] == {
        "hub": {"status": "completed", "data": job["result"], "changed": True, "error": "", "hostname": "hub"}
    }
    assert set(job["agent_states"]) == {"hub"}
    state = job["agent_states"]["hub"]
    assert (state["status"], state["error"]) == ("completed", "")
    assert DURATION.fullmatch(state["duration"])
    assert [event["event"] for event in job["timeline"]] == ["submitted", "acknowledged", "started", "completed"]
    assert [event["message"] for event in job["timeline"]] == [
        "Job submitted",
        "Job acknowledged by hub",
        "Job processing started on hub",
        "Job completed successfully on hub",
    ]
    for event in job["timeline"]:
        assert set(event) == {"timestamp", "event", "hostname", "message", "error"}
        assert (event["hostname"], event["error"], bool(TIME.fullmatch(event["timestamp"]))) == ("hub", "", True)
    stamps = [event["timestamp"] for event in job["timeline"]]
    assert stamps == sorted(stamps)
    assert (job["created"], job["updated_at"]) == (stamps[0], stamps[-1])
    assert job["timestamp"] == round(datetime.fromisoformat(stamps[2]).timestamp() * 1000)
    assert (job["parent_id"], job["root_id"], job["retry_of"]) == (None, job["id"], None)


@pytest.mark.proves(
    "listing", "failed", "changed", "error", "responses with status, data, changed, error, hostname", "event failed"
)
def test_a_failed_job_in_every_field(shop: Client) -> None:
    job = run(shop, "broken")
    assert set(job) == JOB_FIELDS
    assert (job["status"], job["result"], job["changed"], job["error"]) == (
        "failed", None, None, "exit code 3: oh no",
    )  # fmt: skip
    assert job["description"] == {"exitCode": 3, "stdout": ""}
    assert job["responses"]["hub"] == {
        "status": "failed", "data": {"exitCode": 3, "stdout": ""}, "changed": None, "error": job["error"],
        "hostname": "hub",
    }  # fmt: skip
    assert (job["agent_states"]["hub"]["status"], job["agent_states"]["hub"]["error"]) == ("failed", job["error"])
    last = job["timeline"][-1]
    assert (last["event"], last["message"]) == ("failed", "Job failed on hub")
    assert "oh no" in last["error"]


@pytest.mark.proves("listing", "processing", "agent_states with status, error, duration")
def test_a_running_job_has_nothing_yet_but_all_fields(shop: Client, tmp_path: Path) -> None:
    job = begin(shop, tmp_path / "go")
    assert set(job) == JOB_FIELDS
    assert (job["description"], job["result"], job["changed"], job["error"]) == (
        {"exitCode": None, "stdout": None}, None, None, "",
    )  # fmt: skip
    assert job["responses"] == {}
    assert job["agent_states"] == {"hub": {"status": "started", "error": "", "duration": None}}
    shop.until(lambda each: each.data("jobs/get", {"id": job["id"]})["message"] == "waiting")
    (tmp_path / "go").touch()
    assert ended(shop, job["id"])["status"] == "completed"


@pytest.mark.proves("listing", "400", "error body error, details, code")
@pytest.mark.parametrize("method", ["jobs/get", "jobs/poll", "jobs/stop", "jobs/delete", "jobs/retry"])
def test_the_error_body_of_an_unknown_job(shop: Client, method: str) -> None:
    job_id = str(uuid.uuid4())
    answer = shop.ask(method, {"id": job_id, "transaction": "t"})
    assert answer == {
        "status": "error", "code": 404, "error": "Job not found.", "details": f"no job has the id {job_id}",
        "reason": "not_found", "retryable": False, "transaction": "t",
    }  # fmt: skip
    wrong = shop.ask(method, {"id": "no-uuid"})
    assert (wrong["code"], wrong["error"], wrong["reason"]) == (400, "Invalid request.", "invalid_request")
    assert wrong["invalid_fields"] == {"id": ["must be a job's uuid or uid"]}


# -- the list --------------------------------------------------------------------------------------------------------


@pytest.mark.proves("listing", "GET /job", "status filter", "status_counts")
def test_a_list_has_totals_counts_and_whole_documents_newest_first(
    mosquitto: MosquittoBroker, start_service: StartService, tmp_path: Path
) -> None:
    service = start_service(mosquitto.port, SHOP, environment={"SHOP_TOKEN": "x"})
    with service.client() as shop:
        empty = shop.data("jobs/list")
        assert empty == {
            "total_items": 0, "status_counts": dict.fromkeys(STATUSES, 0), "items": [], "next_cursor": None,
        }  # fmt: skip
        done = [run(shop, name) for name in ("on", "answer", "on", "broken")]
        running = begin(shop, tmp_path / "go")
        shop.data("jobs/stop", {"id": begin(shop, tmp_path / "go")["id"]})
        listed = shop.data("jobs/list")
        assert list(listed["status_counts"]) == STATUSES
        counted = {name: count for name, count in listed["status_counts"].items() if count}
        assert counted == {"processing": 1, "completed": 3, "failed": 1, "stopped": 1}
        assert [each["uid"] for each in listed["items"]] == [6, 5, 4, 3, 2, 1]
        assert listed["items"][-4:] == done[::-1]
        assert listed["items"][1]["id"] == running["id"]
        failed = shop.data("jobs/list", {"status": "failed"})
        assert (failed["total_items"], failed["status_counts"]) == (1, listed["status_counts"])
        both = shop.data("jobs/list", {"status": ["completed", "stopped"], "limit": 2, "offset": 1})
        assert (both["total_items"], [each["uid"] for each in both["items"]]) == (4, [3, 2])
        rest = shop.data("jobs/list", {"status": ["completed", "stopped"], "limit": 2, "cursor": both["next_cursor"]})
        assert ([each["uid"] for each in rest["items"]], rest["next_cursor"]) == ([1], None)
        (tmp_path / "go").touch()


GOING: list[Callable[[list[int], list[int]], list[int]]] = [
    lambda page, _: [page[0], page[-1]],
    lambda _, unread: unread[:1],
    lambda _, unread: unread[:6],
    lambda page, unread: [*page, *unread[1:4:2]],
    lambda page, unread: [*page[1:], *unread[7:]],
]
"""The jobs deleted after each page, of those shown and of those unread; also the job that the cursor names."""


@pytest.mark.proves("listing", "offset from 0")
@pytest.mark.parametrize("filters", [{}, {"operation_id": "on", "status": "completed"}], ids=["all", "filtered"])
def test_pages_by_cursor_show_each_remaining_job_once_while_others_come_and_go(
    mosquitto: MosquittoBroker, start_service: StartService, filters: dict[str, Any]
) -> None:
    service = start_service(mosquitto.port, SHOP, environment={"SHOP_TOKEN": "x"})
    with service.client() as shop:
        old = make(shop, 60, filters)
        there, unread = set(old), sorted(old, reverse=True)
        shown: list[int] = []
        cursor = None
        for going in GOING:
            page = shop.data("jobs/list", {**filters, "limit": 5, "cursor": cursor})
            uids = [each["uid"] for each in page["items"]]
            assert (uids, page["total_items"]) == (unread[:5], len(there))
            shown, unread, cursor = shown + uids, unread[5:], page["next_cursor"]
            new = make(shop, 3, filters)
            gone = {*going(uids, unread), max(new)}
            delete(shop, gone)
            there, unread = (there | new) - gone, [uid for uid in unread if uid not in gone]
        page = shop.data("jobs/list", {**filters, "limit": 100, "cursor": cursor})
        shown += [each["uid"] for each in page["items"]]
        assert page["next_cursor"] is None
        assert shown == sorted(set(shown), reverse=True), "newest first, and none twice"
        assert old & there <= set(shown) <= old


def test_jobs_made_after_a_kill_are_on_no_later_page_even_if_all_older_ones_are_deleted(
    mosquitto: MosquittoBroker, start_service: StartService
) -> None:
    service = start_service(mosquitto.port, SHOP, environment={"SHOP_TOKEN": "x"})
    with service.client() as shop:
        old = make(shop, 4)
        first = shop.data("jobs/list", {"limit": 2})
        delete(shop, old)
        service.kill()
        service.run()
        new = make(shop, 2)
        rest = shop.data("jobs/list", {"cursor": first["next_cursor"]})
        assert (rest["items"], rest["next_cursor"], rest["total_items"]) == ([], None, 2)
        assert {each["uid"] for each in shop.data("jobs/list")["items"]} == new


def make(client: Client, count: int, filters: Mapping[str, Any] | None = None) -> set[int]:
    """Run `count` jobs of two operations, and return the uids of those that match the filters."""
    made = [run(client, ("on", "on", "answer")[number % 3]) for number in range(count)]
    wanted = (filters or {}).items()
    return {job["uid"] for job in made if all(job[name] == value for name, value in wanted)}


def delete(client: Client, uids: set[int]) -> None:
    for uid in uids:
        assert client.ask("jobs/delete", {"id": uid})["code"] == 204


@pytest.mark.proves("listing", "limit 1 to 100, default 10")
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": "10"}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"limit": None}, "limit"),
        ({"offset": -1}, "offset"),
        ({"offset": True}, "offset"),
        ({"status": "finished"}, "status"),
        ({"status": ["completed", 1]}, "status"),
        ({"since": "yesterday"}, "since"),
        ({"until": [1]}, "until"),
        ({"cursor": "next"}, "cursor"),
        ({"fields": ["id", "secret"]}, "fields"),
        ({"page": 2}, "page"),
    ],
)
def test_a_wrong_filter_is_400_and_named(shop: Client, wrong: dict[str, Any], field: str) -> None:
    answer = shop.ask("jobs/list", wrong)
    assert (answer["code"], answer["reason"], list(answer["invalid_fields"])) == (400, "invalid_request", [field])


@pytest.mark.parametrize("limit", [1, 100])
def test_the_limits_of_a_page_are_allowed(shop: Client, limit: int) -> None:
    assert shop.data("jobs/list", {"limit": limit, "offset": 10**9})["items"] == []


@pytest.mark.proves("listing", "items")
def test_a_list_may_be_limited_to_a_time_an_owner_and_some_fields(shop: Client) -> None:
    first = run(shop, "on")
    second = run(shop, "answer")
    page = shop.data("jobs/list", {"since": first["created"], "until": second["created"], "fields": ["uid", "status"]})
    wanted = [] if first["created"] == second["created"] else [{"uid": first["uid"], "status": "completed"}]
    assert page["items"] == wanted
    stamp = round(datetime.fromisoformat(second["created"]).timestamp() * 1000)
    later = shop.data("jobs/list", {"since": stamp, "object": "lamp"})
    assert later["items"][0] == second
    assert shop.data("jobs/list", {"object": "door", "since": "-1h", "operation_id": "answer"})["total_items"] == 0


# -- stop, delete, retry, create -------------------------------------------------------------------------------------


@pytest.mark.proves("listing", "(more here) statuses")
def test_a_running_job_is_stopped_and_stays_stopped(shop: Client, tmp_path: Path) -> None:
    job = begin(shop, tmp_path / "go")
    stopped = shop.data("jobs/stop", {"id": job["uid"]})
    assert (stopped["status"], stopped["changed"], stopped["error"]) == ("stopped", None, "")
    last = stopped["timeline"][-1]
    assert (last["event"], last["message"]) == ("stopped", "Job stopped by anonymous")
    (tmp_path / "go").touch()
    again = shop.ask("jobs/stop", {"id": job["id"]})
    assert (again["code"], again["reason"], again["error"]) == (409, "terminal_state", "The job has already ended.")
    assert shop.data("jobs/get", {"id": job["id"]}) == stopped


@pytest.mark.proves("operations", "timestamp of the execution")
def test_the_timestamp_of_a_job_is_null_until_it_runs_and_then_the_start_in_milliseconds(
    shop: Client, tmp_path: Path
) -> None:
    for _ in range(2):
        begin(shop, tmp_path / "go")
    waiting = shop.data("operations/execute", {"id": "answer"})
    assert shop.data("jobs/get", {"id": waiting["id"]})["timestamp"] is None
    before = milliseconds_now()
    (tmp_path / "go").touch()
    job = ended(shop, waiting["id"])
    assert type(job["timestamp"]) is int
    assert before <= job["timestamp"] <= milliseconds_now()

    before = milliseconds_now()
    published = run(shop, "on")
    assert type(published["timestamp"]) is int
    assert before <= published["timestamp"] <= milliseconds_now()


@pytest.mark.proves("operations", "timestamp of the execution")
@pytest.mark.proves("listing", "(more here) stopping a job")
def test_a_waiting_job_is_stopped_before_it_ever_runs(shop: Client, tmp_path: Path) -> None:
    running = [begin(shop, tmp_path / "go") for _ in range(2)]
    waiting = shop.data("operations/execute", {"id": "answer"})
    assert shop.data("jobs/get", {"id": waiting["id"]})["status"] == "submitted"
    stopped = shop.data("jobs/stop", {"id": waiting["id"]})
    assert (stopped["status"], stopped["timestamp"], stopped["attempts"]) == ("stopped", None, 0)
    (tmp_path / "go").touch()
    assert [ended(shop, job["id"])["status"] for job in running] == ["completed", "completed"]
    assert shop.data("jobs/get", {"id": waiting["id"]}) == stopped


def in_each_state(client: Client, go: Path) -> dict[str, Any]:
    """Return a job of every status that one host can produce, by status."""
    jobs = {
        "completed": run(client, "on"),
        "failed": run(client, "broken"),
        "stopped": client.data("jobs/stop", {"id": begin(client, go)["id"]}),
        "processing": begin(client, go),
    }
    begin(client, go)
    started = client.data("operations/execute", {"id": "answer"})
    return jobs | {"submitted": client.data("jobs/get", {"id": started["id"]})}


@pytest.mark.proves("listing", "delete")
def test_a_job_of_any_status_can_be_deleted(shop: Client, tmp_path: Path) -> None:
    jobs = in_each_state(shop, tmp_path / "go")
    assert {status: job["status"] for status, job in jobs.items()} == {status: status for status in jobs}
    before = shop.data("jobs/list")["status_counts"]
    for status, job in jobs.items():
        gone = shop.ask("jobs/delete", {"id": job["id"]})
        assert (gone["code"], gone["data"]) == (204, {"id": job["id"], "uid": job["uid"]})
        assert shop.ask("jobs/get", {"id": job["uid"]})["code"] == 404
        assert shop.ask("jobs/delete", {"id": job["id"]})["code"] == 404
        before[status] -= 1
    assert shop.data("jobs/list")["status_counts"] == before
    (tmp_path / "go").touch()


@pytest.mark.proves("listing", "submitted", "updated_at", "event retried", "retry")
def test_a_job_of_any_status_can_be_retried(shop: Client, tmp_path: Path) -> None:
    jobs = in_each_state(shop, tmp_path / "go")
    fresh = {}
    for status, job in jobs.items():
        answer = shop.ask("jobs/retry", {"id": job["id"]})
        assert (answer["code"], set(answer["data"])) == (201, {"id", "uid", "status"})
        fresh[status] = answer["data"]["id"]
        old = shop.data("jobs/get", {"id": job["id"]})
        event = next(each for each in old["timeline"] if each["event"] == "retried")
        assert event["message"] == f"Job retried as {fresh[status]}"
        assert old["updated_at"] == event["timestamp"]
        assert old["status"] == status
    (tmp_path / "go").touch()
    for status, job in jobs.items():
        new = ended(shop, fresh[status])
        assert new["retry_of"] == job["id"]
        assert new["status"] == ("failed" if status == "failed" else "completed")
        for name in ("operation_id", "operation", "owner_id", "owner_type", "params", "target", "priority"):
            assert new[name] == job[name]
        was = ended(shop, job["id"])
        assert was["status"] == {"submitted": "completed", "processing": "completed"}.get(status, status)
        assert [each["event"] for each in was["timeline"]].count("retried") == 1


def test_a_retry_of_a_job_that_a_state_change_started_is_a_run_by_hand(shop: Client) -> None:
    shop.subscribe("hall/door", "mqttjobs/event/job/completed/opened/#")
    shop.publish("door", "closed")
    shop.publish("door", "open")
    first = shop.wait_topic("mqttjobs/event/job/completed/opened/door").json
    assert shop.wait_topic("hall/door").json == {"from": "closed", "to": "open"}
    assert first["process_meta"]["triggerStates"] == ["open", "ajar"]
    shop.publish("door", "closed")
    since = len(shop.messages)
    new = shop.data("jobs/retry", {"id": first["id"], "target": "_local"})
    assert shop.wait_topic("hall/door", since=since).json == {"from": "closed", "to": "open"}
    job = ended(shop, new["id"])
    assert (job["process_meta"], job["user_id"], job["retry_of"]) == (None, "anonymous", first["id"])
    assert (job["root_id"], job["parent_id"]) == (job["id"], None)


def test_a_retry_obeys_the_mode_of_its_operation(shop: Client, tmp_path: Path) -> None:
    job = begin(shop, tmp_path / "go", "single")
    refused = shop.ask("jobs/retry", {"id": job["id"]})
    assert (refused["code"], refused["reason"]) == (409, "conflict")
    assert "retried" not in [each["event"] for each in shop.data("jobs/get", {"id": job["id"]})["timeline"]]
    (tmp_path / "go").touch()
    assert ended(shop, job["id"])["status"] == "completed"
    assert shop.ask("jobs/retry", {"id": job["id"]})["code"] == 201


@pytest.mark.parametrize("target", ["_any", "_all", "elsewhere", "group:web", ""])
def test_without_agents_the_only_target_is_this_host(shop: Client, target: str) -> None:
    job = run(shop, "on")
    inline = {"type": "mqtt", "topic": "t", "message": ""}
    for method, body in (("jobs/retry", {"id": job["id"]}), ("jobs/create", {"operation": inline})):
        refused = shop.ask(method, {**body, "target": target})
        assert (refused["code"], list(refused["invalid_fields"])) == (400, ["target"])
        assert shop.ask(method, {**body, "target": "_local"})["code"] == 201
    refused = shop.ask("jobs/create", {"operation": inline | {"target": target}})
    assert (refused["code"], refused["reason"]) == (400, "invalid_request")
    assert shop.ask("jobs/create", {"operation": inline | {"target": "_local"}})["code"] == 201


@pytest.mark.proves("listing", "a job of any operation that is sent in")
def test_an_inline_operation_can_be_run(shop: Client) -> None:
    shop.subscribe("hand/made", "mqttjobs/event/job/completed/#")
    operation = {"type": "mqtt", "topic": "hand/made", "message": {"n": 1}, "qos": 1, "name": "By hand"}
    answer = shop.ask("jobs/create", {"operation": operation})
    assert (answer["code"], set(answer["data"])) == (201, {"id", "uid", "status"})
    assert shop.wait_topic("hand/made").json == {"n": 1}
    shop.wait_topic("mqttjobs/event/job/completed/_/_")
    job = ended(shop, answer["data"]["id"])
    assert (job["status"], job["operation"], job["operation_id"]) == ("completed", operation, None)
    assert (job["owner_id"], job["owner_type"], job["user_id"], job["process_meta"]) == (None, None, "anonymous", None)
    again = shop.data("jobs/retry", {"id": job["id"]})
    assert ended(shop, again["id"])["operation"] == operation


def test_an_inline_operation_can_be_run_for_an_object_or_a_link(shop: Client) -> None:
    shop.subscribe("lamp/set")
    inline = {
        "type": "mqtt",
        "topic": "{{ properties.command_topic }}",
        "message": "{{ name }}: {{ properties.token }}",
    }
    job = shop.data("jobs/create", {"operation": inline, "object": "lamp"})
    shop.wait_for(lambda each: each.payload == b"Lamp: ${ENV:SHOP_TOKEN}")
    done = ended(shop, job["id"])
    assert (done["owner_id"], done["owner_type"]) == ("lamp", "1")
    script = {
        "type": "script",
        "text": 'printf \'"%s"\' "$MQTTJOBS_SOURCE_ID"',
        "timeout": 10,
        "retry": {"attempts": 2},
    }
    job = shop.data("jobs/create", {"operation": script, "link": "cable"})
    done = ended(shop, job["id"])
    assert (done["owner_id"], done["owner_type"], done["result"]) == ("cable", "2", "door")


@pytest.mark.parametrize("kind", ["program", "unheard_of"])
def test_an_inline_operation_of_another_type_is_forbidden(shop: Client, kind: str) -> None:
    refused = shop.ask("jobs/create", {"operation": {"type": kind, "path": "/bin/true"}})
    assert (refused["code"], refused["reason"]) == (403, "forbidden")
    assert "inline_operations" in refused["details"]


@pytest.mark.parametrize(
    "operation",
    [
        {},
        {"type": None},
        {"type": "mqtt"},
        {"type": "mqtt", "topic": ""},
        {"type": "mqtt", "topic": "a/#"},
        {"type": "mqtt", "topic": "$SYS/a"},
        {"type": "mqtt", "topic": "mqttjobs/request/jobs/list"},
        {"type": "mqtt", "topic": "{{ 1 + 1 }}"},
        {"type": "mqtt", "topic": "t", "qos": 3},
        {"type": "mqtt", "topic": "t", "unheard_of": 1},
        {"type": "mqtt", "topic": "t", "timeout": "soon"},
        {"type": "mqtt", "topic": "t", "attach": {"object": "lamp"}},
        {"type": "mqtt", "topic": "t", "triggers": [{}]},
        {"type": "mqtt", "topic": "t", "schedule": "* * * * *"},
        {"type": "mqtt", "topic": "t", "run_as": "admin"},
        {"type": "script", "text": "echo {{ id }}"},
        {"type": "script"},
    ],
)
def test_an_invalid_inline_operation_is_400(shop: Client, operation: dict[str, Any]) -> None:
    refused = shop.ask("jobs/create", {"operation": operation})
    assert (refused["code"], list(refused["invalid_fields"])) == (400, ["operation"])


def test_an_unknown_entity_is_404_for_an_inline_operation(shop: Client) -> None:
    inline = {"type": "mqtt", "topic": "t"}
    assert shop.ask("jobs/create", {"operation": inline, "object": "nobody"})["error"] == "Object not found."
    assert shop.ask("jobs/create", {"operation": inline, "object": "lamp", "link": "cable"})["code"] == 400


def test_by_default_an_inline_operation_may_only_publish(
    mosquitto: MosquittoBroker, start_service: StartService
) -> None:
    service = start_service(mosquitto.port, {"users": {"eve": {"api_key": "k" * 16, "permissions": ["admin"]}}})
    with service.client() as client:
        refused = client.ask("jobs/create", {"operation": {"type": "script", "text": "id"}}, api_key="k" * 16)
        assert refused["code"] == 403
        good = client.ask("jobs/create", {"operation": {"type": "mqtt", "topic": "t"}}, api_key="k" * 16)
        assert good["code"] == 201
