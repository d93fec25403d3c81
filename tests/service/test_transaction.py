"""A transaction is decided alone and recorded in turn, whole or not at all; what was decided in vain is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from mqttjobs.domain.jobs import CustomResult, JobUpdate, Outcome, Phase, apply, begin, finish
from mqttjobs.domain.model import EntityKind, ValueKey
from mqttjobs.domain.status import EventKind, JobEvent
from mqttjobs.errors import MqttJobsError, NotFound, StoreError, TerminalState
from mqttjobs.service.engine import Engine
from mqttjobs.service.parts import Parts
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.store.backends.memory import MemoryStore
from mqttjobs.store.base import Changes
from mqttjobs.transport.base import Message
from tests.contracts.records import NOW, a_job, an_ended_job
from tests.service.fake_jobs import FakeJobs
from tests.service.harness import ServiceHarness, an_object, an_operation, settings_of

Build = Callable[..., ServiceHarness]
LAMP = ValueKey(EntityKind.OBJECT, "lamp", "")
CONFIG = {
    "objects": {"lamp": an_object("lamp")},
    "operations": {"blink": an_operation("lamp", type="work", triggers=[{}])},
}
QUARTERS = range(32)
"""Each access to the store takes a second; what comes second falls into every gap of what comes first."""


class GatedStore(MemoryStore):
    """Records nothing while `open` is not set, and notes which records were asked for; `fails` once when it is."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Changes] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[Exception] = []

    async def record(self, changes: Changes) -> None:
        self.asked.append(changes)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        await super().record(changes)


class EngineHarness:
    """An engine over a store that can be held, and what a transaction of intake does."""

    def __init__(self) -> None:
        loop: Any = asyncio.get_running_loop()
        self.fake_jobs = FakeJobs.opened()
        settings = settings_of(CONFIG)
        self.clock = loop.clock
        self.store = GatedStore()
        self.parts = Parts(settings, self.store, loop.clock, new_id=self._new_id, new_token=str)
        self.engine = Engine(settings, self.parts)
        self._ids = 0

    def _new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"

    async def begin(self) -> None:
        """Adopt the configuration, as a start of the service does."""
        async with self.engine.transaction() as tx:
            self.engine.adopt(tx, self.engine.configuration, "system")

    async def report(self, text: str, packet_id: int = 7) -> None:
        """Take a report in, in a transaction of its own."""
        async with self.engine.transaction() as tx:
            await self.take(tx, text, packet_id)

    async def take(self, tx: Transaction, text: str, packet_id: int = 7) -> None:
        """Decide what a report does: a new value, a packet identifier, a job and its operation's count."""
        message = Message("lamp", text.encode(), qos=1, packet_id=packet_id)
        await self.engine.configuration.ingest.take(tx, [message], self.clock.now())
        assert tx.values
        assert tx.packets
        assert tx.jobs

    async def known(self) -> tuple[Any, ...]:
        """Return what the next transaction decides by."""
        async with self.engine.transaction():
            cache = self.parts.cache
            return cache.values, cache.packets, cache.trigger_states, cache.operation_states

    async def stored(self) -> tuple[Any, ...]:
        """Return the same from the store."""
        snapshot = await self.store.load()
        return (
            {value.key: value for value in snapshot.values},
            dict(snapshot.packets),
            {each.name: each for each in snapshot.trigger_states},
            {each.id: each for each in snapshot.operation_states},
        )


@pytest.fixture
async def harness() -> EngineHarness:
    harness = EngineHarness()
    await harness.begin()
    await harness.report("off", 1)
    return harness


# -- a failure -------------------------------------------------------------------------------------------------------


async def _raise(harness: EngineHarness, tx: Transaction) -> None:
    raise RuntimeError("the body fails")


async def _store_fails(harness: EngineHarness, tx: Transaction) -> None:
    harness.store.failures.append(StoreError("the disk is full"))


async def _strict(harness: EngineHarness, tx: Transaction) -> None:
    event = JobEvent(NOW, EventKind.PROGRESS, "hub", "late")
    tx.updates.append(JobUpdate(90, (event,), strict=True, only_events=True))


async def _of_nothing(harness: EngineHarness, tx: Transaction) -> None:
    tx.deleted.append(99)


@pytest.mark.parametrize(
    ("fail", "raised"),
    [(_raise, RuntimeError), (_store_fails, StoreError), (_strict, TerminalState), (_of_nothing, NotFound)],
)
async def test_on_any_failure_nothing_is_written_and_the_next_transaction_decides_by_what_is_stored(
    harness: EngineHarness, fail: Callable[..., Any], raised: type[Exception]
) -> None:
    await harness.store.record(Changes(jobs=[an_ended_job(90)]))
    before, jobs = await harness.stored(), await harness.store.counts()
    assert await harness.known() == before
    counted = harness.parts.counters.document()
    with pytest.raises(raised):
        async with harness.engine.transaction() as tx:
            await harness.take(tx, "on")
            await fail(harness, tx)
    assert await harness.stored() == before
    assert await harness.store.counts() == jobs
    assert harness.parts.counters.document() == counted
    assert await harness.known() == before
    await harness.report("on")
    values, packets, _, operations = await harness.known()
    assert (values[LAMP].text, values[LAMP].previous) == ("on", "off")
    assert sorted(packets) == [1, 7]
    assert operations["blink"].total == 2
    assert await harness.known() == await harness.stored()


async def test_a_cancelled_transaction_is_whole_and_the_next_one_waits_until_it_is_stored(
    harness: EngineHarness,
) -> None:
    harness.store.gate.clear()
    cancelled = asyncio.create_task(harness.report("on"))
    await harness.clock.settle()
    cancelled.cancel()
    following = asyncio.create_task(harness.known())
    await harness.clock.settle()
    assert cancelled.cancelled()
    assert not following.done()
    harness.store.gate.set()
    assert (await following)[0][LAMP].text == "on"
    assert await harness.known() == await harness.stored()


async def test_a_transaction_without_content_is_not_recorded_but_what_it_counted_is(harness: EngineHarness) -> None:
    asked = len(harness.store.asked)
    async with harness.engine.transaction() as tx:
        message = Message("nobody/reads/this", b"x")
        await harness.engine.configuration.ingest.take(tx, [message], harness.clock.now())
    assert len(harness.store.asked) == asked
    assert harness.parts.counters.document()["unmatched"] == 1


# -- the lock --------------------------------------------------------------------------------------------------------


async def test_records_are_asked_for_in_the_order_of_decisions_whatever_they_contain(harness: EngineHarness) -> None:
    decided: list[int] = []
    before = len(harness.store.asked)

    async def decide(number: int) -> None:
        await asyncio.sleep(number * 7 % 5)
        async with harness.engine.transaction() as tx:
            await asyncio.sleep(number * 3 % 4)
            tx.announced.append(number)
            if number % 3 == 0:
                tx.jobs.append(a_job(1000 + number))
            if number % 3 == 1:
                tx.metadata["number"] = number
            decided.append(number)
            await asyncio.sleep(number % 2)

    tasks = [asyncio.create_task(decide(number)) for number in range(40)]
    await harness.clock.advance(200)
    await asyncio.gather(*tasks)
    assert [changes.announced[0] for changes in harness.store.asked[before:]] == decided
    assert sorted(decided) == list(range(40))


@pytest.mark.parametrize(("error", "seen"), [(None, "on"), (StoreError("the disk is full"), "off")])
async def test_nobody_decides_until_what_others_decide_by_is_stored(
    harness: EngineHarness, error: Exception | None, seen: str
) -> None:
    harness.store.gate.clear()
    report = asyncio.create_task(harness.report("on"))
    following = asyncio.create_task(harness.known())
    await harness.clock.settle()
    assert harness.store.asked[-1].values[LAMP].text == "on"
    assert not following.done()
    harness.store.failures += [error] if error else []
    harness.store.gate.set()
    await asyncio.gather(report, return_exceptions=True)
    assert (await following)[0][LAMP].text == seen
    assert await harness.known() == await harness.stored()


def test_each_thing_that_is_recorded_is_known_as_one_that_others_decide_by_or_not() -> None:
    examples: dict[str, Any] = {
        "values": {LAMP: None}, "heard": {LAMP: NOW}, "history": [None], "trigger_states": {"a": None},
        "packets": {1: b""}, "forget_packets": True, "event_ids": [None], "jobs": [a_job(1)], "updates": [None],
        "results": [(1, CustomResult({}, "bob", NOW))], "deleted": [1], "answers": [None],
        "operation_states": {"a": None}, "announced": [1], "metadata": {"a": 1}, "agents": {"a": None},
        "assignments": {"a": None}, "members": [("a", "b")],
    }  # fmt: skip
    assert examples.keys() == {each.name for each in fields(Changes)}
    shared = {name for name, value in examples.items() if not Transaction(**{name: value}).exclusive}
    assert shared == {"heard", "history", "updates", "results", "answers", "announced"}
    assert not Transaction(operation_states={"a": None}, runs={"a"}).exclusive  # type: ignore[dict-item]
    assert Transaction(operation_states={"a": None, "b": None}, runs={"a"}).exclusive  # type: ignore[dict-item]
    assert Transaction(stopped=[a_job(1)]).exclusive
    assert all(Transaction(**{name: value}) for name, value in examples.items())


# -- an outcome and a batch at once ----------------------------------------------------------------------------------


async def a_running_job(harness: EngineHarness) -> Any:
    """Store a job of blink that has begun, and return it."""
    job = a_job(50, operation_id="blink")
    job = apply(job, begin(job, NOW, "hub"))
    await harness.store.record(Changes(jobs=[job]))
    return job


def complete(harness: EngineHarness, job: Any) -> None:
    """Give the completer the outcome of a job."""
    update = finish(job, Outcome(ok=True), NOW, "hub", None)
    harness.engine.runner.completer.write(update, apply(job, update))


@pytest.mark.parametrize("error", [None, StoreError("the disk is full")])
async def test_a_batch_is_decided_and_handed_over_while_an_outcome_is_being_stored(
    harness: EngineHarness, error: MqttJobsError | None
) -> None:
    job = await a_running_job(harness)
    completer = asyncio.create_task(harness.engine.runner.completer.run())
    before = len(harness.store.asked)
    harness.store.gate.clear()
    complete(harness, job)
    await harness.clock.settle()
    batch = asyncio.create_task(harness.report("on"))
    await harness.clock.settle()
    outcome, report = harness.store.asked[before:]
    assert [update.uid for update in outcome.updates] == [50]
    assert report.values[LAMP].text == "on"
    harness.store.failures += [error] if error else []
    harness.store.gate.set()
    await batch
    await harness.clock.advance(2)
    stored = await harness.store.get(50)
    assert stored is not None
    assert stored.phase is Phase.ENDED
    assert [event.kind for event in stored.timeline].count(EventKind.COMPLETED) == 1
    values, _, _, operations = await harness.known()
    assert values[LAMP].text == "on"
    assert (operations["blink"].total, operations["blink"].completed_at) == (2, NOW)
    assert await harness.known() == await harness.stored()
    completer.cancel()


async def test_an_outcome_that_is_being_stored_is_waited_for_before_what_is_stored_is_read_again(
    harness: EngineHarness,
) -> None:
    job = await a_running_job(harness)
    completer = asyncio.create_task(harness.engine.runner.completer.run())
    harness.store.gate.clear()
    complete(harness, job)
    await harness.clock.settle()
    with pytest.raises(RuntimeError):
        async with harness.engine.transaction() as tx:
            await harness.take(tx, "on")
            raise RuntimeError
    following = asyncio.create_task(harness.known())
    await harness.clock.settle()
    assert not following.done()
    harness.store.gate.set()
    assert (await following)[3]["blink"].completed_at == NOW
    assert await harness.known() == await harness.stored()
    completer.cancel()


@pytest.mark.parametrize("quarters", QUARTERS)
async def test_whenever_a_job_ends_while_a_report_is_taken_in_both_are_on_record(build: Build, quarters: int) -> None:
    harness = await build(**CONFIG).start()
    await harness.report("lamp", "off")
    [run] = harness.fake_jobs.going
    harness.latency_s = 1.0
    harness.send("lamp", "on")
    await harness.advance(quarters / 4)
    run.complete()
    await harness.advance(30)
    harness.latency_s = 0.0
    first, second = await harness.jobs("blink")
    assert (first.status.value, second.status.value) == ("completed", "processing")
    [state] = (await harness.store.load()).operation_states
    assert (state.total, state.completed_at) == (2, max(event.at for event in first.timeline))
    assert (await harness.data("objects/get", id="lamp"))["state"] == "on"


@pytest.mark.parametrize("quarters", QUARTERS)
async def test_whenever_a_failure_and_a_report_start_the_same_operation_its_mode_lets_one_run(
    build: Build, quarters: int
) -> None:
    operations = {
        "dig": an_operation("lamp", type="work", on_failure="mend"),
        "mend": an_operation("lamp", type="work", mode="single", triggers=[{}]),
    }
    harness = await build(objects={"lamp": an_object("lamp")}, operations=operations).start()
    await harness.data("operations/execute", id="dig")
    [run] = harness.fake_jobs.going
    harness.latency_s = 1.0
    harness.send("lamp", "on")
    await harness.advance(quarters / 4)
    run.fail()
    await harness.advance(30)
    harness.latency_s = 0.0
    assert len(await harness.jobs("mend")) == 1
    assert (await harness.counters())["skipped_by_reason"] == {"mode": 1}


# -- what is known only once it is recorded --------------------------------------------------------------------------


async def test_what_waits_for_the_start_runs_though_the_store_failed_at_that_moment(build: Build) -> None:
    operations = {"hello": an_operation(triggers=[{"at": "start"}])}
    harness = await build(operations=operations).start(quiet=False)
    harness.store.broken = True
    await harness.advance(5)
    assert harness.texts("out") == []
    harness.store.broken = False
    await harness.advance(5)
    assert len(await harness.jobs("hello")) == 1
    await harness.advance(60)
    assert len(await harness.jobs("hello")) == 1


async def test_when_a_value_was_heard_is_written_later_if_the_store_fails(build: Build) -> None:
    harness = await build(objects={"lamp": an_object("lamp")}).start()
    await harness.report("lamp", "on")
    await harness.advance(5)
    heard_at = harness.clock.now()
    await harness.report("lamp", "on", qos=0)
    harness.store.broken = True
    await harness.advance(60)
    harness.store.broken = False
    await harness.advance(60)
    [value] = (await harness.store.load()).values
    assert value.heard_at == heard_at
