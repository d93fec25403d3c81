"""Assigns waiting jobs to agents, keeps deadlines, and leads roll-outs from wave to wave (contract 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog

from mqttjobs.clock import Clock
from mqttjobs.domain.agent_messages import Readiness
from mqttjobs.domain.agents import Aim, least_busy, no_ready_agent, parse_target, untried
from mqttjobs.domain.assignments import (
    TIMED_OUT,
    Assignment,
    Due,
    Stage,
    fail,
    given_out,
    next_due,
    plan,
    sent,
    take_back,
    time_out,
)
from mqttjobs.domain.jobs import Job, Outcome, finish
from mqttjobs.domain.operations import Operation
from mqttjobs.errors import ConfigError, ReportError
from mqttjobs.service.agents.batch import AssignmentBatch, DispatchPass
from mqttjobs.service.agents.messages import AgentMessages
from mqttjobs.service.agents.rollouts import lead_waves
from mqttjobs.service.jobs.definitions import NO_LONGER_UNDERSTOOD, OperationResolver, ResolvedOperation
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.agents import AgentRegistry
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.store.base import RETRY_S, Store
from mqttjobs.transport.base import Publication

GIVEN_AT_ONCE = 200
"""Waiting jobs in one pass; jobs without a slot never wait behind jobs with one."""
LONGEST_SLEEP_S = 30.0
"""Longest sleep while assignments are open; a wall clock that was set is noticed within this time."""

log = structlog.get_logger(__name__)


class AgentScheduler:
    """The service's side of agents. Every decision is recorded before its message is sent.

    Args:
        store, agent_registry: the stored records, and the agents and open assignments in memory.
        clock: time.
        new_batch: begins a pass.
        new_token: returns texts that nobody can guess.
        publish: sends.
    """

    def __init__(
        self,
        store: Store,
        agent_registry: AgentRegistry,
        clock: Clock,
        *,
        new_batch: Callable[[Transaction], AssignmentBatch],
        new_token: Callable[[], str],
        publish: Callable[[Publication], object],
    ) -> None:
        self._store = store
        self._agent_registry = agent_registry
        self._clock = clock
        self._new_batch = new_batch
        self._new_token = new_token
        self._publish = publish
        self._wake = asyncio.Event()
        self._ended: set[int] = set()

    def install(self, settings: Settings, resolver: OperationResolver) -> None:
        """Use a configuration from now on."""
        self._settings = settings
        self._resolver = resolver
        self._messages = AgentMessages(settings, resolver.limits)
        self._agent_registry.timing = settings.timing

    @property
    def enabled(self) -> bool:
        """Whether there can be agents."""
        return self._settings.agents.key is not None

    def connected(self) -> None:
        """Count no silence of agents from before now."""
        self._agent_registry.connected(self._clock.now())

    def wake(self) -> None:
        """Begin a pass now: something changed."""
        self._wake.set()

    async def wait(self, seconds: float | None) -> None:
        """Wait until the next pass is due, or something changes."""
        await self._clock.wait(self._wake, seconds)
        self._wake.clear()

    def order(self, hostname: str, command: str, job_id: str | None = None) -> None:
        """Send a command to an agent."""
        self._publish(self._messages.order(hostname, command, self._clock.now(), job_id))

    def recorded(self, tx: Transaction) -> None:
        """React to a recorded transaction: new jobs, stopped jobs, deleted jobs."""
        for agent in tx.agents.values():
            self._agent_registry.written(agent)
        self._ended.update(job.uid for job in tx.stopped)
        for uid in tx.deleted:
            job_id = next((job.id for job in tx.stopped if job.uid == uid), None)
            for row in self._agent_registry.drop(uid):
                if row.stage is Stage.ASSIGNED and job_id is not None and self.enabled:
                    self.order(row.hostname, "stop", job_id)
        if tx.jobs or tx.stopped or tx.changed or tx.agents or tx.assignments:
            self._wake.set()

    async def run_pass(self, tx: Transaction, *, settled: bool) -> tuple[list[Publication], float | None]:
        """Decide what is due; return the messages to send once `tx` is recorded, and the seconds to the next pass.

        Args:
            tx: takes the decisions.
            settled: whether everything sent while we were away has been taken in, so that silence counts.
        """
        dispatch = DispatchPass(self._new_batch(tx), self._clock.now(), [], [])
        settled = settled or self._agent_registry.is_settled(dispatch.at)
        await self._close_ended(dispatch)
        await self._give_out(dispatch)
        await lead_waves(dispatch, self._agent_registry, self._resolve)
        if settled:
            await self._keep_deadlines(dispatch)
        for hostname in self._agent_registry.hosts():
            await self._send_planned(dispatch, hostname, settled=settled)
            await asyncio.sleep(0)  # a broadcast to a crowd is signed one by one
        waiting = await self._store.next_assignable(dispatch.at)
        dues = [*dispatch.dues, *([waiting] if waiting else [])]
        pauses = [max(0.0, (due - dispatch.at) / timedelta(seconds=1)) for due in dues]
        if not settled:
            pauses.append(RETRY_S)
        return dispatch.outgoing, min([LONGEST_SLEEP_S, *pauses]) if pauses or self._agent_registry.hosts() else None

    # -- ended jobs -----------------------------------------------------------------------------------------------

    async def _close_ended(self, dispatch: DispatchPass) -> None:
        """Stop the assignments of ended jobs and close them; after a start, of all jobs."""
        uids = (
            set(self._agent_registry.jobs())
            if self._agent_registry.loaded
            else self._ended & set(self._agent_registry.jobs())
        )
        for uid in sorted(uids):
            job = await dispatch.batch.job(uid)
            if job is not None and not job.ended:
                continue
            for row in self._agent_registry.of_job(uid):
                if row.stage is Stage.ASSIGNED and job is not None:
                    dispatch.outgoing.append(self._messages.order(row.hostname, "stop", dispatch.at, job.id))
                dispatch.batch.row(replace(row, stage=Stage.CLOSED))
        self._ended.clear()
        self._agent_registry.loaded = False

    # -- from the queue to agents --------------------------------------------------------------------------------

    async def _give_out(self, dispatch: DispatchPass) -> None:
        """Plan waiting jobs: on the expected agents, or on the least busy agent that has a free slot."""
        busy = self._agent_registry.busy()
        publishing = await self._store.assignable(dispatch.at, GIVEN_AT_ONCE, uses_slot=False)
        for job in [*publishing, *await self._store.assignable(dispatch.at, GIVEN_AT_ONCE, uses_slot=True)]:
            resolved = self._resolve(dispatch, job)
            if resolved is None:
                continue
            hosts: Sequence[str] = job.expected
            target = parse_target(job.target)
            if target.aim is Aim.ANY:
                ready = self._agent_registry.ready(target, dispatch.at)
                chosen = least_busy(untried(job.timeline, ready), busy, uses_slot=job.uses_slot)
                if chosen is None:
                    if not ready:
                        self._strand(dispatch, job, self._time_limit(resolved.operation))
                    continue
                hosts = [chosen.hostname]
                busy[chosen.hostname] += job.uses_slot
            rows = plan(job, resolved.operation, self._time_limit(resolved.operation), hosts, dispatch.at)
            for row in rows:
                dispatch.batch.row(row)
            self._agent_registry.begin_wave(job.uid, dispatch.at)
            dispatch.batch.update(job, given_out(job, rows))

    def _resolve(self, dispatch: DispatchPass, job: Job) -> ResolvedOperation | None:
        """Return the resolved operation of a job, or fail the job."""
        try:
            return self._resolver.resolve(job)
        except ConfigError:
            outcome = Outcome(ok=False, error=NO_LONGER_UNDERSTOOD)
            dispatch.batch.update(job, finish(job, outcome, dispatch.at, self._settings.service.hostname, None))
            return None

    def _time_limit(self, operation: Operation) -> timedelta:
        return operation.timeout or self._settings.service.timeout

    def _strand(self, dispatch: DispatchPass, job: Job, limit: timedelta) -> None:
        """Fail a waiting job for which no agent has been ready until its deadline."""
        since = max([job.due_at or job.created_at, *(event.at for event in job.timeline)])
        deadline = since + limit + self._agent_registry.timing.slack
        if deadline > dispatch.at:
            dispatch.dues.append(deadline)
            return
        outcome = Outcome(ok=False, error=no_ready_agent(job.target))
        dispatch.batch.update(job, finish(job, outcome, dispatch.at, self._settings.service.hostname, None))

    # -- from a plan to an agent ---------------------------------------------------------------------------------

    async def _send_planned(self, dispatch: DispatchPass, hostname: str, *, settled: bool) -> None:
        """Send an agent its planned assignments, as far as it has free slots: by priority, then first come."""
        rows = self._agent_registry.of_host(hostname)
        planned = [row for row in rows if row.stage is Stage.PLANNED]
        if not planned:
            return
        if not self._agent_registry.is_ready(hostname, dispatch.at):
            if settled:
                await self._strand_planned(dispatch, hostname, planned)
            return
        agent = self._agent_registry.agents[hostname]
        room = agent.max_jobs - sum(1 for row in rows if row.stage is Stage.ASSIGNED and row.uses_slot)
        for row in sorted(planned, key=lambda each: (-each.priority, each.uid)):
            if row.planned_at > dispatch.at:
                dispatch.dues.append(row.planned_at)
            elif room > 0 or not row.uses_slot:
                room -= row.uses_slot
                await self._send(dispatch, row)

    async def _send(self, dispatch: DispatchPass, row: Assignment) -> None:
        """Send an assignment, for the first time or again."""
        job = await dispatch.batch.job(row.uid)
        resolved = None if job is None or job.ended else self._resolve(dispatch, job)
        if job is None or resolved is None:
            dispatch.batch.row(replace(row, stage=Stage.CLOSED))
            return
        row = sent(row, self._new_token(), dispatch.at, self._agent_registry.timing)
        try:
            dispatch.outgoing.append(self._messages.assignment(job, row, resolved))
        except (ReportError, OSError) as error:
            dispatch.batch.change(job, fail(job, row, dispatch.at, str(error)))
            return
        dispatch.batch.row(row)
        dispatch.dues.append(row.answer_by or dispatch.at)

    async def _strand_planned(self, dispatch: DispatchPass, hostname: str, planned: Sequence[Assignment]) -> None:
        """Fail assignments planned for an agent that was not ready until the deadline; a job for `_any` moves on."""
        agent = self._agent_registry.agents.get(hostname)
        away_since = agent.heard_at if agent is not None else None
        for row in planned:
            if row.movable or row.movable_once_run:
                await self._take_back(dispatch, row, "it takes no jobs now")
                continue
            since = max(row.planned_at, away_since or row.planned_at)
            deadline = since + row.limit + self._agent_registry.timing.slack
            if deadline > dispatch.at:
                dispatch.dues.append(deadline)
                continue
            job = await dispatch.batch.job(row.uid)
            if job is not None:
                lease = self._agent_registry.timing.lease
                drained = agent is not None and agent.readiness(dispatch.at, lease) is not Readiness.OFFLINE
                error = "the agent is drained and takes no jobs" if drained else TIMED_OUT
                dispatch.batch.change(job, fail(job, row, dispatch.at, error))

    async def _take_back(self, dispatch: DispatchPass, row: Assignment, message: str) -> None:
        job = await dispatch.batch.job(row.uid)
        if job is None:
            return
        if row.stage is Stage.ASSIGNED:
            dispatch.outgoing.append(self._messages.order(row.hostname, "stop", dispatch.at, job.id))
        dispatch.batch.change(job, take_back(job, row, dispatch.at, message))
        dispatch.dues.append(dispatch.at)

    # -- deadlines -----------------------------------------------------------------------------------------------

    async def _keep_deadlines(self, dispatch: DispatchPass) -> None:
        """Ask silent agents again, take jobs back from them, and end what has passed its deadline."""
        timing = self._agent_registry.timing
        for row in list(self._agent_registry.rows()):
            if row.stage is not Stage.ASSIGNED:
                continue
            heard_at = self._agent_registry.heard_at(row.hostname) or row.planned_at
            due, what = next_due(row, heard_at, timing)
            if (
                due <= dispatch.at
                and what is Due.TIME_OUT
                and self._agent_registry.may_still_come(row.hostname, dispatch.at)
            ):
                due = dispatch.at + timedelta(seconds=RETRY_S)
            if due > dispatch.at:
                dispatch.dues.append(due)
                continue
            job = await dispatch.batch.job(row.uid)
            if job is None or job.ended:
                dispatch.batch.row(replace(row, stage=Stage.CLOSED))
            elif what is Due.SEND_AGAIN:
                await self._send(dispatch, row)
            elif what is Due.TAKE_BACK:
                heard = f"nothing heard for {timing.lease.seconds}s"
                message = heard if row.answered else f"not acknowledged within {timing.acknowledge.seconds}s"
                await self._take_back(dispatch, row, message)
            else:
                await self._time_out(dispatch, job, row)

    async def _time_out(self, dispatch: DispatchPass, job: Job, row: Assignment) -> None:
        resolved = self._resolve(dispatch, job)
        if resolved is None:
            return
        log.info("agent-timed-out", job=job.id, hostname=row.hostname)
        dispatch.batch.change(job, time_out(job, row, dispatch.at, resolved.operation))
