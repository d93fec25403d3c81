"""What is kept for how long: ended jobs go by status and age, and what is remembered of operations stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from house import House, an_object, an_operation, statuses

Build = Callable[..., House]
HOUR = 3600


async def shop(build: Build, **retention: Any) -> House:
    house = build(
        users={"anonymous": {"permissions": ["admin"]}},
        objects={"lamp": an_object("lamp")},
        operations={"on": an_operation("lamp"), "dig": an_operation("lamp", type="work", timeout="30d")},
        store={"retention": {"completed": "2h", "failed": "1d", **retention}},
    )
    return await house.start()


async def fail(house: House) -> str:
    job = await house.data("operations/execute", id="dig")
    house.desk.going[-1].fail()
    await house.settle()
    return str(job["id"])


async def test_successes_go_before_failures_and_what_runs_stays(build: Build) -> None:
    house = await shop(build)
    running = await house.data("operations/execute", id="dig")
    failed = await fail(house)
    stopped = await house.data("operations/execute", id="dig")
    await house.data("jobs/stop", id=stopped["id"])
    await house.data("operations/execute", id="on")
    await house.advance(1.9 * HOUR)
    assert statuses(await house.jobs()) == {"processing": 1, "failed": 1, "stopped": 1, "completed": 1}
    await house.advance(0.2 * HOUR)
    assert statuses(await house.jobs()) == {"processing": 1, "failed": 1, "stopped": 1}
    await house.advance(21 * HOUR)
    assert {job.id for job in await house.jobs()} == {running["id"], failed, stopped["id"]}
    await house.advance(2 * HOUR)
    assert [job.id for job in await house.jobs()] == [running["id"]]
    gone = await house.ask("jobs/get", id=failed)
    assert (gone["code"], gone["reason"]) == (404, "not_found")


async def test_whatever_is_added_to_an_ended_job_keeps_it_no_longer_unless_it_happened_to_it(build: Build) -> None:
    house = await shop(build)
    first, second = [(await house.data("operations/execute", id="on"))["id"] for _ in range(2)]
    await house.advance(1.5 * HOUR)
    await house.data("jobs/add_result", id=first, payload={"n": 1})
    await house.data("jobs/retry", id=second)
    await house.advance(1 * HOUR)
    assert next(job.id for job in await house.jobs()) == second
    assert (await house.ask("jobs/get", id=first))["code"] == 404


async def test_ten_thousand_successes_push_out_no_failure(build: Build) -> None:
    house = await shop(build, max_jobs=20)
    failed = await fail(house)
    for _ in range(60):
        await house.data("operations/execute", id="on")
    await house.advance(120)
    jobs = await house.jobs()
    assert len(jobs) == 20
    assert failed in {job.id for job in jobs}
    assert jobs[-1].uid == 61


async def test_what_is_remembered_of_an_operation_outlives_its_jobs(build: Build) -> None:
    house = await shop(build)
    await house.data("operations/execute", id="on")
    before = await house.data("operations/get", id="on")
    await house.advance(3 * HOUR)
    await house.restart()
    after = await house.data("operations/get", id="on")
    assert after["job_instances"] == {"total": 1, "running": 0, "last_ids": []}
    for name in ("start_date", "end_date", "previous_trigger", "metadata"):
        assert after[name] == before[name]
    await house.data("operations/execute", id="on")
    again = await house.data("operations/get", id="on")
    assert (again["job_instances"]["total"], again["start_date"]) == (2, before["start_date"])


async def test_a_number_that_was_given_is_never_given_again(build: Build) -> None:
    house = await shop(build)
    last = await house.data("operations/execute", id="on")
    await house.data("jobs/delete", id=last["id"])
    await house.advance(3 * HOUR)
    await house.restart()
    assert (await house.data("operations/execute", id="on"))["uid"] == last["uid"] + 1
