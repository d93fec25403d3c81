"""Roll-outs: a broadcast that reaches its agents in waves, and stops when too many of them fail (contract 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from mqttjobs.domain.assignments import ABORTED, Stage, fail, failures
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import Rollout
from mqttjobs.service.agents.roster import Roster
from mqttjobs.service.agents.sheet import Look
from mqttjobs.service.running.workbench import Tool


async def lead_waves(look: Look, roster: Roster, tool_of: Callable[[Look, Job], Tool | None]) -> None:
    """Begin the next wave of roll-outs whose last has ended, or none any more where too many have failed."""
    held = {row.uid for row in roster.rows() if row.stage is Stage.HELD}
    for uid in sorted(held):
        job = await look.sheet.job(uid)
        tool = None if job is None else tool_of(look, job)
        rollout = tool.operation.rollout if tool is not None else None
        if job is not None and rollout is not None:
            await _lead(look, roster, job, rollout)


async def _lead(look: Look, roster: Roster, job: Job, rollout: Rollout) -> None:
    rows = roster.of_job(job.uid)
    if rollout.abort_failures is not None and failures(job) >= rollout.abort_failures:
        for row in rows:
            if row.stage in (Stage.HELD, Stage.PLANNED):
                job = look.sheet.change(job, fail(job, row, look.at, ABORTED))
        return
    if any(row.stage is not Stage.HELD for row in rows):
        return
    begins_at = await _begun_at(look, roster, job.uid) + rollout.interval
    if begins_at > look.at:
        look.dues.append(begins_at)
        return
    wave = min(row.wave for row in rows)
    for row in rows:
        if row.wave == wave:
            look.sheet.row(replace(row, stage=Stage.PLANNED, planned_at=look.at))
    roster.begin_wave(job.uid, look.at)


async def _begun_at(look: Look, roster: Roster, uid: int) -> datetime:
    """Return when the last wave of a job began; after a start it is read from what is stored."""
    known = roster.wave_begun_at(uid)
    if known is None:
        rows = await look.sheet.rows(uid)
        known = max(
            (row.planned_at for row in rows if row.stage is not Stage.HELD and row.attempt == 1), default=look.at
        )
        roster.begin_wave(uid, known)
    return known
