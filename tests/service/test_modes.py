"""What a second job of the same operation and owner does (behaviour 3.8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.harness import ServiceHarness, an_object, an_operation, statuses, work

Build = Callable[..., ServiceHarness]


async def press(harness: ServiceHarness, times: int) -> None:
    for _ in range(times):
        await harness.report("home/button", "down")


def a_button(**keys: Any) -> dict[str, Any]:
    button = an_object("home/button", state={"event": True})
    return {"objects": {"button": button}, "operations": {"job": work("button", **keys)}}


async def test_parallel_runs_all_at_once_and_max_makes_the_excess_wait(build: Build) -> None:
    harness = await build(**a_button()).start()
    await press(harness, 5)
    assert len(harness.fake_jobs.going) == 5
    await harness.crash()
    harness = await build(**a_button(max=2)).start()
    await press(harness, 5)
    assert len(harness.fake_jobs.going) == 2
    harness.fake_jobs.going[0].complete()
    await harness.settle()
    assert len(harness.fake_jobs.going) == 2
    assert statuses(await harness.jobs()) == {"completed": 1, "processing": 2, "submitted": 2}


async def test_max_one_runs_one_after_the_other_also_after_a_kill(build: Build) -> None:
    harness = await build(**a_button(max=1)).start()
    await press(harness, 3)
    await harness.restart()
    assert len(harness.fake_jobs.going) == 1
    for _ in range(2):
        harness.fake_jobs.going[0].complete()
        await harness.settle()
    assert statuses(await harness.jobs()) == {"failed": 1, "completed": 2}
    assert len(harness.fake_jobs.runs) == 3


async def test_single_skips_a_second_one_while_one_runs_or_waits(build: Build) -> None:
    harness = await build(**a_button(mode="single")).start()
    await press(harness, 3)
    assert len(harness.fake_jobs.going) == 1
    harness.fake_jobs.going[0].complete()
    await harness.settle()
    await press(harness, 1)
    assert len(harness.fake_jobs.going) == 1
    counters = await harness.counters()
    assert (counters["fired"], counters["jobs"], counters["skipped_by_reason"]) == (4, 2, {"mode": 2})
    assert (await harness.ask("operations/execute", id="job"))["reason"] == "conflict"


async def test_queued_runs_in_order_and_no_more_wait_than_max(build: Build) -> None:
    harness = await build(**a_button(mode="queued", max=2)).start()
    await press(harness, 5)
    assert len(harness.fake_jobs.going) == 1
    order = []
    while harness.fake_jobs.going:
        [run] = harness.fake_jobs.going
        order.append(run.context.job_id)
        run.complete()
        await harness.settle()
    assert order == [job.id for job in await harness.jobs()]
    assert len(order) == 3
    assert (await harness.counters())["skipped_by_reason"] == {"mode": 2}


async def test_a_queue_goes_on_after_a_kill(build: Build) -> None:
    harness = await build(**a_button(mode="queued")).start()
    await press(harness, 3)
    await harness.restart()
    done = 0
    while harness.fake_jobs.going:
        [run] = harness.fake_jobs.going
        run.complete()
        await harness.settle()
        done += 1
    assert done == 2
    assert [job.status.value for job in await harness.jobs()] == ["failed", "completed", "completed"]


async def test_restart_stops_the_running_one_before_the_next_begins(build: Build) -> None:
    harness = await build(**a_button(mode="restart")).start()
    await press(harness, 3)
    assert len(harness.fake_jobs.going) == 1
    assert [run.cancelled for run in harness.fake_jobs.runs] == [True, True, False]
    harness.fake_jobs.going[0].complete()
    await harness.settle()
    assert [job.status.value for job in await harness.jobs()] == ["stopped", "stopped", "completed"]


async def test_modes_are_kept_for_each_owner_alone(build: Build) -> None:
    objects = {name: an_object(f"home/{name}") for name in ("a", "b")}
    operations = {"job": work(mode="single", attach=[{"object": "a"}, {"object": "b"}])}
    harness = await build(objects=objects, operations=operations).start()
    for name in objects:
        await harness.report(f"home/{name}", "1")
        await harness.report(f"home/{name}", "2")
    assert len(harness.fake_jobs.going) == 2
    assert (await harness.counters())["skipped"] == 2


async def test_modes_decide_within_one_batch_too(build: Build) -> None:
    harness = await build(**a_button(mode="single")).start()
    for _ in range(4):
        harness.send("home/button", "down")
    await harness.settle()
    assert len(await harness.jobs()) == 1
    assert (await harness.counters())["skipped"] == 3


@pytest.mark.parametrize("keys", [{"mode": "queued"}, {"max": 1}, {"max": 2}])
async def test_publishes_that_wait_for_each_other_all_leave_in_order(build: Build, keys: dict[str, Any]) -> None:
    button = {"button": an_object("home/button", state={"event": True})}
    harness = await build(objects=button, operations={"say": an_operation("button", triggers=[{}], **keys)}).start()
    harness.broker.freeze()
    await press(harness, 5)
    harness.broker.thaw()
    await harness.settle()
    jobs = await harness.jobs()
    assert statuses(jobs) == {"completed": 5}
    assert harness.texts("out/button") == [job.id for job in jobs]


async def test_a_publish_that_takes_the_place_of_another_is_the_last_to_leave(build: Build) -> None:
    button = {"button": an_object("home/button", state={"event": True})}
    operations = {"say": an_operation("button", mode="restart", triggers=[{}])}
    harness = await build(objects=button, operations=operations).start()
    harness.broker.freeze()
    await press(harness, 3)
    harness.broker.thaw()
    await harness.advance(1)
    jobs = await harness.jobs()
    assert [job.status.value for job in jobs] == ["stopped", "stopped", "completed"]
    assert harness.texts("out/button")[-1] == jobs[-1].id
