"""Assignments: one attempt of a job on one agent, its deadlines, and what a report does to it and to the job.

::

    HELD ──its wave──▶ PLANNED ──room──▶ ASSIGNED ──outcome, deadline or lease──▶ CLOSED

A closed assignment is kept as long as its job, so that a late report is recognised (behaviour 3.6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from mqttjobs.domain.agent_messages import ReportMessage
from mqttjobs.domain.agents import Timing
from mqttjobs.domain.jobs import Job, JobUpdate, Phase, attempt_failed, changed_something, result_of_output
from mqttjobs.domain.model import Delivery, Json
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.status import (
    ANY,
    TERMINAL_STATUSES,
    EventKind,
    JobEvent,
    Status,
    agent_states,
    status_of,
)
from mqttjobs.errors import ReportError

TIMED_OUT = "timeout: agent did not respond"
ABORTED = "rollout aborted"
REMIND_AFTER = timedelta(seconds=1)
"""How long after the time limit an agent that has not reported an end is reminded."""
_ENDS = frozenset({EventKind.COMPLETED, EventKind.FAILED})


class Stage(IntEnum):
    """Where an assignment is on its way."""

    HELD = 0
    PLANNED = 1
    ASSIGNED = 2
    CLOSED = 3


class Key(NamedTuple):
    """Names one assignment."""

    uid: int
    hostname: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt of one job on one agent.

    `token` is given when it is sent. `planned_at` is when it could be sent at the earliest, `assigned_at` when it
    was; `answer_by` is when its acknowledgement is due, `deadline_at` its end. `taken` are the kinds of report that
    were taken in, `progress_at` the time in the newest progress report. `limit` is the time limit of one run; `movable`
    and `movable_once_run` say whether the job may go to another agent before and after it has started, and
    `superseded` that it did. `reminded`: it was sent again though its agent had answered, as the end did not come.
    """

    uid: int
    hostname: str
    attempt: int
    stage: Stage
    planned_at: datetime
    token: str = ""
    limit: timedelta = timedelta(seconds=60)
    wave: int = 0
    priority: int = 0
    uses_slot: bool = True
    movable: bool = False
    movable_once_run: bool = False
    assigned_at: datetime | None = None
    answer_by: datetime | None = None
    deadline_at: datetime | None = None
    progress_at: datetime | None = None
    taken: frozenset[EventKind] = frozenset()
    superseded: bool = False
    reminded: bool = False

    @property
    def key(self) -> Key:
        """Its name."""
        return Key(self.uid, self.hostname, self.attempt)

    @property
    def answered(self) -> bool:
        """Whether its agent has said anything about it."""
        return bool(self.taken) or self.progress_at is not None

    @property
    def may_move(self) -> bool:
        """Whether the job may be given to another agent."""
        return self.movable_once_run if EventKind.STARTED in self.taken else self.movable

    def moved(self, step: timedelta) -> Assignment:
        """Return it with its times moved, after the wall clock was set."""
        times = ("planned_at", "assigned_at", "answer_by", "deadline_at")
        changes: dict[str, Any] = {name: at + step for name in times if (at := getattr(self, name)) is not None}
        return replace(self, **changes)


class Change(NamedTuple):
    """What happened to a job and to one of its assignments; `next` is the attempt that follows on the same agent."""

    update: JobUpdate
    row: Assignment
    next: Assignment | None = None


def plan(job: Job, operation: Operation, limit: timedelta, hosts: Sequence[str], at: datetime) -> list[Assignment]:
    """Return the assignments of a job to `hosts`, in the waves of its roll-out; the first wave may be sent.

    A job of `_any` may go to another agent at most `retry.attempts` times. One that has started and runs at most once
    counts as an attempt, so that only `retry` lets it run again (behaviour 3.9).
    """
    attempts = operation.retry.attempts
    attempt = job.attempts + 1 if job.target == ANY else 1
    at_most_once = operation.delivery is Delivery.AT_MOST_ONCE
    batch = operation.rollout.batch if operation.rollout else max(1, len(hosts))
    return [
        Assignment(
            job.uid,
            hostname,
            attempt,
            Stage.PLANNED if index < batch else Stage.HELD,
            at,
            limit=limit,
            wave=index // batch,
            priority=job.priority,
            uses_slot=job.uses_slot,
            movable=job.target == ANY and attempt <= attempts,
            movable_once_run=job.target == ANY and (attempt < attempts or (attempt == attempts and not at_most_once)),
        )
        for index, hostname in enumerate(hosts)
    ]


def given_out(job: Job, rows: Sequence[Assignment]) -> JobUpdate:
    """Return the update of a waiting job that is given out as `rows`: claimed, and its status as it was."""
    attempts = max(job.attempts, *(row.attempt for row in rows))
    return JobUpdate(job.uid, (), job.status, Phase.CLAIMED, attempts=attempts, executed_at=job.executed_at)


def sent(row: Assignment, token: str, at: datetime, timing: Timing) -> Assignment:
    """Return an assignment that is sent now; again it keeps its token, and its deadline counts from the first time."""
    return replace(
        row,
        token=row.token or token,
        stage=Stage.ASSIGNED,
        assigned_at=row.assigned_at or at,
        answer_by=at + timing.acknowledge,
        deadline_at=row.deadline_at or at + row.limit + timing.slack,
        reminded=row.answered,
    )


class Due(Enum):
    """What happens to an assignment at a time."""

    SEND_AGAIN = "send_again"
    TAKE_BACK = "take_back"
    TIME_OUT = "time_out"


def next_due(row: Assignment, heard_at: datetime, timing: Timing) -> tuple[datetime, Due]:
    """Return what happens next to an assigned one if its agent, last heard at `heard_at`, says nothing, and when.

    One that has answered is sent again shortly before its deadline: an agent whose report the broker lost tells it
    once more.
    """
    deadline = row.deadline_at or row.planned_at
    if row.answered:
        remind_at = deadline - timing.slack + REMIND_AFTER
        lapses_at = max(heard_at, row.assigned_at or row.planned_at) + timing.lease
        if row.may_move and lapses_at < deadline:
            return lapses_at, Due.TAKE_BACK
        return (deadline, Due.TIME_OUT) if row.reminded else (remind_at, Due.SEND_AGAIN)
    answer_by = row.answer_by or row.planned_at
    if row.may_move:
        return answer_by, Due.TAKE_BACK
    return (answer_by, Due.SEND_AGAIN) if answer_by < deadline else (deadline, Due.TIME_OUT)


def take_back(job: Job, row: Assignment, at: datetime, message: str) -> Change:
    """Return a job of `_any` to the queue."""
    event = JobEvent(at, EventKind.RETRIED, row.hostname, f"Job given back by {row.hostname}: {message}")
    closed = replace(row, stage=Stage.CLOSED, superseded=True)
    return Change(_update(job, row, event, Phase.WAITING), closed)


def time_out(job: Job, row: Assignment, at: datetime, operation: Operation) -> Change:
    """End an assignment whose deadline has passed; under `_any` another agent may have an attempt that is left."""
    if job.target == ANY and row.attempt < operation.retry.attempts:
        repeated = attempt_failed(operation, row.attempt, TIMED_OUT, at, row.hostname)
        return _again(job, replace(row, stage=Stage.CLOSED), *repeated)
    return fail(job, row, at, TIMED_OUT)


def fail(job: Job, row: Assignment, at: datetime, error: str) -> Change:
    """End an assignment without its agent."""
    event = JobEvent.of(EventKind.FAILED, at, row.hostname, error)
    return Change(_update(job, row, event, job.phase), replace(row, stage=Stage.CLOSED))


def failures(job: Job) -> int:
    """Return on how many agents a job has failed."""
    states = agent_states(job.timeline, job.expected, job.target)
    return sum(1 for state in states.values() if state.kind is EventKind.FAILED)


class Rules(NamedTuple):
    """What decides about the reports of a job.

    `operation` is its operation, `timing` how long to wait, `blank` has the keys that describe its runs, and `changes`
    says whether a run changed something if its report does not.
    """

    operation: Operation
    timing: Timing
    blank: Mapping[str, Json]
    changes: bool = False


def take_report(job: Job, row: Assignment, report: ReportMessage, rules: Rules, at: datetime) -> Change:
    """Return what a report does; its agent, job, attempt and token are the assignment's.

    Raises:
        ReportError: `replayed`: it counts only once.
    """
    kind = EventKind(report.event)
    happened_at = min(max(report.timestamp, row.assigned_at or row.planned_at), at)
    if kind is EventKind.PROGRESS:
        if row.progress_at is not None and report.timestamp <= row.progress_at:
            raise ReportError("this progress was reported before", reason="replayed")
        event = JobEvent(happened_at, kind, row.hostname, report.message)
        return Change(_update(job, row, event, job.phase), replace(row, progress_at=report.timestamp))
    if kind in row.taken or (kind in _ENDS and row.taken & _ENDS):
        raise ReportError(f"{kind.value} was reported before", reason="replayed")
    row = replace(row, taken=row.taken | {kind})
    if row.superseded:
        message = f"Late report of attempt {row.attempt}, which another agent was given: {kind.value}"
        event = JobEvent(happened_at, EventKind.PROGRESS, row.hostname, message, report.error)
        return Change(_update(job, row, event, job.phase), row)
    if kind in _ENDS:
        return _ended(job, row, report, rules, happened_at)
    if kind is EventKind.STARTED:
        row = replace(row, deadline_at=max(row.deadline_at or at, at + row.limit + rules.timing.slack))
    return Change(_update(job, row, JobEvent.of(kind, happened_at, row.hostname), job.phase), row)


def _ended(job: Job, row: Assignment, report: ReportMessage, rules: Rules, at: datetime) -> Change:
    """Return what the end of an attempt does: completed, failed, or another attempt later."""
    host = row.hostname
    open_still = row.stage is not Stage.CLOSED
    attempts = rules.operation.retry.attempts
    row = replace(row, stage=Stage.CLOSED)
    if report.event == "completed":
        body = _report_of(report, rules)
        event = JobEvent.of(EventKind.COMPLETED, at, host, report=body)
    elif report.given_back and open_still and (job.target != ANY or row.attempt <= attempts):
        event = JobEvent(at, EventKind.RETRIED, host, f"Job given back by {host}", report.error)
        return _again(job, row, event, at if job.target == ANY else at + rules.operation.retry.delay(row.attempt))
    elif report.repeatable and open_still and row.attempt < attempts:
        return _again(job, row, *attempt_failed(rules.operation, row.attempt, report.error, at, host))
    else:
        body = _report_of(report, rules)
        error = report.error or "the agent said no more than that it failed"
        event = JobEvent.of(EventKind.FAILED, at, host, error, body)
    return Change(_update(job, row, event, job.phase), row)


def _again(job: Job, row: Assignment, event: JobEvent, due_at: datetime) -> Change:
    """Have a job attempted again: by whichever agent with `_any`, else by the same."""
    if job.target == ANY:
        return Change(_update(job, row, event, Phase.WAITING, due_at), replace(row, superseded=True))
    following = Assignment(
        row.uid,
        row.hostname,
        row.attempt + 1,
        Stage.PLANNED,
        due_at,
        limit=row.limit,
        wave=row.wave,
        priority=row.priority,
        uses_slot=row.uses_slot,
    )
    return Change(_update(job, row, event, job.phase), row, following)


def _update(job: Job, row: Assignment, event: JobEvent, phase: Phase, due_at: datetime | None = None) -> JobUpdate:
    """Return the update that an event makes; an ended job's status changes for a late completion (behaviour 3.6)."""
    status = status_of((*job.timeline, event), job.expected, job.target)
    ended = status in TERMINAL_STATUSES
    return JobUpdate(
        job.uid,
        (event,),
        status,
        Phase.ENDED if ended else phase,
        due_at=due_at,
        attempts=max(job.attempts, row.attempt),
        executed_at=event.at if event.kind is EventKind.STARTED and job.executed_at is None else job.executed_at,
        reopen=job.ended and status is not job.status and job.status is not Status.STOPPED,
    )


def _report_of(report: ReportMessage, rules: Rules) -> dict[str, Json]:
    """Return what a terminal event keeps of a report (see Outcome.report).

    Data with the keys that describe a run is the description, and its standard output the result where that is one
    JSON value (behaviour 3.4).
    """
    result, description = report.data, report.description or {}
    if not description and rules.blank and isinstance(result, dict) and result.keys() == rules.blank.keys():
        description, result = result, result_of_output(result.get("stdout"))
    changed = report.changed
    if changed is None and report.event == "completed":
        changed = changed_something(result, otherwise=rules.changes)
    code = description.get("exitCode")
    return {
        "result": result,
        "message": report.message,
        "changed": changed,
        "description": description,
        "exit_code": report.exit_code if not isinstance(code, int) else code,
        "stderr": report.stderr,
        "user_error": report.user_error,
    }
