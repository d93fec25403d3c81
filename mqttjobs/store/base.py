"""The interface of a store; every store passes tests/contracts/test_store.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

from pydantic import Field

from mqttjobs.domain.agents import Agent
from mqttjobs.domain.assignments import Assignment, Key
from mqttjobs.domain.fields import Duration, Record
from mqttjobs.domain.jobs import CustomResult, Job, JobUpdate, OperationState
from mqttjobs.domain.model import EntityKey, Json, Value, ValueKey
from mqttjobs.domain.status import Status
from mqttjobs.domain.triggers.base import TriggerState
from mqttjobs.errors import StoreRefused
from mqttjobs.registry import Family, for_url, schemes_of

EXACT_LIMIT = 10_000
"""A listing counts its matches exactly up to here (contract 4, jobs/list)."""
ANSWERS_KEPT = timedelta(minutes=10)
"""How long the answer to a request is kept for the same request again (contract 4)."""
EVENT_IDS_KEPT = timedelta(days=1)
"""How long an `event_id` is kept, within which a report that has it again is a duplicate (behaviour 1.6)."""
PRUNED_AT_ONCE = 1000
"""How many jobs, and entries of the history, one call of Store.prune removes at most."""
RETRY_S = 1.0
"""How long to wait before the store is used again, in seconds, after it has raised StoreError."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change of one value, for states/history.

    `at` is the receipt of the report; `reported_at` is the report's own `timestamp`, None where it has none.
    """

    key: ValueKey
    at: datetime
    state: str
    previous: str | None
    reported_by: str | None = None
    reason: str | None = None
    reported_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The first answer to a request that changed something, given again when it is asked again."""

    key: bytes
    at: datetime
    body: bytes


@dataclass(slots=True)
class Changes:
    """What one transaction writes: collected field by field, then recorded whole or not at all.

    Whole rows replace the stored row of the same key.

    Attributes:
        values: whole rows.
        heard: for values that were only repeated, when they were last heard.
        history: changes to keep for states/history.
        trigger_states: whole rows by name; None deletes the stored one.
        packets: packet identifier -> digest of topic and payload of a committed QoS 1 message (behaviour 1.7).
        forget_packets: delete the stored packets before `packets` are written.
        event_ids: (entity, event_id, receipt) of reports that carried one.
        jobs: new jobs, with their first events in `timeline`.
        updates: what happened to stored jobs, applied in order after `jobs` (see JobUpdate).
        results: (uid of the job, custom result).
        deleted: uids of jobs to delete with all that belongs to them.
        answers: answers to keep for repeated requests.
        operation_states: whole rows by operation id.
        announced: uids of ended jobs whose end has been published; every ended job is unannounced until then.
        metadata: small facts of the service itself by name, such as its subscriptions.
        agents: whole rows by hostname.
        assignments: whole rows; those of a job that is not stored are passed over.
        members: (class, id) of objects that appeared by reporting.
    """

    values: dict[ValueKey, Value] = field(default_factory=dict)
    heard: dict[ValueKey, datetime] = field(default_factory=dict)
    history: list[HistoryEntry] = field(default_factory=list)
    trigger_states: dict[str, TriggerState | None] = field(default_factory=dict)
    packets: dict[int, bytes] = field(default_factory=dict)
    forget_packets: bool = False
    event_ids: list[tuple[EntityKey, str, datetime]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    updates: list[JobUpdate] = field(default_factory=list)
    results: list[tuple[int, CustomResult]] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    operation_states: dict[str, OperationState] = field(default_factory=dict)
    announced: list[int] = field(default_factory=list)
    metadata: dict[str, Json] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    assignments: dict[Key, Assignment] = field(default_factory=dict)
    members: list[tuple[str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return any(getattr(self, name) for name in STORED)


STORED = tuple(each.name for each in fields(Changes))
"""The fields of a transaction that a store writes."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the service starts from: everything but jobs, assignments, history and answers."""

    values: Sequence[Value] = ()
    trigger_states: Sequence[TriggerState] = ()
    packets: Mapping[int, bytes] = field(default_factory=dict)
    event_ids: Sequence[tuple[EntityKey, str, datetime]] = ()
    operation_states: Sequence[OperationState] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict)
    agents: Sequence[Agent] = ()
    members: Sequence[tuple[str, str]] = ()
    last_uid: int = 0
    """The greatest uid ever given, deleted jobs included: a uid is never given twice."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which jobs a user may see: those of these objects and links (None: all of the kind), and their own without owner.

    A Scope of both None is written as no scope at all.
    """

    objects: frozenset[str] | None
    links: frozenset[str] | None
    user_id: str


@dataclass(frozen=True, slots=True)
class JobQuery:
    """A listing of jobs, newest (greatest uid) first; filters left None do not filter, all given must agree.

    `objects` and `links` together mean jobs of any of them. `since` is inclusive, `until` exclusive, both on
    `created_at`. `before_uid` is a cursor: only jobs with a smaller uid.
    """

    statuses: frozenset[Status] | None = None
    operation_id: str | None = None
    objects: frozenset[str] | None = None
    links: frozenset[str] | None = None
    user_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before_uid: int | None = None
    limit: int = 10
    offset: int = 0
    scope: Scope | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page; `total` counts what the filter matches (the cursor and paging do not change it), up to EXACT_LIMIT."""

    jobs: Sequence[Job]
    total: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One page of states/history, newest first."""

    entries: Sequence[HistoryEntry]
    total: int


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of one operation that are in a scope: how many, how many not ended, the newest and the newest ended.

    `last_ids` are at most ten, newest first.
    """

    total: int = 0
    running: int = 0
    last_ids: Sequence[str] = ()
    latest: Job | None = None


class Retention(Record):
    """The section store.retention: how long ended jobs and history are kept (behaviour 3.13)."""

    completed: Duration = Field(default=timedelta(days=30), description="How long completed and skipped jobs are kept.")
    failed: Duration = Field(
        default=timedelta(days=180), description="How long failed, partly failed and stopped jobs are kept."
    )
    max_jobs: int = Field(
        default=1_000_000,
        ge=1,
        description="With more jobs than this the oldest completed and skipped ones are deleted, however young; a "
        "failure never is.",
    )
    history: Duration = Field(default=timedelta(days=30), description="How long state changes are kept.")
    history_per_value: int = Field(default=1000, ge=1, description="How many state changes of each value are kept.")


EXPENDABLE = (Status.COMPLETED, Status.SKIPPED)
"""The statuses of jobs that are kept for `retention.completed`, and go first beyond `max_jobs` (behaviour 3.13)."""


def age_limit(status: Status, retention: Retention) -> timedelta:
    """Return how long an ended job of this status is kept."""
    return retention.completed if status in EXPENDABLE else retention.failed


class Store(Protocol):
    """Durable records. All times are aware UTC datetimes with whole milliseconds.

    Every method may raise StoreError, after which the session ends and everything is read anew with `load`.
    `record` and `claim` are each one transaction. They take effect in the order in which they are called, also when one
    is called before the last has returned; such calls may share a commit. A cancelled call is either whole or not at
    all.
    """

    async def open(self) -> None:
        """Make it ready: lock, check, migrate. Raises StoreRefused with what to do."""

    async def close(self) -> None:
        """Finish what was begun and let go of it; safe to call twice."""

    async def load(self) -> Snapshot:
        """Return what the service starts from."""

    async def record(self, changes: Changes) -> None:
        """Write all of `changes`, durably; return when they are.

        Records take effect in the order in which the calls were made. The caller changes nothing of `changes` after
        the call.

        Raises:
            TerminalState: a strict update of a job that has ended (nothing of `changes` is written).
            NotFound: an update, result or deletion of a job that is not there (nothing is written).
        """

    async def claim(
        self, now: datetime, limit: int, *, uses_slot: bool, begin: Callable[[Job], JobUpdate]
    ) -> Sequence[Job]:
        """Claim up to `limit` waiting jobs that are due, in one transaction, and return them as they then are.

        Jobs with `uses_slot` come by priority, then first come; the others in row order. A job whose
        `max_running` is reached by claimed jobs of the same operation and owner is passed over, and of those without
        a slot all later ones of its owner too: publishes of one owner leave in row order. `begin` says what is written
        of each; it is called inside the transaction and must not block. Targets other than `_local` are not
        claimed here.
        """

    async def next_due(self, after: datetime) -> datetime | None:
        """Return the earliest `due_at` later than `after` of waiting `_local` jobs, or None.

        Those that are due already were offered to `claim`, and wait for a slot.
        """

    async def claimed(self) -> Sequence[Job]:
        """Return the `_local` jobs that are claimed: after a start, those that a crash interrupted. Oldest first."""

    async def assignable(self, now: datetime, limit: int, *, uses_slot: bool) -> Sequence[Job]:
        """Return the first `limit` waiting jobs for agents that are due: by priority, then first come.

        A job whose `max_running` is reached by claimed jobs, and those before it in this list, is passed over. They are
        claimed by recording their update.
        """

    async def next_assignable(self, after: datetime) -> datetime | None:
        """Return the earliest `due_at` later than `after` of waiting jobs for agents, or None."""

    async def assignments(self, uid: int | None = None) -> Sequence[Assignment]:
        """Return every assignment of a job, or without a uid all that are not closed."""

    async def count_active(self, operation_id: str, owner: EntityKey | None) -> tuple[int, int]:
        """Return how many jobs of this operation and owner are waiting and claimed."""

    async def active(self, operation_id: str, owner: EntityKey | None) -> Sequence[Job]:
        """Return the jobs of this operation and owner that have not ended, oldest first."""

    async def get(self, job_id: str | int, scope: Scope | None = None) -> Job | None:
        """Return one job by id or uid, whole, or None where there is none in the scope."""

    async def find(self, query: JobQuery) -> JobPage:
        """Return one page of jobs, each whole."""

    async def counts(self, scope: Scope | None = None) -> Mapping[Status, int]:
        """Return how many jobs the scope has by status, every status present."""

    async def runs(self, operation_id: str, scope: Scope | None = None) -> Runs:
        """Return the runs of one operation."""

    async def unannounced(self, limit: int) -> Sequence[Job]:
        """Return ended jobs whose end was not yet published, oldest first."""

    async def answer(self, key: bytes, since: datetime) -> bytes | None:
        """Return the body of the answer kept under `key` at or after `since`, or None."""

    async def history(
        self, key: ValueKey, since: datetime | None, until: datetime | None, limit: int, offset: int
    ) -> HistoryPage:
        """Return changes of one value, newest first."""

    async def prune(self, now: datetime, retention: Retention) -> int:
        """Remove what retention no longer keeps, at most PRUNED_AT_ONCE; return how many jobs went.

        Also forgets what is older than ANSWERS_KEPT and EVENT_IDS_KEPT.
        """

    async def health(self) -> Mapping[str, object]:
        """Return facts for service/health: at least `kind` and `jobs` (how many are stored)."""


class StoreModule(Protocol):
    """What the module of a store offers.

    Attributes:
        SCHEMES: the schemes of the URLs that it takes, in lower case, such as `sqlite`.
    """

    SCHEMES: frozenset[str]

    def resolve_url(self, url: str, folder: Path) -> str:
        """Return a URL as `create` takes it: checked, its relative paths beginning at `folder`, the configuration's.

        Raises:
            ValueError: the URL cannot be used; the text says how it should look, such as "must be like sqlite:///a.db".
        """

    def create(self, url: str) -> Store:
        """Return the store of a URL that `resolve_url` has returned; nothing is opened yet."""


def _stores_of(module: ModuleType) -> Iterator[tuple[str, StoreModule]]:
    for scheme in schemes_of(module, "resolve_url", "create"):
        yield scheme, cast("StoreModule", module)


STORES = Family("mqttjobs.store.backends", "mqttjobs.store", noun="URL scheme", read=_stores_of)
"""The modules of the stores, by URL scheme."""
EXAMPLE = "sqlite:///mqttjobs.db"


def resolve_store_url(url: str, folder: Path) -> str:
    """Return a `store.url` as `create_store` takes it, its relative paths beginning at `folder`.

    Raises:
        ValueError: the URL cannot be used; the text says how it should look, and lists the schemes if that is unknown.
    """
    return for_url(STORES.members(), url, EXAMPLE).resolve_url(url, folder)


def create_store(url: str) -> Store:
    """Return the store of a URL (`sqlite:////absolute/file`, `memory:`); it is not opened yet.

    Raises:
        StoreRefused: no store knows the scheme.
    """
    try:
        module = for_url(STORES.members(), url, EXAMPLE)
    except ValueError as error:
        raise StoreRefused(f"store.url {error}") from None
    return module.create(url)
