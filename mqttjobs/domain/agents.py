"""Agents: which agents a target selects, which agent gets a job, and the record of each agent (contract 6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from mqttjobs.domain.agent_messages import SKEW, Readiness, StatusMessage
from mqttjobs.domain.model import EMPTY, Json
from mqttjobs.domain.names import LABEL_VALUE, NAME, is_hostname
from mqttjobs.domain.protocol import iso
from mqttjobs.domain.status import ALL, ANY, LOCAL, EventKind, JobEvent
from mqttjobs.errors import ReportError

_LABEL = re.compile(f"({NAME}):({LABEL_VALUE})")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the service waits for an agent, and how often an agent sends its heartbeat (contract 6)."""

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
    """Where a job runs: `name` is the hostname or the label's name, `value` the value that the label must have."""

    aim: Aim
    name: str = ""
    value: str = ""

    @property
    def broadcast(self) -> bool:
        """Whether the job runs on every agent that the target selects."""
        return self.aim in (Aim.ALL, Aim.LABEL)

    def means(self, agent: Agent) -> bool:
        """Whether the target selects an agent. A label's value must be `value`, or begin with `value` and a dot."""
        if self.aim is Aim.HOST:
            return agent.hostname == self.name
        if self.aim is Aim.LABEL:
            have = agent.labels.get(self.name)
            return have is not None and f"{have}.".startswith(f"{self.value}.")
        return self.aim is not Aim.LOCAL


def parse_target(text: str) -> Target:
    """Return the target that a text names: `_local`, `_any`, `_all`, a hostname, or `label:value`.

    Raises:
        ValueError: the text names none; the message says what a target looks like.
    """
    plain = {LOCAL: Aim.LOCAL, ANY: Aim.ANY, ALL: Aim.ALL}
    if text in plain:
        return Target(plain[text])
    if found := _LABEL.fullmatch(text):
        return Target(Aim.LABEL, found[1], found[2])
    if is_hostname(text):
        return Target(Aim.HOST, text)
    raise ValueError("must be _local, _any, _all, a hostname, or label:value")


def no_ready_agent(target: str) -> str:
    """Return the error of a job whose target means no agent that is ready."""
    return f"no ready agent for the target {target}"


@dataclass(frozen=True, slots=True)
class Agent:
    """The record of one agent.

    `status_at` is the timestamp of the newest status, `heard_at` the time of the last sign of life. `connection` names
    the connection on which the status came. `drained` is the last request of a user; it survives restarts of both.
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
        """Return the agent's state: offline also after a lease without a sign of life, draining from the request on."""
        if self.heard_at is None or now - self.heard_at > lease:
            return Readiness.OFFLINE
        if self.drained and self.state is Readiness.READY:
            return Readiness.DRAINING
        return self.state

    def is_ready(self, now: datetime, lease: timedelta) -> bool:
        """Whether the agent takes jobs."""
        return self.readiness(now, lease) is Readiness.READY

    def says_more_than(self, other: Agent | None) -> bool:
        """Whether the record differs from an earlier one in a field that must survive a restart."""
        if other is None:
            return True
        return any(getattr(self, name) != getattr(other, name) for name in _LASTING)


_LASTING = ("state", "labels", "version", "max_jobs", "connection", "drained")


def hear(known: Agent | None, status: StatusMessage, hostname: str, at: datetime, *, retained: bool) -> Agent | None:
    """Return an agent's record after a status; None where a retained status says nothing new.

    A status counts once and in order. The last will of a connection is signed when the connection is made, so it is
    older than the statuses that it ends. It counts while its connection is the last one known.

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
    """Whether a status ends the connection on which the last status came."""
    ends = status.state is Readiness.OFFLINE and known.state is not Readiness.OFFLINE
    return ends and bool(known.connection) and status.connection == known.connection


def ready_for(target: Target, agents: Iterable[Agent], now: datetime, lease: timedelta) -> list[Agent]:
    """Return the ready agents that a target selects, by hostname."""
    found = [agent for agent in agents if target.means(agent) and agent.is_ready(now, lease)]
    return sorted(found, key=lambda agent: agent.hostname)


def expected_set(target: Target, ready: Sequence[Agent]) -> tuple[str, ...]:
    """Return the hostnames of the agents that must report an end, fixed when the job is made; empty for `_any`."""
    return () if target.aim in (Aim.LOCAL, Aim.ANY) else tuple(agent.hostname for agent in ready)


def untried(timeline: Iterable[JobEvent], agents: Sequence[Agent]) -> Sequence[Agent]:
    """Return the agents on which a job has not failed yet; all agents if it has failed on each."""
    tried = {event.hostname for event in timeline if event.kind is EventKind.RETRIED}
    return [agent for agent in agents if agent.hostname not in tried] or agents


def least_busy(agents: Iterable[Agent], busy: Mapping[str, int], *, uses_slot: bool) -> Agent | None:
    """Return the agent with the lowest load relative to its size, or None where no agent has a free slot.

    Args:
        agents: the candidates.
        busy: slots taken by hostname, as the service counts them; an agent that reports more is believed.
        uses_slot: whether the job needs a free slot; a job that only publishes does not.
    """

    def load(agent: Agent) -> tuple[float, int, str]:
        jobs = max(busy.get(agent.hostname, 0), agent.running)
        return (jobs / agent.max_jobs, jobs, agent.hostname)

    open_ones = [each for each in agents if not uses_slot or busy.get(each.hostname, 0) < each.max_jobs]
    return min(open_ones, key=load, default=None)


def agent_document(agent: Agent, now: datetime, lease: timedelta) -> dict[str, Json]:
    """Return the document that agents/get answers with (contract 6)."""
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
