"""Records in plain dictionaries, under the same contract as the file: for tests and dry runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from mqttjobs.domain.agents import Agent
from mqttjobs.domain.assignments import Assignment, Key, Stage
from mqttjobs.domain.jobs import Job, JobUpdate, OperationState, Phase, apply
from mqttjobs.domain.model import EntityKey, EntityKind, Json, Value, ValueKey
from mqttjobs.domain.status import LOCAL, Status
from mqttjobs.domain.triggers.base import TriggerState
from mqttjobs.errors import NotFound, StoreError, TerminalState
from mqttjobs.store.base import (
    ANSWERS_KEPT,
    EVENT_IDS_KEPT,
    EXACT_LIMIT,
    EXPENDABLE,
    PRUNED_AT_ONCE,
    Answer,
    Changes,
    HistoryEntry,
    HistoryPage,
    JobPage,
    JobQuery,
    Retention,
    Runs,
    Scope,
    Snapshot,
    age_limit,
)

SCHEMES = frozenset({"memory"})


def resolve_url(url: str, folder: Path) -> str:
    """Return the URL: nothing in it matters but the scheme."""
    del folder
    return url


def create(url: str) -> MemoryStore:
    """Return a new, empty store; the URL says nothing more."""
    del url
    return MemoryStore()


class MemoryStore:
    """See Store. `close` keeps the data, so that a restart can be played; `broken` makes every write fail."""

    def __init__(self) -> None:
        self.broken = False
        self._jobs: dict[int, Job] = {}
        self._uids: dict[str, int] = {}
        self._values: dict[ValueKey, Value] = {}
        self._trigger_states: dict[str, TriggerState] = {}
        self._packets: dict[int, bytes] = {}
        self._event_ids: dict[tuple[EntityKey, str], datetime] = {}
        self._history: list[HistoryEntry] = []
        self._answers: dict[bytes, Answer] = {}
        self._operation_states: dict[str, OperationState] = {}
        self._metadata: dict[str, Json] = {}
        self._members: dict[tuple[str, str], None] = {}
        self._unannounced: dict[int, None] = {}
        self._agents: dict[str, Agent] = {}
        self._assignments: dict[Key, Assignment] = {}
        self._last_uid = 0

    async def open(self) -> None:
        """See Store."""

    async def close(self) -> None:
        """See Store."""

    async def load(self) -> Snapshot:
        """See Store."""
        return Snapshot(
            values=list(self._values.values()),
            trigger_states=list(self._trigger_states.values()),
            packets=dict(self._packets),
            event_ids=[(entity, event_id, at) for (entity, event_id), at in self._event_ids.items()],
            operation_states=list(self._operation_states.values()),
            metadata=dict(self._metadata),
            agents=list(self._agents.values()),
            members=list(self._members),
            last_uid=self._last_uid,
        )

    async def record(self, changes: Changes) -> None:
        """See Store."""
        self._check_writable()
        self._check(changes)
        self._record_values(changes)
        for job in changes.jobs:
            self._jobs[job.uid] = job
            self._uids[job.id] = job.uid
            self._last_uid = max(self._last_uid, job.uid)
            if job.ended:
                self._unannounced[job.uid] = None
        for update in changes.updates:
            self._update(update)
        for uid, result in changes.results:
            job = self._jobs[uid]
            self._jobs[uid] = job.evolve(results=(*job.results, result))
        for uid in changes.deleted:
            self._remove(uid)
        for uid in changes.announced:
            self._unannounced.pop(uid, None)
        self._answers |= {answer.key: answer for answer in changes.answers}
        self._operation_states |= changes.operation_states
        self._metadata |= changes.metadata
        self._agents |= changes.agents
        self._assignments |= {key: row for key, row in changes.assignments.items() if key.uid in self._jobs}

    def _check_writable(self) -> None:
        if self.broken:
            raise StoreError("the store is broken on purpose")

    def _check(self, changes: Changes) -> None:
        """Refuse before anything is written."""
        phases: dict[int, Phase] = {}
        for job in changes.jobs:
            if job.uid in self._jobs or job.uid in phases or job.id in self._uids:
                raise StoreError(f"the job {job.uid} is stored already")
            phases[job.uid] = job.phase
        for uid in [*(each.uid for each in changes.updates), *(uid for uid, _ in changes.results), *changes.deleted]:
            if uid not in self._jobs and uid not in phases:
                raise NotFound("Job", f"no job has the uid {uid}")
        for update in changes.updates:
            phase = phases[update.uid] if update.uid in phases else self._jobs[update.uid].phase
            if phase is Phase.ENDED and update.strict and not update.reopen:
                raise TerminalState(f"the job {update.uid} has ended")
            if phase is not Phase.ENDED or update.reopen:
                phases[update.uid] = update.phase

    def _record_values(self, changes: Changes) -> None:
        self._values |= changes.values
        for key, at in changes.heard.items():
            if key in self._values:
                self._values[key] = replace(self._values[key], heard_at=at)
        self._members |= dict.fromkeys(changes.members)
        self._history.extend(changes.history)
        for name, trigger_state in changes.trigger_states.items():
            if trigger_state is None:
                self._trigger_states.pop(name, None)
            else:
                self._trigger_states[name] = trigger_state
        if changes.forget_packets:
            self._packets.clear()
        self._packets |= changes.packets
        self._event_ids |= {(entity, event_id): at for entity, event_id, at in changes.event_ids}

    def _remove(self, uid: int) -> None:
        del self._uids[self._jobs.pop(uid).id]
        self._unannounced.pop(uid, None)
        self._assignments = {key: row for key, row in self._assignments.items() if key.uid != uid}

    def _update(self, update: JobUpdate) -> None:
        before = self._jobs[update.uid]
        job = apply(before, update)
        self._jobs[update.uid] = job
        if job.ended and (before.status is not job.status or update.reopen):
            self._unannounced[job.uid] = None

    async def claim(
        self, now: datetime, limit: int, *, uses_slot: bool, begin: Callable[[Job], JobUpdate]
    ) -> Sequence[Job]:
        """See Store."""
        self._check_writable()
        due = [job for job in self._due(now) if job.target == LOCAL and job.uses_slot is uses_slot]
        due.sort(key=lambda job: (-job.priority if uses_slot else 0, job.uid))
        updates = [begin(job) for job in self._first_free(due, limit, in_row_order=not uses_slot)]
        for update in updates:
            self._update(update)
        return [self._jobs[update.uid] for update in updates]

    def _due(self, now: datetime) -> Iterator[Job]:
        for job in self._jobs.values():
            if job.phase is Phase.WAITING and (job.due_at is None or job.due_at <= now):
                yield job

    def _first_free(self, due: Sequence[Job], limit: int, *, in_row_order: bool = False) -> list[Job]:
        """Return the first `limit` jobs that are not held up by others of their operation and owner.

        `in_row_order`: one that is held up holds up all later ones of its owner.
        """
        running = Counter(_kin(job) for job in self._jobs.values() if job.phase is Phase.CLAIMED)
        free: list[Job] = []
        held_up: set[EntityKey | None] = set()
        for job in due:
            if len(free) >= limit:
                break
            if job.owner in held_up:
                continue
            if job.max_running is None or running[_kin(job)] < job.max_running:
                running[_kin(job)] += 1
                free.append(job)
            elif in_row_order and job.owner is not None:
                held_up.add(job.owner)
        return free

    async def assignable(self, now: datetime, limit: int, *, uses_slot: bool) -> Sequence[Job]:
        """See Store."""
        due = [job for job in self._due(now) if job.target != LOCAL and job.uses_slot is uses_slot]
        return self._first_free(sorted(due, key=lambda job: (-job.priority, job.uid)), limit)

    async def next_assignable(self, after: datetime) -> datetime | None:
        """See Store."""
        return self._next_due(after, local=False)

    async def assignments(self, uid: int | None = None) -> Sequence[Assignment]:
        """See Store."""
        rows = [self._assignments[key] for key in sorted(self._assignments)]
        return [row for row in rows if (row.stage is not Stage.CLOSED if uid is None else row.uid == uid)]

    async def next_due(self, after: datetime) -> datetime | None:
        """See Store."""
        return self._next_due(after, local=True)

    def _next_due(self, after: datetime, *, local: bool) -> datetime | None:
        waiting = [job for job in self._jobs.values() if job.phase is Phase.WAITING and (job.target == LOCAL) is local]
        return min((job.due_at for job in waiting if job.due_at is not None and job.due_at > after), default=None)

    async def claimed(self) -> Sequence[Job]:
        """See Store."""
        return [job for job in self._sorted() if job.phase is Phase.CLAIMED and job.target == LOCAL]

    def _sorted(self) -> list[Job]:
        return [self._jobs[uid] for uid in sorted(self._jobs)]

    async def count_active(self, operation_id: str, owner: EntityKey | None) -> tuple[int, int]:
        """See Store."""
        phases = Counter(job.phase for job in await self.active(operation_id, owner))
        return phases[Phase.WAITING], phases[Phase.CLAIMED]

    async def active(self, operation_id: str, owner: EntityKey | None) -> Sequence[Job]:
        """See Store."""
        return [
            job
            for job in self._sorted()
            if job.phase is not Phase.ENDED and job.operation_id == operation_id and job.owner == owner
        ]

    async def get(self, job_id: str | int, scope: Scope | None = None) -> Job | None:
        """See Store."""
        job = self._jobs.get(job_id if isinstance(job_id, int) else self._uids.get(job_id, 0))
        return job if job is not None and _in_scope(job, scope) else None

    async def find(self, query: JobQuery) -> JobPage:
        """See Store."""
        found = [job for job in reversed(self._sorted()) if _matches(job, query)]
        total = len(found)
        if query.before_uid is not None:
            found = [job for job in found if job.uid < query.before_uid]
        page = found[query.offset : query.offset + query.limit]
        return JobPage(page, min(total, EXACT_LIMIT), exact=total <= EXACT_LIMIT)

    async def counts(self, scope: Scope | None = None) -> Mapping[Status, int]:
        """See Store."""
        found = Counter(job.status for job in self._jobs.values() if _in_scope(job, scope))
        return {status: found[status] for status in Status}

    async def runs(self, operation_id: str, scope: Scope | None = None) -> Runs:
        """See Store."""
        found = [job for job in reversed(self._sorted()) if job.operation_id == operation_id and _in_scope(job, scope)]
        running = sum(1 for job in found if not job.ended)
        return Runs(len(found), running, [job.id for job in found[:10]], found[0] if found else None)

    async def unannounced(self, limit: int) -> Sequence[Job]:
        """See Store."""
        return [self._jobs[uid] for uid in sorted(self._unannounced)[:limit]]

    async def answer(self, key: bytes, since: datetime) -> bytes | None:
        """See Store."""
        answer = self._answers.get(key)
        return answer.body if answer is not None and answer.at >= since else None

    async def history(
        self, key: ValueKey, since: datetime | None, until: datetime | None, limit: int, offset: int
    ) -> HistoryPage:
        """See Store."""
        found = [
            entry
            for entry in reversed(self._history)
            if entry.key == key and (since is None or entry.at >= since) and (until is None or entry.at < until)
        ]
        return HistoryPage(found[offset : offset + limit], len(found))

    async def prune(self, now: datetime, retention: Retention) -> int:
        """See Store."""
        self._check_writable()
        self._answers = {key: each for key, each in self._answers.items() if now - each.at <= ANSWERS_KEPT}
        self._event_ids = {key: at for key, at in self._event_ids.items() if now - at <= EVENT_IDS_KEPT}
        self._prune_history(now, retention)
        ended = [job for job in self._sorted() if job.phase is Phase.ENDED]
        gone = [job for job in ended if now - last_change(job) > age_limit(job.status, retention)]
        over = len(self._jobs) - len(gone) - retention.max_jobs
        if over > 0:
            chosen = {job.uid for job in gone}
            gone += [job for job in ended if job.uid not in chosen and job.status in EXPENDABLE][:over]
        for job in gone[:PRUNED_AT_ONCE]:
            self._remove(job.uid)
        return len(gone[:PRUNED_AT_ONCE])

    def _prune_history(self, now: datetime, retention: Retention) -> None:
        kept: Counter[ValueKey] = Counter()
        entries: list[HistoryEntry] = []
        for entry in reversed(self._history):
            kept[entry.key] += 1
            if kept[entry.key] <= retention.history_per_value and now - entry.at <= retention.history:
                entries.append(entry)
        self._history = entries[::-1]

    async def health(self) -> Mapping[str, object]:
        """See Store."""
        return {"kind": "memory", "jobs": len(self._jobs)}


def _kin(job: Job) -> tuple[str | None, EntityKey | None]:
    """Return what a limit counts together."""
    return job.operation_id, job.owner


def last_change(job: Job) -> datetime:
    """Return when a job last changed: what its age counts from."""
    return max((event.at for event in job.timeline), default=job.created_at)


def _in_scope(job: Job, scope: Scope | None) -> bool:
    if scope is None:
        return True
    if job.owner is None:
        return job.user_id == scope.user_id
    ids = scope.objects if job.owner.kind is EntityKind.OBJECT else scope.links
    return ids is None or job.owner.id in ids


def _matches(job: Job, query: JobQuery) -> bool:
    if query.objects is not None or query.links is not None:
        ids = {EntityKey(EntityKind.OBJECT, each) for each in query.objects or ()}
        ids |= {EntityKey(EntityKind.LINK, each) for each in query.links or ()}
        if job.owner not in ids:
            return False
    return (
        (query.statuses is None or job.status in query.statuses)
        and (query.operation_id is None or job.operation_id == query.operation_id)
        and (query.user_id is None or job.user_id == query.user_id)
        and (query.since is None or job.created_at >= query.since)
        and (query.until is None or job.created_at < query.until)
        and _in_scope(job, query.scope)
    )
