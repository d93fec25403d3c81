"""Schedules: when they start jobs, over restarts, absences and changes of the clock (behaviour 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.harness import ServiceHarness, an_object, an_operation

Build = Callable[..., ServiceHarness]


async def shop(build: Build, **keys: Any) -> ServiceHarness:
    """Start a house with one scheduled operation; it is 12:00:02 on 1 March 2026, UTC."""
    harness = build(
        users={"anonymous": {"permissions": ["admin"]}},
        objects={"lamp": an_object("lamp")},
        operations={"tick": an_operation("lamp", **keys)},
    )
    return await harness.start()


async def times(harness: ServiceHarness) -> list[str]:
    """Return when the jobs were made."""
    return [job.created_at.strftime("%d %H:%M:%S") for job in await harness.jobs("tick")]


async def the_operation(harness: ServiceHarness) -> Any:
    return await harness.data("operations/get", id="tick")


async def test_cron_starts_jobs_on_the_minute(build: Build) -> None:
    harness = await shop(build, schedule="*/15 * * * *")
    assert (await the_operation(harness))["next_trigger"] == "2026-03-01T12:15:00.000Z"
    await harness.advance(3600)
    assert await times(harness) == ["01 12:15:00", "01 12:30:00", "01 12:45:00", "01 13:00:00"]
    operation = await the_operation(harness)
    assert operation["previous_trigger"] == "2026-03-01T13:00:00.000Z"
    assert operation["next_trigger"] == "2026-03-01T13:15:00.000Z"
    job = (await harness.data("jobs/list", limit=1))["items"][0]
    assert (job["user_id"], job["process_meta"], job["owner_id"]) == ("system", None, "lamp")


async def test_an_interval_counts_from_its_last_due_time(build: Build) -> None:
    harness = await shop(build, schedule={"every": "10m"})
    await harness.advance(1500)
    assert await times(harness) == ["01 12:10:00", "01 12:20:00"]
    await harness.restart()
    await harness.advance(600)
    assert await times(harness) == ["01 12:10:00", "01 12:20:00", "01 12:30:00"]


@pytest.mark.parametrize("schedule", ["*/10 * * * *", {"every": "10m"}])
@pytest.mark.parametrize(("catch_up", "missed"), [(True, 1), (False, 0)])
async def test_what_was_missed_runs_at_most_once_at_start(
    build: Build, schedule: Any, catch_up: bool, missed: int
) -> None:
    harness = await shop(build, schedule=schedule, catch_up=catch_up)
    await harness.advance(610)
    assert await times(harness) == ["01 12:10:00"]
    await harness.crash()
    await harness.advance(3600)
    await harness.start()
    assert len(await times(harness)) == 1 + missed
    assert (await the_operation(harness))["next_trigger"] == "2026-03-01T13:20:00.000Z"
    await harness.restart()
    assert len(await times(harness)) == 1 + missed
    await harness.advance(600)
    assert (await times(harness))[1 + missed :] == ["01 13:20:00"]


async def test_a_missed_run_waits_until_the_broker_has_reported_what_it_has(build: Build) -> None:
    harness = await shop(build, schedule="*/10 * * * *")
    await harness.crash()
    await harness.advance(3600)
    await harness.start(quiet=False)
    assert await times(harness) == []
    await harness.advance(2)
    assert len(await times(harness)) == 1


@pytest.mark.parametrize("moment", ["before record", "after record"])
async def test_killed_while_it_starts_a_job_it_starts_that_one_once(build: Build, moment: str) -> None:
    harness = await shop(build, schedule="*/10 * * * *")
    await harness.advance(590)
    harness.die_at(moment)
    await harness.advance(10)
    assert not harness.running
    await harness.start()
    assert len(await times(harness)) == 1
    assert len(harness.texts("out/lamp")) == 1
    await harness.advance(600)
    assert len(await times(harness)) == 2


async def test_while_disconnected_it_goes_on(build: Build) -> None:
    harness = await shop(build, schedule="*/10 * * * *")
    harness.jitter = 1.0
    harness.broker.down()
    await harness.advance(1300)
    assert await times(harness) == ["01 12:10:00", "01 12:20:00"]


async def test_deactivated_it_starts_nothing_and_makes_up_for_nothing(build: Build) -> None:
    harness = await shop(build, schedule="*/10 * * * *")
    await harness.data("operations/deactivate", id="tick")
    assert (await the_operation(harness))["next_trigger"] is None
    await harness.restart()
    await harness.advance(3600)
    assert await times(harness) == []
    activated = await harness.data("operations/activate", id="tick")
    assert activated["next_trigger"] == "2026-03-01T13:10:00.000Z"
    await harness.advance(660)
    assert await times(harness) == ["01 13:10:00"]


async def test_a_schedule_starts_one_job_for_each_entity_it_is_attached_to(build: Build) -> None:
    harness = build(
        classes={"belt": {"ids": ["belt_{1..3}"]}},
        operations={"tick": an_operation({"class": "belt"}, schedule="*/10 * * * *")},
    )
    await harness.start()
    await harness.advance(600)
    assert [job.owner.id for job in await harness.jobs() if job.owner] == ["belt_1", "belt_2", "belt_3"]


async def test_a_schedule_needs_no_owner(build: Build) -> None:
    harness = build(operations={"tick": an_operation(None, schedule="*/10 * * * *")})
    await harness.start()
    await harness.advance(600)
    [job] = await harness.jobs()
    assert job.owner is None


async def test_a_schedule_that_fires_while_its_single_job_runs_is_skipped(build: Build) -> None:
    harness = await shop(build, schedule="*/10 * * * *", type="work", mode="single", timeout="1h")
    await harness.advance(1900)
    assert await times(harness) == ["01 12:10:00"]
    assert (await harness.counters())["skipped_by_reason"] == {"mode": 2}


async def test_when_the_clock_is_set_forward_what_lies_between_runs_once_and_back_again_nothing_runs_twice(
    build: Build,
) -> None:
    harness = await shop(build, schedule="0 * * * *")
    harness.clock.step(hours=5)
    await harness.advance(60)
    assert len(await times(harness)) == 1
    harness.clock.step(hours=-5)
    await harness.advance(60)
    assert len(await times(harness)) == 1


@pytest.mark.proves("definitions", "jobs are created by the schedule")
@pytest.mark.parametrize(
    ("day", "expected"),
    [
        # in Berlin, 02:30 does not exist on 29 March 2026, and comes twice on 25 October
        ("2026-03-28", ["29 01:00:00", "30 00:30:00"]),
        ("2026-10-24", ["25 00:30:00", "26 01:30:00"]),
    ],
)
async def test_a_daily_time_runs_once_a_day_across_both_changes_of_the_clock(
    build: Build, day: str, expected: list[str]
) -> None:
    harness = build(
        objects={"lamp": an_object("lamp")},
        operations={"tick": an_operation("lamp", schedule="30 2 * * *")},
        service={"time_zone": "Europe/Berlin"},
    )
    since = harness.clock.now()
    harness.clock.step(seconds=(since.fromisoformat(f"{day}T20:00:00+00:00") - since).total_seconds())
    await harness.start()
    await harness.advance(30 * 3600)
    assert await times(harness) == expected
