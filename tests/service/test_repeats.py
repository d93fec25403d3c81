"""Asked twice, done once: the same request again is given the first answer, also after a restart (contract 4)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mqttjobs.service.api.request import methods
from tests.service.fake_agents import AGENTS, FakeAgent
from tests.service.harness import Question, ServiceHarness, an_object, an_operation, statuses

Build = Callable[..., ServiceHarness]
ADMIN = {"users": {"anonymous": {"permissions": ["admin"]}}}
SHOP = {
    **ADMIN,
    "agents": AGENTS,
    "objects": {"lamp": an_object("lamp")},
    "operations": {
        "dig": an_operation("lamp", type="work", timeout="1h", delivery="at_least_once"),
        "on": an_operation("lamp"),
        "echo": an_operation("lamp", topic="echo", triggers=[{}]),
    },
}
INLINE = {"type": "mqtt", "topic": "inline", "message": ""}
CHANGES: dict[str, dict[str, Any]] = {
    "jobs/create": {"operation": INLINE},
    "jobs/send": {"object": "lamp", "method_name": "on"},
    "jobs/add_result": {"id": 1, "payload": {"n": 1}},
    "jobs/progress": {"id": 1, "message": "half way"},
    "jobs/retry": {"id": 1},
    "jobs/stop": {"id": 1},
    "jobs/delete": {"id": 1},
    "operations/execute": {"id": "on"},
    "operations/activate": {"id": "on"},
    "operations/deactivate": {"id": "on"},
    "states/set": {"object": "lamp", "state": "on"},
    "config/reload": {},
    "agents/drain": {"hostname": "edge"},
    "agents/undrain": {"hostname": "edge"},
}
"""What changes something, and how to ask it; job 1 runs."""


async def look(harness: ServiceHarness) -> Any:
    """Return everything that is kept, but for when values were last heard and answers."""
    store = harness.store
    snapshot = await store.load()
    drained = [agent.drained for agent in snapshot.agents]
    return await harness.jobs(), snapshot.values, snapshot.operation_states, store._history, drained


async def opened(build: Build) -> ServiceHarness:
    """Start the house with one job that runs and one agent."""
    harness = await build(**SHOP).start()
    await harness.data("operations/execute", id="dig")
    await FakeAgent(harness, "edge").status()
    return harness


@pytest.fixture
async def shop(build: Build) -> ServiceHarness:
    return await opened(build)


def test_every_method_that_changes_something_is_asked_twice_here() -> None:
    assert {name for name, each in methods().items() if each.changes} == CHANGES.keys()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("method", CHANGES)
async def test_the_same_request_again_changes_nothing_and_is_given_the_first_answer(
    shop: ServiceHarness, method: str, restart: bool
) -> None:
    before = await look(shop)
    first = await shop.ask(method, **CHANGES[method], transaction="t")
    assert first["status"] == "ok"
    after = await look(shop)
    assert after != before or method in ("operations/activate", "config/reload", "agents/undrain")
    if restart:
        await shop.stop()
        await shop.start()
        after = await look(shop)
    await shop.advance(60)
    assert await shop.ask(method, **CHANGES[method], transaction="t") == first
    assert await look(shop) == after


@pytest.mark.parametrize("method", CHANGES)
async def test_another_transaction_is_another_request(shop: ServiceHarness, method: str) -> None:
    await shop.ask(method, **CHANGES[method], transaction="t")
    second = await shop.ask(method, **CHANGES[method], transaction="u")
    if method in ("jobs/stop", "jobs/delete"):
        assert second["code"] == {"jobs/stop": 409, "jobs/delete": 404}[method]
    else:
        assert second["status"] == "ok"
        assert second["transaction"] == "u"


@pytest.mark.parametrize("transaction", ["", None])
async def test_without_a_mark_every_request_is_its_own(shop: ServiceHarness, transaction: Any) -> None:
    for _ in range(2):
        assert (await shop.ask("operations/execute", id="on", transaction=transaction))["code"] == 201
    assert len(await shop.jobs("on")) == 2


async def test_correlation_data_is_a_mark_as_good_as_a_transaction(shop: ServiceHarness) -> None:
    topic = f"{shop.base}/request/operations/execute"
    for mark in (b"one", b"one", b"two", b""):
        for _ in range(2):
            await shop.report(topic, {"id": "on"}, correlation_data=mark, response_topic=f"{shop.base}/response/r")
    assert len(await shop.jobs("on")) == 4
    uids = [each["data"]["uid"] for each in shop.documents(f"{shop.base}/response/r")]
    assert uids == [2, 2, 2, 2, 3, 3, 4, 5]


@pytest.mark.parametrize(
    "other", [{"id": "on", "params": {"n": 1}}, {"id": "on", "wait": False}, {"id": "dig"}], ids=str
)
async def test_another_payload_is_another_request(shop: ServiceHarness, other: dict[str, Any]) -> None:
    await shop.ask("operations/execute", id="on", transaction="t")
    await shop.ask("operations/execute", **other, transaction="t")
    assert len(await shop.jobs()) == 3


async def test_another_user_or_lane_is_another_request(build: Build) -> None:
    users = {"alice": {"permissions": ["admin"]}, "bob": {"permissions": ["admin"]}, **ADMIN["users"]}
    harness = await build(**SHOP | {"users": users}, mqtt={"trust_user_lanes": True}).start()
    for lane in ("alice", "bob", None, "alice", "bob", None):
        harness.put("operations/execute", id="on", transaction="t", lane=lane)
        await harness.settle()
    assert [job.user_id for job in await harness.jobs("on")] == ["alice", "bob", "anonymous"]


async def test_an_error_is_not_kept(shop: ServiceHarness) -> None:
    question = {"id": "on", "transaction": "t"}
    await shop.data("operations/deactivate", id="on")
    assert (await shop.ask("operations/execute", **question))["code"] == 409
    await shop.data("operations/activate", id="on")
    assert (await shop.ask("operations/execute", **question))["code"] == 201
    assert (await shop.ask("operations/execute", **question))["code"] == 201
    assert len(await shop.jobs("on")) == 1


async def test_after_ten_minutes_it_is_a_new_request(shop: ServiceHarness) -> None:
    await shop.ask("operations/execute", id="on", transaction="t")
    await shop.advance(9 * 60)
    await shop.ask("operations/execute", id="on", transaction="t")
    assert len(await shop.jobs("on")) == 1
    await shop.advance(2 * 60)
    await shop.ask("operations/execute", id="on", transaction="t")
    assert len(await shop.jobs("on")) == 2


@pytest.mark.proves("common", "a request that is asked twice is done once, also when the service is killed between")
@pytest.mark.parametrize("moment", ["before record", "after record", "before publish", "before acknowledge"])
@pytest.mark.parametrize("method", CHANGES)
async def test_killed_at_any_moment_and_asked_again_it_is_done_once(build: Build, method: str, moment: str) -> None:
    """However often it is asked: the work and its answer are one transaction."""
    harness = await opened(build)
    for times in (1, 2, 3):
        harness.die_at(moment, times)
        harness.put(method, **CHANGES[method], transaction="t")
        await harness.settle()
        if not harness.running:
            await harness.start()
    answer = await harness.ask(method, **CHANGES[method], transaction="t")
    assert answer["status"] == "ok", answer
    made = [job for job in await harness.jobs() if job.uid > 1 or method == "jobs/delete"]
    wanted = {"jobs/create": 1, "jobs/send": 1, "jobs/retry": 1, "operations/execute": 1, "states/set": 1}
    assert len(made) == wanted.get(method, 0)
    [old] = [job for job in await harness.jobs() if job.uid == 1] or [None]
    if old is not None:
        events = [event.kind.value for event in old.timeline]
        assert events.count("progress") == (method == "jobs/progress")
        assert len(old.results) == (method == "jobs/add_result")
        assert events.count("stopped") == (method == "jobs/stop")


WAITING = {
    "operations/execute": {"id": "dig", "wait": True},
    "jobs/send": {"object": "lamp", "method_name": "dig", "poll_result": True},
}


def put(harness: ServiceHarness, method: str) -> Question:
    return harness.put(method, **WAITING[method], transaction="t")


@pytest.mark.parametrize("method", WAITING)
async def test_who_asks_again_while_the_first_waits_gets_the_same_answer(build: Build, method: str) -> None:
    harness = await build(**SHOP).start()
    first = put(harness, method)
    await harness.settle()
    second = put(harness, method)
    await harness.settle()
    assert first.answers == second.answers == []
    harness.fake_jobs.going[0].complete({"depth": 3})
    await harness.settle()
    assert first.answer == second.answer
    assert first.answer["code"] == 200
    assert put(harness, method).answers == []
    third = put(harness, method)
    await harness.settle()
    assert third.answer == first.answer
    assert statuses(await harness.jobs()) == {"completed": 1}


@pytest.mark.parametrize("method", WAITING)
async def test_a_wait_that_a_kill_cut_short_goes_on_when_it_is_asked_again(build: Build, method: str) -> None:
    harness = await build(**SHOP).start()
    put(harness, method)
    await harness.settle()
    assert len(harness.fake_jobs.going) == 1
    await harness.restart()
    [run] = harness.fake_jobs.going
    question = put(harness, method)
    await harness.settle()
    assert question.answers == []
    run.complete({"depth": 3})
    await harness.settle()
    [job] = await harness.jobs()
    assert (question.answer["code"], question.answer["data"]["id"]) == (200, job.id)
    again = put(harness, method)
    await harness.settle()
    assert again.answer == question.answer


@pytest.mark.parametrize("method", WAITING)
async def test_a_job_that_ended_before_it_is_asked_again_is_reported_as_it_ended(build: Build, method: str) -> None:
    operations = {"dig": an_operation("lamp", type="work")}
    harness = await build(**SHOP | {"operations": operations}).start()
    put(harness, method)
    await harness.settle()
    await harness.restart()
    question = put(harness, method)
    await harness.settle()
    assert question.answer["code"] == 200
    reported = json.dumps(question.answer["data"])
    assert "interrupted" in reported
    assert statuses(await harness.jobs()) == {"failed": 1}


@pytest.mark.parametrize("method", WAITING)
async def test_a_job_that_was_deleted_while_somebody_waits_is_reported_as_it_ended(build: Build, method: str) -> None:
    harness = await build(**SHOP).start()
    question = put(harness, method)
    await harness.settle()
    [job] = await harness.jobs()
    await harness.data("jobs/delete", id=job.id)
    assert question.answer["data"]["status"] == "stopped"
    assert await harness.jobs() == []


async def test_a_wait_ends_with_the_time_limit_of_the_operation(build: Build) -> None:
    operations = {"dig": an_operation("lamp", type="work", timeout="30s", retry={"attempts": 9, "first": "5m"})}
    harness = await build(**SHOP | {"operations": operations}).start()
    question = put(harness, "operations/execute")
    await harness.settle()
    await harness.advance(35)
    assert question.answers == []
    await harness.advance(5)
    assert (question.answer["code"], question.answer["data"]["status"]) == (202, "processing")


@pytest.mark.slow
async def test_thousands_that_wait_hold_up_nobody(build: Build) -> None:
    """Requests that wait for jobs are not among those of which only so many are worked on at once."""
    harness = await build(**SHOP, service={"concurrency": 10_000, "poll_window": "60s"}).start()
    for number in range(1500):
        harness.put("jobs/send", object="lamp", method_name="dig", poll_result=True, transaction=number)
    await harness.settle()
    before = harness.clock.monotonic()
    assert (await harness.ask("service/info"))["code"] == 200
    await harness.report("lamp", "on")
    assert len(harness.texts("echo")) == 1
    assert harness.clock.monotonic() == before


@pytest.mark.slow
async def test_beyond_two_thousand_that_wait_the_answer_is_429(build: Build) -> None:
    harness = await build(**SHOP, service={"concurrency": 10_000, "poll_window": "60s"}).start()
    for number in range(2100):
        harness.put("jobs/send", object="lamp", method_name="dig", poll_result=True, transaction=number)
    await harness.settle()
    refused = await harness.ask("service/info")
    assert (refused["code"], refused["reason"], refused["retryable"]) == (429, "throttled", True)
