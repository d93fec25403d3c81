"""The stored values, trigger states and operation states in memory, so that matching reads nothing."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from mqttjobs.domain.automaton import deadline, heard_again
from mqttjobs.domain.installation import Installation, Watcher
from mqttjobs.domain.jobs import Job, OperationState
from mqttjobs.domain.model import EntityKey, Json, Value, ValueKey
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.status import Status
from mqttjobs.domain.triggers.base import Trigger, TriggerState
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.store.base import Snapshot
from mqttjobs.transport.base import Message


class StateCache:
    """The stored records in memory: changed together with a Transaction, read again after a store error.

    Attributes:
        values: every stored value.
        trigger_states: every stored trigger state, by name.
        packets: digest of the last message that was committed with a packet identifier.
        operation_states: the state of each operation, by id.
        live: values with a live report since the connection was made.
        heard: when values were repeated since the last flush.
        fallen: names of the trigger states of silences that have fired, by entity.
        members: (class, id) of every stored object that appeared by reporting; `joined` are the new ones.
        awakened: names of silences that have ended and do not wait for the next one yet.
    """

    def __init__(self) -> None:
        self.values: dict[ValueKey, Value] = {}
        self.trigger_states: dict[str, TriggerState] = {}
        self.packets: dict[int, bytes] = {}
        self.event_ids: dict[tuple[EntityKey, str], datetime] = {}
        self.operation_states: dict[str, OperationState] = {}
        self.metadata: dict[str, Json] = {}
        self.live: set[ValueKey] = set()
        self.heard: dict[ValueKey, datetime] = {}
        self.fallen: dict[EntityKey, set[str]] = {}
        self.awakened: list[str] = []
        self.members: set[tuple[str, str]] = set()
        self.joined: list[EntityKey] = []
        self.last_uid = 0
        self._installation = Installation()
        self._triggers: dict[str, tuple[Operation, int, Trigger]] = {}
        self._deadlines: list[tuple[datetime, str]] = []
        self._gone: list[str] = []

    def copy(self) -> StateCache:
        """Return a copy, still to be installed."""
        made = StateCache()
        for name in ("values", "trigger_states", "packets", "event_ids", "operation_states", "metadata"):
            setattr(made, name, dict(getattr(self, name)))
        made.live, made.members = set(self.live), set(self.members)
        made.last_uid = self.last_uid
        return made

    def load(self, snapshot: Snapshot, installation: Installation) -> None:
        """Take over the stored records; a uid that was given is never given again."""
        self.values = {value.key: value for value in snapshot.values}
        self.packets = dict(snapshot.packets)
        self.event_ids = {(entity, event_id): at for entity, event_id, at in snapshot.event_ids}
        self.operation_states = {
            operation_states.id: operation_states for operation_states in snapshot.operation_states
        }
        self.metadata = dict(snapshot.metadata)
        self.members = set(snapshot.members)
        self.heard.clear()
        self.last_uid = max(self.last_uid, snapshot.last_uid)
        self.trigger_states = {trigger_state.name: trigger_state for trigger_state in snapshot.trigger_states}
        self.install(installation)

    def install(self, installation: Installation) -> None:
        """Index the trigger states under a configuration; those without a trigger are removed."""
        self._installation = installation
        self._triggers = {}
        for operation in installation.operations.values():
            for trigger_index, (name, trigger) in enumerate(
                zip(operation.trigger_ids, operation.triggers, strict=True)
            ):
                self._triggers[name] = (operation, trigger_index, trigger)
        gone = [
            name
            for name, trigger_state in self.trigger_states.items()
            if not self._belongs(installation, trigger_state)
        ]
        for name in gone:
            del self.trigger_states[name]
        self._gone += gone
        self._index_trigger_states()
        self._follow(installation)

    def _follow(self, installation: Installation) -> None:
        """Give each link without a value the value of the object that it follows, so that a repeat is no change."""
        for value in list(self.values.values()):
            for link in installation.followers(value.key.entity):
                key = ValueKey(link.kind, link.id, value.key.name)
                self.values.setdefault(key, replace(value, key=key))

    def take_gone(self) -> list[str]:
        """Return, once, the names of removed trigger states that are still stored."""
        gone, self._gone = self._gone, []
        return gone

    def _index_trigger_states(self) -> None:
        self._deadlines = []
        self.fallen = {}
        for trigger_state in self.trigger_states.values():
            self._index_trigger_state(trigger_state)

    def _belongs(self, installation: Installation, trigger_state: TriggerState) -> bool:
        watcher = self.watcher(trigger_state)
        return watcher is not None and installation.is_attached(watcher.operation, trigger_state.entity)

    def watcher(self, trigger_state: TriggerState) -> Watcher | None:
        """Return the watcher of a trigger state; None if the configuration no longer has its trigger."""
        found = self._triggers.get(trigger_state.name.rsplit("|", 2)[0])
        return None if found is None else Watcher(*found, trigger_state.entity)

    def recorded(self, tx: Transaction) -> None:
        """Take over what may be known only once a transaction is recorded."""
        self.metadata |= tx.metadata
        for key, at in tx.heard.items():
            if self.heard.get(key) == at:
                del self.heard[key]

    def hear(self, key: ValueKey, at: datetime) -> None:
        """Set when a value was heard, to be stored with the next flush."""
        self.values[key] = replace(self.values[key], heard_at=at)
        self.heard[key] = at

    def put_trigger_state(self, tx: Transaction, trigger_state: TriggerState) -> None:
        """Keep a trigger state, in the cache and the transaction."""
        self.trigger_states[trigger_state.name] = tx.trigger_states[trigger_state.name] = trigger_state
        self._index_trigger_state(trigger_state)

    def drop_trigger_state(self, tx: Transaction, name: str) -> None:
        """Remove a trigger state, from the cache and with the transaction."""
        self.trigger_states.pop(name, None)
        tx.trigger_states[name] = None

    def _index_trigger_state(self, trigger_state: TriggerState) -> None:
        watcher = self.watcher(trigger_state)
        if watcher is None:
            return
        if watcher.trigger.silence is not None:
            watched = self._installation.watched(watcher.trigger, watcher.owner)
            if watched is not None and trigger_state.fired_at is not None:
                self.fallen.setdefault(watched.entity, set()).add(trigger_state.name)
            return
        due = deadline(watcher.trigger, trigger_state)
        if due is not None:
            heapq.heappush(self._deadlines, (due, trigger_state.name))

    def deadline(self, trigger_state: TriggerState) -> datetime | None:
        """Return when a trigger fires next if nothing changes, or None."""
        watcher = self.watcher(trigger_state)
        return None if watcher is None else deadline(watcher.trigger, trigger_state)

    def heard_again(self, tx: Transaction, entity: EntityKey) -> None:
        """End the silence of an entity."""
        for name in sorted(self.fallen.pop(entity, ())):
            trigger_state = self.trigger_states.get(name)
            left = None if trigger_state is None else heard_again(trigger_state)
            if left is not None:
                self.put_trigger_state(tx, left)
            else:
                self.drop_trigger_state(tx, name)
            self.awakened.append(name)

    def next_deadline(self) -> datetime | None:
        """Return when the next trigger is due, or None; outdated entries are removed."""
        while self._deadlines:
            due, name = self._deadlines[0]
            trigger_state = self.trigger_states.get(name)
            if trigger_state is not None and self.deadline(trigger_state) == due:
                return due
            heapq.heappop(self._deadlines)
        return None

    def due_trigger_states(self, now: datetime) -> list[TriggerState]:
        """Take the trigger states that are due, earliest first; the caller must put back or drop each."""
        due: dict[str, TriggerState] = {}
        while (earliest := self.next_deadline()) is not None and earliest <= now:
            _, name = heapq.heappop(self._deadlines)
            due[name] = self.trigger_states[name]
        return list(due.values())

    def replace_trigger_states(self, tx: Transaction, trigger_states: Iterable[TriggerState]) -> None:
        """Replace all trigger states (after the wall clock was set)."""
        self.trigger_states = {trigger_state.name: trigger_state for trigger_state in trigger_states}
        tx.trigger_states |= self.trigger_states
        self._index_trigger_states()

    def is_redelivery(self, message: Message, digest: bytes) -> bool:
        """Whether a message with DUP was committed before its acknowledgement was lost (behaviour 1.7)."""
        return message.duplicate and self.packets.get(message.packet_id) == digest

    def take_uid(self) -> int:
        """Return the next uid; only the service gives uids."""
        self.last_uid += 1
        return self.last_uid

    def remember(self, tx: Transaction, operation: Operation, at: datetime, by: str) -> None:
        """Store the state of a new operation, or the present definition of a changed one."""
        state = self.operation_states.get(operation.id)
        if state is None:
            made = OperationState(operation.id, operation.fingerprint, at, at, by, by)
            self.operation_states[operation.id] = tx.operation_states[operation.id] = made
        elif state.fingerprint != operation.fingerprint:
            self.change_operation_state(
                tx, operation.id, fingerprint=operation.fingerprint, updated_at=at, updated_by=by
            )

    def change_operation_state(self, tx: Transaction, operation_id: str, **changes: Any) -> None:
        """Change the state of a known operation."""
        state = self.operation_states.get(operation_id)
        if state is not None:
            self.operation_states[operation_id] = tx.operation_states[operation_id] = replace(state, **changes)
            tx.runs.discard(operation_id)

    def record_run(self, tx: Transaction, job: Job, *, ended_now: bool) -> None:
        """Store when a job's operation first ran, and when it last ended."""
        state = self.operation_states.get(job.operation_id or "")
        if state is None:
            return
        changes: dict[str, Any] = {}
        if job.executed_at is not None and state.first_run_at is None:
            changes["first_run_at"] = job.executed_at
        if ended_now:
            changes["ended_at"] = max(event.at for event in job.timeline)
            if job.status is Status.COMPLETED:
                changes["completed_at"] = changes["ended_at"]
        if changes:
            if state.id not in tx.operation_states:
                tx.runs.add(state.id)
            self.operation_states[state.id] = tx.operation_states[state.id] = replace(state, **changes)

    def is_active(self, operation: Operation) -> bool:
        """Whether an operation may run: by the last request of a user, else by its definition."""
        operation_states = self.operation_states.get(operation.id)
        return (
            operation.active if operation_states is None or operation_states.active is None else operation_states.active
        )
