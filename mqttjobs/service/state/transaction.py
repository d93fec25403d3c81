"""What is about to be written together: collected while deciding, recorded whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from mqttjobs.domain.agents import Agent
from mqttjobs.domain.assignments import Assignment, Key
from mqttjobs.domain.jobs import CustomResult, Job, JobUpdate
from mqttjobs.domain.model import EntityKey, Json, Value, ValueKey
from mqttjobs.domain.triggers import TriggerState
from mqttjobs.domain.values import ReportResult
from mqttjobs.service.state.cache import StateCache
from mqttjobs.store.base import Answer, Changes, HistoryEntry, Packet


@dataclass(slots=True)
class Transaction:
    """One transaction in the making. Values, holds and facts are put into the mirror at the same time.

    `changed` are jobs of agents whose status is another now, `ended` those of them that have ended with it. `stopped`
    are jobs as an update of this draft leaves them: what runs of them is ended once it is recorded. `reports`,
    `skipped` and `fired` (matches that became jobs) are counted then.
    """

    values: dict[ValueKey, Value] = field(default_factory=dict)
    heard: list[tuple[ValueKey, datetime]] = field(default_factory=list)
    history: list[HistoryEntry] = field(default_factory=list)
    trigger_states: dict[str, TriggerState | None] = field(default_factory=dict)
    packets: dict[int, bytes] = field(default_factory=dict)
    forget_packets: bool = False
    event_ids: list[tuple[EntityKey, str, datetime]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    updates: list[JobUpdate] = field(default_factory=list)
    stopped: list[Job] = field(default_factory=list)
    results: list[tuple[int, CustomResult]] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    operation_states: set[str] = field(default_factory=set)
    announced: list[int] = field(default_factory=list)
    metadata: dict[str, Json] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    assignments: dict[Key, Assignment] = field(default_factory=dict)
    changed: dict[int, Job] = field(default_factory=dict)
    ended: dict[int, Job] = field(default_factory=dict)
    members: list[tuple[str, str]] = field(default_factory=list)
    reports: Counter[ReportResult] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    fired: int = 0

    def changes(self, cache: StateCache) -> Changes:
        """Return what is to be recorded; facts are taken from the mirror as they are now."""
        return Changes(
            values=list(self.values.values()),
            heard=self.heard,
            history=self.history,
            trigger_states=[
                trigger_state for trigger_state in self.trigger_states.values() if trigger_state is not None
            ],
            dropped_trigger_states=[
                name for name, trigger_state in self.trigger_states.items() if trigger_state is None
            ],
            packets=[Packet(packet_id, digest) for packet_id, digest in self.packets.items()],
            forget_packets=self.forget_packets,
            event_ids=self.event_ids,
            jobs=self.jobs,
            updates=self.updates,
            results=self.results,
            deleted=self.deleted,
            answers=self.answers,
            operation_states=[
                cache.operation_states[name] for name in self.operation_states if name in cache.operation_states
            ],
            announced=self.announced,
            metadata=self.metadata,
            agents=list(self.agents.values()),
            assignments=list(self.assignments.values()),
            members=self.members,
        )

    @property
    def changes_cache(self) -> bool:
        """Whether the mirror or the roster has been changed with it: if it is not recorded they are to be read anew."""
        return bool(
            self.values
            or self.trigger_states
            or self.operation_states
            or self.packets
            or self.agents
            or self.assignments
            or self.members
        )

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(
            self.values
            or self.heard
            or self.trigger_states
            or self.packets
            or self.forget_packets
            or self.event_ids
            or self.jobs
            or self.updates
            or self.results
            or self.deleted
            or self.answers
            or self.operation_states
            or self.announced
            or self.metadata
            or self.agents
            or self.assignments
            or self.members
        )
