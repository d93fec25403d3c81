"""What modes and priorities mean to who runs an operation by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.harness import ServiceHarness, an_object, an_operation

Build = Callable[..., ServiceHarness]


async def shop(
    build: Build, *, concurrency: int = 32, more: dict[str, Any] | None = None, **keys: Any
) -> ServiceHarness:
    """Start a house whose operation `dig`, of two objects, has these keys."""
    dig = an_operation(None, type="work", timeout="1h", triggers=[{"states": ["dirty"]}], **keys)
    dig["attach"] = [{"object": "lamp"}, {"object": "door"}]
    harness = build(
        objects={"lamp": an_object("lamp"), "door": an_object("door")},
        operations={"dig": dig, **(more or {})},
        service={"concurrency": concurrency},
    )
    return await harness.start()


async def begin(harness: ServiceHarness, owner: str = "lamp") -> Any:
    """Ask for a run and return the answer."""
    return await harness.ask("operations/execute", id="dig", object=owner)


def going(harness: ServiceHarness) -> list[str]:
    """Return the jobs that run, in the order in which they began."""
    return [run.context.job_id for run in harness.fake_jobs.going]


async def end(harness: ServiceHarness, place: int = 0) -> None:
    harness.fake_jobs.going[place].complete()
    await harness.settle()


async def look(harness: ServiceHarness) -> list[str]:
    return [job.status.value for job in await harness.jobs()]


async def test_a_second_single_job_is_refused_by_hand_and_skipped_by_a_trigger(build: Build) -> None:
    harness = await shop(build, mode="single")
    assert (await begin(harness))["code"] == 201
    refused = await begin(harness)
    assert (refused["code"], refused["reason"]) == (409, "conflict")
    await harness.report("lamp", "dirty")
    assert (await harness.counters())["skipped_by_reason"] == {"mode": 1}
    assert (await begin(harness, "door"))["code"] == 201
    assert len(await harness.jobs()) == 2
    await end(harness)
    assert (await begin(harness))["code"] == 201


async def test_a_single_job_that_a_kill_interrupted_does_not_stay_in_the_way(build: Build) -> None:
    harness = await shop(build, mode="single")
    await begin(harness)
    await harness.restart()
    assert await look(harness) == ["failed"]
    assert (await begin(harness))["code"] == 201


async def test_restart_stops_the_running_job_and_what_runs_of_it(build: Build) -> None:
    harness = await shop(build, mode="restart")
    first = (await begin(harness))["data"]
    await begin(harness, "door")
    second = (await begin(harness))["data"]
    assert [run.cancelled for run in harness.fake_jobs.runs] == [True, False, False]
    assert await look(harness) == ["stopped", "processing", "processing"]
    old = await harness.data("jobs/get", id=first["id"])
    assert old["timeline"][-1]["message"] == f"Job stopped: {second['id']} takes its place"
    [reported] = harness.documents("mqttjobs/event/job/stopped/#")
    assert reported["id"] == first["id"]
    await end(harness, 1)
    assert await look(harness) == ["stopped", "processing", "completed"]


async def test_who_waits_for_a_job_that_another_replaced_is_reported_that_it_was_stopped(build: Build) -> None:
    harness = await shop(build, mode="restart")
    question = harness.put("operations/execute", id="dig", object="lamp", wait=True)
    await harness.settle()
    await begin(harness)
    assert (question.answer["code"], question.answer["data"]["status"]) == (200, "stopped")


OTHERS = {
    "low": an_operation("lamp", type="work", name="low", priority=-5),
    "plain": an_operation("lamp", type="work", name="plain"),
    "high": an_operation("lamp", type="work", name="high", priority=7),
    "on": an_operation("lamp", message="ON"),
    "off": an_operation("lamp", message="OFF", priority=9),
}


@pytest.mark.proves("definitions", "Priority in the queue")
async def test_a_higher_priority_comes_first_then_who_came_first(build: Build) -> None:
    harness = await shop(build, concurrency=1, more=OTHERS)
    await begin(harness)
    for name in ("low", "plain", "high", "low", "high", "plain"):
        await harness.data("operations/execute", id=name)
    priorities = [job["priority"] for job in (await harness.data("jobs/list"))["items"]][::-1]
    assert priorities == [0, -5, 0, 7, -5, 7, 0]
    order = []
    while harness.fake_jobs.going:
        [run] = harness.fake_jobs.going
        order.append(run.context.job_id)
        await end(harness)
    jobs = {job.id: job for job in await harness.jobs()}
    assert [jobs[each].operation_id for each in order[1:]] == ["high", "high", "plain", "plain", "low", "low"]
    assert [jobs[each].uid for each in order[1:]] == [4, 6, 3, 7, 2, 5]


async def test_a_stop_makes_room_for_the_next(build: Build) -> None:
    harness = await shop(build, concurrency=1)
    first, second = [(await begin(harness))["data"]["id"] for _ in range(2)]
    await harness.data("jobs/stop", id=first)
    assert going(harness) == [second]
    assert harness.fake_jobs.runs[0].cancelled
