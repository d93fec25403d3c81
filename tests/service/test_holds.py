"""Durations and repeats: they fire once, never early, and no death, clock or reload takes them away (behaviour 2)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from mqttjobs.domain.protocol import iso
from tests.service.hand_clock import BEGIN
from tests.service.harness import ServiceHarness, a_link, an_object, an_operation

Build = Callable[..., ServiceHarness]

FIVE_MINUTES = {"states": ["clear"], "duration": "5m"}
DOOR_REPORTS = "mqttjobs/state/objects/door"
EVERY_MINUTE = {"states": ["clear"], "duration": "5m", "periodicity": "1m"}


def a_room(trigger: dict[str, Any] = FIVE_MINUTES, **keys: Any) -> dict[str, Any]:
    """Return motion, a light that is switched off when nobody has moved for a while, and one that goes on at once."""
    return {
        "objects": {"motion": an_object("home/motion"), "light": an_object("home/light")},
        "links": {"lights": a_link("motion", "light")},
        "operations": {
            "off": an_operation({"link": "lights"}, message="OFF", triggers=[trigger], **keys),
            "on": an_operation({"link": "lights"}, message="ON", triggers=[{"states": ["occupied"]}]),
        },
    }


async def offs(harness: ServiceHarness) -> int:
    """Return how often the light was switched off; no report of it is ever early."""
    jobs = await harness.jobs("off")
    for job in jobs:
        assert job.process_meta is not None
        since = job.process_meta["received_at"]
        assert (job.created_at - BEGIN.fromisoformat(since)).total_seconds() >= 300
    return len(jobs)


async def test_a_hold_fires_once_when_its_time_has_come_and_not_before(build: Build) -> None:
    harness = await build(**a_room()).start()
    await harness.report("home/motion", "clear")
    await harness.advance(299.9)
    assert await offs(harness) == 0
    await harness.advance(0.2)
    assert await offs(harness) == 1
    await harness.advance(3600)
    assert await offs(harness) == 1
    assert harness.texts("out/lights") == ["OFF"]


async def test_a_hold_that_is_broken_does_not_fire_and_begins_anew(build: Build) -> None:
    harness = await build(**a_room()).start()
    await harness.report("home/motion", "clear")
    await harness.advance(299)
    await harness.report("home/motion", "occupied")
    await harness.advance(600)
    assert await offs(harness) == 0
    await harness.report("home/motion", "clear")
    await harness.advance(299)
    assert await offs(harness) == 0
    await harness.advance(2)
    assert await offs(harness) == 1


async def test_another_state_that_satisfies_it_does_not_restart_the_clock(build: Build) -> None:
    trigger = {"states": ["clear", "asleep"], "duration": "5m"}
    harness = await build(**a_room(trigger)).start()
    await harness.report("home/motion", "clear")
    await harness.advance(200)
    await harness.report("home/motion", "asleep")
    await harness.advance(101)
    [job] = await harness.jobs("off")
    assert job.process_meta is not None
    assert job.process_meta["state"] == "asleep"
    assert job.process_meta["triggerStates"] == ["clear", "asleep"]


async def test_a_repeat_fires_again_at_its_interval_until_it_is_broken(build: Build) -> None:
    harness = await build(**a_room(EVERY_MINUTE)).start()
    await harness.report("home/motion", "clear")
    await harness.advance(301)
    for count in range(1, 5):
        assert await offs(harness) == count
        await harness.advance(60)
    await harness.report("home/motion", "occupied")
    await harness.advance(600)
    assert await offs(harness) == 5


async def test_a_repeat_without_duration_fires_at_once_and_then_at_its_interval(build: Build) -> None:
    operations = {"nag": an_operation("door", triggers=[{"states": ["open"], "periodicity": "10m"}])}
    harness = await build(objects={"door": an_object("home/door")}, operations=operations).start()
    await harness.report("home/door", "open")
    assert len(await harness.jobs()) == 1
    await harness.restart()
    await harness.advance(599)
    assert len(await harness.jobs()) == 2
    await harness.report("home/door", "shut")
    await harness.advance(1200)
    assert len(await harness.jobs()) == 2


@pytest.mark.parametrize("passed", [0.0, 100.0, 299.0])
async def test_an_armed_hold_survives_a_crash_with_the_same_deadline(build: Build, passed: float) -> None:
    harness = await build(**a_room()).start()
    await harness.report("home/motion", "clear")
    since = harness.clock.now()
    await harness.advance(passed)
    await harness.crash()
    await harness.start(quiet=False)
    await harness.advance(600)
    [job] = await harness.jobs("off")
    assert timedelta(0) <= job.created_at - since - timedelta(minutes=5) <= timedelta(seconds=2)


@pytest.mark.parametrize("moment", ["before record", "after record", "before acknowledge"])
async def test_a_hold_whose_arming_was_cut_short_is_armed_once(build: Build, moment: str) -> None:
    harness = await build(**a_room()).start()
    harness.die_at(moment)
    await harness.report("home/motion", "clear")
    assert not harness.running
    await harness.start()
    await harness.advance(310)
    assert await offs(harness) == 1


async def test_a_hold_that_fell_due_while_the_service_was_down_fires_after_a_second_of_quiet(build: Build) -> None:
    harness = await build(**a_room()).start()
    await harness.report("home/motion", "clear", retain=True)
    await harness.advance(10)
    await harness.crash()
    await harness.advance(3600)
    await harness.start(quiet=False)
    assert await offs(harness) == 0
    await harness.advance(0.9)
    assert await offs(harness) == 0
    await harness.advance(0.2)
    assert await offs(harness) == 1
    await harness.restart()
    await harness.advance(3600)
    assert await offs(harness) == 1


async def test_the_quiet_that_is_waited_for_begins_anew_with_each_message(build: Build) -> None:
    harness = await build(**a_room()).start()
    await harness.report("home/motion", "clear")
    await harness.crash()
    await harness.advance(3600)
    await harness.start(quiet=False)
    for _ in range(10):
        await harness.report("home/light", "on")
        await harness.advance(0.8)
    assert await offs(harness) == 0
    await harness.advance(0.3)
    assert await offs(harness) == 1


async def test_what_fell_due_waits_for_quiet_thirty_seconds_at_most(build: Build) -> None:
    harness = await build(**a_room()).start()
    await harness.report("home/motion", "clear")
    await harness.crash()
    await harness.advance(3600)
    await harness.start(quiet=False)
    waited = 0.0
    while not await offs(harness):
        await harness.report("home/light", "on")
        await harness.advance(0.5)
        waited += 0.5
        assert waited < 32
    assert waited >= 30


@pytest.mark.parametrize("retain", [True, False])
async def test_a_light_is_not_switched_off_on_a_person_who_came_in_while_the_broker_was_away(
    build: Build, *, retain: bool
) -> None:
    harness = await build(**a_room()).start()
    await harness.report("home/motion", "clear", retain=retain)
    await harness.advance(60)
    harness.broker.down()
    await harness.advance(600)
    assert await offs(harness) == 0
    harness.send("home/motion", "occupied", retain=retain)
    harness.broker.up()
    await harness.advance(60)
    assert await offs(harness) == 0
    assert harness.texts("out/lights") == ["ON"]


@pytest.mark.parametrize("crash", [True, False])
async def test_a_person_whose_coming_only_the_retained_message_tells_keeps_the_light(
    build: Build, *, crash: bool
) -> None:
    harness = await build(**a_room()).start()
    await harness.report("home/motion", "clear", retain=True)
    await harness.advance(60)
    if crash:
        await harness.crash()
    harness.broker.down()
    harness.broker.forget("mqttjobs")
    harness.send("home/motion", "occupied", retain=True)
    await harness.advance(600)
    harness.broker.up()
    if crash:
        await harness.start()
    await harness.advance(60)
    assert await offs(harness) == 0


async def test_a_hold_that_fell_due_while_the_broker_was_away_fires_when_nobody_came(build: Build) -> None:
    harness = await build(**a_room()).start()
    await harness.report("home/motion", "clear")
    harness.broker.down()
    await harness.advance(600)
    harness.broker.up()
    await harness.advance(32)
    assert await offs(harness) == 1
    assert harness.texts("out/lights") == ["OFF"]


async def test_a_hold_is_not_broken_by_a_router_that_reboots(build: Build) -> None:
    harness = await build(**a_room()).start()
    await harness.report("home/motion", "clear", retain=True)
    for _ in range(5):
        await harness.advance(50)
        await harness.disconnect()
    await harness.report("home/motion", "unavailable")
    await harness.advance(51)
    assert await offs(harness) == 1


@pytest.mark.parametrize("moment", ["before record", "after record"])
async def test_a_hold_that_was_just_firing_fires_once_whatever_the_moment(build: Build, moment: str) -> None:
    harness = await build(**a_room()).start()
    await harness.report("home/motion", "clear")
    await harness.advance(299)
    harness.die_at(moment)
    await harness.advance(5)
    assert not harness.running
    await harness.start()
    assert await offs(harness) == 1
    await harness.restart()
    await harness.advance(3600)
    assert await offs(harness) == 1
    assert harness.texts("out/lights") == ["OFF"]


async def test_a_repeat_that_was_missed_many_times_fires_once_and_goes_on_in_its_rhythm(build: Build) -> None:
    harness = await build(**a_room(EVERY_MINUTE)).start()
    await harness.report("home/motion", "clear")
    since = harness.clock.now()
    await harness.advance(301)
    await harness.crash()
    await harness.advance(1000)
    await harness.start()
    assert await offs(harness) == 2
    await harness.advance(121)
    jobs = await harness.jobs("off")
    assert len(jobs) == 4
    for job in jobs[2:]:
        assert (job.created_at - since) % timedelta(minutes=1) <= timedelta(seconds=1)


@pytest.mark.parametrize("days", [1, -1])
@pytest.mark.parametrize("trigger", [FIVE_MINUTES, EVERY_MINUTE])
async def test_a_wall_clock_that_is_set_by_a_day_moves_no_hold_and_makes_no_storm(
    build: Build, days: int, trigger: dict[str, Any]
) -> None:
    harness = await build(**a_room(trigger)).start()
    await harness.report("home/motion", "clear")
    await harness.advance(100)
    harness.clock.step(days=days)
    before = harness.clock.timers
    await harness.advance(199)
    assert len(await harness.jobs("off")) == 0
    await harness.advance(31)
    assert len(await harness.jobs("off")) == 1
    harness.clock.step(days=-days)
    await harness.advance(170)
    assert len(await harness.jobs("off")) == (1 if trigger is FIVE_MINUTES else 4)
    assert harness.clock.timers - before < 60


async def test_holds_survive_a_reload_that_leaves_their_operation_as_it_was(build: Build) -> None:
    room = a_room()
    harness = await build(**room).start()
    await harness.report("home/motion", "clear")
    await harness.advance(200)
    harness.configure(**room | {"operations": {**room["operations"], "more": an_operation("light")}})
    await harness.reload()
    await harness.advance(101)
    assert await offs(harness) == 1


async def test_a_hold_goes_with_its_trigger(build: Build) -> None:
    room = a_room()
    harness = await build(**room).start()
    await harness.report("home/motion", "clear")
    await harness.advance(200)
    changed = {**room["operations"], "off": an_operation({"link": "lights"}, triggers=[{"states": ["gone"]}])}
    harness.configure(**room | {"operations": changed})
    await harness.reload()
    await harness.advance(300)
    assert await harness.jobs("off") == []
    assert (await harness.store.load()).trigger_states == []


async def test_a_hold_of_an_operation_that_is_deactivated_is_counted_and_does_not_run(build: Build) -> None:
    harness = await build(**a_room(active=False)).start()
    await harness.report("home/motion", "clear")
    await harness.advance(301)
    assert await offs(harness) == 0
    assert (await harness.counters())["skipped_by_reason"] == {"inactive": 1}


async def test_a_job_of_a_hold_tells_the_change_that_began_it(build: Build) -> None:
    harness = await build(**a_room()).start()
    await harness.report("home/motion", {"state": "occupied"})
    await harness.report("home/motion", {"state": "clear", "n": 7})
    since = harness.clock.now()
    await harness.advance(301)
    [job] = await harness.jobs("off")
    assert job.process_meta == {
        "triggerStates": ["clear"],
        "state": "clear",
        "previous_state": "occupied",
        "attribute": None,
        "topic": "home/motion",
        "received_at": since.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "reported_at": None,
        "reported_by": None,
    }


def a_door(**trigger: Any) -> dict[str, Any]:
    """Return a door that reports on its own topic, and a warning when it is open too long."""
    return {
        "objects": {"door": an_object()},
        "operations": {"warn": an_operation("door", triggers=[{"states": ["open", "ajar"], **trigger}])},
    }


@pytest.mark.parametrize("trigger", [{"duration": "5m"}, {"debounce": "5m"}])
async def test_a_job_of_a_hold_has_the_time_that_the_report_gave_also_over_a_kill(
    build: Build, trigger: dict[str, Any]
) -> None:
    harness = await build(**a_door(**trigger)).start()
    received = iso(harness.clock.now())
    await harness.report(DOOR_REPORTS, {"state": "open", "by": "ada", "timestamp": 1_772_366_400_007})
    await harness.advance(100)
    await harness.restart()
    await harness.advance(299)
    [job] = await harness.jobs("warn")
    assert job.process_meta is not None
    assert {name: job.process_meta[name] for name in ("state", "received_at", "reported_at", "reported_by")} == {
        "state": "open",
        "received_at": received,
        "reported_at": "2026-03-01T12:00:00.007Z",
        "reported_by": "ada",
    }


async def test_the_time_of_a_hold_is_of_the_same_report_as_its_state(build: Build) -> None:
    harness = await build(**a_door(duration="5m", periodicity="1m")).start()
    await harness.report(DOOR_REPORTS, {"state": "open", "timestamp": 1_772_366_400_007})
    await harness.advance(200)
    await harness.report(DOOR_REPORTS, {"state": "ajar", "timestamp": 1_772_366_600_008})
    ajar_at = iso(harness.clock.now())
    await harness.advance(101)
    await harness.report(DOOR_REPORTS, "open")
    open_at = iso(harness.clock.now())
    await harness.advance(60)
    metas = [job.process_meta for job in await harness.jobs("warn")]
    assert [(each["state"], each["reported_at"], each["received_at"]) for each in metas if each] == [
        ("ajar", "2026-03-01T12:03:20.008Z", ajar_at),
        ("open", None, open_at),
    ]


async def test_the_time_that_a_report_gives_moves_no_deadline(build: Build) -> None:
    harness = await build(**a_door(duration="5m")).start()
    for text, timestamp in (("shut", 0), ("open", 0), ("shut", 9_999_999_999_999), ("open", 9_999_999_999_999)):
        await harness.report(DOOR_REPORTS, {"state": text, "timestamp": timestamp})
    await harness.advance(299)
    assert await harness.jobs("warn") == []
    await harness.advance(2)
    [job] = await harness.jobs("warn")
    assert job.process_meta is not None
    assert job.process_meta["reported_at"] == "2286-11-20T17:46:39.999Z"
