"""Schedules go by stored due times: what was missed runs once, and a clock that is set makes no storm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from house import House, an_operation

Build = Callable[..., House]


@pytest.mark.parametrize("days", [1, -1])
async def test_a_wall_clock_that_is_set_makes_no_storm_of_schedules(build: Build, days: int) -> None:
    operations = {
        "often": an_operation(schedule={"every": "1m"}),
        "hourly": an_operation(schedule="0 * * * *"),
    }
    house = await build(operations=operations).start()
    await house.advance(600)
    assert len(await house.jobs("often")) == 10
    house.clock.step(days=days)
    before = house.clock.timers
    await house.advance(600)
    assert len(await house.jobs("often")) <= 21
    assert len(await house.jobs("hourly")) <= 2
    assert house.clock.timers - before < 100


async def test_a_missed_schedule_runs_once_at_start_unless_catch_up_is_off(build: Build) -> None:
    operations = {
        "tidy": an_operation(schedule="0 3 * * *"),
        "fresh": an_operation(schedule="0 3 * * *", catch_up=False),
        "beat": an_operation(schedule={"every": "10m"}),
    }
    house = await build(operations=operations).start()
    await house.stop()
    await house.advance(3 * 24 * 3600)
    await house.start(quiet=False)
    await house.advance(5)
    assert [len(await house.jobs(name)) for name in operations] == [1, 0, 1]
    await house.restart()
    await house.advance(24 * 3600)
    assert [len(await house.jobs(name)) for name in operations] == [2, 1, 145]
    assert all(job.process_meta is None for job in await house.jobs())
