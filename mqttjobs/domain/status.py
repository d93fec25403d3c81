"""The events of a job, and the rule that derives its status from them (behaviour 3.2 and 3.3).

The status is a pure function of the set of events: any order and any repetition give the same status. Per agent the
highest event counts, in the order of RANK; the agents together make the status::

    no event of any agent yet                      submitted
    any acknowledged or started, or silent         processing
    all ended, some failed, some completed         partial_failure
    all ended, none completed                      failed
    all completed                                  completed
    stopped before that                            stopped, whatever else arrives later
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from mqttjobs.domain.model import Json

LOCAL = "_local"
ANY = "_any"
ALL = "_all"
"""The targets that are neither a hostname nor a label (contract 6)."""


class Status(StrEnum):
    """The seven statuses, in the order in which counts list them."""

    SUBMITTED = "submitted"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    PARTIAL_FAILURE = "partial_failure"
    STOPPED = "stopped"
    SKIPPED = "skipped"


TERMINAL_STATUSES = frozenset({Status.COMPLETED, Status.FAILED, Status.PARTIAL_FAILURE, Status.STOPPED, Status.SKIPPED})


class EventKind(StrEnum):
    """The kinds of event on a timeline (behaviour 3.2)."""

    SUBMITTED = "submitted"
    ACKNOWLEDGED = "acknowledged"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    RETRIED = "retried"
    STOPPED = "stopped"
    SKIPPED = "skipped"
    PROGRESS = "progress"


_MESSAGES: Mapping[EventKind, str] = {
    EventKind.SUBMITTED: "Job submitted",
    EventKind.ACKNOWLEDGED: "Job acknowledged by {}",
    EventKind.STARTED: "Job processing started on {}",
    EventKind.COMPLETED: "Job completed successfully on {}",
    EventKind.FAILED: "Job failed on {}",
}

RANK: Mapping[EventKind, int] = {
    EventKind.SUBMITTED: 0,
    EventKind.ACKNOWLEDGED: 1,
    EventKind.STARTED: 2,
    EventKind.FAILED: 3,
    EventKind.COMPLETED: 4,
}
"""Per agent the highest of these counts; other events do not rank (behaviour 3.3)."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event of a timeline. `report` is the outcome that an end carries; documents do not show it in the timeline.

    `report` has the keys of Outcome.report(): result, message, changed, description, exit_code, stderr, user_error.
    """

    at: datetime
    kind: EventKind
    hostname: str
    message: str = ""
    error: str = ""
    report: Mapping[str, Json] | None = None

    @classmethod
    def of(
        cls, kind: EventKind, at: datetime, hostname: str, error: str = "", report: Mapping[str, Json] | None = None
    ) -> JobEvent:
        """Return an event of a kind that ranks, with the message of its kind (behaviour 3.2)."""
        return cls(at, kind, hostname, _MESSAGES[kind].format(hostname), error, report)


@dataclass(frozen=True, slots=True)
class AgentState:
    """The state of a job on one agent, by the events so far. The service itself counts as an agent."""

    hostname: str
    kind: EventKind
    event: JobEvent | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether the job has ended on this agent."""
        return self.kind in (EventKind.COMPLETED, EventKind.FAILED)

    @property
    def duration(self) -> timedelta | None:
        """The time from the first start to the end; None before the end, or without a start."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(self.ended_at - self.started_at, timedelta(0))


def _precedence(event: JobEvent) -> tuple[datetime, str, str, str, str]:
    """Return the sort key of events of equal rank: the earliest counts, whatever the order of arrival."""
    return (event.at, event.hostname, event.error, event.message, str(event.report))


def agent_states(
    events: Iterable[JobEvent], expected: Sequence[str] = (), target: str = LOCAL
) -> dict[str, AgentState]:
    """Return the state by agent. Expected agents that have reported nothing are submitted."""
    best: dict[str, JobEvent] = {}
    first_start: dict[str, datetime] = {}
    newest: JobEvent | None = None
    for event in events:
        rank = RANK.get(event.kind)
        if rank is None or (rank == 0 and target != LOCAL):
            continue
        host = event.hostname
        if event.kind is EventKind.STARTED and (host not in first_start or event.at < first_start[host]):
            first_start[host] = event.at
        if newest is None or (event.at, host) > (newest.at, newest.hostname):
            newest = event
        known = best.get(host)
        known_rank = -1 if known is None else RANK[known.kind]
        if known is None or rank > known_rank or (rank == known_rank and _precedence(event) < _precedence(known)):
            best[host] = event
    if target == ANY and newest is not None:
        best = {newest.hostname: best[newest.hostname]}
    states = {host: AgentState(host, EventKind.SUBMITTED) for host in expected}
    for host, event in best.items():
        ended = event.kind in (EventKind.COMPLETED, EventKind.FAILED)
        states[host] = AgentState(host, event.kind, event, first_start.get(host), event.at if ended else None)
    return states


def status_of(events: Sequence[JobEvent], expected: Sequence[str] = (), target: str = LOCAL) -> Status:
    """Return a job's status: a pure function of the set of its events (behaviour 3.3).

    `expected` are the hostnames of a broadcast's agents, fixed when the job is made. The time-out of a silent agent is
    an event too.
    """
    kinds = {event.kind for event in events}
    if EventKind.STOPPED in kinds:
        return Status.STOPPED
    if EventKind.SKIPPED in kinds:
        return Status.SKIPPED
    states = agent_states(events, expected, target)
    if all(state.kind is EventKind.SUBMITTED for state in states.values()):
        return Status.SUBMITTED
    if not all(state.ended for state in states.values()):
        return Status.PROCESSING
    outcomes = {state.kind for state in states.values()}
    if outcomes == {EventKind.COMPLETED}:
        return Status.COMPLETED
    return Status.PARTIAL_FAILURE if EventKind.COMPLETED in outcomes else Status.FAILED


def chronological(events: Iterable[JobEvent]) -> list[JobEvent]:
    """Return events in the order of their times (seeds 001); reports of several agents arrive in any order.

    The events of one host stay in their order of arrival, whatever happens to the host's clock. The submission is
    first, however far the clock of an agent is behind.
    """
    latest: dict[str, datetime] = {}
    placed: list[tuple[bool, datetime, JobEvent]] = []
    for event in events:
        at = max(event.at, latest.get(event.hostname, event.at))
        latest[event.hostname] = at
        placed.append((event.kind is not EventKind.SUBMITTED, at, event))
    return [event for *_, event in sorted(placed, key=lambda each: each[:2])]
