"""The agents and their open assignments in memory, as they are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from mqttjobs.domain.agent_messages import Readiness
from mqttjobs.domain.agents import Agent, Target, Timing, ready_for
from mqttjobs.domain.assignments import Assignment, Stage
from mqttjobs.domain.model import Json

STORED_LAG = timedelta(seconds=60)
"""How much older an agent's last sign of life may be in the store than in memory."""


class AgentRegistry:
    """Agents and open assignments: changed together with a Transaction, read again after a store error.

    Attributes:
        agents: every known agent, by hostname.
        timing: how long agents are waited for.
        loaded: assignments were read from the store, and their jobs may have ended meanwhile.
    """

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self.timing = Timing()
        self.loaded = False
        self._stored: dict[str, Agent] = {}
        self._connected_at: datetime | None = None
        self._by_host: dict[str, dict[int, Assignment]] = {}
        self._by_job: dict[int, dict[str, Assignment]] = {}
        self._begun_at: dict[int, datetime] = {}

    def load(self, agents: Iterable[Agent], rows: Iterable[Assignment]) -> None:
        """Take over the stored records; the record in memory stays where it is newer."""
        self._stored = {agent.hostname: agent for agent in agents}
        for hostname, stored in self._stored.items():
            known = self.agents.get(hostname)
            newer = known is not None and (known.status_at or stored.status_at) != stored.status_at
            if not newer:
                self.agents[hostname] = stored
        self._by_host.clear()
        self._by_job.clear()
        self._begun_at.clear()
        for row in rows:
            self.put(row)
        self.loaded = True

    # -- agents --------------------------------------------------------------------------------------------------

    def connected(self, at: datetime) -> None:
        """Count no silence from before `at`, the time of our connection: each agent has one heartbeat to show up."""
        self._connected_at = at
        for hostname, agent in self.agents.items():
            if agent.state is not Readiness.OFFLINE and agent.readiness(at, self.timing.lease) is Readiness.OFFLINE:
                since = at - self.timing.lease + self.timing.heartbeat
                self.agents[hostname] = replace(agent, heard_at=since)

    def is_settled(self, now: datetime) -> bool:
        """Whether the connection is old enough for an agent's silence to count, however busy intake is."""
        return self._connected_at is not None and now - self._connected_at >= self.timing.acknowledge

    def may_still_come(self, hostname: str, now: datetime) -> bool:
        """Whether an agent may still be reconnecting to the broker, since we have just reconnected ourselves."""
        agent = self.agents.get(hostname)
        heard_at = None if agent is None else agent.heard_at
        if self._connected_at is None or now - self._connected_at >= self.timing.acknowledge:
            return False
        return heard_at is None or heard_at < self._connected_at

    def heard_at(self, hostname: str) -> datetime | None:
        """Return the time from which an agent's silence counts."""
        agent = self.agents.get(hostname)
        times = [at for at in (agent.heard_at if agent else None, self._connected_at) if at is not None]
        return max(times, default=None)

    def hear(self, agent: Agent) -> bool:
        """Keep an agent's record; return whether it must be stored."""
        self.agents[agent.hostname] = agent
        stored = self._stored.get(agent.hostname)
        return agent.says_more_than(stored) or _is_old(stored, agent)

    def written(self, agent: Agent) -> None:
        """Note that an agent's record was stored."""
        self._stored[agent.hostname] = agent

    def ready(self, target: Target, now: datetime) -> list[Agent]:
        """Return the ready agents that a target selects, by hostname."""
        return ready_for(target, self.agents.values(), now, self.timing.lease)

    def is_ready(self, hostname: str, now: datetime) -> bool:
        """Whether an agent takes jobs."""
        agent = self.agents.get(hostname)
        return agent is not None and agent.is_ready(now, self.timing.lease)

    # -- assignments ---------------------------------------------------------------------------------------------

    def put(self, row: Assignment) -> None:
        """Keep an assignment in its present state; a closed one is removed."""
        known = self._by_job.get(row.uid, {}).get(row.hostname)
        if row.stage is not Stage.CLOSED:
            self._by_host.setdefault(row.hostname, {})[row.uid] = row
            self._by_job.setdefault(row.uid, {})[row.hostname] = row
        elif known is not None and known.attempt == row.attempt:
            self._forget(row)

    def drop(self, uid: int) -> list[Assignment]:
        """Remove and return the open assignments of a job."""
        rows = self.of_job(uid)
        for row in rows:
            self._forget(row)
        return rows

    def _forget(self, row: Assignment) -> None:
        self._by_host[row.hostname].pop(row.uid, None)
        rows = self._by_job[row.uid]
        rows.pop(row.hostname, None)
        if not rows:
            del self._by_job[row.uid]
            self._begun_at.pop(row.uid, None)

    def find(self, uid: int, hostname: str) -> Assignment | None:
        """Return the open assignment of a job on an agent."""
        return self._by_job.get(uid, {}).get(hostname)

    def of_job(self, uid: int) -> list[Assignment]:
        """Return the open assignments of a job."""
        return list(self._by_job.get(uid, {}).values())

    def jobs(self) -> list[int]:
        """Return the uids of the jobs that have open assignments."""
        return list(self._by_job)

    def rows(self) -> Iterator[Assignment]:
        """Yield every open assignment."""
        for rows in self._by_host.values():
            yield from rows.values()

    def of_host(self, hostname: str) -> list[Assignment]:
        """Return the open assignments on an agent."""
        return list(self._by_host.get(hostname, {}).values())

    def hosts(self) -> list[str]:
        """Return the hostnames of the agents that have open assignments."""
        return [hostname for hostname, rows in self._by_host.items() if rows]

    def busy(self) -> Counter[str]:
        """Return how many slots of each agent are taken or reserved."""
        return Counter(row.hostname for row in self.rows() if row.uses_slot and row.stage is not Stage.HELD)

    def move(self, step: timedelta) -> list[Assignment]:
        """Shift every time after the wall clock was set; return the open assignments."""
        moved = [row.moved(step) for row in self.rows()]
        for row in moved:
            self.put(row)
        self._begun_at = {uid: at + step for uid, at in self._begun_at.items()}
        if self._connected_at is not None:
            self._connected_at += step
        for hostname, agent in self.agents.items():
            if agent.heard_at is not None:
                self.agents[hostname] = replace(agent, heard_at=agent.heard_at + step)
        return moved

    def begin_wave(self, uid: int, at: datetime) -> None:
        """Set the time at which the present wave of a roll-out began."""
        self._begun_at[uid] = at

    def wave_begun_at(self, uid: int) -> datetime | None:
        """Return the time at which the present wave of a roll-out began; None where only the store knows."""
        return self._begun_at.get(uid)

    def document(self, now: datetime) -> dict[str, Json]:
        """Return the `agents` of service/health."""
        states = Counter(agent.readiness(now, self.timing.lease) for agent in self.agents.values())
        stages = Counter(row.stage for row in self.rows())
        return {
            "known": len(self.agents),
            **{state.value: states[state] for state in Readiness},
            "assigned": stages[Stage.ASSIGNED],
            "waiting": stages[Stage.PLANNED] + stages[Stage.HELD],
        }


def _is_old(stored: Agent | None, agent: Agent) -> bool:
    """Whether the store's last sign of life is much older than the one in memory."""
    if stored is None or stored.heard_at is None or agent.heard_at is None:
        return True
    return agent.heard_at - stored.heard_at > STORED_LAG
