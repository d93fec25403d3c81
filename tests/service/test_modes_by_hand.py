"""What modes and priorities mean to who runs an operation by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from house import House, an_object, an_operation

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


async def test_a_single_job_that_a_kill_interrupted_does_not_stay_in_the_way(build: Build) -> None:
    house = await shop(build, mode="single")
    await begin(house)
    await house.restart()
    assert await look(house) == ["failed"]
    assert (await begin(house))["code"] == 201


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


async def test_who_waits_for_a_job_that_another_replaced_is_told_that_it_was_stopped(build: Build) -> None:
    house = await shop(build, mode="restart")
    question = house.put("operations/execute", id="dig", object="lamp", wait=True)
    await house.settle()
    await begin(house)
    assert (question.answer["code"], question.answer["data"]["status"]) == (200, "stopped")


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


async def test_a_stop_makes_room_for_the_next(build: Build) -> None:
    house = await shop(build, concurrency=1)
    first, second = [(await begin(house))["data"]["id"] for _ in range(2)]
    await house.data("jobs/stop", id=first)
    assert going(house) == [second]
    assert house.desk.runs[0].cancelled
