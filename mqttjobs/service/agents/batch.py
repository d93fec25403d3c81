"""One pass over the jobs of agents: each job after the decisions so far, and the transaction that records them."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from mqttjobs.domain.assignments import Assignment, Change
from mqttjobs.domain.jobs import Job, JobUpdate, apply
from mqttjobs.service.state.agents import AgentRegistry
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.store.base import Store
from mqttjobs.transport.base import Publication


class AssignmentBatch:
    """Collects decisions; the agent registry and the cache are changed at the same time."""

    def __init__(self, tx: Transaction, store: Store, agent_registry: AgentRegistry, cache: StateCache) -> None:
        self.tx = tx
        self._store = store
        self._agent_registry = agent_registry
        self._cache = cache
        self._jobs: dict[int, Job] = {}
        self._uids: dict[str, int] = {}

    async def job(self, job_id: int | str) -> Job | None:
        """Return a job after the decisions so far, or None where there is none."""
        uid = self._uids.get(job_id, 0) if isinstance(job_id, str) else job_id
        if uid in self._jobs:
            return self._jobs[uid]
        stored = await self._store.get(job_id)
        if stored is None:
            return None
        self._uids[stored.id] = stored.uid
        return self._jobs.setdefault(stored.uid, stored)

    async def rows(self, uid: int) -> list[Assignment]:
        """Return every assignment of a job after the decisions so far."""
        pending = {key: row for key, row in self.tx.assignments.items() if key.uid == uid}
        stored = {row.key: row for row in await self._store.assignments(uid)}
        return list((stored | pending).values())

    def row(self, row: Assignment) -> None:
        """Add an assignment in its new state."""
        self.tx.assignments[row.key] = row
        self._agent_registry.put(row)

    def update(self, job: Job, update: JobUpdate) -> Job:
        """Add an update of a job and return the updated job."""
        after = apply(job, update)
        self.tx.updates.append(update)
        if after.status is not job.status:
            self.tx.changed[job.uid] = after
        if after.ended and (not job.ended or job.uid in self.tx.ended):
            self.tx.ended[job.uid] = after
        self._jobs[job.uid] = after
        self._cache.record_run(self.tx, after, ended_now=after.ended and after.status is not job.status)
        return after

    def change(self, job: Job, change: Change) -> Job:
        """Add a change of a job and of one of its assignments; return the updated job."""
        self.row(change.row)
        if change.next is not None:
            self.row(change.next)
        return self.update(job, change.update)


class DispatchPass(NamedTuple):
    """One pass over all open assignments: its decisions, the messages to send, and when the next pass is due."""

    batch: AssignmentBatch
    at: datetime
    outgoing: list[Publication]
    dues: list[datetime]
