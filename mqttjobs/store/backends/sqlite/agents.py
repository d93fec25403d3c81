"""What the SQLite file knows of agents: who they are, what each was given, and what waits for one."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from mqttjobs.domain.assignments import Assignment, Stage
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.status import LOCAL
from mqttjobs.store.backends.sqlite.reads import first_free, jobs_by_uid
from mqttjobs.store.base import Changes
from mqttjobs.store.rows import ASSIGNMENT_COLUMNS, agent_row, assignment_of, assignment_row, ms, time

_PUT = (
    f"INSERT OR REPLACE INTO assignments ({ASSIGNMENT_COLUMNS})"
    f" SELECT {', '.join(f'?{n}' for n in range(1, len(ASSIGNMENT_COLUMNS.split(',')) + 1))}"
    " WHERE EXISTS (SELECT 1 FROM jobs WHERE uid = ?1)"
)
_OPEN = f"stage < {int(Stage.CLOSED)}"
_WAITING = (
    f"SELECT uid, run_limit, operation_id, owner_id, owner_kind FROM jobs WHERE phase = 0 AND target <> '{LOCAL}'"
    " AND takes_slot = ? AND (due_ms IS NULL OR due_ms <= ?) ORDER BY priority DESC, uid"
)
_NEXT = f"SELECT min(due_ms) FROM jobs WHERE phase = 0 AND target <> '{LOCAL}' AND due_ms > ?"


def record(db: sqlite3.Connection, changes: Changes) -> None:
    """Write the agents and assignments of `changes`."""
    if changes.agents:
        rows = [agent_row(each) for each in changes.agents.values()]
        db.executemany("INSERT OR REPLACE INTO agents (hostname, agent) VALUES (?, ?)", rows)
    if changes.assignments:
        db.executemany(_PUT, [assignment_row(each) for each in changes.assignments.values()])


def assignments(db: sqlite3.Connection, uid: int | None) -> list[Assignment]:
    """See Store."""
    where, values = (_OPEN, ()) if uid is None else ("uid = ?", (uid,))
    found = db.execute(
        f"SELECT {ASSIGNMENT_COLUMNS} FROM assignments WHERE {where} ORDER BY uid, hostname, attempt", values
    )
    return [assignment_of(row) for row in found]


def assignable(db: sqlite3.Connection, now: datetime, limit: int, *, uses_slot: bool) -> list[Job]:
    """See Store."""
    return jobs_by_uid(db, first_free(db, db.execute(_WAITING, (int(uses_slot), ms(now))), limit))


def next_assignable(db: sqlite3.Connection, after: datetime) -> datetime | None:
    """See Store."""
    return time(db.execute(_NEXT, (ms(after),)).fetchone()[0])
