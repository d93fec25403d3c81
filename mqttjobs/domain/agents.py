"""Agents: which of them a target means, which one gets a job, and what is known of each (contract 6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from mqttjobs.domain.agent_messages import SKEW, Readiness, StatusMessage
from mqttjobs.domain.model import EMPTY, Json
from mqttjobs.domain.protocol import iso
from mqttjobs.domain.status import ALL, ANY, LOCAL, EventKind, JobEvent
from mqttjobs.errors import ReportError

_HOSTNAME = re.compile(r"[A-Za-z0-9.-][A-Za-z0-9_.-]{0,63}\Z")
_LABEL = re.compile(r"([A-Za-z0-9_.-]{1,64}):([A-Za-z0-9_.-]{1,128})\Z")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the service waits for an agent, and how often an agent says that it is there (contract 6)."""

    acknowledge: timedelta = timedelta(seconds=10)
    lease: timedelta = timedelta(seconds=30)
    slack: timedelta = timedelta(seconds=5)
    heartbeat: timedelta = timedelta(seconds=10)


class Aim(StrEnum):
    """The kinds of target."""

    LOCAL = "local"
    ANY = "any"
    ALL = "all"
    HOST = "host"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a job is to run; `name` is the hostname or the label, `value` what the label must be."""

    aim: Aim
    name: str = ""
    value: str = ""

    @property
    def broadcast(self) -> bool:
        """Whether it is one job on every agent that it means."""
        return self.aim in (Aim.ALL, Aim.LABEL)

    def means(self, agent: Agent) -> bool:
        """Whether an agent is meant; a label's value is equal, or begins with it and a dot."""
        if self.aim is Aim.HOST:
            return agent.hostname == self.name
        if self.aim is Aim.LABEL:
            have = agent.labels.get(self.name)
            return have is not None and f"{have}.".startswith(f"{self.value}.")
        return self.aim is not Aim.LOCAL


def parse_target(text: str) -> Target:
    """Return the target that is meant.

    Raises:
        ValueError: in words.
    """
    plain = {LOCAL: Aim.LOCAL, ANY: Aim.ANY, ALL: Aim.ALL}
    if text in plain:
        return Target(plain[text])
    if found := _LABEL.match(text):
        return Target(Aim.LABEL, found[1], found[2])
    if _HOSTNAME.match(text):
        return Target(Aim.HOST, text)
    raise ValueError("must be _local, _any, _all, a hostname, or label:value")


@dataclass(frozen=True, slots=True)
class Agent:
    """What is known of one agent.

    `status_at` is the time in its newest status, `heard_at` when it last proved to be there. `connection` names the
    connection that the status came on. `drained` is what a user last asked for, and outlives the agent.
    """

    hostname: str
    state: Readiness
    labels: Mapping[str, str] = EMPTY
    version: str = ""
    max_jobs: int = 1
    running: int = 0
    facts: Mapping[str, Json] = EMPTY
    status_at: datetime | None = None
    heard_at: datetime | None = None
    connection: str = ""
    drained: bool = False

    def readiness(self, now: datetime, lease: timedelta) -> Readiness:
        """Return its state: offline too when nothing was heard for a lease, draining as soon as that is asked."""
        if self.heard_at is None or now - self.heard_at > lease:
            return Readiness.OFFLINE
        if self.drained and self.state is Readiness.READY:
            return Readiness.DRAINING
        return self.state

    def is_ready(self, now: datetime, lease: timedelta) -> bool:
        """Whether it takes jobs."""
        return self.readiness(now, lease) is Readiness.READY

    def says_more_than(self, other: Agent | None) -> bool:
        """Whether it differs from an earlier picture in anything that a restart should not forget."""
        if other is None:
            return True
        return any(getattr(self, name) != getattr(other, name) for name in _LASTING)


_LASTING = ("state", "labels", "version", "max_jobs", "connection", "drained")


def hear(known: Agent | None, status: StatusMessage, hostname: str, at: datetime, *, retained: bool) -> Agent | None:
    """Return what a status makes of what is known of an agent; None where a retained one says nothing new.

    A status counts once and in order. The last will of a connection was signed when that was made, so it is older
    than what it ends: it counts while its connection is the last that is known.

    Raises:
        ReportError: `stale` or `replayed`.
    """
    if known is not None and _is_parting(known, status):
        status_at = max(known.status_at or status.timestamp, status.timestamp)
        return replace(known, state=Readiness.OFFLINE, running=0, status_at=status_at)
    if known is not None and known.status_at is not None and status.timestamp <= known.status_at:
        if retained:
            return None
        raise ReportError("a status that is not newer than the last counts no more", reason="replayed")
    late = at - status.timestamp
    if abs(late) > SKEW and not (retained and late > SKEW):
        seconds = round(abs(late).total_seconds())
        message = f"the status is {seconds} s {'old' if late > SKEW else 'ahead of us'}; are both clocks right?"
        raise ReportError(message, reason="stale")
    return Agent(
        hostname,
        status.state,
        dict(status.labels),
        status.version,
        status.max_jobs,
        status.running,
        dict(status.facts),
        status_at=status.timestamp,
        heard_at=min(at, status.timestamp) if retained else at,
        connection=status.connection,
        drained=known.drained if known is not None else False,
    )


def _is_parting(known: Agent, status: StatusMessage) -> bool:
    """Whether a status ends the connection that the last one came on."""
    ends = status.state is Readiness.OFFLINE and known.state is not Readiness.OFFLINE
    return ends and bool(known.connection) and status.connection == known.connection


def ready_for(target: Target, agents: Iterable[Agent], now: datetime, lease: timedelta) -> list[Agent]:
    """Return the ready agents that a target means, by hostname."""
    found = [agent for agent in agents if target.means(agent) and agent.is_ready(now, lease)]
    return sorted(found, key=lambda agent: agent.hostname)


def expected_set(target: Target, ready: Sequence[Agent]) -> tuple[str, ...]:
    """Return the agents that must answer: fixed at submission; nobody in particular for `_any`."""
    return () if target.aim in (Aim.LOCAL, Aim.ANY) else tuple(agent.hostname for agent in ready)


def untried(timeline: Iterable[JobEvent], agents: Sequence[Agent]) -> Sequence[Agent]:
    """Return the agents on which a job has not been tried in vain, or all of them where it was on each."""
    tried = {event.hostname for event in timeline if event.kind is EventKind.RETRIED}
    return [agent for agent in agents if agent.hostname not in tried] or agents


def least_busy(agents: Iterable[Agent], busy: Mapping[str, int], *, uses_slot: bool) -> Agent | None:
    """Return the agent with the least to do for its size that has room, or None where all are full.

    Args:
        agents: those that may be chosen.
        busy: how many of our jobs each has; an agent that says it runs more is believed.
        uses_slot: whether the job needs room; publishing does not.
    """

    def load(agent: Agent) -> tuple[float, int, str]:
        jobs = max(busy.get(agent.hostname, 0), agent.running)
        return (jobs / agent.max_jobs, jobs, agent.hostname)

    open_ones = [each for each in agents if not uses_slot or busy.get(each.hostname, 0) < each.max_jobs]
    return min(open_ones, key=load, default=None)


def agent_document(agent: Agent, now: datetime, lease: timedelta) -> dict[str, Json]:
    """Return what agents/get answers."""
    seen = max((at for at in (agent.heard_at, agent.status_at) if at is not None), default=None)
    return {
        "hostname": agent.hostname,
        "state": agent.readiness(now, lease).value,
        "labels": dict(agent.labels),
        "version": agent.version,
        "running": agent.running,
        "max_jobs": agent.max_jobs,
        "facts": dict(agent.facts),
        "last_seen": None if seen is None else iso(min(seen, now)),
    }
