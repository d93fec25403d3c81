"""Builders of stored records, so that a test names only the fields that it is about."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from mqttjobs.domain.jobs import Job, JobUpdate, Outcome, Phase, begin, finish, submitted
from mqttjobs.domain.model import EntityKey, EntityKind, Value, ValueKey
from mqttjobs.domain.status import Status
from mqttjobs.store.base import HistoryEntry, Store

NOW = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)
LAMP = EntityKey(EntityKind.OBJECT, "lamp")
DOOR = EntityKey(EntityKind.OBJECT, "door")
CABLE = EntityKey(EntityKind.LINK, "cable")
LAMP_STATE = ValueKey(EntityKind.OBJECT, "lamp", "")


async def restart(store: Store) -> None:
    """Close a store and open it again."""
    await store.close()
    await store.open()


def later(seconds: float) -> datetime:
    """Return the time `seconds` after NOW."""
    return NOW + timedelta(seconds=seconds)


def a_job(uid: int, **changes: Any) -> Job:
    """Return a waiting job; its definition and fingerprint follow its operation."""
    created_at = changes.pop("created_at", NOW)
    operation_id = changes.pop("operation_id", "blink")
    fields: dict[str, Any] = {
        "id": f"00000000-0000-7000-8000-{uid:012d}",
        "operation": {"id": operation_id, "type": "program", "path": f"/usr/bin/{operation_id}"},
        "fingerprint": f"fingerprint-of-{operation_id}",
        "owner": LAMP,
        "user_id": "alice",
        "root_id": f"00000000-0000-7000-8000-{uid:012d}",
        "timeline": (submitted(created_at, "hub"),),
        **changes,
    }
    return Job(uid=uid, created_at=created_at, operation_id=operation_id, **fields)


def an_ended_job(uid: int, status: Status = Status.COMPLETED, **changes: Any) -> Job:
    """Return a job that has ended."""
    return a_job(uid, status=status, phase=Phase.ENDED, **changes)


def started(at: datetime = NOW) -> Callable[[Job], JobUpdate]:
    """Return a `begin` for Store.claim that starts every claimed job on the host `hub`."""
    return lambda job: begin(job, at, "hub")


def succeeded(job: Job, at: datetime) -> JobUpdate:
    """Return the update of a job that completes."""
    return finish(job, Outcome(ok=True, result={"n": 1}, changed=True), at, "hub", None)


def failed(job: Job, at: datetime, error: str = "exit code 1") -> JobUpdate:
    """Return the update of a job that fails for good."""
    return finish(job, Outcome(ok=False, error=error), at, "hub", None)


def a_value(text: str = "on", key: ValueKey = LAMP_STATE, **changes: Any) -> Value:
    """Return a value."""
    fields: dict[str, Any] = {"previous": None, "since_at": NOW, "heard_at": NOW, "payload": {"state": text}, **changes}
    return Value(key, text, **fields)


def keyed(*rows: Any) -> dict[Any, Any]:
    """Return values or assignments as Changes has them: by their keys."""
    return {row.key: row for row in rows}


def an_entry(number: int, key: ValueKey = LAMP_STATE, **changes: Any) -> HistoryEntry:
    """Return the history entry `number`; entries are a minute apart."""
    fields: dict[str, Any] = {"at": later(60 * number), "state": str(number), "previous": str(number - 1), **changes}
    return HistoryEntry(key, **fields)
