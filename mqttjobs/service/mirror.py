"""What the store knows of values, holds and operations, kept in memory so that matching needs no reading."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from mqttjobs.domain.installation import Installation, Watcher
from mqttjobs.domain.jobs import Job, OperationFacts
from mqttjobs.domain.model import EntityKey, Json, Operation, Trigger, Value, ValueKey
from mqttjobs.domain.status import Status
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
        fallen: entities whose silence has fired, and the holds that say so.
        members: (class, id) of every stored object that appeared by reporting; `joined` are those that are new.
        awakened: names of such holds since something was heard, until their next silence is waited for.
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
        self.fallen: dict[EntityKey, set[str]] = {}
        self.awakened: list[str] = []
        self.members: set[tuple[str, str]] = set()
        self.joined: list[EntityKey] = []
        self.last_uid = 0
        self.stale = False
        self._installation = Installation()
        self._triggers: dict[str, tuple[Operation, int, Trigger]] = {}
        self._deadlines: list[tuple[datetime, str]] = []
        self._gone: list[str] = []

    def copy(self) -> Mirror:
        """Return another of the same content, to be installed; changes of one do not reach the other."""
        made = Mirror()
        for name in ("values", "holds", "packets", "event_ids", "facts", "notes"):
            setattr(made, name, dict(getattr(self, name)))
        made.live, made.members = set(self.live), set(self.members)
        made.last_uid = self.last_uid
        return made

    def load(self, snapshot: Snapshot, installation: Installation) -> None:
        """Take over what is stored; uids that were given are never given again."""
        self.values = {value.key: value for value in snapshot.values}
        self.packets = dict(snapshot.packets)
        self.event_ids = {(entity, event_id): at for entity, event_id, at in snapshot.event_ids}
        self.facts = {facts.id: facts for facts in snapshot.facts}
        self.notes = dict(snapshot.notes)
        self.members = set(snapshot.members)
        self.heard.clear()
        self.last_uid = max(self.last_uid, snapshot.last_uid)
        self.holds = {hold.name: hold for hold in snapshot.holds}
        self.install(installation)
        self.stale = False

    def install(self, installation: Installation) -> None:
        """Index the holds under a configuration; those that it no longer has are gone."""
        self._installation = installation
        self._triggers = {}
        for operation in installation.operations.values():
            for place, (name, trigger) in enumerate(zip(operation.trigger_ids, operation.triggers, strict=True)):
                self._triggers[name] = (operation, place, trigger)
        gone = [name for name, hold in self.holds.items() if not self._belongs(installation, hold)]
        for name in gone:
            del self.holds[name]
        self._gone += gone
        self._index_holds()
        self._follow(installation)

    def _follow(self, installation: Installation) -> None:
        """Give a link that has no value yet the one that it follows: what is repeated is no change of it either."""
        for value in list(self.values.values()):
            for link in installation.followers(value.key.entity):
                key = ValueKey(link.kind, link.id, value.key.name)
                self.values.setdefault(key, replace(value, key=key))

    def take_gone(self) -> list[str]:
        """Return the names of holds that are gone and still stored, once."""
        gone, self._gone = self._gone, []
        return gone

    def _index_holds(self) -> None:
        self._deadlines = []
        self.fallen = {}
        for hold in self.holds.values():
            self._index_hold(hold)

    def _belongs(self, installation: Installation, hold: Hold) -> bool:
        watcher = self.watcher(hold)
        return watcher is not None and installation.is_attached(watcher.operation, hold.entity)

    def watcher(self, hold: Hold) -> Watcher | None:
        """Return the trigger that a hold belongs to, or None if the configuration has it no more."""
        found = self._triggers.get(hold.name.rsplit("|", 2)[0])
        return None if found is None else Watcher(*found, hold.entity)

    def hear(self, key: ValueKey, at: datetime) -> None:
        """Take a value as heard at a time, to be written at the next flush."""
        self.values[key] = replace(self.values[key], heard_at=at)
        self.heard[key] = at

    def put_hold(self, hold: Hold) -> None:
        """Arm or advance a hold."""
        self.holds[hold.name] = hold
        self._index_hold(hold)

    def drop_hold(self, name: str) -> None:
        """Forget a hold whose trigger is satisfied no longer."""
        self.holds.pop(name, None)

    def _index_hold(self, hold: Hold) -> None:
        watcher = self.watcher(hold)
        if watcher is None:
            return
        if watcher.trigger.silence is not None:
            watched = self._installation.watched(watcher.trigger, watcher.owner)
            if watched is not None and hold.fired_at is not None:
                self.fallen.setdefault(watched.entity, set()).add(hold.name)
            return
        due = deadline(watcher.trigger, hold)
        if due is not None:
            heapq.heappush(self._deadlines, (due, hold.name))

    def deadline(self, hold: Hold) -> datetime | None:
        """Return when a hold fires next if nothing changes, or None."""
        watcher = self.watcher(hold)
        return None if watcher is None else deadline(watcher.trigger, hold)

    def heard_again(self, entity: EntityKey) -> dict[str, Hold | None]:
        """Forget that an entity was silent; return what becomes of the holds that said so."""
        changed: dict[str, Hold | None] = {}
        for name in sorted(self.fallen.pop(entity, ())):
            hold = self.holds.pop(name, None)
            if hold is not None and hold.ran_at is not None:
                hold = self.holds[name] = replace(hold, fired_at=None)
                changed[name] = hold
            else:
                changed[name] = None
            self.awakened.append(name)
        return changed

    def next_deadline(self) -> datetime | None:
        """Return when the next hold is due, or None; entries that no longer hold are thrown out."""
        while self._deadlines:
            due, name = self._deadlines[0]
            hold = self.holds.get(name)
            if hold is not None and self.deadline(hold) == due:
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
        self._index_holds()

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

    def note_run(self, changed: set[str], job: Job, *, ended_now: bool) -> None:
        """Remember of a job's operation that it ran, or that it ended; put its id into `changed` if that is news."""
        facts = self.facts.get(job.operation_id or "")
        if facts is None:
            return
        if job.executed_at is not None and facts.first_run_at is None:
            self.change_facts(facts.id, first_run_at=job.executed_at)
            changed.add(facts.id)
        if ended_now:
            at = max(event.at for event in job.timeline)
            done = {"completed_at": at} if job.status is Status.COMPLETED else {}
            self.change_facts(facts.id, ended_at=at, **done)
            changed.add(facts.id)

    def is_active(self, operation: Operation) -> bool:
        """Whether an operation may run: what a user last said, else its definition."""
        facts = self.facts.get(operation.id)
        return operation.active if facts is None or facts.active is None else facts.active
