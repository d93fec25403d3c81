"""The house that other tests stand in: time stands still, deaths are sudden, and what is stored stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.service.hand_clock import HandLoop, StandstillError
from tests.service.harness import ServiceHarness, an_object, an_operation, statuses

Build = Callable[..., ServiceHarness]

LAMP = {"objects": {"lamp": an_object("home/lamp")}, "operations": {"echo": an_operation("lamp", triggers=[{}])}}


async def test_a_report_becomes_a_job_and_a_publish_without_any_time_passing(build: Build) -> None:
    harness = await build(**LAMP).start()
    before = harness.clock.monotonic()
    await harness.report("home/lamp", "on")
    [job] = await harness.jobs("echo")
    assert harness.texts("out/lamp") == [job.id]
    assert job.status.value == "completed"
    assert harness.clock.monotonic() == before


def test_a_wait_that_nothing_can_end_is_reported_at_once() -> None:
    with asyncio.Runner(loop_factory=HandLoop) as runner, pytest.raises(StandstillError):
        runner.run(asyncio.sleep(5))


async def test_time_passes_timer_by_timer() -> None:
    loop = asyncio.get_running_loop()
    seen: list[float] = []
    begin = loop.time()
    for delay in (3.0, 1.0, 2.5):
        loop.call_later(delay, lambda: seen.append(round(loop.time() - begin, 6)))
    await loop.clock.advance(2.75)  # type: ignore[attr-defined]
    assert seen == [1.0, 2.5]
    assert round(loop.time() - begin, 6) == 2.75


@pytest.mark.parametrize("moment", ["before record", "after record", "before acknowledge", "before publish"])
async def test_a_change_whose_handling_was_cut_short_is_one_job_after_the_next_start(build: Build, moment: str) -> None:
    harness = await build(**LAMP).start()
    harness.die_at(moment)
    await harness.report("home/lamp", "on")
    assert not harness.running
    await harness.start()
    assert statuses(await harness.jobs("echo")) == {"completed": 1}
    assert len(harness.texts("out/lamp")) == 1


async def test_work_goes_on_until_the_test_ends_it(build: Build) -> None:
    harness = await build(operations={"dig": an_operation(type="work")}).start()
    await harness.data("operations/execute", id="dig")
    [run] = harness.fake_jobs.going
    await harness.advance(30)
    assert statuses(await harness.jobs()) == {"processing": 1}
    run.complete({"depth": 3})
    await harness.settle()
    assert statuses(await harness.jobs()) == {"completed": 1}
