"""The SQLite store as a file: a second opener, damage, a full disk, cancelled records, a killed process."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest

from mqttjobs.domain.jobs import CustomResult, Job, JobUpdate, apply
from mqttjobs.domain.model import EntityKind, ValueKey
from mqttjobs.domain.triggers.base import TriggerState
from mqttjobs.errors import NotFound, StoreError, StoreRefused
from mqttjobs.store.backends.sqlite.store import SqliteStore
from mqttjobs.store.base import Changes, JobQuery, Retention, Store, create_store
from mqttjobs.store.rows import JOB_COLUMNS
from tests.contracts.records import (
    CABLE,
    LAMP,
    LAMP_STATE,
    NOW,
    a_job,
    a_value,
    an_ended_job,
    an_entry,
    keyed,
    later,
    started,
    succeeded,
)

BIG = "x" * 200_000


def store_at(path: Path) -> Store:
    return create_store(f"sqlite:///{path}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(path)
    await made.open()
    yield made
    await made.close()


async def write_database(path: Path) -> None:
    """Write a valid database with one job at `path`."""
    store = store_at(path)
    await store.open()
    await store.record(Changes(jobs=[a_job(1)]))
    await store.close()


def sql(path: Path, *statements: str) -> list[tuple[object, ...]]:
    """Run statements on a closed database, and return the rows of the last one."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows
    finally:
        connection.close()


async def refusal(path: Path) -> str:
    """Open a store that is refused, and return the message; nothing stays open."""
    store = store_at(path)
    with pytest.raises(StoreRefused) as refused:
        await store.open()
    with pytest.raises(StoreError):
        await store.load()
    return str(refused.value)


async def on_writer(store: SqliteStore, statement: str) -> None:
    await store._write(lambda db: db.execute(statement).fetchall())


# -- opening ---------------------------------------------------------------------------------------------------------


async def test_a_second_opener_is_refused_with_the_process_that_has_the_database(
    store: SqliteStore, path: Path
) -> None:
    message = await refusal(path)
    assert str(os.getpid()) in message
    assert str(path) in message
    assert "store.url" in message
    await store.record(Changes(jobs=[a_job(1)]))
    assert await store.get(1) == a_job(1)


async def test_another_process_is_refused_while_the_store_is_open_and_accepted_after(
    store: SqliteStore, path: Path
) -> None:
    program = (
        "import asyncio, sys\n"
        "from mqttjobs.store.base import create_store\n"
        "from mqttjobs.errors import StoreRefused\n"
        "async def main():\n"
        "    store = create_store(sys.argv[1])\n"
        "    try:\n"
        "        await store.open()\n"
        "    except StoreRefused as error:\n"
        "        sys.exit(f'refused: {error}')\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, f"sqlite:///{path}"]
    during = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert during.returncode == 1
    assert "refused" in during.stderr
    await store.close()
    after = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert (after.returncode, after.stderr) == (0, "")


async def test_the_lock_of_a_killed_process_does_not_block_the_next(path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from mqttjobs.store.base import create_store, Changes\n"
        "async def main():\n"
        "    store = create_store(sys.argv[1])\n"
        "    await store.open()\n"
        "    await store.record(Changes(metadata={'a': 1}))\n"
        "    print('recorded', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, f"sqlite:///{path}"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"recorded\n"
        process.send_signal(signal.SIGKILL)
    store = store_at(path)
    await store.open()
    try:
        assert dict((await store.load()).metadata) == {"a": 1}
    finally:
        await store.close()


async def test_a_database_of_a_newer_version_is_refused_and_left_as_it_was(path: Path) -> None:
    await write_database(path)
    sql(path, "PRAGMA user_version = 999")
    message = await refusal(path)
    assert "newer" in message
    assert "999" in message
    assert "backup" in message
    assert sql(path, "PRAGMA user_version") == [(999,)]
    assert sql(path, "SELECT uid FROM jobs") == [(1,)]


async def test_the_database_of_another_program_is_refused_and_left_as_it_was(path: Path) -> None:
    sql(path, "CREATE TABLE songs (title TEXT)", "INSERT INTO songs VALUES ('one')")
    message = await refusal(path)
    assert "another program" in message
    assert "store.url" in message
    assert sql(path, "SELECT name FROM sqlite_schema") == [("songs",)]


async def test_a_file_that_is_not_a_database_is_refused_and_left_as_it_was(path: Path) -> None:
    path.write_bytes(b"these are my holiday notes\n" * 500)
    message = await refusal(path)
    assert str(path) in message
    assert "backup" in message
    assert path.read_bytes() == b"these are my holiday notes\n" * 500


@pytest.mark.parametrize("part", ["header", "schema", "middle"])
async def test_a_damaged_database_is_refused_with_what_to_do(path: Path, part: str) -> None:
    store = store_at(path)
    await store.open()
    await store.record(Changes(jobs=[a_job(uid, params={"x": "y" * 500}) for uid in range(1, 301)]))
    await store.close()
    data = bytearray(path.read_bytes())
    place = {"header": 16, "schema": 100, "middle": len(data) // 2}[part]
    data[place : place + 20_000] = b"\xa5" * len(data[place : place + 20_000])
    path.write_bytes(data)
    message = await refusal(path)
    assert str(path) in message
    assert "backup" in message


async def test_a_missing_folder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    message = await refusal(tmp_path / "nowhere" / "jobs.db")
    assert "make the folder" in message


async def test_a_folder_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()
    assert str(path) in await refusal(path)


async def test_a_second_opener_under_another_name_is_refused_too(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    alias = tmp_path / "elsewhere" / "alias.db"
    alias.symlink_to(path)
    assert str(os.getpid()) in await refusal(alias)


_COPIED = JOB_COLUMNS.removeprefix("uid, id, ")
MANY_JOBS = f"""
WITH RECURSIVE n (uid) AS (SELECT 10 UNION ALL SELECT uid + 1 FROM n WHERE uid < 100000)
INSERT INTO jobs (uid, id, {_COPIED}) SELECT n.uid, 'job ' || n.uid, {_COPIED} FROM n, jobs
WHERE jobs.uid = CASE WHEN n.uid % 100 > 3 THEN 1 ELSE 1 + n.uid % 4 END
"""  # noqa: S608 - built from constants


@pytest.mark.alone
async def test_a_database_with_a_hundred_thousand_jobs_is_ready_in_under_two_seconds(path: Path) -> None:
    store = store_at(path)
    await store.open()
    await store.record(Changes(jobs=[an_ended_job(1), a_job(2, uses_slot=False), a_job(3), a_job(4, due_at=later(9))]))
    await store.close()
    sql(path, MANY_JOBS)
    store = store_at(path)
    start = time.monotonic()
    await store.open()
    try:
        assert (await store.load()).last_uid == 100_000
        await store.claimed()
        await store.unannounced(100)
        await store.next_due(later(0))
        assert len(await store.claim(later(0), 500, uses_slot=False, begin=started())) == 500
        assert len(await store.claim(later(0), 32, uses_slot=True, begin=started())) == 32
        assert time.monotonic() - start < 2
    finally:
        await store.close()


async def test_a_refused_store_releases_its_lock(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough to be read as one " * 50)
    await refusal(path)
    path.unlink()
    store = store_at(path)
    await store.open()
    await store.close()


async def test_a_relative_url_means_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    store = create_store("sqlite:///data/my%20jobs.db")
    await store.open()
    await store.close()
    assert (tmp_path / "data" / "my jobs.db").is_file()


async def test_a_file_name_may_have_characters_with_a_meaning_in_a_url(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a b%20c?d=#é.db")
    await store.open()
    try:
        await store.record(Changes(jobs=[a_job(1)]))
        assert await store.get(1) == a_job(1)
    finally:
        await store.close()
    assert (tmp_path / "a b%20c?d=#é.db").is_file()


async def test_a_failed_migration_leaves_the_database_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await write_database(path)
    before = sql(path, "SELECT sql FROM sqlite_schema ORDER BY name")
    known = sql(path, "PRAGMA user_version")
    steps = ["CREATE TABLE one (a);\n", "CREATE TABLE two (a);\nINSERT INTO nothing VALUES (1);\n"]
    from mqttjobs.store.backends.sqlite import store as module  # noqa: PLC0415 - the only test of internals

    real = module._migrations()
    monkeypatch.setattr(module, "_migrations", lambda: [*real, *steps])
    await refusal(path)
    assert sql(path, "SELECT sql FROM sqlite_schema ORDER BY name") == before
    assert sql(path, "PRAGMA user_version") == known


async def test_a_database_of_the_first_version_is_migrated_with_all_its_records(path: Path) -> None:
    """The file was written by the program of that version: values, trigger states, and jobs (also deleted ones)."""
    path.write_bytes(gzip.decompress((Path(__file__).parent / "files" / "schema-1.db.gz").read_bytes()))
    store = store_at(path)
    await store.open()
    try:
        snapshot = await store.load()
        battery = ValueKey(EntityKind.OBJECT, "lamp", "battery")
        assert {value.key: value for value in snapshot.values} == {
            LAMP_STATE: a_value("on", previous="off"),
            battery: a_value("80", battery),
        }
        assert list(snapshot.trigger_states) == [TriggerState("h", LAMP, NOW, None, {"trigger": "blink/0"})]
        assert dict(snapshot.packets) == {7: b"digest"}
        assert list(snapshot.event_ids) == [(LAMP, "e1", NOW)]
        assert dict(snapshot.metadata) == {"filters": ["zigbee2mqtt/+"]}
        [facts] = snapshot.operation_states
        assert (facts.id, facts.active, facts.total, facts.first_run_at) == ("blink", False, 3, NOW)
        assert snapshot.last_uid == 6
        assert await store.answer(b"key", NOW) == b'{"status":"ok"}'
        old = (await store.history(LAMP_STATE, None, None, 10, 0)).entries
        assert [entry.reported_at for entry in old] == [None, None]
        running = apply(a_job(5, max_running=1, priority=3), started()(a_job(5, max_running=1, priority=3)))
        noted = an_ended_job(1).evolve(results=(CustomResult({"note": "seen"}, "bob", later(5)),))
        assert list((await store.find(JobQuery())).jobs) == [
            running, a_job(4, max_running=1), a_job(3, owner=CABLE, uses_slot=False), a_job(2, due_at=later(60)), noted,
        ]  # fmt: skip
        assert list(await store.unannounced(10)) == []
        assert [job.uid for job in await store.claim(NOW, 9, uses_slot=False, begin=started())] == [3]
        assert list(await store.claim(NOW, 9, uses_slot=True, begin=started())) == []
        await store.record(Changes(updates=[succeeded(running, later(1))], jobs=[an_ended_job(7)]))
        assert [job.uid for job in await store.claim(later(60), 9, uses_slot=True, begin=started())] == [2]
        entry, value = an_entry(9, reported_at=later(500)), a_value("9", reported_at=later(500))
        await store.record(Changes(values=keyed(value), history=[entry]))
        assert list((await store.history(LAMP_STATE, None, None, 10, 0)).entries) == [entry, *old]
        assert value in (await store.load()).values
        await store.prune(later(86_400 * 60), Retention())
        assert await store.get(4) is not None
    finally:
        await store.close()


async def test_trigger_states_of_a_database_of_version_6_are_all_there_and_as_they_were(path: Path) -> None:
    """The program of that version ran for 136 seconds with the triggers of tests/service/test_upgrade.py."""
    path.write_bytes(gzip.decompress((Path(__file__).parent / "files" / "schema-6.db.gz").read_bytes()))
    assert sql(path, "PRAGMA user_version") == [(6,)]
    store = store_at(path)
    await store.open()
    try:
        found = (await store.load()).trigger_states
    finally:
        await store.close()

    def at(minute: int, second: float) -> datetime:
        return datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(minutes=minute, seconds=second)

    began, device, nothing = at(0, 3.25), {"topic": "home/sensor"}, {}
    beyond = {"above": True}
    states = {state.name.partition("/")[0]: state for state in found}
    assert {
        name: (state.since_at, state.fired_at, dict(state.meta), dict(state.memory)) for name, state in states.items()
    } == {
        "pending": (began, None, device, nothing),
        "fired": (began, at(0, 13.25), device, nothing),
        "again": (began, at(1, 43.25), device, nothing),
        "later_again": (began, at(1, 53.25), device, nothing),
        "low": (None, None, nothing, beyond),
        "long_low": (began, None, device, beyond),
        "no_number": (None, None, nothing, beyond),
        "quiet_press": (at(1, 45.75), None, {"topic": "home/press"}, {"debounce": at(1, 45.75)}),
        "settled": (began, None, device, {"debounce": began}),
        "throttled": (None, None, nothing, {"throttle": began}),
        "everything": (None, at(1, 33.25), nothing, {"above": True, "throttle": began}),
        "silent": (None, at(1, 2), nothing, {"throttle": at(1, 2)}),
        "silent_again": (None, at(1, 42), nothing, nothing),
        "offline": (began, None, {"topic": "home/sensor/availability"}, nothing),
        "restarted": (began, None, device, nothing),
        "dropped": (began, None, device, nothing),
        "of_the_link": (began, None, device, nothing),
    }
    assert {(state.entity.kind.value, state.entity.id) for state in found} == {
        ("object", "sensor"), ("object", "quiet"), ("link", "way"),
    }  # fmt: skip
    assert states["of_the_link"].name == "of_the_link/711b6618b050/0|link|way"


def test_the_steps_of_the_schema_are_numbered_one_by_one() -> None:
    """Two steps with one number, made on two branches, would be two different histories."""
    files = sorted(each.name for each in (resources.files("mqttjobs.store.backends.sqlite") / "schema").iterdir())
    assert [name[:5] for name in files] == [f"{number:04d}_" for number in range(1, len(files) + 1)]


# -- durability and failing writes -----------------------------------------------------------------------------------


async def test_every_commit_is_flushed_to_the_disk(store: SqliteStore) -> None:
    assert await store._write(lambda db: db.execute("PRAGMA synchronous").fetchone()[0]) == 2
    assert await store._write(lambda db: db.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"


async def test_concurrent_records_share_a_commit(store: SqliteStore) -> None:
    commits: list[str] = []

    def watch(db: sqlite3.Connection) -> None:
        db.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)

    await store._write(watch)
    await asyncio.gather(*(store.record(Changes(jobs=[a_job(uid)])) for uid in range(1, 201)))
    assert (await store.find(JobQuery(limit=1))).total == 200
    assert 1 <= len(commits) <= 10


async def test_a_refused_record_does_not_affect_those_that_share_its_commit(store: SqliteStore) -> None:
    results = await asyncio.gather(
        store.record(Changes(jobs=[a_job(1)])),
        store.record(Changes(deleted=[99], jobs=[a_job(2)])),
        store.record(Changes(jobs=[a_job(1)])),
        store.record(Changes(jobs=[a_job(3)], metadata={"odd": "\ud800"})),
        store.record(Changes(jobs=[a_job(4)])),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), NotFound, StoreError, StoreError, type(None)]
    assert [job.uid for job in (await store.find(JobQuery())).jobs] == [4, 1]


async def test_a_full_disk_is_a_store_error_that_writes_nothing_and_passes(store: SqliteStore) -> None:
    await store.record(Changes(jobs=[a_job(1)], values=keyed(a_value("off"))))
    await on_writer(store, "PRAGMA max_page_count = 1")
    many = [a_job(uid, params={"text": BIG}) for uid in range(2, 12)]
    with pytest.raises(StoreError, match="full"):
        await store.record(Changes(values=keyed(a_value("on")), jobs=many))
    assert [job.uid for job in (await store.find(JobQuery())).jobs] == [1]
    assert [value.text for value in (await store.load()).values] == ["off"]
    await on_writer(store, "PRAGMA max_page_count = 1000000")
    await store.record(Changes(values=keyed(a_value("on")), jobs=many))
    assert (await store.find(JobQuery(limit=100))).jobs == [*many[::-1], a_job(1)]


FULL = """
import asyncio, resource, signal, sys
sys.path[:0] = sys.argv[2:]
from tests.contracts.records import a_job
from mqttjobs.errors import StoreError
from mqttjobs.store.base import Changes, JobQuery, create_store
BIG = "x" * 200_000
async def main():
    store = create_store(sys.argv[1])
    await store.open()
    await store.record(Changes(jobs=[a_job(1)]))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    refused = 0
    for n in range(2, 12):
        try:
            await store.record(Changes(jobs=[a_job(n, params={"text": BIG})]))
        except StoreError:
            refused = refused or n
    kept = [job.uid for job in (await store.find(JobQuery(limit=100))).jobs]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.record(Changes(jobs=[a_job(100, params={"text": BIG})]))
    assert (await store.get(100)).params["text"] == BIG
    await store.close()
    print(refused, *sorted(kept))
asyncio.run(main())
"""


async def test_files_that_cannot_grow_are_a_store_error_that_passes(path: Path) -> None:
    """The kernel refuses writes, as on a full disk: confirmed records stay, and writing goes on by itself."""
    command = [sys.executable, "-c", FULL, f"sqlite:///{path}", str(Path(__file__).parent)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused, *kept = map(int, done.stdout.split())
    assert 2 <= refused <= 11
    assert kept == list(range(1, refused))
    store = store_at(path)
    await store.open()
    try:
        assert [job.uid for job in (await store.find(JobQuery(limit=100))).jobs] == [100, *kept[::-1]]
    finally:
        await store.close()


async def test_a_job_recorded_after_a_failed_write_of_its_kind_has_its_definition(store: SqliteStore) -> None:
    await on_writer(store, "PRAGMA max_page_count = 1")
    with pytest.raises(StoreError):
        await store.record(Changes(jobs=[a_job(1, params={"text": BIG})]))
    await on_writer(store, "PRAGMA max_page_count = 1000000")
    await store.record(Changes(jobs=[a_job(2)]))
    assert await store.get(2) == a_job(2)


async def test_a_read_only_database_is_a_store_error_and_passes(store: SqliteStore) -> None:
    await store.record(Changes(jobs=[a_job(1)]))
    await on_writer(store, "PRAGMA query_only = 1")
    with pytest.raises(StoreError):
        await store.record(Changes(jobs=[a_job(2)]))
    with pytest.raises(StoreError):
        await store.claim(later(0), 1, uses_slot=True, begin=started())
    assert await store.get(1) == a_job(1)
    await store._read(lambda db: db.execute("SELECT 1").fetchall())
    assert store._writer is not None
    await store._writer.execute("PRAGMA query_only = 0")
    await store.record(Changes(jobs=[a_job(2)]))
    assert await store.get(2) == a_job(2)


async def test_a_database_locked_by_another_program_is_a_store_error_and_passes(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store._writer is not None
    await store._writer.execute("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            await store.record(Changes(jobs=[a_job(1)]))
        other.execute("ROLLBACK")
    finally:
        other.close()
    await store.record(Changes(jobs=[a_job(1)]))
    assert await store.get(1) == a_job(1)


async def test_one_job_stored_twice_is_a_store_error_and_the_next_record_works(store: SqliteStore) -> None:
    await store.record(Changes(jobs=[a_job(1)]))
    with pytest.raises(StoreError):
        await store.record(Changes(jobs=[a_job(2), a_job(1)]))
    assert await store.get(2) is None
    await store.record(Changes(jobs=[a_job(2)]))
    assert await store.get(2) == a_job(2)


@pytest.mark.parametrize("odd", ["\ud800", object()], ids=["lone surrogate", "no JSON"])
async def test_a_record_that_cannot_be_written_ends_with_an_error_and_the_next_one_works(
    store: SqliteStore, odd: object
) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(StoreError):
            await store.record(Changes(jobs=[a_job(1)], metadata={"odd": odd}))
    async with asyncio.timeout(5):
        await store.record(Changes(jobs=[a_job(2)]))
    assert await store.get(1) is None
    assert await store.get(2) == a_job(2)


async def test_a_claim_whose_begin_fails_claims_nothing_and_blocks_no_other(store: SqliteStore) -> None:
    await store.record(Changes(jobs=[a_job(1)]))

    def broken(job: Job) -> JobUpdate:
        raise LookupError(job.id)

    async with asyncio.timeout(5):
        with pytest.raises((StoreError, LookupError)):
            await store.claim(later(0), 1, uses_slot=True, begin=broken)
    async with asyncio.timeout(5):
        await store.record(Changes(metadata={"n": 1}))
    assert await store.get(1) == a_job(1)


async def test_a_database_whose_file_was_deleted_is_not_healthy(store: SqliteStore, path: Path) -> None:
    await store.record(Changes(jobs=[a_job(1)]))
    path.rename(path.with_name("moved.db"))
    with pytest.raises(StoreError, match=r"jobs\.db"):
        await store.health()


async def test_a_call_to_a_closed_store_is_a_store_error(store: SqliteStore) -> None:
    await store.close()
    with pytest.raises(StoreError):
        await store.record(Changes(metadata={"a": 1}))
    with pytest.raises(StoreError):
        await store.find(JobQuery())


# -- definitions ------------------------------------------------------------------------------------------------------


async def definitions(store: SqliteStore) -> set[str]:
    return {
        row[0] for row in await store._read(lambda db: db.execute("SELECT fingerprint FROM definitions").fetchall())
    }


async def test_a_definition_is_removed_after_its_jobs_and_all_jobs_before_them(store: SqliteStore) -> None:
    await store.record(Changes(jobs=[an_ended_job(1, operation_id="old"), an_ended_job(2)]))
    await store.record(Changes(jobs=[an_ended_job(5000, created_at=later(1_000_000))]))
    assert await definitions(store) == {"fingerprint-of-old", "fingerprint-of-blink"}
    await store.prune(later(86_400 * 30 + 1), Retention())
    assert await definitions(store) == {"fingerprint-of-blink"}
    assert await store.get(5000) == an_ended_job(5000, created_at=later(1_000_000))
    await store.prune(later(86_400 * 60), Retention())
    assert await definitions(store) == set()


async def test_a_definition_stays_however_long_ago_it_was_first_used(store: SqliteStore) -> None:
    for start in range(1, 6000, 500):
        await store.record(Changes(jobs=[an_ended_job(uid) for uid in range(start, start + 500)]))
    last = an_ended_job(6001, created_at=later(1_000_000))
    await store.record(Changes(jobs=[last]))
    while await store.prune(later(86_400 * 30 + 1), Retention()):
        pass
    assert await store.get(6001) == last


# -- cancelled calls -------------------------------------------------------------------------------------------------

WHOLE = Changes(jobs=[a_job(1)], values=keyed(a_value("on")), history=[an_entry(1)], metadata={"n": 1})


async def is_whole(store: Store) -> bool:
    """Return whether WHOLE is stored; a part of it must never be stored."""
    snapshot = await store.load()
    history = await store.history(LAMP_STATE, None, None, 10, 0)
    parts = [
        await store.get(1) == a_job(1),
        list(snapshot.values) == [a_value("on")],
        list(history.entries) == [an_entry(1)],
        dict(snapshot.metadata) == {"n": 1},
    ]
    assert len(set(parts)) == 1, "a part of the record is stored"
    return parts[0]


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_record_is_whole_or_absent(store: SqliteStore, path: Path, turns: int) -> None:
    task = asyncio.create_task(store.record(WHOLE))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.record(Changes())
    there = await is_whole(store)
    assert there or turns == 0, "a record that was begun must be finished"
    await store.close()
    await store.open()
    assert await is_whole(store) is there


async def test_a_cancelled_record_does_not_affect_concurrent_ones(store: SqliteStore) -> None:
    tasks = [asyncio.create_task(store.record(Changes(jobs=[a_job(uid)]))) for uid in range(1, 21)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [result for result in results[1::2] if result is not None] == []
    stored = {job.uid for job in (await store.find(JobQuery(limit=100))).jobs}
    assert stored >= set(range(2, 21, 2))


async def test_a_store_closed_while_it_writes_finishes_first(store: SqliteStore) -> None:
    task = asyncio.create_task(store.record(WHOLE))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await store.close()
    await task
    await store.open()
    assert await is_whole(store)


KILLED = """
import asyncio, sys
sys.path[:0] = sys.argv[2:]
from tests.contracts.records import a_job, a_value, an_entry, keyed
from mqttjobs.store.base import Changes, create_store
async def main():
    store = create_store(sys.argv[1])
    await store.open()
    n = 0
    while True:
        n += 1
        await store.record(Changes(jobs=[a_job(n)], values=keyed(a_value(str(n))), history=[an_entry(n)]))
        print(n, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 50, 300])
async def test_a_killed_process_leaves_every_confirmed_record_and_no_partial_one(path: Path, after: int) -> None:
    command = [sys.executable, "-c", KILLED, f"sqlite:///{path}", str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        read: Callable[[], bytes] = process.stdout.readline
        confirmed = 0
        while confirmed < after:
            confirmed = int(await asyncio.to_thread(read))
        process.send_signal(signal.SIGKILL)
        rest = await asyncio.to_thread(process.stdout.read)
        confirmed += rest.count(b"\n")
    store = store_at(path)
    await store.open()
    try:
        snapshot = await store.load()
        assert snapshot.last_uid in (confirmed, confirmed + 1)
        assert [value.text for value in snapshot.values] == [str(snapshot.last_uid)]
        assert (await store.history(LAMP_STATE, None, None, 1, 0)).total == snapshot.last_uid
        assert (await store.find(JobQuery(limit=1))).total == snapshot.last_uid
    finally:
        await store.close()
