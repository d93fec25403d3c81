"""A job: its record, what changes it, and what one attempt's outcome does to it (behaviour 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from mqttjobs.domain.model import EMPTY, EntityKey, Json
from mqttjobs.domain.protocol import decode_json
from mqttjobs.domain.status import LOCAL, TERMINAL_STATUSES, EventKind, JobEvent, Status, status_of
from mqttjobs.errors import InvalidJson

if TYPE_CHECKING:
    from mqttjobs.domain.operations import Operation

INTERRUPTED = "interrupted"
"""The error of a job whose run was cut off by a crash or a shutdown, and which is not run again (behaviour 3.9)."""


class Phase(IntEnum):
    """Where a job is in the queue: the store's own word, never shown."""

    WAITING = 0
    CLAIMED = 1
    ENDED = 2


@dataclass(frozen=True, slots=True)
class CustomResult:
    """A result that a user added; `payload` is any JSON object."""

    payload: Mapping[str, Json]
    by: str
    at: datetime


@dataclass(frozen=True)
class Job:
    """One run of one operation, as it is recorded. Changed only by `evolve`.

    `operation` is the definition as it was; `inputs` are the variables that it is rendered with, so that a run
    after a crash does the same; `secret_templates` names those of them whose value has `${…}` to fill in.
    `max_running` is how many of the same operation and owner may run at once, None for any number.
    """

    uid: int
    id: str
    created_at: datetime
    operation_id: str | None
    operation: Mapping[str, Json]
    fingerprint: str
    owner: EntityKey | None
    user_id: str
    target: str = LOCAL
    priority: int = 0
    uses_slot: bool = True
    max_running: int | None = None
    params: Mapping[str, Json] = EMPTY
    events: tuple[str, ...] = ()
    inputs: Mapping[str, Json] = EMPTY
    secret_templates: Mapping[str, str] = EMPTY
    process_meta: Mapping[str, Json] | None = None
    parent_id: str | None = None
    root_id: str = ""
    retry_of: str | None = None
    depth: int = 0
    invalid_fields: Mapping[str, list[str]] | None = None
    expected: tuple[str, ...] = ()
    trigger: str | None = None
    # what changes:
    phase: Phase = Phase.WAITING
    due_at: datetime | None = None
    attempts: int = 0
    executed_at: datetime | None = None
    status: Status = Status.SUBMITTED
    timeline: tuple[JobEvent, ...] = ()
    results: tuple[CustomResult, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether its status is terminal."""
        return self.status in TERMINAL_STATUSES

    def evolve(self, **changes: Any) -> Job:
        """Return the job with `changes` made."""
        made = object.__new__(Job)
        made.__dict__.update(self.__dict__)  # a tenth of dataclasses.replace(), which every job would pay three times
        made.__dict__.update(changes)
        return made


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """What happened to a stored job, written whole in one transaction.

    `strict`: refuse (TerminalState, nothing written) when the job has ended already. Otherwise the events are
    appended all the same and an ended job keeps its phase and status (behaviour 3.6), unless `reopen` says that
    an agent's late report changes them. `only_events`: nothing but the events is written, whatever the job is doing.
    """

    uid: int
    events: tuple[JobEvent, ...]
    status: Status = Status.SUBMITTED
    phase: Phase = Phase.WAITING
    due_at: datetime | None = None
    attempts: int = 0
    executed_at: datetime | None = None
    strict: bool = False
    reopen: bool = False
    only_events: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt of a job ended.

    `result` is the operation's own result (None where there is none), `description` has the keys of the type
    (contract 5), `exit_code` and `stderr` are a program's. `repeatable` False means another attempt cannot help.
    `changed` None of a completed one leaves the word to the result, then to the type (`Executor.changes`).
    """

    ok: bool
    error: str = ""
    message: str = ""
    result: Json = None
    changed: bool | None = None
    description: Mapping[str, Json] = EMPTY
    exit_code: int | None = None
    stderr: str = ""
    user_error: bool = False
    repeatable: bool = True

    def report(self) -> dict[str, Json]:
        """Return what a terminal event keeps of it."""
        return {
            "result": self.result,
            "message": self.message,
            "changed": self.changed,
            "description": dict(self.description),
            "exit_code": self.exit_code,
            "stderr": self.stderr,
            "user_error": self.user_error,
        }


def changed_something(result: Json, *, otherwise: bool) -> bool:
    """Return whether a completed run changed something: `changed` in its result, else `otherwise` (behaviour 3.4)."""
    own = result.get("changed") if isinstance(result, dict) else None
    return own if isinstance(own, bool) else otherwise


def submitted(at: datetime, hostname: str) -> JobEvent:
    """Return the first event of every job."""
    return JobEvent.of(EventKind.SUBMITTED, at, hostname)


def begin(job: Job, at: datetime, hostname: str) -> JobUpdate:
    """Claim a job for this host: acknowledged and started, one attempt more."""
    events = (JobEvent.of(EventKind.ACKNOWLEDGED, at, hostname), JobEvent.of(EventKind.STARTED, at, hostname))
    return JobUpdate(
        job.uid,
        events,
        Status.PROCESSING,
        Phase.CLAIMED,
        attempts=job.attempts + 1,
        executed_at=job.executed_at or at,
    )


def finish(job: Job, outcome: Outcome, at: datetime, hostname: str, retry: Operation | None) -> JobUpdate:
    """Return what one attempt's outcome does to a job: completed, failed, or another attempt later.

    Args:
        job: the claimed job; its `attempts` counts this one.
        outcome: how the attempt ended.
        at: when.
        hostname: who ran it.
        retry: the operation whose `retry` decides; None for no other attempt.
    """
    attempts_allowed = retry.retry.attempts if retry else 1
    if outcome.ok:
        event = JobEvent.of(EventKind.COMPLETED, at, hostname, report=outcome.report())
    elif retry and outcome.repeatable and job.attempts < attempts_allowed:
        event, due_at = attempt_failed(retry, job.attempts, outcome.error, at, hostname)
        return JobUpdate(
            job.uid,
            (event,),
            status_of((*job.timeline, event), job.expected, job.target),
            Phase.WAITING,
            due_at=due_at,
            attempts=job.attempts,
            executed_at=job.executed_at,
        )
    else:
        event = JobEvent.of(EventKind.FAILED, at, hostname, outcome.error, outcome.report())
    return JobUpdate(
        job.uid,
        (event,),
        status_of((*job.timeline, event), job.expected, job.target),
        Phase.ENDED,
        attempts=job.attempts,
        executed_at=job.executed_at,
    )


def attempt_failed(
    operation: Operation, attempt: int, error: str, at: datetime, hostname: str
) -> tuple[JobEvent, datetime]:
    """Return the event of an attempt that failed and will be repeated, and when it will be."""
    wait = operation.retry.delay(attempt)
    message = f"Attempt {attempt} of {operation.retry.attempts} failed, next in {duration_text(wait)}"
    return JobEvent(at, EventKind.RETRIED, hostname, message, error), at + wait


def fail_unrun(job: Job, at: datetime, hostname: str, error: str) -> Job:
    """Return a new job that failed before it ran."""
    event = JobEvent.of(EventKind.FAILED, at, hostname, error)
    return job.evolve(status=Status.FAILED, phase=Phase.ENDED, timeline=(*job.timeline, event))


def refuse(job: Job, at: datetime, hostname: str, invalid_fields: Mapping[str, list[str]]) -> Job:
    """Return a new job that failed before it ran: its params break the schema (contract 4, jobs/send)."""
    failed = fail_unrun(job, at, hostname, f"wrong params: {', '.join(invalid_fields)}")
    return failed.evolve(invalid_fields=dict(invalid_fields))


def apply(job: Job, update: JobUpdate) -> Job:
    """Return the job as `update` leaves it: the rule that every store keeps (see JobUpdate)."""
    timeline = job.timeline + update.events
    if update.only_events or (job.phase is Phase.ENDED and not update.reopen):
        return job.evolve(timeline=timeline)
    return job.evolve(
        timeline=timeline,
        status=update.status,
        phase=update.phase,
        due_at=update.due_at,
        attempts=update.attempts,
        executed_at=update.executed_at or job.executed_at,
    )


def result_of_output(stdout: Json) -> Json:
    """Return standard output when it is one JSON value, else None (behaviour 3.4)."""
    try:
        return decode_json(stdout.strip().encode()) if isinstance(stdout, str) else None
    except InvalidJson:
        return None


def timed_out(timeout: timedelta) -> str:
    """Return the error of a run that was ended at its time limit."""
    return f"timed out after {duration_text(timeout)}"


def duration_text(value: timedelta) -> str:
    """Return a duration as documents show it: `45ms`, `1.5s`, `1m0s`."""
    milliseconds = round(value / timedelta(milliseconds=1))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:g}s"
    seconds = milliseconds // 1000
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s"


@dataclass(frozen=True, slots=True)
class OperationState:
    """What is remembered of an operation beyond its definition, kept true by what happens.

    `active` is what a user last said, None when the definition decides. `total` and `first_run_at` outlive
    retention. `due_at` is the schedule's last due time, from which the next one is computed.
    """

    id: str
    fingerprint: str
    created_at: datetime
    updated_at: datetime
    created_by: str
    updated_by: str
    active: bool | None = None
    total: int = 0
    first_run_at: datetime | None = None
    triggered_at: datetime | None = None
    due_at: datetime | None = None
    completed_at: datetime | None = None
    ended_at: datetime | None = None
    extra: Mapping[str, Json] = field(default_factory=dict)
