"""Gives jobs to agents: waiting ones are assigned, deadlines kept, and roll-outs led from wave to wave (contract 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog

from mqttjobs.clock import Clock
from mqttjobs.domain.agents import Aim, least_busy, parse_target, untried
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
from mqttjobs.domain.model import Operation
from mqttjobs.errors import ConfigError, ReportError
from mqttjobs.service.agents.courier import Courier
from mqttjobs.service.agents.rollouts import lead_waves
from mqttjobs.service.agents.roster import Roster
from mqttjobs.service.agents.sheet import Look, Sheet
from mqttjobs.service.draft import Draft
from mqttjobs.service.running.workbench import Tool, Workbench
from mqttjobs.service.settings import Settings
from mqttjobs.store.base import Store
from mqttjobs.transport.base import Publication

GIVEN_AT_ONCE = 200
"""Waiting jobs that are looked at in one go; those that take no slot never wait behind those that do."""
STORE_RETRY_S = 1.0
LOOK_S = 30.0
"""Longest sleep while anything is open: a wall clock that was set is noticed within this."""
NO_LONGER_UNDERSTOOD = "its definition is no longer understood; run the operation anew"

log = structlog.get_logger(__name__)


class Agents:
    """The service's side of agents. Everything it decides is recorded before it is sent.

    Args:
        store, roster: what is stored and the picture of it in memory.
        clock: time.
        new_sheet: begins a look.
        new_token: gives texts that nobody can guess.
        publish: sends.
    """

    def __init__(
        self,
        store: Store,
        roster: Roster,
        clock: Clock,
        *,
        new_sheet: Callable[[Draft], Sheet],
        new_token: Callable[[], str],
        publish: Callable[[Publication], object],
    ) -> None:
        self._store = store
        self._roster = roster
        self._clock = clock
        self._new_sheet = new_sheet
        self._new_token = new_token
        self._publish = publish
        self._wake = asyncio.Event()
        self._ended: set[int] = set()

    def install(self, settings: Settings, workbench: Workbench) -> None:
        """Use a configuration from now on."""
        self._settings = settings
        self._workbench = workbench
        self._courier = Courier(settings, workbench.limits)
        self._roster.timing = settings.agents.timing

    @property
    def enabled(self) -> bool:
        """Whether there can be agents."""
        return self._settings.agents.key is not None

    def wake(self) -> None:
        """Look now: something changed."""
        self._wake.set()

    async def wait(self, seconds: float | None) -> None:
        """Wait until the next look is due, or something changes."""
        await self._clock.wait(self._wake, seconds)
        self._wake.clear()

    def order(self, hostname: str, command: str, job_id: str | None = None) -> None:
        """Send an order to an agent."""
        self._publish(self._courier.order(hostname, command, self._clock.now(), job_id))

    def recorded(self, draft: Draft) -> None:
        """See to what a recorded draft means for agents: new jobs, stopped ones, deleted ones."""
        for agent in draft.agents.values():
            self._roster.written(agent)
        self._ended.update(job.uid for job in draft.stopped)
        for uid in draft.deleted:
            job_id = next((job.id for job in draft.stopped if job.uid == uid), None)
            for row in self._roster.drop(uid):
                if row.stage is Stage.ASSIGNED and job_id is not None and self.enabled:
                    self.order(row.hostname, "stop", job_id)
        if draft.jobs or draft.stopped or draft.changed or draft.agents or draft.assignments:
            self._wake.set()

    async def look(self, draft: Draft, *, settled: bool) -> tuple[list[Publication], float | None]:
        """Decide what is due now; return what to send once the draft is recorded, and the seconds until the next look.

        Args:
            draft: takes what is decided.
            settled: whether what came while we were away has been taken in, so that silence means something.
        """
        look = Look(self._new_sheet(draft), self._clock.now(), [], [])
        await self._close_ended(look)
        await self._give_out(look)
        await lead_waves(look, self._roster, self._tool)
        if settled:
            await self._keep_deadlines(look)
        for hostname in self._roster.hosts():
            await self._send_planned(look, hostname, settled=settled)
            await asyncio.sleep(0)  # a broadcast to a crowd is signed one by one
        waiting = await self._store.next_assignable(look.at)
        dues = [*look.dues, *([waiting] if waiting else [])]
        pauses = [max(0.0, (due - look.at) / timedelta(seconds=1)) for due in dues]
        if not settled:
            pauses.append(STORE_RETRY_S)
        return look.outgoing, min([LOOK_S, *pauses]) if pauses or self._roster.hosts() else None

    # -- what ended by itself ------------------------------------------------------------------------------------

    async def _close_ended(self, look: Look) -> None:
        """Stop what agents still do for jobs that were stopped, and forget it; after a start, look at all."""
        uids = set(self._roster.jobs()) if self._roster.loaded else self._ended & set(self._roster.jobs())
        for uid in sorted(uids):
            job = await look.sheet.job(uid)
            if job is not None and not job.ended:
                continue
            for row in self._roster.of_job(uid):
                if row.stage is Stage.ASSIGNED and job is not None:
                    look.outgoing.append(self._courier.order(row.hostname, "stop", look.at, job.id))
                look.sheet.row(replace(row, stage=Stage.CLOSED))
        self._ended.clear()
        self._roster.loaded = False

    # -- from the queue to agents --------------------------------------------------------------------------------

    async def _give_out(self, look: Look) -> None:
        """Plan waiting jobs: on the agents that are expected, or on the least busy one that has room."""
        busy = self._roster.busy()
        publishing = await self._store.assignable(look.at, GIVEN_AT_ONCE, takes_slot=False)
        for job in [*publishing, *await self._store.assignable(look.at, GIVEN_AT_ONCE, takes_slot=True)]:
            tool = self._tool(look, job)
            if tool is None:
                continue
            hosts: Sequence[str] = job.expected
            target = parse_target(job.target)
            if target.aim is Aim.ANY:
                ready = self._roster.ready(target, look.at)
                chosen = least_busy(untried(job.timeline, ready), busy, takes_slot=job.takes_slot)
                if chosen is None:
                    if not ready:
                        self._strand(look, job, self._limit(tool.operation))
                    continue
                hosts = [chosen.hostname]
                busy[chosen.hostname] += job.takes_slot
            rows = plan(job, tool.operation, self._limit(tool.operation), hosts, look.at)
            for row in rows:
                look.sheet.row(row)
            self._roster.begin_wave(job.uid, look.at)
            look.sheet.update(job, given_out(job, rows))

    def _tool(self, look: Look, job: Job) -> Tool | None:
        """Return what runs a job, or fail it."""
        try:
            return self._workbench.tool(job)
        except ConfigError:
            outcome = Outcome(ok=False, error=NO_LONGER_UNDERSTOOD)
            look.sheet.update(job, finish(job, outcome, look.at, self._settings.service.hostname, None))
            return None

    def _limit(self, operation: Operation) -> timedelta:
        return operation.timeout or self._settings.service.timeout

    def _strand(self, look: Look, job: Job, limit: timedelta) -> None:
        """Fail a waiting job for which no agent has been ready until its deadline."""
        since = max([job.due_at or job.created_at, *(event.at for event in job.timeline)])
        deadline = since + limit + self._roster.timing.slack
        if deadline > look.at:
            look.dues.append(deadline)
            return
        outcome = Outcome(ok=False, error=f"no ready agent for the target {job.target}")
        look.sheet.update(job, finish(job, outcome, look.at, self._settings.service.hostname, None))

    # -- from a plan to an agent ---------------------------------------------------------------------------------

    async def _send_planned(self, look: Look, hostname: str, *, settled: bool) -> None:
        """Send an agent what is planned for it, as far as it has room: by priority, then first come."""
        rows = self._roster.of_host(hostname)
        planned = [row for row in rows if row.stage is Stage.PLANNED]
        if not planned:
            return
        if not self._roster.is_ready(hostname, look.at):
            if settled:
                await self._strand_planned(look, hostname, planned)
            return
        agent = self._roster.agents[hostname]
        room = agent.max_jobs - sum(1 for row in rows if row.stage is Stage.ASSIGNED and row.takes_slot)
        for row in sorted(planned, key=lambda each: (-each.priority, each.uid)):
            if row.planned_at > look.at:
                look.dues.append(row.planned_at)
            elif room > 0 or not row.takes_slot:
                room -= row.takes_slot
                await self._send(look, row)

    async def _send(self, look: Look, row: Assignment) -> None:
        """Send an assignment, for the first time or again."""
        job = await look.sheet.job(row.uid)
        tool = None if job is None or job.ended else self._tool(look, job)
        if job is None or tool is None:
            look.sheet.row(replace(row, stage=Stage.CLOSED))
            return
        row = sent(row, self._new_token(), look.at, self._roster.timing)
        try:
            look.outgoing.append(self._courier.assignment(job, row, tool))
        except (ReportError, OSError) as error:
            look.sheet.change(job, fail(job, row, look.at, str(error)))
            return
        look.sheet.row(row)
        look.dues.append(row.answer_by or look.at)

    async def _strand_planned(self, look: Look, hostname: str, planned: Sequence[Assignment]) -> None:
        """Fail what is planned for an agent that has not been ready until the deadline; `_any` looks for another."""
        agent = self._roster.agents.get(hostname)
        away_since = agent.heard_at if agent is not None else None
        for row in planned:
            if row.movable or row.movable_once_run:
                await self._take_back(look, row, "it takes no jobs now")
                continue
            since = max(row.planned_at, away_since or row.planned_at)
            deadline = since + row.limit + self._roster.timing.slack
            if deadline > look.at:
                look.dues.append(deadline)
                continue
            job = await look.sheet.job(row.uid)
            if job is not None:
                drained = agent is not None and agent.readiness(look.at, self._roster.timing.lease) != "offline"
                error = "the agent is drained and takes no jobs" if drained else TIMED_OUT
                look.sheet.change(job, fail(job, row, look.at, error))

    async def _take_back(self, look: Look, row: Assignment, words: str) -> None:
        job = await look.sheet.job(row.uid)
        if job is None:
            return
        if row.stage is Stage.ASSIGNED:
            look.outgoing.append(self._courier.order(row.hostname, "stop", look.at, job.id))
        look.sheet.change(job, take_back(job, row, look.at, words))
        look.dues.append(look.at)

    # -- deadlines -----------------------------------------------------------------------------------------------

    async def _keep_deadlines(self, look: Look) -> None:
        """Ask silent agents again, take jobs back from them, and end what has passed its deadline."""
        timing = self._roster.timing
        for row in list(self._roster.rows()):
            if row.stage is not Stage.ASSIGNED:
                continue
            heard_at = self._roster.heard_at(row.hostname) or row.planned_at
            due, what = next_due(row, heard_at, timing)
            if due <= look.at and what is Due.TIME_OUT and self._roster.may_still_come(row.hostname, look.at):
                due = look.at + timedelta(seconds=STORE_RETRY_S)
            if due > look.at:
                look.dues.append(due)
                continue
            job = await look.sheet.job(row.uid)
            if job is None or job.ended:
                look.sheet.row(replace(row, stage=Stage.CLOSED))
            elif what is Due.SEND_AGAIN:
                await self._send(look, row)
            elif what is Due.TAKE_BACK:
                heard = f"nothing heard for {timing.lease.seconds}s"
                words = heard if row.answered else f"not acknowledged within {timing.acknowledge.seconds}s"
                await self._take_back(look, row, words)
            else:
                await self._time_out(look, job, row)

    async def _time_out(self, look: Look, job: Job, row: Assignment) -> None:
        tool = self._tool(look, job)
        if tool is None:
            return
        log.info("agent-timed-out", job=job.id, hostname=row.hostname)
        look.sheet.change(job, time_out(job, row, look.at, tool.operation))
