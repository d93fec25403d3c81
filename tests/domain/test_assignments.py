"""What deadlines and reports do to assignments and to their job (contract 6; behaviour 3.3, 3.6, 3.9)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.domain.agent_messages import ReportMessage
from mqttjobs.domain.agents import Timing
from mqttjobs.domain.assignments import (
    TIMED_OUT,
    Assignment,
    Change,
    Due,
    Rules,
    Stage,
    fail,
    failures,
    next_due,
    plan,
    sent,
    take_back,
    take_report,
    time_out,
)
from mqttjobs.domain.jobs import Job, Phase, apply, submitted
from mqttjobs.domain.model import Delivery
from mqttjobs.domain.operations import Operation, Retry, Rollout
from mqttjobs.domain.status import ALL, ANY, EventKind, Status
from mqttjobs.errors import ReportError
from tests.domain.builders import NOW, later

TIMING = Timing()
LIMIT = timedelta(seconds=60)
BLANK = {"exitCode": None, "stdout": None}


def an_operation(**changes: Any) -> Operation:
    return Operation(**{"id": "backup", "type": "script", "definition": {}, "fingerprint": "f", **changes})


def rules(**operation: Any) -> Rules:
    return Rules(an_operation(**operation), TIMING, BLANK)


def a_job(*hosts: str, target: str = ALL) -> Job:
    return Job(
        uid=1,
        id="j1",
        created_at=NOW,
        operation_id="backup",
        operation={"type": "script"},
        fingerprint="f",
        owner=None,
        user_id="alice",
        target=target,
        expected=hosts,
        phase=Phase.CLAIMED,
        timeline=(submitted(NOW, "hub"),),
    )


def an_assignment(hostname: str = "a", attempt: int = 1, seconds: float = 0, **changes: Any) -> Assignment:
    row = Assignment(1, hostname, attempt, Stage.PLANNED, later(seconds), limit=LIMIT, **changes)
    return sent(row, f"token-{hostname}-{attempt}", later(seconds), TIMING)


def a_report(event: str, seconds: float = 1, **changes: Any) -> ReportMessage:
    fields = {"job_id": "j1", "attempt": 1, "token": "token-a-1", "event": event, "timestamp": later(seconds)}
    return ReportMessage(**{**fields, **changes})


def after(job: Job, change: Change) -> Job:
    return apply(job, change.update)


def reported(job: Job, row: Assignment, *events: str, **operation: Any) -> tuple[Job, Assignment]:
    for seconds, event in enumerate(events, 1):
        change = take_report(job, row, a_report(event, seconds), rules(**operation), later(seconds))
        job, row = after(job, change), change.row
    return job, row


# -- plans and deadlines ---------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 10) | st.none())
def test_a_rollout_plans_every_agent_once_in_waves_of_its_batch(count: int, batch: int | None) -> None:
    hosts = [f"h{n}" for n in range(count)]
    rollout = None if batch is None else Rollout(batch=batch)
    rows = plan(a_job(*hosts), an_operation(target=ALL, rollout=rollout), LIMIT, hosts, NOW)
    assert [row.hostname for row in rows] == hosts
    sizes = [sum(1 for row in rows if row.wave == wave) for wave in range(rows[-1].wave + 1)]
    assert all(size == (batch or count) for size in sizes[:-1])
    assert 1 <= sizes[-1] <= (batch or count)
    assert all((row.stage is Stage.PLANNED) == (row.wave == 0) for row in rows)


def test_a_silent_agent_is_asked_again_until_the_deadline() -> None:
    row = an_assignment()
    assert next_due(row, NOW, TIMING) == (later(10), Due.SEND_AGAIN)
    row = sent(row, "another", later(61), TIMING)
    assert row.token == an_assignment().token
    assert row.assigned_at == NOW
    assert next_due(row, NOW, TIMING) == (later(65), Due.TIME_OUT)


def test_under_any_an_agent_that_does_not_acknowledge_loses_the_job_at_once() -> None:
    assert next_due(an_assignment(movable=True), later(9), TIMING) == (later(10), Due.TAKE_BACK)


def test_under_any_a_silent_agent_loses_the_job_with_its_lease_and_heartbeats_renew_it() -> None:
    _, row = reported(a_job(target=ANY), an_assignment(movable=True), "acknowledged")
    assert next_due(row, later(-500), TIMING) == (later(30), Due.TAKE_BACK)
    assert next_due(row, later(20), TIMING) == (later(50), Due.TAKE_BACK)
    assert next_due(row, later(40), TIMING) == (later(61), Due.SEND_AGAIN)
    assert next_due(sent(row, "", later(61), TIMING), later(60), TIMING) == (later(65), Due.TIME_OUT)


def test_the_deadline_is_the_time_limit_and_five_seconds_from_the_start() -> None:
    _, row = reported(a_job("a"), an_assignment(), "acknowledged", "started")
    assert next_due(row, NOW, TIMING) == (later(2 + 61), Due.SEND_AGAIN)
    row = sent(row, "", later(2 + 61), TIMING)
    assert next_due(row, NOW, TIMING) == (later(2 + 65), Due.TIME_OUT)


@pytest.mark.parametrize(
    ("attempts", "delivery", "ran", "allowed"),
    [
        (1, Delivery.AT_MOST_ONCE, False, [True, False, False]),
        (2, Delivery.AT_MOST_ONCE, False, [True, True, False]),
        (1, Delivery.AT_MOST_ONCE, True, [False, False, False]),
        (2, Delivery.AT_MOST_ONCE, True, [True, False, False]),
        (1, Delivery.AT_LEAST_ONCE, True, [True, False, False]),
    ],
)
def test_a_job_goes_to_another_agent_as_often_as_retry_allows(
    attempts: int, delivery: Delivery, ran: bool, allowed: list[bool]
) -> None:
    operation = an_operation(retry=Retry(attempts=attempts), delivery=delivery)
    taken = frozenset({EventKind.STARTED}) if ran else frozenset()
    for number, expected in enumerate(allowed):
        for job, hosts in ((a_job(target=ANY), ["a"]), (a_job("a"), ["a"])):
            [row] = plan(job.evolve(attempts=number), operation, LIMIT, hosts, NOW)
            assert replace(row, taken=taken).may_move is (expected and job.target == ANY)


# -- reports ---------------------------------------------------------------------------------------------------------


def test_one_agent_that_does_it_all_makes_a_job_complete() -> None:
    job, row = reported(a_job("a"), an_assignment(), "acknowledged", "started", "completed")
    assert (job.status, job.phase, row.stage) == (Status.COMPLETED, Phase.ENDED, Stage.CLOSED)
    assert job.executed_at == later(2)
    assert [event.message for event in job.timeline] == [
        "Job submitted",
        "Job acknowledged by a",
        "Job processing started on a",
        "Job completed successfully on a",
    ]


@given(st.permutations(["acknowledged", "started", "completed"]))
def test_any_order_of_reports_gives_the_same_status(order: list[str]) -> None:
    job, row = reported(a_job("a"), an_assignment(), *order)
    assert (job.status, row.taken) == (Status.COMPLETED, {EventKind(each) for each in order})


@given(st.lists(st.sampled_from(["acknowledged", "started", "completed", "failed"]), max_size=8))
def test_every_report_counts_only_once_and_there_is_one_end(events: list[str]) -> None:
    job, row = a_job("a"), an_assignment()
    for seconds, event in enumerate(events, 1):
        with suppress(ReportError):
            change = take_report(job, row, a_report(event, seconds), rules(), later(seconds))
            job, row = after(job, change), change.row
    kinds = [event.kind for event in job.timeline]
    assert all(kinds.count(kind) <= 1 for kind in set(kinds))
    assert not {EventKind.COMPLETED, EventKind.FAILED} <= set(kinds)


def test_progress_counts_as_often_as_it_is_newer() -> None:
    job, row = a_job("a"), an_assignment()
    for seconds in (1, 2):
        change = take_report(job, row, a_report("progress", seconds, message=f"{seconds}"), rules(), later(9))
        job, row = after(job, change), change.row
    with pytest.raises(ReportError):
        take_report(job, row, a_report("progress", 2, message="2"), rules(), later(9))
    assert [event.message for event in job.timeline[1:]] == ["1", "2"]
    assert job.status is Status.SUBMITTED


def test_a_report_is_dated_by_the_agent_but_never_before_its_assignment_or_in_the_future() -> None:
    job = a_job("a")
    for seconds, at in ((-50, 0), (3, 3), (999, 7)):
        change = take_report(job, an_assignment(), a_report("started", seconds), rules(), later(7))
        assert change.update.events[0].at == later(at)


def test_two_agents_that_end_differently_make_a_partial_failure() -> None:
    job, _ = reported(a_job("a", "b"), an_assignment(), "completed")
    assert job.status is Status.PROCESSING
    job = after(job, time_out(job, an_assignment("b"), later(65), an_operation()))
    assert (job.status, job.phase) == (Status.PARTIAL_FAILURE, Phase.ENDED)
    assert job.timeline[-1].error == TIMED_OUT
    assert failures(job) == 1


def test_a_late_completion_outranks_the_time_out() -> None:
    job = a_job("a")
    change = time_out(job, an_assignment(), later(65), an_operation())
    job = after(job, change)
    assert job.status is Status.FAILED
    job = after(job, take_report(job, change.row, a_report("completed", 70), rules(), later(70)))
    assert job.status is Status.COMPLETED


def test_a_late_failure_is_recorded_and_changes_nothing() -> None:
    job = a_job("a")
    change = time_out(job, an_assignment(), later(65), an_operation())
    job = after(job, change)
    late = take_report(job, change.row, a_report("failed", 70, error="exit code 1"), rules(), later(70))
    assert not late.update.reopen
    job = after(job, late)
    assert (job.status, job.timeline[-1].error) == (Status.FAILED, "exit code 1")


def test_a_stopped_job_stays_stopped_whatever_arrives() -> None:
    job, row = reported(a_job("a"), an_assignment(), "started")
    job = job.evolve(
        timeline=(*job.timeline, replace(job.timeline[0], kind=EventKind.STOPPED)),
        status=Status.STOPPED,
        phase=Phase.ENDED,
    )
    job = after(job, take_report(job, row, a_report("completed", 9), rules(), later(9)))
    assert (job.status, job.phase) == (Status.STOPPED, Phase.ENDED)


def test_a_failed_attempt_is_retried_by_the_same_agent_of_a_broadcast() -> None:
    job, row = reported(a_job("a", "b"), an_assignment(), "started")
    report = a_report("failed", 9, error="exit code 1")
    change = take_report(job, row, report, rules(retry=Retry(attempts=3, first=timedelta(seconds=4))), later(9))
    job = after(job, change)
    assert change.next is not None
    assert (change.next.attempt, change.next.stage, change.next.planned_at) == (2, Stage.PLANNED, later(13))
    assert (job.timeline[-1].kind, job.timeline[-1].message) == (
        EventKind.RETRIED,
        "Attempt 1 of 3 failed, next in 4s",
    )
    assert job.status is Status.PROCESSING


def test_a_failed_attempt_under_any_goes_back_to_the_queue() -> None:
    job, row = reported(a_job(target=ANY), an_assignment(), "started")
    operation = rules(retry=Retry(attempts=2, first=timedelta(seconds=4)))
    job = after(job, take_report(job, row, a_report("failed", 9), operation, later(9)))
    assert (job.phase, job.due_at) == (Phase.WAITING, later(13))


def test_what_cannot_help_is_not_retried() -> None:
    job, row = reported(a_job("a"), an_assignment(), "started")
    report = a_report("failed", 9, repeatable=False, error="an unknown variable")
    job = after(job, take_report(job, row, report, rules(retry=Retry(attempts=3)), later(9)))
    assert job.status is Status.FAILED


def test_what_an_agent_gives_back_is_planned_again() -> None:
    change = take_report(a_job("a"), an_assignment(), a_report("failed", given_back=True), rules(), later(1))
    assert change.next is not None
    assert change.update.events[0].kind is EventKind.RETRIED
    moved = take_report(a_job(target=ANY), an_assignment(), a_report("failed", given_back=True), rules(), later(1))
    assert (moved.next, moved.update.phase) == (None, Phase.WAITING)


def test_of_a_job_that_another_agent_was_given_a_late_report_is_only_remembered() -> None:
    job, row = reported(a_job(target=ANY), an_assignment(), "started")
    change = take_back(job, row, later(30), "nothing heard for 30s")
    job = after(job, change)
    assert (job.status, job.phase) == (Status.PROCESSING, Phase.WAITING)
    late = take_report(job, change.row, a_report("completed", 40), rules(), later(40))
    job = after(job, late)
    assert (job.status, job.phase) == (Status.PROCESSING, Phase.WAITING)
    assert job.timeline[-1].kind is EventKind.PROGRESS


def test_a_time_out_under_any_uses_up_an_attempt_while_there_is_one() -> None:
    operation = an_operation(retry=Retry(attempts=2))
    job, row = reported(a_job(target=ANY), an_assignment(), "started")
    first = after(job, time_out(job, row, later(65), operation))
    assert (first.phase, first.timeline[-1].kind) == (Phase.WAITING, EventKind.RETRIED)
    second = after(first, time_out(first, an_assignment("b", 2), later(165), operation))
    assert second.status is Status.FAILED


def test_a_failure_without_a_word_says_so() -> None:
    job, _ = reported(a_job("a"), an_assignment(), "failed")
    assert job.timeline[-1].error


@pytest.mark.parametrize(
    ("data", "result", "description", "changed"),
    [
        ({"exitCode": 0, "stdout": "hello"}, None, {"exitCode": 0, "stdout": "hello"}, False),
        ({"exitCode": 0, "stdout": '{"changed": true}'}, {"changed": True}, None, True),
        ({"free": 7}, {"free": 7}, {}, False),
        (None, None, {}, False),
        (5, 5, {}, False),
    ],
)
def test_the_data_of_a_report_is_the_result_or_describes_the_run(
    data: Any, result: Any, description: Any, changed: bool
) -> None:
    change = take_report(a_job("a"), an_assignment(), a_report("completed", data=data), rules(), later(1))
    report = change.update.events[0].report
    assert report is not None
    assert report["result"] == result
    assert report["description"] == (data if description is None else description)
    assert report["changed"] is changed


@pytest.mark.parametrize(
    ("data", "reported", "changes", "changed"),
    [
        (None, None, True, True),
        (None, None, False, False),
        ({"changed": False}, None, True, False),
        ({"changed": True}, None, False, True),
        ({"changed": "no"}, None, True, True),
        ({"changed": True}, False, True, False),
    ],
)
def test_a_run_changed_something_as_its_report_its_result_or_its_type_says(
    data: Any, reported: bool | None, changes: bool, changed: bool
) -> None:
    report = a_report("completed", data=data, changed=reported)
    kept = take_report(a_job("a"), an_assignment(), report, rules()._replace(changes=changes), later(1))
    assert kept.update.events[0].report is not None
    assert kept.update.events[0].report["changed"] is changed


def test_an_abort_fails_what_was_not_started() -> None:
    held = plan(a_job("a", "b"), an_operation(target=ALL, rollout=Rollout(batch=1)), LIMIT, ["a", "b"], NOW)[1]
    job = after(a_job("a", "b"), fail(a_job("a", "b"), held, later(3), "rollout aborted"))
    assert job.timeline[-1].error == "rollout aborted"
    assert job.status is Status.PROCESSING


@given(st.integers(-86_400, 86_400))
def test_when_the_wall_clock_is_set_what_remains_stays_the_same(seconds: int) -> None:
    step = timedelta(seconds=seconds)
    row = an_assignment().moved(step)
    due, what = next_due(row, NOW + step, TIMING)
    assert (due - step, what) == (later(10), Due.SEND_AGAIN)
