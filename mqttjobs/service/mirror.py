"""What the store knows of values, holds and operations, kept in memory so that matching needs no reading."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from mqttjobs.domain.installation import Installation, Watcher
from mqttjobs.domain.jobs import OperationFacts
from mqttjobs.domain.model import EntityKey, Json, Operation, Value, ValueKey
from mqttjobs.domain.triggers import Hold, deadline
from mqttjobs.store.base import Snapshot
from mqttjobs.transport.base import Message

EVENT_ID_MEMORY = timedelta(days=1)


class Mirror:
    """The picture in memory of what is stored: changed together with a Draft, read anew after a store error.

    Attributes:
        values: every stored value.
        holds: every stored hold, by name.
        packets: packet identifier -> digest of the last message committed under it.
        facts: what is remembered of each operation.
        live: values that had a live report since this connection was made.
        heard: values that were repeated since the last flush, and when.
        stale: a write failed, so that this may be ahead of the store.
    """

    def __init__(self) -> None:
        self.values: dict[ValueKey, Value] = {}
        self.holds: dict[str, Hold] = {}
        self.packets: dict[int, bytes] = {}
        self.event_ids: dict[tuple[EntityKey, str], datetime] = {}
        self.facts: dict[str, OperationFacts] = {}
        self.notes: dict[str, Json] = {}
        self.live: set[ValueKey] = set()
        self.heard: dict[ValueKey, datetime] = {}
        self.last_uid = 0
        self.stale = False
        self._watchers: dict[str, Watcher] = {}
        self._deadlines: list[tuple[datetime, str]] = []

    def load(self, snapshot: Snapshot, installation: Installation) -> None:
        """Take over what is stored; uids that were given are never given again."""
        self.values = {value.key: value for value in snapshot.values}
        self.packets = dict(snapshot.packets)
        self.event_ids = {(entity, event_id): at for entity, event_id, at in snapshot.event_ids}
        self.facts = {facts.id: facts for facts in snapshot.facts}
        self.notes = dict(snapshot.notes)
        self.heard.clear()
        self.last_uid = max(self.last_uid, snapshot.last_uid)
        self.holds = {hold.name: hold for hold in snapshot.holds}
        self.install(installation)
        self.stale = False

    def install(self, installation: Installation) -> list[str]:
        """Index the holds under a configuration; return the names of those that it no longer has."""
        self._watchers = {}
        for operation in installation.operations.values():
            for index, (name, trigger) in enumerate(zip(operation.trigger_ids, operation.triggers, strict=True)):
                self._watchers[name] = Watcher(operation, index, trigger)
        gone = [name for name, hold in self.holds.items() if not self._belongs(installation, hold)]
        for name in gone:
            del self.holds[name]
        self._deadlines = []
        for hold in self.holds.values():
            self._remember_deadline(hold)
        return gone

    def _belongs(self, installation: Installation, hold: Hold) -> bool:
        watcher = self.watcher(hold.name)
        return watcher is not None and installation.is_attached(watcher.operation, hold.entity)

    def watcher(self, hold_name: str) -> Watcher | None:
        """Return the trigger that a hold belongs to, or None if the configuration has it no more."""
        return self._watchers.get(hold_name.rsplit("|", 2)[0])

    def put_hold(self, hold: Hold) -> None:
        """Arm or advance a hold."""
        self.holds[hold.name] = hold
        self._remember_deadline(hold)

    def drop_hold(self, name: str) -> None:
        """Forget a hold whose trigger is satisfied no longer."""
        self.holds.pop(name, None)

    def _remember_deadline(self, hold: Hold) -> None:
        watcher = self.watcher(hold.name)
        due = None if watcher is None else deadline(watcher.trigger, hold)
        if due is not None:
            heapq.heappush(self._deadlines, (due, hold.name))

    def next_deadline(self) -> datetime | None:
        """Return when the next hold is due, or None; entries that no longer hold are thrown out."""
        while self._deadlines:
            due, name = self._deadlines[0]
            hold, watcher = self.holds.get(name), self.watcher(name)
            if hold is not None and watcher is not None and deadline(watcher.trigger, hold) == due:
                return due
            heapq.heappop(self._deadlines)
        return None

    def due_holds(self, now: datetime) -> list[Hold]:
        """Take the holds that are due by now, earliest first; each must be put back or dropped."""
        due: dict[str, Hold] = {}
        while (earliest := self.next_deadline()) is not None and earliest <= now:
            _, name = heapq.heappop(self._deadlines)
            due[name] = self.holds[name]
        return list(due.values())

    def replace_holds(self, holds: Iterable[Hold]) -> None:
        """Put all of `holds` in place of what there was (after the wall clock was set)."""
        self.holds = {hold.name: hold for hold in holds}
        self._deadlines = []
        for hold in self.holds.values():
            self._remember_deadline(hold)

    def is_redelivery(self, message: Message, digest: bytes) -> bool:
        """Whether a message with DUP was committed before its acknowledgement was lost (behaviour 1.7)."""
        return message.duplicate and self.packets.get(message.packet_id) == digest

    def take_uid(self) -> int:
        """Give the next uid; the service is the only one who gives them."""
        self.last_uid += 1
        return self.last_uid

    def remember(self, operation: Operation, at: datetime, by: str) -> OperationFacts:
        """Return the facts of an operation, made now if it is new, under its present definition."""
        facts = self.facts.get(operation.id)
        if facts is None:
            facts = OperationFacts(operation.id, operation.fingerprint, at, at, by, by)
        elif facts.fingerprint != operation.fingerprint:
            facts = replace(facts, fingerprint=operation.fingerprint, updated_at=at, updated_by=by)
        self.facts[operation.id] = facts
        return facts

    def change_facts(self, operation_id: str, **changes: Any) -> None:
        """Change what is remembered of an operation that is known."""
        facts = self.facts.get(operation_id)
        if facts is not None:
            self.facts[operation_id] = replace(facts, **changes)

    def is_active(self, operation: Operation) -> bool:
        """Whether an operation may run: what a user last said, else its definition."""
        facts = self.facts.get(operation.id)
        return operation.active if facts is None or facts.active is None else facts.active
