"""What is asked of the SQLite file: each function one whole read, run in the reader's thread."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from mqttjobs.domain.jobs import Job, Phase
from mqttjobs.domain.model import EntityKey, EntityKind, ValueKey
from mqttjobs.domain.protocol import from_milliseconds, milliseconds
from mqttjobs.domain.status import LOCAL, Status
from mqttjobs.store.base import EXACT_LIMIT, HistoryPage, JobPage, JobQuery, Runs, Scope, Snapshot
from mqttjobs.store.rows import (
    HISTORY_COLUMNS,
    JOB_COLUMNS,
    TRIGGER_STATE_COLUMNS,
    VALUE_COLUMNS,
    Row,
    agent_of,
    history_of,
    job_of,
    ms,
    operation_state_of,
    text,
    time,
    trigger_state_of,
    value_of,
)

Where = tuple[list[str], list[Any]]


def load(db: sqlite3.Connection) -> Snapshot:
    """Read everything but jobs, history and answers."""
    events = db.execute("SELECT kind, id, event_id, at_ms FROM event_ids")
    last = db.execute("SELECT note FROM notes WHERE name = '@last_uid'").fetchone()
    newest = db.execute("SELECT max(uid) FROM jobs").fetchone()[0] or 0
    metadata = db.execute("SELECT name, note FROM notes WHERE name NOT LIKE '@%'")
    return Snapshot(
        values=[value_of(row) for row in db.execute(f'SELECT {VALUE_COLUMNS} FROM "values"')],
        trigger_states=[trigger_state_of(row) for row in db.execute(f"SELECT {TRIGGER_STATE_COLUMNS} FROM holds")],
        packets=dict(db.execute("SELECT packet_id, digest FROM packets").fetchall()),
        event_ids=[(EntityKey(EntityKind(row[0]), row[1]), row[2], from_milliseconds(row[3])) for row in events],
        operation_states=[operation_state_of(row) for row in db.execute("SELECT id, facts FROM facts")],
        metadata={name: orjson.loads(note) for name, note in metadata},
        agents=[agent_of(row) for row in db.execute("SELECT hostname, agent FROM agents")],
        members=[(row[0], row[1]) for row in db.execute("SELECT class_id, id FROM members ORDER BY n")],
        last_uid=max(newest, int(last[0]) if last else 0),
    )


def jobs_of(db: sqlite3.Connection, rows: Iterable[Sequence[Any]]) -> list[Job]:
    """Return the jobs of rows in the order of JOB_COLUMNS, each with its definition; equal ones are shared."""
    known: dict[str, Mapping[str, Any]] = {}
    jobs = []
    for row in rows:
        fingerprint = row[9]
        if fingerprint not in known:
            found = db.execute("SELECT definition FROM definitions WHERE fingerprint = ?", (fingerprint,)).fetchone()
            known[fingerprint] = orjson.loads(found[0]) if found else {}
        jobs.append(job_of(row, known[fingerprint]))
    return jobs


def next_due(db: sqlite3.Connection, after: datetime) -> datetime | None:
    """See Store."""
    row = db.execute(
        f"SELECT min(due_ms) FROM jobs WHERE phase = 0 AND target = '{LOCAL}' AND due_ms > ?", (ms(after),)
    ).fetchone()
    return time(row[0])


def claimed(db: sqlite3.Connection) -> list[Job]:
    """See Store."""
    return jobs_of(
        db, db.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE phase = 1 AND target = '{LOCAL}' ORDER BY uid")
    )


_SAME = "operation_id IS ? AND owner_id IS ? AND owner_kind IS ?"
ALIKE = {
    Phase.WAITING: f"jobs INDEXED BY jobs_queued WHERE phase = 0 AND {_SAME}",
    Phase.CLAIMED: f"jobs INDEXED BY jobs_claimed WHERE phase = 1 AND {_SAME}",
}
"""The unfinished jobs of one operation and owner; left alone, the planner goes through all that the owner ever had."""
_UNFINISHED = " UNION ALL ".join(f"SELECT {JOB_COLUMNS} FROM {alike}" for alike in ALIKE.values())


def _alike(operation_id: str, owner: EntityKey | None) -> list[Any]:
    return [operation_id, *((None, None) if owner is None else (owner.id, owner.kind.value))]


def count_active(db: sqlite3.Connection, operation_id: str, owner: EntityKey | None) -> tuple[int, int]:
    """See Store."""
    values = _alike(operation_id, owner)
    waiting, running = (db.execute(f"SELECT count(*) FROM {alike}", values).fetchone()[0] for alike in ALIKE.values())
    return waiting, running


def active(db: sqlite3.Connection, operation_id: str, owner: EntityKey | None) -> list[Job]:
    """See Store."""
    return jobs_of(db, db.execute(f"{_UNFINISHED} ORDER BY uid", _alike(operation_id, owner) * 2))


def first_free(db: sqlite3.Connection, waiting: Iterable[Row], limit: int, *, in_row_order: bool = False) -> list[int]:
    """Return the first `limit` of the waiting jobs that are not held up by others of their operation and owner.

    `in_row_order`: one that is held up holds up all later ones of its owner.
    """
    running: dict[Row, int] = {}
    chosen: Counter[Row] = Counter()
    uids: list[int] = []
    held_up: set[Row] = set()
    for uid, run_limit, *alike in waiting:
        if len(uids) >= limit:
            break
        key = tuple(alike)
        if key[1:] in held_up:
            continue
        if run_limit is not None:
            if key not in running:
                running[key] = _running_like(db, key)
            if running[key] + chosen[key] >= run_limit:
                if in_row_order and key[1] is not None:
                    held_up.add(key[1:])
                continue
        chosen[key] += 1
        uids.append(uid)
    return uids


def _running_like(db: sqlite3.Connection, key: Row) -> int:
    return int(db.execute(f"SELECT count(*) FROM {ALIKE[Phase.CLAIMED]}", key).fetchone()[0])


def jobs_by_uid(db: sqlite3.Connection, uids: Sequence[int]) -> list[Job]:
    """Return the jobs of these uids in their order."""
    order = {uid: index for index, uid in enumerate(uids)}
    rows = db.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs WHERE uid IN (SELECT value FROM json_each(?))", (text(list(uids)),)
    ).fetchall()
    return jobs_of(db, sorted(rows, key=lambda row: order[row[0]]))


def get(db: sqlite3.Connection, job_id: str | int, scope: Scope | None) -> Job | None:
    """See Store."""
    clauses, values = _scope(scope)
    clauses.append("uid = ?" if isinstance(job_id, int) else "id = ?")
    values.append(job_id)
    rows = db.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE {' AND '.join(clauses)}", values)
    return next(iter(jobs_of(db, rows)), None)


def _scope(scope: Scope | None) -> Where:
    """Return the clauses that keep to a scope: they are part of every query, so that totals reveal nothing."""
    if scope is None:
        return [], []
    parts, values = ["(owner_kind IS NULL AND user_id = ?)"], [scope.user_id]
    for kind, ids in ((EntityKind.OBJECT, scope.objects), (EntityKind.LINK, scope.links)):
        if ids is None:
            parts.append(f"owner_kind = '{kind.value}'")
        else:
            parts.append(f"(owner_kind = '{kind.value}' AND owner_id IN (SELECT value FROM json_each(?)))")
            values.append(text(sorted(ids)))
    return [f"({' OR '.join(parts)})"], list(values)


def _filter(query: JobQuery, status: str = "status") -> Where:
    clauses, values = _scope(query.scope)

    def add(clause: str, *more: Any) -> None:
        clauses.append(clause)
        values.extend(more)

    if query.statuses is not None:
        add(f"{status} IN (SELECT value FROM json_each(?))", text(sorted(query.statuses)))
    if query.operation_id is not None:
        add("operation_id = ?", query.operation_id)
    if query.objects is not None or query.links is not None:
        own, more = [], []
        for kind, ids in ((EntityKind.OBJECT, query.objects), (EntityKind.LINK, query.links)):
            if ids is not None:
                own.append(f"(owner_kind = '{kind.value}' AND owner_id IN (SELECT value FROM json_each(?)))")
                more.append(text(sorted(ids)))
        add(f"({' OR '.join(own)})", *more)
    if query.user_id is not None:
        add("user_id = ?", query.user_id)
    if query.since is not None:
        add("created_ms >= ?", milliseconds(query.since))
    if query.until is not None:
        add("created_ms < ?", milliseconds(query.until))
    return clauses, values


def find(db: sqlite3.Connection, query: JobQuery) -> JobPage:
    """See Store."""
    clauses, values = _filter(query)
    where = " AND ".join(clauses) or "1"
    counting = f"SELECT count(*) FROM (SELECT 1 FROM jobs WHERE {where} LIMIT {EXACT_LIMIT + 1})"
    total = db.execute(counting, values).fetchone()[0]
    if total > EXACT_LIMIT:  # a status of so many is found soon from the newest on; its index would sort them all
        where = " AND ".join(_filter(query, "+status")[0]) or "1"
    if query.before_uid is not None:
        where += " AND uid < ?"
        values.append(query.before_uid)
    rows = db.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs WHERE {where} ORDER BY uid DESC LIMIT ? OFFSET ?",
        [*values, query.limit, query.offset],
    )
    return JobPage(jobs_of(db, rows), min(total, EXACT_LIMIT), exact=total <= EXACT_LIMIT)


def counts(db: sqlite3.Connection, scope: Scope | None) -> dict[Status, int]:
    """See Store."""
    clauses, values = _scope(scope)
    where = " AND ".join(clauses) or "1"
    found = dict(db.execute(f"SELECT status, count(*) FROM jobs WHERE {where} GROUP BY status", values).fetchall())
    return {status: found.get(status.value, 0) for status in Status}


def runs(db: sqlite3.Connection, operation_id: str, scope: Scope | None) -> Runs:
    """See Store."""
    clauses, values = _scope(scope)
    where = " AND ".join(["operation_id = ?", *clauses])
    values = [operation_id, *values]
    total = db.execute(f"SELECT count(*) FROM jobs WHERE {where}", values).fetchone()[0]
    running = db.execute(f"SELECT count(*) FROM jobs WHERE phase IN (0, 1) AND {where}", values).fetchone()[0]
    newest = db.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE {where} ORDER BY uid DESC LIMIT 10", values).fetchall()
    return Runs(total, running, [row[1] for row in newest], next(iter(jobs_of(db, newest[:1])), None))


def unannounced(db: sqlite3.Connection, limit: int) -> list[Job]:
    """See Store."""
    rows = db.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs WHERE uid IN (SELECT uid FROM outbox ORDER BY uid LIMIT ?) ORDER BY uid",
        (limit,),
    )
    return jobs_of(db, rows)


def answer(db: sqlite3.Connection, key: bytes, since: datetime) -> bytes | None:
    """See Store."""
    row = db.execute("SELECT body FROM answers WHERE key = ? AND at_ms >= ?", (key, ms(since))).fetchone()
    return None if row is None else bytes(row[0])


def history(
    db: sqlite3.Connection, key: ValueKey, since: datetime | None, until: datetime | None, limit: int, offset: int
) -> HistoryPage:
    """See Store."""
    clauses, values = ["kind = ?", "id = ?", "name = ?"], list[Any](key)
    if since is not None:
        clauses.append("at_ms >= ?")
        values.append(ms(since))
    if until is not None:
        clauses.append("at_ms < ?")
        values.append(ms(until))
    where = " AND ".join(clauses)
    total = db.execute(f"SELECT count(*) FROM history WHERE {where}", values).fetchone()[0]
    rows = db.execute(
        f"SELECT {HISTORY_COLUMNS} FROM history WHERE {where} ORDER BY n DESC LIMIT ? OFFSET ?",
        [*values, limit, offset],
    )
    return HistoryPage([history_of(row, key) for row in rows], total)
