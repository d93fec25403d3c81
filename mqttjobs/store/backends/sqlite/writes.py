"""What is written to the SQLite file: each function one whole piece of work inside the writer's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from mqttjobs.domain.jobs import Job, JobUpdate, Phase, apply
from mqttjobs.domain.protocol import milliseconds
from mqttjobs.domain.status import LOCAL, TERMINAL_STATUSES, Status
from mqttjobs.errors import NotFound, TerminalState
from mqttjobs.store.backends.sqlite import agents
from mqttjobs.store.backends.sqlite.reads import first_free, jobs_by_uid
from mqttjobs.store.base import ANSWERS_KEPT, EVENT_IDS_KEPT, EXPENDABLE, PRUNED_AT_ONCE, Changes, Retention, age_limit
from mqttjobs.store.rows import (
    HISTORY_COLUMNS,
    JOB_COLUMNS,
    TRIGGER_STATE_COLUMNS,
    VALUE_COLUMNS,
    Row,
    event_lines,
    history_row,
    job_row,
    ms,
    operation_state_row,
    result_line,
    text,
    trigger_state_row,
    value_row,
)

UIDS_AT_ONCE = 1000
"""So far ahead it is noted that a definition is needed, so that most jobs need not note it."""
HISTORY_VALUES_AT_ONCE = 200
_ENDED = int(Phase.ENDED)
_INSERT_JOB = f"INSERT INTO jobs ({JOB_COLUMNS}) VALUES ({', '.join('?' * len(JOB_COLUMNS.split(',')))})"


def record(db: sqlite3.Connection, changes: Changes, definitions: dict[str, int]) -> None:
    """Write all of `changes`.

    `definitions` are the fingerprints known to be stored, each with the `last_uid` stored of it: emptied when a
    transaction, or a part of it, is undone.
    """
    _record_values(db, changes)
    _record_packets(db, changes)
    if changes.jobs:
        _insert_jobs(db, changes.jobs, definitions)
    _update_all(db, changes.updates)
    for uid, result in changes.results:
        _one(db.execute("UPDATE jobs SET results = results || ? WHERE uid = ?", (result_line(result), uid)), uid)
    agents.record(db, changes)
    for uid in changes.deleted:
        _delete(db, uid)
    if changes.announced:
        db.executemany("DELETE FROM outbox WHERE uid = ?", [(uid,) for uid in changes.announced])
    if changes.answers:
        kept = [(each.key, ms(each.at), each.body) for each in changes.answers]
        db.executemany("INSERT OR REPLACE INTO answers (key, at_ms, body) VALUES (?, ?, ?)", kept)
    if changes.operation_states:
        db.executemany(
            "INSERT OR REPLACE INTO facts (id, facts) VALUES (?, ?)",
            [operation_state_row(each) for each in changes.operation_states.values()],
        )
    if changes.metadata:
        rows = [(name, text(metadata_key)) for name, metadata_key in changes.metadata.items()]
        db.executemany("INSERT OR REPLACE INTO notes (name, note) VALUES (?, ?)", rows)


def _record_values(db: sqlite3.Connection, changes: Changes) -> None:
    if changes.values:
        db.executemany(
            f'INSERT OR REPLACE INTO "values" ({VALUE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
            [value_row(each) for each in changes.values.values()],
        )
    if changes.heard:
        db.executemany(
            'UPDATE "values" SET heard_ms = ? WHERE kind = ? AND id = ? AND name = ?',
            [(ms(at), *key) for key, at in changes.heard.items()],
        )
    if changes.history:
        db.executemany(
            f"INSERT INTO history (kind, id, name, {HISTORY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [history_row(each) for each in changes.history],
        )
    if changes.trigger_states:
        db.executemany(
            f"INSERT OR REPLACE INTO holds ({TRIGGER_STATE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [trigger_state_row(each) for each in changes.trigger_states.values() if each is not None],
        )
        dropped = [(name,) for name, each in changes.trigger_states.items() if each is None]
        if dropped:
            db.executemany("DELETE FROM holds WHERE name = ?", dropped)
    if changes.members:
        db.executemany("INSERT OR IGNORE INTO members (class_id, id) VALUES (?, ?)", changes.members)


def _record_packets(db: sqlite3.Connection, changes: Changes) -> None:
    if changes.forget_packets:
        db.execute("DELETE FROM packets")
    if changes.packets:
        db.executemany("INSERT OR REPLACE INTO packets (packet_id, digest) VALUES (?, ?)", changes.packets.items())
    if changes.event_ids:
        ids = [(entity.kind.value, entity.id, event_id, ms(at)) for entity, event_id, at in changes.event_ids]
        db.executemany("INSERT OR REPLACE INTO event_ids (kind, id, event_id, at_ms) VALUES (?, ?, ?, ?)", ids)


def _insert_jobs(db: sqlite3.Connection, jobs: Sequence[Job], definitions: dict[str, int]) -> None:
    for job in _last_of_each(jobs):
        if job.uid > definitions.get(job.fingerprint, -1):
            definitions[job.fingerprint] = _define(db, job)
    db.executemany(_INSERT_JOB, [job_row(job) for job in jobs])
    ended = [(job.uid,) for job in jobs if job.ended]
    if ended:
        db.executemany("INSERT OR IGNORE INTO outbox (uid) VALUES (?)", ended)


def _last_of_each(jobs: Iterable[Job]) -> Iterable[Job]:
    """Return the job with the greatest uid of each definition."""
    last: dict[str, Job] = {}
    for job in jobs:
        known = last.get(job.fingerprint)
        if known is None or known.uid < job.uid:
            last[job.fingerprint] = job
    return last.values()


def _define(db: sqlite3.Connection, job: Job) -> int:
    """Keep a job's definition, and return up to which uid jobs need it: some that are still to come included."""
    last_uid = job.uid + UIDS_AT_ONCE
    db.execute(
        "INSERT INTO definitions (fingerprint, definition, last_uid) VALUES (?, ?, ?)"
        " ON CONFLICT (fingerprint) DO UPDATE SET last_uid = max(last_uid, excluded.last_uid)",
        (job.fingerprint, text(job.operation), last_uid),
    )
    return last_uid


_APPLY = (
    "UPDATE jobs SET status = ?, phase = ?, due_ms = ?, attempts = ?, executed_ms = coalesce(?, executed_ms),"
    " timeline = timeline || ?, last_ms = max(last_ms, ?) WHERE uid = ?"
)


def _update_all(db: sqlite3.Connection, updates: Sequence[JobUpdate]) -> None:
    """Apply updates in order; those of jobs that have not ended, nearly all, in one go."""
    if not updates:
        return
    plain = {update.uid for update in updates if not (update.strict or update.reopen or update.only_events)}
    if len(plain) == len(updates):
        db.execute("SAVEPOINT plain")
        rows = [_applied(update) for update in updates]
        if db.executemany(f"{_APPLY} AND phase < 2", rows).rowcount == len(rows):
            _put_into_outbox(db, [update for update in updates if update.status in TERMINAL_STATUSES])
            db.execute("RELEASE plain")
            return
        db.execute("ROLLBACK TO plain")
        db.execute("RELEASE plain")
    for update in updates:
        _update_one(db, update)


def _applied(update: JobUpdate) -> Row:
    last = max((milliseconds(event.at) for event in update.events), default=0)
    return (
        update.status.value,
        int(update.phase),
        ms(update.due_at),
        update.attempts,
        ms(update.executed_at),
        event_lines(update.events),
        last,
        update.uid,
    )


def _update_one(db: sqlite3.Connection, update: JobUpdate) -> None:
    row = db.execute("SELECT status, phase FROM jobs WHERE uid = ?", (update.uid,)).fetchone()
    if row is None:
        raise NotFound("Job", f"no job has the uid {update.uid}")
    status, phase = row
    if phase == _ENDED and update.strict:
        raise TerminalState(f"the job is {status}")
    if update.only_events or (phase == _ENDED and not update.reopen):
        lines, last = _applied(update)[5:7]
        db.execute(
            "UPDATE jobs SET timeline = timeline || ?, last_ms = max(last_ms, ?) WHERE uid = ?",
            (lines, last, update.uid),
        )
        return
    db.execute(_APPLY, _applied(update))
    if update.status in TERMINAL_STATUSES and (status != update.status.value or update.reopen):
        _put_into_outbox(db, [update])


def _put_into_outbox(db: sqlite3.Connection, updates: Sequence[JobUpdate]) -> None:
    db.executemany("INSERT OR IGNORE INTO outbox (uid) VALUES (?)", [(update.uid,) for update in updates])


def _delete(db: sqlite3.Connection, uid: int) -> None:
    row = db.execute("SELECT status FROM jobs WHERE uid = ?", (uid,)).fetchone()
    if row is None:
        raise NotFound("Job", f"no job has the uid {uid}")
    _remember_last_uid(db)
    db.execute("DELETE FROM jobs WHERE uid = ?", (uid,))
    db.execute("DELETE FROM outbox WHERE uid = ?", (uid,))
    db.execute("DELETE FROM assignments WHERE uid = ?", (uid,))


def _remember_last_uid(db: sqlite3.Connection) -> None:
    """Keep the greatest uid before jobs go: a uid is never given twice."""
    newest = db.execute("SELECT max(uid) FROM jobs").fetchone()[0] or 0
    known = db.execute("SELECT note FROM notes WHERE name = '@last_uid'").fetchone()
    if known is None or int(known[0]) < newest:
        db.execute("INSERT OR REPLACE INTO notes (name, note) VALUES ('@last_uid', ?)", (str(newest),))


def _one(cursor: sqlite3.Cursor, uid: int) -> None:
    if cursor.rowcount != 1:
        raise NotFound("Job", f"no job has the uid {uid}")


_WAITING = {
    uses_slot: (
        "SELECT uid, run_limit, operation_id, owner_id, owner_kind FROM jobs"
        f" WHERE phase = 0 AND takes_slot = {int(uses_slot)} AND target = '{LOCAL}'"
        f" AND (due_ms IS NULL OR due_ms <= ?) ORDER BY {order}"
    )
    for uses_slot, order in ((True, "priority DESC, uid"), (False, "uid"))
}


def claim(
    db: sqlite3.Connection, now: datetime, limit: int, *, uses_slot: bool, begin: Callable[[Job], JobUpdate]
) -> list[Job]:
    """See Store."""
    waiting = db.execute(_WAITING[uses_slot], (ms(now),))
    jobs = jobs_by_uid(db, first_free(db, waiting, limit, in_row_order=not uses_slot))
    updates = [begin(job) for job in jobs]
    _update_all(db, updates)
    return [apply(job, update) for job, update in zip(jobs, updates, strict=True)]


def prune(db: sqlite3.Connection, now: datetime, retention: Retention, definitions: dict[str, int]) -> int:
    """See Store; `definitions` as for record."""
    db.execute("DELETE FROM answers WHERE at_ms < ?", (ms(now - ANSWERS_KEPT),))
    db.execute("DELETE FROM event_ids WHERE at_ms < ?", (ms(now - EVENT_IDS_KEPT),))
    _prune_history(db, now, retention)
    uids: list[int] = []
    for status in Status:
        before = ms(now - age_limit(status, retention))
        found = db.execute(
            "SELECT uid FROM jobs WHERE status = ? AND last_ms < ? AND phase = 2 LIMIT ?",
            (status.value, before, PRUNED_AT_ONCE - len(uids)),
        )
        uids += [row[0] for row in found]
    over = db.execute("SELECT count(*) FROM jobs").fetchone()[0] or 0
    room = min(over - len(uids) - retention.max_jobs, PRUNED_AT_ONCE - len(uids))
    if room > 0:
        found = db.execute(
            f"SELECT uid FROM jobs WHERE phase = 2 AND status IN ({', '.join('?' * len(EXPENDABLE))})"
            " AND uid NOT IN (SELECT value FROM json_each(?)) ORDER BY uid LIMIT ?",
            (*(status.value for status in EXPENDABLE), text(uids), room),
        )
        uids += [row[0] for row in found]
    if uids:
        _remember_last_uid(db)
        gone = [(uid,) for uid in uids]
        db.executemany("DELETE FROM jobs WHERE uid = ?", gone)
        db.executemany("DELETE FROM outbox WHERE uid = ?", gone)
        db.executemany("DELETE FROM assignments WHERE uid = ?", gone)
        db.execute("DELETE FROM definitions WHERE last_uid < coalesce((SELECT min(uid) FROM jobs), last_uid + 1)")
        definitions.clear()
    return len(uids)


def _prune_history(db: sqlite3.Connection, now: datetime, retention: Retention) -> None:
    old = "DELETE FROM history WHERE n IN (SELECT n FROM history WHERE at_ms < ? LIMIT ?)"
    db.execute(old, (ms(now - retention.history), PRUNED_AT_ONCE))
    crowded = db.execute(
        "SELECT kind, id, name, count(*) FROM history GROUP BY kind, id, name HAVING count(*) > ? LIMIT ?",
        (retention.history_per_value, HISTORY_VALUES_AT_ONCE),
    ).fetchall()
    for kind, entity_id, name, entries in crowded:
        db.execute(
            "DELETE FROM history WHERE n IN"
            " (SELECT n FROM history WHERE kind = ? AND id = ? AND name = ? ORDER BY n LIMIT ?)",
            (kind, entity_id, name, min(PRUNED_AT_ONCE, entries - retention.history_per_value)),
        )
