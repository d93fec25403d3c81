"""What an attempt's outcome does to a job (behaviour 3.2, 3.5, 3.6)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.domain.jobs import Job, JobUpdate, Outcome, Phase, apply, begin, finish, refuse, submitted
from mqttjobs.domain.operations import Operation, Retry
from mqttjobs.domain.status import TERMINAL_STATUSES, EventKind, Status, status_of
from tests.domain.builders import LAMP, NOW, later

BOOM = Outcome(ok=False, error="boom")


def a_job(**changes: Any) -> Job:
    """Return a job that waits."""
    fields: dict[str, Any] = {
        "uid": 1,
        "id": "0193",
        "created_at": NOW,
        "operation_id": "op",
        "operation": {"type": "mqtt"},
        "fingerprint": "f",
        "owner": LAMP,
        "user_id": "alice",
        "timeline": (submitted(NOW, "hub"),),
        **changes,
    }
    return Job(**fields)


def an_operation(**retry: Any) -> Operation:
    """Return an operation with automatic attempts."""
    return Operation(id="op", type="mqtt", definition={}, fingerprint="f", retry=Retry(**retry))


def test_a_claim_is_acknowledged_and_started_and_one_attempt_more() -> None:
    job = apply(a_job(), begin(a_job(), later(1), "hub"))
    assert [(event.kind, event.message) for event in job.timeline] == [
        (EventKind.SUBMITTED, "Job submitted"),
        (EventKind.ACKNOWLEDGED, "Job acknowledged by hub"),
        (EventKind.STARTED, "Job processing started on hub"),
    ]
    assert (job.status, job.phase, job.attempts, job.executed_at) == (Status.PROCESSING, Phase.CLAIMED, 1, later(1))
    again = apply(job, begin(job, later(9), "hub"))
    assert (again.attempts, again.executed_at) == (2, later(1))


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (Outcome(ok=True), Status.COMPLETED, "Job completed successfully on hub"),
        (BOOM, Status.FAILED, "Job failed on hub"),
    ],
)
def test_an_attempt_without_another_ends_the_job(outcome: Outcome, status: Status, message: str) -> None:
    running = apply(a_job(), begin(a_job(), later(1), "hub"))
    job = apply(running, finish(running, outcome, later(2), "hub", None))
    assert (job.status, job.phase, job.ended) == (status, Phase.ENDED, True)
    assert (job.timeline[-1].message, job.timeline[-1].error) == (message, outcome.error)


def test_automatic_attempts_happen_inside_the_job_with_a_pause_that_grows() -> None:
    operation = an_operation(attempts=3, first=timedelta(seconds=4), factor=3, max=timedelta(seconds=10))
    job, now = a_job(), 0.0
    pauses = []
    for _ in range(3):
        job = apply(job, begin(job, later(now), "hub"))
        job = apply(job, finish(job, BOOM, later(now), "hub", operation))
        if job.due_at is not None:
            assert (job.status, job.phase) == (Status.PROCESSING, Phase.WAITING)
            pauses.append((job.due_at - later(now)).total_seconds())
            now += pauses[-1]
    assert pauses == [4, 10]
    assert (job.status, job.attempts) == (Status.FAILED, 3)
    reported = [event.message for event in job.timeline if event.kind is EventKind.RETRIED]
    assert reported == ["Attempt 1 of 3 failed, next in 4s", "Attempt 2 of 3 failed, next in 10s"]


def test_what_another_attempt_cannot_help_is_not_repeated() -> None:
    outcome = Outcome(ok=False, error="no such program", repeatable=False)
    running = apply(a_job(), begin(a_job(), later(1), "hub"))
    assert finish(running, outcome, later(2), "hub", an_operation(attempts=3)).phase is Phase.ENDED


@given(st.integers(1, 10**6), st.floats(1, 100), st.integers(0, 10**6))
def test_no_pause_is_longer_than_the_longest_nor_shorter_than_the_one_before(
    failed: int, factor: float, first: int
) -> None:
    retry = Retry(attempts=2, first=timedelta(seconds=first), factor=factor)
    assert retry.delay(failed) <= retry.delay(failed + 1) <= retry.max


def test_an_ended_job_takes_more_events_and_stays_ended() -> None:
    running = apply(a_job(), begin(a_job(), later(1), "hub"))
    ended = apply(running, finish(running, BOOM, later(2), "hub", None))
    late = finish(ended, Outcome(ok=True), later(60), "hub", None)
    job = apply(ended, late)
    assert (job.status, job.phase, len(job.timeline)) == (Status.FAILED, Phase.ENDED, len(ended.timeline) + 1)
    reopened = apply(ended, JobUpdate(1, late.events, late.status, late.phase, reopen=True))
    assert reopened.status is Status.COMPLETED


def test_params_that_break_the_schema_make_a_job_that_failed_before_it_ran() -> None:
    job = refuse(a_job(), later(1), "hub", {"to": ["is required"]})
    assert (job.status, job.phase, job.attempts, job.executed_at) == (Status.FAILED, Phase.ENDED, 0, None)
    assert job.invalid_fields == {"to": ["is required"]}
    assert job.timeline[-1].error == "wrong params: to"


steps = st.lists(st.sampled_from(["begin", "succeed", "fail", "events"]), max_size=8)


@given(steps, st.integers(1, 4))
def test_whatever_happens_the_record_agrees_with_the_rule_and_events_are_only_appended(
    taken: list[str], attempts: int
) -> None:
    job, operation = a_job(), an_operation(attempts=attempts)
    for number, step in enumerate(taken):
        now, before = later(number), job
        if step == "begin" and job.phase is Phase.WAITING:
            job = apply(job, begin(job, now, "hub"))
        elif step in ("succeed", "fail") and job.phase is Phase.CLAIMED:
            job = apply(job, finish(job, Outcome(ok=step == "succeed"), now, "hub", operation))
        elif step == "events":
            job = apply(job, JobUpdate(1, (submitted(now, "hub"),), only_events=True))
        assert job.timeline[: len(before.timeline)] == before.timeline
        assert job.status is status_of(job.timeline)
        assert (job.phase is Phase.ENDED) is (job.status in TERMINAL_STATUSES)
        assert job.attempts <= attempts
        assert before.ended <= job.ended
