"""What is kept for how long: ended jobs go by status and age, and what is remembered of operations stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.harness import ServiceHarness, an_object, an_operation, statuses

Build = Callable[..., ServiceHarness]
HOUR = 3600


async def shop(build: Build, **retention: Any) -> ServiceHarness:
    harness = build(
        users={"anonymous": {"permissions": ["admin"]}},
        objects={"lamp": an_object("lamp")},
        operations={"on": an_operation("lamp"), "dig": an_operation("lamp", type="work", timeout="30d")},
        store={"retention": {"completed": "2h", "failed": "1d", **retention}},
    )
    return await harness.start()


async def fail(harness: ServiceHarness) -> str:
    job = await harness.data("operations/execute", id="dig")
    harness.fake_jobs.going[-1].fail()
    await harness.settle()
    return str(job["id"])


async def test_successes_go_before_failures_and_what_runs_stays(build: Build) -> None:
    harness = await shop(build)
    running = await harness.data("operations/execute", id="dig")
    failed = await fail(harness)
    stopped = await harness.data("operations/execute", id="dig")
    await harness.data("jobs/stop", id=stopped["id"])
    await harness.data("operations/execute", id="on")
    await harness.advance(1.9 * HOUR)
    assert statuses(await harness.jobs()) == {"processing": 1, "failed": 1, "stopped": 1, "completed": 1}
    await harness.advance(0.2 * HOUR)
    assert statuses(await harness.jobs()) == {"processing": 1, "failed": 1, "stopped": 1}
    await harness.advance(21 * HOUR)
    assert {job.id for job in await harness.jobs()} == {running["id"], failed, stopped["id"]}
    await harness.advance(2 * HOUR)
    assert [job.id for job in await harness.jobs()] == [running["id"]]
    gone = await harness.ask("jobs/get", id=failed)
    assert (gone["code"], gone["reason"]) == (404, "not_found")


async def test_whatever_is_added_to_an_ended_job_keeps_it_no_longer_unless_it_happened_to_it(build: Build) -> None:
    harness = await shop(build)
    first, second = [(await harness.data("operations/execute", id="on"))["id"] for _ in range(2)]
    await harness.advance(1.5 * HOUR)
    await harness.data("jobs/add_result", id=first, payload={"n": 1})
    await harness.data("jobs/retry", id=second)
    await harness.advance(1 * HOUR)
    assert next(job.id for job in await harness.jobs()) == second
    assert (await harness.ask("jobs/get", id=first))["code"] == 404


@pytest.mark.proves("common", "ten thousand successes push out no failure")
async def test_ten_thousand_successes_push_out_no_failure(build: Build) -> None:
    harness = await shop(build, max_jobs=20)
    failed = await fail(harness)
    for _ in range(60):
        await harness.data("operations/execute", id="on")
    await harness.advance(120)
    jobs = await harness.jobs()
    assert len(jobs) == 20
    assert failed in {job.id for job in jobs}
    assert jobs[-1].uid == 61


async def test_what_is_remembered_of_an_operation_outlives_its_jobs(build: Build) -> None:
    harness = await shop(build)
    await harness.data("operations/execute", id="on")
    before = await harness.data("operations/get", id="on")
    await harness.advance(3 * HOUR)
    await harness.restart()
    after = await harness.data("operations/get", id="on")
    assert after["job_instances"] == {"total": 1, "running": 0, "last_ids": []}
    for name in ("start_date", "end_date", "previous_trigger", "metadata"):
        assert after[name] == before[name]
    await harness.data("operations/execute", id="on")
    again = await harness.data("operations/get", id="on")
    assert (again["job_instances"]["total"], again["start_date"]) == (2, before["start_date"])


async def test_a_number_that_was_given_is_never_given_again(build: Build) -> None:
    harness = await shop(build)
    last = await harness.data("operations/execute", id="on")
    await harness.data("jobs/delete", id=last["id"])
    await harness.advance(3 * HOUR)
    await harness.restart()
    assert (await harness.data("operations/execute", id="on"))["uid"] == last["uid"] + 1
