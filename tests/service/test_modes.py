"""How jobs of one operation and owner run beside each other, and in which order those wait that have no slot yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from house import House, an_object, an_operation, statuses

Build = Callable[..., House]


async def shop(build: Build, *, concurrency: int = 32, more: dict[str, Any] | None = None, **keys: Any) -> House:
    """Start a house whose operation `dig`, of two objects, has these keys."""
    dig = an_operation(None, type="work", timeout="1h", triggers=[{"states": ["dirty"]}], **keys)
    dig["attach"] = [{"object": "lamp"}, {"object": "door"}]
    house = build(
        objects={"lamp": an_object("lamp"), "door": an_object("door")},
        operations={"dig": dig, **(more or {})},
        service={"concurrency": concurrency},
    )
    return await house.start()


async def begin(house: House, owner: str = "lamp") -> Any:
    """Ask for a run and return the answer."""
    return await house.ask("operations/execute", id="dig", object=owner)


def going(house: House) -> list[str]:
    """Return the jobs that run, in the order in which they began."""
    return [run.context.job_id for run in house.desk.going]


async def end(house: House, place: int = 0) -> None:
    house.desk.going[place].complete()
    await house.settle()


async def look(house: House) -> list[str]:
    return [job.status.value for job in await house.jobs()]


# -- parallel --------------------------------------------------------------------------------------------------------


async def test_parallel_jobs_run_together_without_limit(build: Build) -> None:
    house = await shop(build)
    for _ in range(5):
        assert (await begin(house))["code"] == 201
    assert len(house.desk.going) == 5


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_parallel_with_max_lets_the_excess_wait_and_owners_are_counted_apart(build: Build, most: int) -> None:
    house = await shop(build, max=most)
    for _ in range(most + 2):
        await begin(house)
    await begin(house, "door")
    assert len(house.desk.going) == most + 1
    assert statuses(await house.jobs()) == {"processing": most + 1, "submitted": 2}
    await end(house)
    assert len(house.desk.going) == most + 1
    while house.desk.going:
        await end(house)
    assert statuses(await house.jobs()) == {"completed": most + 3}


# -- single ----------------------------------------------------------------------------------------------------------


async def test_a_second_single_job_is_refused_by_hand_and_skipped_by_a_trigger(build: Build) -> None:
    house = await shop(build, mode="single")
    assert (await begin(house))["code"] == 201
    refused = await begin(house)
    assert (refused["code"], refused["reason"]) == (409, "conflict")
    await house.report("lamp", "dirty")
    assert (await house.counters())["skipped_by_reason"] == {"mode": 1}
    assert (await begin(house, "door"))["code"] == 201
    assert len(await house.jobs()) == 2
    await end(house)
    assert (await begin(house))["code"] == 201


async def test_two_changes_in_one_batch_are_one_single_job(build: Build) -> None:
    house = await shop(build, mode="single")
    for state in ("dirty", "clean", "dirty"):
        house.send("lamp", state)
    await house.settle()
    assert len(await house.jobs()) == 1
    assert (await house.counters())["skipped"] == 1


async def test_a_single_job_that_a_kill_interrupted_does_not_stay_in_the_way(build: Build) -> None:
    house = await shop(build, mode="single")
    await begin(house)
    await house.restart()
    assert await look(house) == ["failed"]
    assert (await begin(house))["code"] == 201


# -- queued ----------------------------------------------------------------------------------------------------------


async def test_queued_jobs_run_one_after_the_other_in_their_order(build: Build) -> None:
    house = await shop(build, mode="queued")
    ids = [(await begin(house))["data"]["id"] for _ in range(4)]
    await begin(house, "door")
    for job_id in ids:
        assert [each for each in going(house) if each in ids] == [job_id]
        await end(house, going(house).index(job_id))
    assert statuses(await house.jobs()) == {"completed": 4, "processing": 1}


@pytest.mark.parametrize("most", [1, 3])
async def test_of_queued_jobs_at_most_max_wait(build: Build, most: int) -> None:
    house = await shop(build, mode="queued", max=most)
    for _ in range(most + 1):
        assert (await begin(house))["code"] == 201
    assert (await begin(house))["code"] == 409
    assert len(house.desk.going) == 1
    await end(house)
    assert (await begin(house))["code"] == 201
    assert (await begin(house))["code"] == 409


async def test_a_queue_goes_on_after_a_kill(build: Build) -> None:
    house = await shop(build, mode="queued")
    ids = [(await begin(house))["data"]["id"] for _ in range(3)]
    await house.restart()
    assert going(house) == ids[1:2]
    await end(house)
    assert going(house) == ids[2:]
    await end(house)
    assert await look(house) == ["failed", "completed", "completed"]


# -- restart ---------------------------------------------------------------------------------------------------------


async def test_restart_stops_the_running_job_and_what_runs_of_it(build: Build) -> None:
    house = await shop(build, mode="restart")
    first = (await begin(house))["data"]
    await begin(house, "door")
    second = (await begin(house))["data"]
    assert [run.cancelled for run in house.desk.runs] == [True, False, False]
    assert await look(house) == ["stopped", "processing", "processing"]
    old = await house.data("jobs/get", id=first["id"])
    assert old["timeline"][-1]["message"] == f"Job stopped: {second['id']} takes its place"
    [told] = house.documents("mqttjobs/event/job/stopped/#")
    assert told["id"] == first["id"]
    await end(house, 1)
    assert await look(house) == ["stopped", "processing", "completed"]


async def test_of_two_restarts_in_one_batch_the_last_runs(build: Build) -> None:
    house = await shop(build, mode="restart")
    for state in ("dirty", "clean", "dirty", "clean", "dirty"):
        house.send("lamp", state)
    await house.settle()
    assert await look(house) == ["stopped", "stopped", "processing"]
    assert going(house) == [(await house.jobs())[-1].id]


async def test_who_waits_for_a_job_that_another_replaced_is_told_that_it_was_stopped(build: Build) -> None:
    house = await shop(build, mode="restart")
    question = house.put("operations/execute", id="dig", object="lamp", wait=True)
    await house.settle()
    await begin(house)
    assert (question.answer["code"], question.answer["data"]["status"]) == (200, "stopped")


# -- slots, priority and order ---------------------------------------------------------------------------------------

OTHERS = {
    "low": an_operation("lamp", type="work", name="low", priority=-5),
    "plain": an_operation("lamp", type="work", name="plain"),
    "high": an_operation("lamp", type="work", name="high", priority=7),
    "on": an_operation("lamp", message="ON"),
    "off": an_operation("lamp", message="OFF", priority=9),
}


async def test_a_higher_priority_comes_first_then_who_came_first(build: Build) -> None:
    house = await shop(build, concurrency=1, more=OTHERS)
    await begin(house)
    for name in ("low", "plain", "high", "low", "high", "plain"):
        await house.data("operations/execute", id=name)
    priorities = [job["priority"] for job in (await house.data("jobs/list"))["items"]][::-1]
    assert priorities == [0, -5, 0, 7, -5, 7, 0]
    order = []
    while house.desk.going:
        [run] = house.desk.going
        order.append(run.context.job_id)
        await end(house)
    jobs = {job.id: job for job in await house.jobs()}
    assert [jobs[each].operation_id for each in order[1:]] == ["high", "high", "plain", "plain", "low", "low"]
    assert [jobs[each].uid for each in order[1:]] == [4, 6, 3, 7, 2, 5]


async def test_programs_that_hang_never_stop_publications_and_no_priority_lets_off_overtake_on(build: Build) -> None:
    house = await shop(build, concurrency=30, more=OTHERS)
    for _ in range(40):
        await begin(house)
    assert len(house.desk.going) == 30
    for name in ("on", "off", "on", "off"):
        await house.data("operations/execute", id=name)
    assert house.texts("out/lamp") == ["ON", "OFF", "ON", "OFF"]
    assert (await house.data("jobs/list", status="submitted"))["total_items"] == 10


async def test_a_stop_makes_room_for_the_next(build: Build) -> None:
    house = await shop(build, concurrency=1)
    first, second = [(await begin(house))["data"]["id"] for _ in range(2)]
    await house.data("jobs/stop", id=first)
    assert going(house) == [second]
    assert house.desk.runs[0].cancelled
