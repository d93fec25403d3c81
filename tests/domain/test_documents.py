"""The documents: every field of the contract is there, always, and says what the record says."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.domain.documents import event_document, job_document, job_fields, send_document
from mqttjobs.domain.jobs import CustomResult, Job, OperationState, Outcome, begin, finish, submitted
from mqttjobs.domain.model import EntityKey, EntityKind, Json
from mqttjobs.domain.operation_document import OperationView, brief_document, operation_document, strategy
from mqttjobs.domain.operations import Attach, Operation, Preference
from mqttjobs.domain.protocol import encode
from mqttjobs.domain.schedules import Interval
from mqttjobs.domain.status import ALL, ANY, LOCAL, TERMINAL_STATUSES, EventKind, JobEvent, Status, status_of
from mqttjobs.domain.triggers.base import Trigger
from mqttjobs.domain.users import User
from tests.domain.builders import LAMP, NOW, an_event, json_values, later

JOB_KEYS = (
    "id",
    "uid",
    "status",
    "created",
    "updated_at",
    "timestamp",
    "operation_id",
    "operation",
    "owner_id",
    "owner_type",
    "user_id",
    "target",
    "priority",
    "params",
    "events",
    "description",
    "result",
    "changed",
    "error",
    "hostname",
    "message",
    "attempts",
    "results",
    "process_meta",
    "responses",
    "agent_states",
    "timeline",
    "parent_id",
    "root_id",
    "retry_of",
)
SEND_KEYS = (
    "uid",
    "id",
    "status",
    "message",
    "kind",
    "error_message",
    "error_stack_trace",
    "invalid_fields",
    "content",
)
OPERATION_KEYS = (
    "id",
    "job_name",
    "process_name",
    "process_id",
    "process_version",
    "environment_id",
    "status",
    "job_execution_strategy",
    "job_instances",
    "scheduled",
    "priority",
    "active",
    "previous_trigger",
    "next_trigger",
    "force_user_context",
    "eo_flow_enabled",
    "job_context",
    "preferences",
    "description",
    "type",
    "metadata",
    "start_date",
    "end_date",
    "attach",
    "params",
    "triggers",
    "conditions",
    "mode",
    "max",
    "target",
)
MQTT_BLANK = {"topic": None, "message": None}
PROGRAM_BLANK = {"exitCode": None, "stdout": None}
PROGRAM = {"id": "op", "type": "program", "path": "/bin/op"}


def a_job(*events: JobEvent, **changes: Any) -> Job:
    """Return a job with these events after its submission, and the status that they make."""
    timeline = (submitted(NOW, "hub"), *events)
    fields: dict[str, Any] = {
        "uid": 42,
        "id": "0193",
        "created_at": NOW,
        "operation_id": "op",
        "operation": PROGRAM,
        "fingerprint": "f",
        "owner": LAMP,
        "user_id": "alice",
        "timeline": timeline,
        "target": LOCAL,
        **changes,
    }
    job = Job(**fields)
    return job.evolve(status=status_of(timeline, job.expected, job.target))


def a_run(outcome: Outcome, **changes: Any) -> Job:
    """Return a job that was started after a second and ended a second and a half later."""
    job = a_job(**changes)
    started = begin(job, later(1), "hub")
    running = job.evolve(timeline=job.timeline + started.events, attempts=1, executed_at=later(1))
    ended = finish(running, outcome, later(2.5), "hub", None)
    return running.evolve(timeline=running.timeline + ended.events, status=ended.status)


# -- the job document -------------------------------------------------------------------------------------------------

events = st.lists(
    st.builds(
        JobEvent,
        st.integers(0, 9).map(later),
        st.sampled_from(EventKind),
        st.sampled_from(["hub", "a", "b"]),
        st.sampled_from(["", "half done"]),
        st.sampled_from(["", "boom"]),
        st.none()
        | st.builds(
            lambda result, stdout: Outcome(
                ok=True, result=result, description={"exitCode": 0, "stdout": stdout}, exit_code=0
            ).report(),
            json_values,
            st.text(st.characters(exclude_categories=["Cs"]), max_size=9).map(lambda text: text * 700),
        ),
    ),
    max_size=8,
)
targets = st.sampled_from([LOCAL, ANY, ALL])
expectations = st.lists(st.sampled_from(["a", "b"]), unique=True)


@given(events, targets, expectations, json_values, st.booleans())
def test_every_field_is_there_whatever_happened_and_all_of_it_is_json(
    reported: list[JobEvent], target: str, expected: list[str], payload: Any, owned: bool
) -> None:
    job = a_job(
        *reported,
        target=target,
        expected=tuple(expected),
        results=(CustomResult({"p": payload}, "bob", NOW),),
        owner=LAMP if owned else None,
        params={"p": payload},
    )
    document = json.loads(encode(job_document(job, PROGRAM_BLANK)))
    assert set(document) == set(JOB_KEYS) == job_fields()
    assert document["status"] == job.status
    assert document["description"].keys() == PROGRAM_BLANK.keys()
    assert set(document["agent_states"]) >= set(document["responses"])
    assert len(document["timeline"]) == len(job.timeline)
    assert (document["changed"] is None) == (job.status not in (Status.COMPLETED, Status.PARTIAL_FAILURE))
    assert document["error"] == "" or job.status is Status.FAILED
    assert (document["result"] is None) or len(document["responses"]) == 1
    brief = event_document(job, PROGRAM_BLANK)
    assert set(brief) == set(JOB_KEYS) - {"responses", "agent_states", "timeline"}
    assert len((brief["description"]["stdout"] or "").encode()) <= 4096
    sent = json.loads(encode(send_document(job, PROGRAM_BLANK)))
    assert set(sent) == set(SEND_KEYS)
    assert "" not in sent.values()
    assert (sent["status"] == "message") == (job.status not in TERMINAL_STATUSES)


@given(events, targets, expectations, st.randoms())
def test_the_order_in_which_events_came_changes_nothing_but_the_timeline(
    reported: list[JobEvent], target: str, expected: list[str], random: Any
) -> None:
    mixed = random.sample(reported, len(reported))
    one, other = (
        job_document(a_job(*each, target=target, expected=tuple(expected)), PROGRAM_BLANK) for each in (reported, mixed)
    )
    for name in set(JOB_KEYS) - {"timeline", "message"}:
        assert one[name] == other[name], name


def test_a_job_that_completed() -> None:
    outcome = Outcome(ok=True, changed=True, description={"topic": "a/set", "message": "ON"})
    job = a_run(
        outcome,
        operation={"id": "op", "type": "mqtt", "topic": "a/set"},
        process_meta={"triggerStates": ["on"]},
        priority=3,
        events=("a",),
        params={"x": 1},
    )
    document = job_document(job, MQTT_BLANK)
    assert document == {
        "id": "0193",
        "uid": 42,
        "status": "completed",
        "created": "2026-03-01T12:00:00.000Z",
        "updated_at": "2026-03-01T12:00:02.500Z",
        "timestamp": 1772366401000,
        "operation_id": "op",
        "operation": {"id": "op", "type": "mqtt", "topic": "a/set"},
        "owner_id": "lamp",
        "owner_type": "1",
        "user_id": "alice",
        "target": "_local",
        "priority": 3,
        "params": {"x": 1},
        "events": ("a",),
        "description": {"topic": "a/set", "message": "ON"},
        "result": None,
        "changed": True,
        "error": "",
        "hostname": "hub",
        "message": "",
        "attempts": 1,
        "results": [],
        "process_meta": {"triggerStates": ["on"], "reported_at": None},
        "responses": {"hub": {"status": "completed", "data": None, "changed": True, "error": "", "hostname": "hub"}},
        "agent_states": {"hub": {"status": "completed", "error": "", "duration": "1.5s"}},
        "timeline": [
            {
                "timestamp": f"2026-03-01T12:00:0{at}Z",
                "event": event,
                "hostname": "hub",
                "message": message,
                "error": "",
            }
            for at, event, message in (
                ("0.000", "submitted", "Job submitted"),
                ("1.000", "acknowledged", "Job acknowledged by hub"),
                ("1.000", "started", "Job processing started on hub"),
                ("2.500", "completed", "Job completed successfully on hub"),
            )
        ],
        "parent_id": None,
        "root_id": "0193",
        "retry_of": None,
    }


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ({"reported_by": "ada"}, {"reported_by": "ada", "reported_at": None}),
        ({"reported_at": None}, {"reported_at": None}),
        ({"reported_at": "2026-03-01T12:00:00.000Z"}, {"reported_at": "2026-03-01T12:00:00.000Z"}),
    ],
)
def test_a_job_of_before_reports_had_a_time_shows_that_it_has_none(recorded: Json, shown: Json) -> None:
    assert job_document(a_job(process_meta=recorded), MQTT_BLANK)["process_meta"] == shown


def test_a_job_that_only_was_submitted_has_every_field_empty_or_null() -> None:
    document = job_document(a_job(operation_id=None, owner=None), PROGRAM_BLANK)
    assert document["description"] == {"exitCode": None, "stdout": None}
    for name in (
        "timestamp",
        "operation_id",
        "owner_id",
        "owner_type",
        "result",
        "changed",
        "process_meta",
        "parent_id",
        "retry_of",
    ):
        assert document[name] is None, name
    assert (document["error"], document["message"], document["results"], document["responses"]) == ("", "", [], {})
    assert document["agent_states"] == {"hub": {"status": "submitted", "error": "", "duration": None}}


@pytest.mark.parametrize(("kind", "word"), [(EntityKind.OBJECT, "1"), (EntityKind.LINK, "2")])
def test_the_kind_of_an_owner_is_a_digit(kind: EntityKind, word: str) -> None:
    assert job_document(a_job(owner=EntityKey(kind, "x")), {})["owner_type"] == word


def test_what_a_failed_program_left_behind() -> None:
    outcome = Outcome(
        ok=False, error="exit code 3", description={"exitCode": 3, "stdout": "half"}, exit_code=3, stderr="no paper"
    )
    document = job_document(a_run(outcome), PROGRAM_BLANK)
    assert (document["status"], document["error"], document["changed"]) == ("failed", "exit code 3", None)
    assert document["description"] == {"exitCode": 3, "stdout": "half"}
    assert document["responses"]["hub"] == {
        "status": "failed",
        "data": {"exitCode": 3, "stdout": "half"},
        "changed": None,
        "error": "exit code 3",
        "hostname": "hub",
    }
    assert document["agent_states"]["hub"]["error"] == "exit code 3"
    assert document["timeline"][-1]["error"] == "exit code 3\nno paper"


def test_a_programs_result_stands_before_its_output() -> None:
    outcome = Outcome(ok=True, result={"n": 1}, changed=False, description={"exitCode": 0, "stdout": "{}"}, exit_code=0)
    document = job_document(a_run(outcome), PROGRAM_BLANK)
    assert document["result"] == document["responses"]["hub"]["data"] == {"n": 1}
    assert document["changed"] is False


def a_told_end(kind: EventKind, host: str, seconds: float, **report: Any) -> JobEvent:
    outcome = Outcome(ok=kind is EventKind.COMPLETED, error=report.pop("error", ""), **report)
    return an_event(kind, host, seconds, error=outcome.error, report=outcome.report())


def test_a_broadcast_has_a_response_of_each_agent_and_no_result_of_its_own() -> None:
    job = a_job(
        a_told_end(EventKind.COMPLETED, "a", 3, result=1, changed=False, message="first"),
        a_told_end(EventKind.COMPLETED, "b", 5, result=2, changed=True, message="second"),
        target=ALL,
        expected=("a", "b"),
    )
    document = job_document(job, PROGRAM_BLANK)
    assert (document["status"], document["result"], document["changed"]) == ("completed", None, True)
    assert document["hostname"] == "b"
    assert document["message"] == "second"
    assert {host: each["data"] for host, each in document["responses"].items()} == {"a": 1, "b": 2}


def test_a_partial_failure_has_no_error_of_its_own() -> None:
    job = a_job(
        a_told_end(EventKind.COMPLETED, "a", 3, changed=True),
        a_told_end(EventKind.FAILED, "b", 5, error="boom"),
        target=ALL,
        expected=("a", "b"),
    )
    document = job_document(job, PROGRAM_BLANK)
    assert (document["status"], document["error"], document["changed"]) == ("partial_failure", "", True)
    assert document["responses"]["b"]["error"] == "boom"


def test_of_several_failures_the_last_error_counts_then_the_greater_hostname() -> None:
    def error(*ends: tuple[str, float, str]) -> str:
        reported = [a_told_end(EventKind.FAILED, host, at, error=text) for host, at, text in ends]
        return str(job_document(a_job(*reported, target=ALL, expected=("a", "b")), {})["error"])

    assert error(("a", 5, "late"), ("b", 3, "early")) == "late"
    assert error(("a", 3, "lesser"), ("b", 3, "greater")) == "greater"


def test_the_message_is_the_last_that_was_reported() -> None:
    running = a_job(an_event(EventKind.PROGRESS, seconds=2, message="half done"))
    assert job_document(running, {})["message"] == "half done"
    ended = a_run(Outcome(ok=True, message="no subscriber"))
    assert job_document(ended, {})["message"] == "no subscriber"


def test_results_that_users_added_are_in_order_with_whom_and_when() -> None:
    job = a_job(results=(CustomResult({"n": 1}, "alice", later(60)), CustomResult({}, "bob", later(61))))
    assert job_document(job, {})["results"] == [
        {"payload": {"n": 1}, "by": "alice", "timestamp": 1772366460000},
        {"payload": {}, "by": "bob", "timestamp": 1772366461000},
    ]


def test_a_published_event_cuts_output_at_4_kib_and_never_inside_a_character() -> None:
    output = "ä" * 5000
    document = event_document(
        a_run(Outcome(ok=True, description={"exitCode": 0, "stdout": output}, exit_code=0)), PROGRAM_BLANK
    )
    assert document["description"] == {"exitCode": 0, "stdout": "ä" * 2048}
    large = event_document(a_run(Outcome(ok=True, result=["x" * 5000])), PROGRAM_BLANK)
    assert large["result"] is None


# -- the send document ------------------------------------------------------------------------------------------------


def test_a_job_that_is_still_going_tells_its_progress_or_the_last_of_its_timeline() -> None:
    document = send_document(a_job(), PROGRAM_BLANK)
    assert document == dict.fromkeys(SEND_KEYS) | {
        "uid": 42,
        "id": "0193",
        "status": "message",
        "message": "Job submitted",
        "kind": "program",
    }
    running = a_job(an_event(EventKind.PROGRESS, message="half done"), an_event(EventKind.STARTED, message="started"))
    assert send_document(running, PROGRAM_BLANK)["message"] == "half done"


@pytest.mark.parametrize(
    ("outcome", "content"),
    [
        (Outcome(ok=True, result={"n": 1}), {"n": 1}),
        (Outcome(ok=True, result=[1]), {"value": [1]}),
        (Outcome(ok=True, result=0), {"value": 0}),
        (Outcome(ok=True, result=False), {"value": False}),
        (Outcome(ok=True, result=""), {"value": ""}),
        (Outcome(ok=True, description={"exitCode": 0, "stdout": "hi"}, exit_code=0), {"exitCode": 0, "stdout": "hi"}),
    ],
)
def test_the_content_is_the_result_if_it_is_an_object_else_its_value_else_the_description(
    outcome: Outcome, content: Any
) -> None:
    document = send_document(a_run(outcome), PROGRAM_BLANK)
    assert (document["status"], document["content"]) == ("success", content)
    assert (document["message"], document["error_message"], document["error_stack_trace"]) == (None, None, None)


@pytest.mark.parametrize(("code", "status"), [(1, "error"), (64, "error_user"), (65, "error_user"), (127, "error")])
def test_a_failure_says_whose_it_is(code: int, status: str) -> None:
    outcome = Outcome(
        ok=False, error=f"exit code {code}", exit_code=code, stderr="usage: op", user_error=code in (64, 65)
    )
    document = send_document(a_run(outcome), PROGRAM_BLANK)
    assert (document["status"], document["error_message"], document["content"]) == (status, f"exit code {code}", None)
    assert document["error_stack_trace"] == {"exit_code": code, "stderr": "usage: op"}


def test_params_that_broke_the_schema_are_the_users_error() -> None:
    job = a_job(an_event(EventKind.FAILED, error="wrong params: to"), invalid_fields={"to": ["is required"]})
    document = send_document(job, PROGRAM_BLANK)
    assert (document["status"], document["invalid_fields"]) == ("error_user", {"to": ["is required"]})
    assert document["error_stack_trace"] is None


@pytest.mark.parametrize("kind", [EventKind.STOPPED, EventKind.SKIPPED])
def test_what_was_stopped_has_no_content(kind: EventKind) -> None:
    document = send_document(a_job(an_event(kind, message="enough")), PROGRAM_BLANK)
    assert document == dict.fromkeys(SEND_KEYS) | {"uid": 42, "id": "0193", "status": "stopped", "kind": "program"}


# -- the operation document -------------------------------------------------------------------------------------------


def an_operation(**fields: Any) -> Operation:
    return Operation(**{"id": "op", "type": "program", "definition": PROGRAM, "fingerprint": "f", **fields})


def a_view(operation: Operation | None = None, **changes: Any) -> OperationView:
    made = operation or an_operation(fingerprint="0123456789abcdef", name="Open", description="It opens")
    fields: dict[str, Any] = {
        "operation": made,
        "operation_state": None,
        "active": True,
        "total": 0,
        "running": 0,
        "last_ids": (),
        "latest": None,
        "next_due": None,
        "process": ("op", "/bin/op"),
        "users": {},
        **changes,
    }
    return OperationView(**fields)


def test_an_operation_that_never_ran_has_every_field() -> None:
    document = operation_document(a_view())
    assert set(OPERATION_KEYS) <= set(document)
    assert json.loads(encode(document)) == {
        **dict.fromkeys(document),
        "id": "op",
        "job_name": "Open",
        "name": "Open",
        "process_name": "op",
        "process_id": "/bin/op",
        "process_version": "0123456789ab",
        "status": "scheduled",
        "job_execution_strategy": "on_demand",
        "job_instances": {"total": 0, "running": 0, "last_ids": []},
        "priority": 0,
        "active": True,
        "force_user_context": False,
        "eo_flow_enabled": True,
        "preferences": [],
        "description": "It opens",
        "type": "program",
        "path": "/bin/op",
        "attach": [],
        "triggers": [],
        "mode": "parallel",
        "target": "_local",
        "delivery": "at_most_once",
        "metadata": dict.fromkeys(["created_by", "created_at", "updated_by", "updated_at", "completed_at"]),
        "job_context": {
            "machine_id": None,
            "device_name": None,
            "user_identifier": None,
            "dynamic_robots": 0,
            "robot_id": None,
            "robot_name": None,
            "user_name": None,
            "user_details": {"id": None, "display_name": None, "email": None, "rpa_role": None},
        },
    } | {key: document[key] for key in document.keys() - set(OPERATION_KEYS) - {"name", "path", "delivery"}}


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (Status.SUBMITTED, "running"),
        (Status.PROCESSING, "running"),
        (Status.COMPLETED, "completed"),
        (Status.FAILED, "failed"),
        (Status.PARTIAL_FAILURE, "failed"),
        (Status.STOPPED, "cancelled"),
        (Status.SKIPPED, "cancelled"),
    ],
)
def test_the_status_is_that_of_the_latest_run(status: Status, word: str) -> None:
    assert operation_document(a_view(latest=a_job().evolve(status=status)))["status"] == word


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "on_demand"),
        ({"triggers": (Trigger(),)}, "event_driven"),
        ({"triggers": (Trigger(),), "event_driven": False}, "on_demand"),
        ({"schedule": Interval(every=timedelta(minutes=10))}, "scheduled"),
        ({"schedule": "* * * * *", "triggers": (Trigger(),)}, "scheduled+event_driven"),
    ],
)
def test_how_an_operation_is_started(changes: dict[str, Any], word: str) -> None:
    written = {"scheduled": {"every": "10m"}, "scheduled+event_driven": "* * * * *"}.get(word)
    operation = an_operation(definition={**PROGRAM, "schedule": written} if written else PROGRAM, **changes)
    assert strategy(operation) == word
    document = operation_document(a_view(operation))
    assert document["job_execution_strategy"] == word
    assert document["scheduled"] == written


def test_what_is_remembered_and_who_took_part() -> None:
    facts = OperationState(
        "op",
        "f",
        NOW,
        later(1),
        "system",
        "alice",
        total=7,
        first_run_at=later(2),
        triggered_at=later(3),
        completed_at=later(4),
        ended_at=later(5),
    )
    operation = an_operation(
        definition={**PROGRAM, "attach": [{"link": "l"}], "version": "2"},
        attach=(Attach(link="l"),),
        run_as="alice",
        environment="plant",
        version="2",
        preferences=(Preference(key="k", value={"r": 1}, description="d"),),
    )
    latest = a_job(
        an_event(EventKind.STARTED, "a", 1), an_event(EventKind.COMPLETED, "b", 2), target=ALL, expected=("a", "b", "c")
    )
    alice = User(id="alice", display_name="Alice", email="a@example.org", role="operator")
    document = operation_document(
        a_view(
            operation,
            operation_state=facts,
            total=7,
            running=1,
            last_ids=("x", "y"),
            latest=latest,
            next_due=later(60),
            users={"alice": alice},
        )
    )
    assert document["metadata"] == {
        "created_by": "system",
        "created_at": "2026-03-01T12:00:00.000Z",
        "updated_by": "alice",
        "updated_at": "2026-03-01T12:00:01.000Z",
        "completed_at": "2026-03-01T12:00:04.000Z",
    }
    assert (document["start_date"], document["end_date"]) == ("2026-03-01T12:00:02.000Z", "2026-03-01T12:00:05.000Z")
    assert (document["previous_trigger"], document["next_trigger"]) == (
        "2026-03-01T12:00:03.000Z",
        "2026-03-01T12:01:00.000Z",
    )
    assert document["job_instances"] == {"total": 7, "running": 1, "last_ids": ["x", "y"]}
    assert (document["force_user_context"], document["environment_id"], document["process_version"]) == (
        True,
        "plant",
        "2",
    )
    assert document["preferences"] == [{"id": "k", "key": "k", "value": {"r": 1}, "description": "d"}]
    assert document["attach"] == [{"link": "l"}]
    assert document["job_context"] == {
        "machine_id": "b",
        "device_name": "b",
        "user_identifier": "alice",
        "dynamic_robots": 2,
        "robot_id": "b",
        "robot_name": "b",
        "user_name": "Alice",
        "user_details": {"id": "alice", "display_name": "Alice", "email": "a@example.org", "rpa_role": "operator"},
    }


def test_an_inactive_operation_has_no_next_time() -> None:
    assert operation_document(a_view(active=False, next_due=later(60)))["next_trigger"] is None


def test_who_may_only_run_an_operation_sees_its_name() -> None:
    operation = an_operation(name="Open", description="It opens")
    assert brief_document(operation) == {"id": "op", "name": "Open", "description": "It opens"}
