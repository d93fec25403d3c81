"""Roll-outs: a broadcast that reaches its agents in waves, and stops when too many of them fail (contract 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from mqttjobs.domain.assignments import ABORTED, Stage, fail, failures
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.operations import Rollout
from mqttjobs.service.agents.batch import DispatchPass
from mqttjobs.service.jobs.definitions import ResolvedOperation
from mqttjobs.service.state.agents import AgentRegistry


async def lead_waves(
    dispatch: DispatchPass,
    agent_registry: AgentRegistry,
    resolve: Callable[[DispatchPass, Job], ResolvedOperation | None],
) -> None:
    """Begin the next wave of each roll-out whose last wave has ended; end roll-outs with too many failures."""
    held = {row.uid for row in agent_registry.rows() if row.stage is Stage.HELD}
    for uid in sorted(held):
        job = await dispatch.batch.job(uid)
        resolved = None if job is None else resolve(dispatch, job)
        rollout = resolved.operation.rollout if resolved is not None else None
        if job is not None and rollout is not None:
            await _lead(dispatch, agent_registry, job, rollout)


async def _lead(dispatch: DispatchPass, agent_registry: AgentRegistry, job: Job, rollout: Rollout) -> None:
    rows = agent_registry.of_job(job.uid)
    if rollout.abort_failures is not None and failures(job) >= rollout.abort_failures:
        for row in rows:
            if row.stage in (Stage.HELD, Stage.PLANNED):
                job = dispatch.batch.change(job, fail(job, row, dispatch.at, ABORTED))
        return
    if any(row.stage is not Stage.HELD for row in rows):
        return
    begins_at = await _begun_at(dispatch, agent_registry, job.uid) + rollout.interval
    if begins_at > dispatch.at:
        dispatch.dues.append(begins_at)
        return
    wave = min(row.wave for row in rows)
    for row in rows:
        if row.wave == wave:
            dispatch.batch.row(replace(row, stage=Stage.PLANNED, planned_at=dispatch.at))
    agent_registry.begin_wave(job.uid, dispatch.at)


async def _begun_at(dispatch: DispatchPass, agent_registry: AgentRegistry, uid: int) -> datetime:
    """Return when the last wave of a job began; after a start this is read from the store."""
    known = agent_registry.wave_begun_at(uid)
    if known is None:
        rows = await dispatch.batch.rows(uid)
        known = max(
            (row.planned_at for row in rows if row.stage is not Stage.HELD and row.attempt == 1), default=dispatch.at
        )
        agent_registry.begin_wave(uid, known)
    return known
