"""Schedules go by stored due times: what was missed runs once, and a clock that is set makes no storm."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.service.harness import ServiceHarness, an_operation

Build = Callable[..., ServiceHarness]


@pytest.mark.parametrize("days", [1, -1])
async def test_a_wall_clock_that_is_set_makes_no_storm_of_schedules(build: Build, days: int) -> None:
    operations = {
        "often": an_operation(schedule={"every": "1m"}),
        "hourly": an_operation(schedule="0 * * * *"),
    }
    harness = await build(operations=operations).start()
    await harness.advance(600)
    assert len(await harness.jobs("often")) == 10
    harness.clock.step(days=days)
    before = harness.clock.timers
    await harness.advance(600)
    assert len(await harness.jobs("often")) <= 21
    assert len(await harness.jobs("hourly")) <= 2
    assert harness.clock.timers - before < 100


async def test_a_missed_schedule_runs_once_at_start_unless_catch_up_is_off(build: Build) -> None:
    operations = {
        "tidy": an_operation(schedule="0 3 * * *"),
        "fresh": an_operation(schedule="0 3 * * *", catch_up=False),
        "beat": an_operation(schedule={"every": "10m"}),
    }
    harness = await build(operations=operations).start()
    await harness.stop()
    await harness.advance(3 * 24 * 3600)
    await harness.start(quiet=False)
    await harness.advance(5)
    assert [len(await harness.jobs(name)) for name in operations] == [1, 0, 1]
    await harness.restart()
    await harness.advance(24 * 3600)
    assert [len(await harness.jobs(name)) for name in operations] == [2, 1, 145]
    assert all(job.process_meta is None for job in await harness.jobs())
