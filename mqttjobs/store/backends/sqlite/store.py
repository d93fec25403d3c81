"""Records in one SQLite file: WAL, FULL, one writer whose transactions are whole functions, commits shared."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from importlib import resources
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import aiosqlite

from mqttjobs.domain.assignments import Assignment
from mqttjobs.domain.jobs import Job, JobUpdate
from mqttjobs.domain.model import EntityKey, ValueKey
from mqttjobs.domain.status import Status
from mqttjobs.errors import MqttJobsError, StoreError, StoreRefused
from mqttjobs.store.backends.sqlite import agents, reads, writes
from mqttjobs.store.base import Changes, HistoryPage, JobPage, JobQuery, Retention, Runs, Scope, Snapshot

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

APPLICATION_ID = 0x4D516A62
BUSY_S = 5.0
OF_THE_CALLER = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError)
"""What is wrong with what was to be written, not with the database."""


class SqliteStore:
    """See Store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._lock_file: int | None = None
        self._queue: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._draining: asyncio.Task[None] | None = None
        self._definitions: dict[str, int] = {}

    async def open(self) -> None:
        """See Store."""
        self._take_lock()
        try:
            self._writer = await _connected(aiosqlite.connect(self._path, isolation_level=None, timeout=BUSY_S))
            await _run(self._writer, self._prepare)
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            self._reader = await _connected(aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S))
            await _run(self._reader, _prepare_reader)
        except BaseException as error:
            await self.close()
            if isinstance(error, sqlite3.OperationalError | OSError):
                raise StoreRefused(
                    f"{self._path} cannot be opened ({error}); see that the file and its folder can be written and the "
                    "disk is not full, or change store.url"
                ) from error
            if isinstance(error, sqlite3.DatabaseError):
                raise StoreRefused(
                    f"{self._path} cannot be used as a database ({error}); restore it from a backup, or move it away "
                    "to begin with an empty one"
                ) from error
            raise

    def _take_lock(self) -> None:
        lock = Path(f"{self._path.resolve()}.lock")  # one lock by whatever name the file is called
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreRefused(
                f"{self._path.parent} cannot be written ({error.strerror}); make the folder, or change store.url"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(handle, 20).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise StoreRefused(
                f"{self._path} is in use by another mqttjobs (process {holder}); stop that one, or give this one a "
                "store.url of its own"
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        self._lock_file = handle

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -16000")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        owner = db.execute("PRAGMA application_id").fetchone()[0]
        if owner not in (0, APPLICATION_ID) or (owner == 0 and db.execute("SELECT 1 FROM sqlite_schema").fetchone()):
            raise StoreRefused(f"{self._path} is the database of another program; give store.url a file of its own")
        steps = _migrations()
        if version > len(steps):
            raise StoreRefused(
                f"{self._path} was written by a newer mqttjobs (schema {version}, this one knows {len(steps)}); use "
                "that version, or restore a backup made before the update"
            )
        damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
        if version < len(steps):
            _migrate(db, steps[version:], len(steps))

    async def close(self) -> None:
        """See Store."""
        if self._draining is not None:
            await asyncio.gather(self._draining, return_exceptions=True)
        for connection in (self._reader, self._writer):
            if connection is not None:
                await connection.close()
        self._reader = self._writer = None
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    async def _write(self, work: Work[T]) -> T:
        """Have `work` done by the one writer; what has come together shares a commit. A cancelled call is whole."""
        if self._writer is None:
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((work, future))
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain(self._writer), name="store-writer")
        return await asyncio.shield(future)

    async def _drain(self, writer: aiosqlite.Connection) -> None:
        while self._queue:
            batch, self._queue = self._queue, []
            works = [work for work, _ in batch]
            try:
                results = await _run(writer, partial(_transaction, works=works, undone=self._definitions.clear))
            except Exception as error:  # noqa: BLE001 - whatever it was, the waiting caller must get it
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(self._translated(result))
                    future.exception()  # a cancelled caller does not look at it
                else:
                    future.set_result(result)

    def _translated(self, error: Exception) -> MqttJobsError:
        """Return our error for one of the library's, or of what could not be written."""
        if isinstance(error, MqttJobsError):
            return error
        made = StoreError(f"{self._path}: {error}")
        made.__cause__ = error
        return made

    async def _read(self, work: Work[T]) -> T:
        if self._reader is None:
            raise StoreError("the store is closed")
        try:
            return await _run(self._reader, work)
        except (sqlite3.Error, ValueError) as error:
            raise self._translated(error) from error

    async def load(self) -> Snapshot:
        """See Store."""
        return await self._read(reads.load)

    async def record(self, changes: Changes) -> None:
        """See Store."""
        await self._write(lambda db: writes.record(db, changes, self._definitions))

    async def claim(
        self, now: datetime, limit: int, *, uses_slot: bool, begin: Callable[[Job], JobUpdate]
    ) -> Sequence[Job]:
        """See Store."""
        return await self._write(lambda db: writes.claim(db, now, limit, uses_slot=uses_slot, begin=begin))

    async def next_due(self, after: datetime) -> datetime | None:
        """See Store."""
        return await self._read(lambda db: reads.next_due(db, after))

    async def claimed(self) -> Sequence[Job]:
        """See Store."""
        return await self._read(reads.claimed)

    async def assignable(self, now: datetime, limit: int, *, uses_slot: bool) -> Sequence[Job]:
        """See Store."""
        return await self._read(lambda db: agents.assignable(db, now, limit, uses_slot=uses_slot))

    async def next_assignable(self, after: datetime) -> datetime | None:
        """See Store."""
        return await self._read(lambda db: agents.next_assignable(db, after))

    async def assignments(self, uid: int | None = None) -> Sequence[Assignment]:
        """See Store."""
        return await self._read(lambda db: agents.assignments(db, uid))

    async def count_active(self, operation_id: str, owner: EntityKey | None) -> tuple[int, int]:
        """See Store."""
        return await self._read(lambda db: reads.count_active(db, operation_id, owner))

    async def active(self, operation_id: str, owner: EntityKey | None) -> Sequence[Job]:
        """See Store."""
        return await self._read(lambda db: reads.active(db, operation_id, owner))

    async def get(self, job_id: str | int, scope: Scope | None = None) -> Job | None:
        """See Store."""
        return await self._read(lambda db: reads.get(db, job_id, scope))

    async def find(self, query: JobQuery) -> JobPage:
        """See Store."""
        return await self._read(lambda db: reads.find(db, query))

    async def counts(self, scope: Scope | None = None) -> Mapping[Status, int]:
        """See Store."""
        return await self._read(lambda db: reads.counts(db, scope))

    async def runs(self, operation_id: str, scope: Scope | None = None) -> Runs:
        """See Store."""
        return await self._read(lambda db: reads.runs(db, operation_id, scope))

    async def unannounced(self, limit: int) -> Sequence[Job]:
        """See Store."""
        return await self._read(lambda db: reads.unannounced(db, limit))

    async def answer(self, key: bytes, since: datetime) -> bytes | None:
        """See Store."""
        return await self._read(lambda db: reads.answer(db, key, since))

    async def history(
        self, key: ValueKey, since: datetime | None, until: datetime | None, limit: int, offset: int
    ) -> HistoryPage:
        """See Store."""
        return await self._read(lambda db: reads.history(db, key, since, until, limit, offset))

    async def prune(self, now: datetime, retention: Retention) -> int:
        """See Store."""
        return await self._write(lambda db: writes.prune(db, now, retention, self._definitions))

    async def health(self) -> Mapping[str, object]:
        """See Store."""
        jobs = await self._read(lambda db: sum(reads.counts(db, None).values()))
        try:
            size = self._path.stat().st_size
        except OSError as error:
            raise self._translated(error) from error
        return {"kind": "sqlite", "jobs": jobs, "bytes": size}


async def _run(connection: aiosqlite.Connection, work: Work[T]) -> T:
    """Run one whole function in the connection's thread.

    aiosqlite offers a hop for each statement, between which a cancelled task would leave half a transaction to
    whoever comes next; its own way of reaching the thread takes any function.
    """
    raw: Any = connection
    result: T = await raw._execute(work, raw._conn)  # noqa: SLF001 - see above; the version is bounded in pyproject.toml
    return result


async def _connected(connection: aiosqlite.Connection) -> aiosqlite.Connection:
    """Open a connection; where that fails, its thread has ended before the error comes out.

    The thread is a daemon: a loop that was stopped before `close` cannot keep the process from ending.
    """
    thread: Thread = connection._thread  # noqa: SLF001 - see _run
    thread.daemon = True
    try:
        return await connection
    except BaseException:
        await asyncio.to_thread(thread.join)
        raise


def _transaction(db: sqlite3.Connection, works: Sequence[Work[Any]], undone: Callable[[], None]) -> list[Any]:
    """Do every work in one transaction and return what each returns or raises.

    A work that is refused, or cannot be written as it is, concerns its caller alone and leaves nothing behind; what
    the database cannot do at all undoes the whole transaction. `undone` is called after either.
    """
    results: list[Any] = []
    db.execute("BEGIN IMMEDIATE")
    try:
        for work in works:
            db.execute("SAVEPOINT one")
            try:
                results.append(work(db))
            except Exception as error:
                if isinstance(error, sqlite3.Error) and not isinstance(error, OF_THE_CALLER):
                    raise
                db.execute("ROLLBACK TO one")
                undone()
                results.append(error)
            db.execute("RELEASE one")
        db.execute("COMMIT")
    except BaseException:
        undone()
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return results


def _prepare_reader(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA query_only = 1")


def _migrations() -> list[str]:
    """Return the steps of the schema in order."""
    folder = resources.files("mqttjobs.store.backends.sqlite") / "schema"
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".sql")), key=lambda each: each.name)
    return [each.read_text(encoding="utf-8") for each in files]


def _migrate(db: sqlite3.Connection, steps: Sequence[str], version: int) -> None:
    """Run all missing steps in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for step in steps:
            statement = ""
            for line in step.splitlines(keepends=True):
                statement += line
                if sqlite3.complete_statement(statement):
                    db.execute(statement)
                    statement = ""
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
