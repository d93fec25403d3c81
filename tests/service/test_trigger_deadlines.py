"""Triggers in the service on time that is moved by hand: every key, every deadline through a kill (behaviour 2)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.service.harness import ServiceHarness, a_link, an_object, an_operation, statuses

Build = Callable[..., ServiceHarness]

BERLIN = {"latitude": 52.52, "longitude": 13.40, "time_zone": "Europe/Berlin"}


def one_trigger(service: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """Return a configuration with one operation, `op`, on the sensor; its trigger has the keys."""
    sensor = an_object(
        "home/sensor",
        state={"value": "state"},
        attributes={"battery": {}, "press": {"topic": "home/press", "event": True}},
        availability={"topic": "home/sensor/availability"},
    )
    return {
        "objects": {"sensor": sensor, "other": an_object("home/other")},
        "operations": {"op": an_operation("sensor", triggers=[keys])},
        "service": service or {},
    }


async def runs(harness: ServiceHarness) -> int:
    return len(await harness.jobs("op"))


async def test_from_and_not_from_ask_where_it_came_from(build: Build) -> None:
    harness = await build(**one_trigger(**{"from": ["a"], "states": ["b"]})).start()
    for state, count in (("b", 0), ("a", 0), ("b", 1), ("c", 1), ("b", 1)):
        await harness.report("home/sensor", {"state": state})
        assert await runs(harness) == count, state
    harness = await build(**one_trigger(not_from=["a"], not_states=["c"])).start()
    for state, count in (("b", 1), ("a", 2), ("b", 2), ("c", 2), ("a", 3)):
        await harness.report("home/sensor", {"state": state})
        assert await runs(harness) == count, state


async def test_a_threshold_fires_at_the_crossing_alone_also_over_a_restart(build: Build) -> None:
    harness = await build(**one_trigger(attribute="battery", below=20, hysteresis=5)).start()
    counts = []
    for number in (50, 19, 18, 22, 19, 26, 19.5):
        await harness.report("home/sensor", {"state": "on", "battery": number})
        counts.append(await runs(harness))
        await harness.restart()
    assert counts == [0, 1, 1, 1, 1, 1, 2]
    job = (await harness.jobs("op"))[-1]
    assert job.process_meta is not None
    assert job.process_meta["attribute"] == "battery"
    assert job.process_meta["triggerStates"] == ["19.5"]


async def test_another_entity_is_watched_and_the_operation_runs_for_its_own(build: Build) -> None:
    harness = await build(**one_trigger(entity="other", states=["on"])).start()
    await harness.report("home/sensor", {"state": "on"})
    assert await runs(harness) == 0
    await harness.report("home/other", "on")
    [job] = await harness.jobs("op")
    assert job.owner is not None
    assert job.owner.id == "sensor"
    assert harness.texts("out/sensor") == [job.id]
    assert job.process_meta is not None
    assert job.process_meta["topic"] == "home/other"


@pytest.mark.parametrize(("end", "topic"), [("source", "home/a"), ("target", "home/b")])
async def test_on_a_link_source_and_target_are_watched(build: Build, end: str, topic: str) -> None:
    harness = await build(
        objects={"a": an_object("home/a"), "b": an_object("home/b")},
        links={"ab": a_link("a", "b", state={"topic": "home/ab"})},
        operations={"op": an_operation({"link": "ab"}, triggers=[{"entity": end, "states": ["on"]}])},
    ).start()
    await harness.report("home/ab", "on")
    assert await runs(harness) == 0
    await harness.report(topic, "on")
    [job] = await harness.jobs("op")
    assert job.owner is not None
    assert job.owner.id == "ab"


async def test_an_operation_of_a_class_that_watches_another_entity_runs_for_every_member(build: Build) -> None:
    harness = await build(
        classes={"room": {"ids": ["r{1..3}"], "state": {"topic": "room/{{ id }}"}}},
        objects={"sun": an_object("home/sun")},
        operations={"op": an_operation({"class": "room"}, triggers=[{"entity": "sun", "states": ["down"]}])},
    ).start()
    await harness.report("home/sun", "down")
    assert sorted(job.owner.id for job in await harness.jobs("op") if job.owner) == ["r1", "r2", "r3"]


async def test_availability_is_a_value_and_goes_with_duration(build: Build) -> None:
    harness = await build(**one_trigger(availability="offline", duration="5m")).start()
    await harness.report("home/sensor/availability", "offline")
    await harness.advance(299)
    assert await runs(harness) == 0
    await harness.advance(2)
    [job] = await harness.jobs("op")
    assert job.process_meta is not None
    assert (job.process_meta["state"], job.process_meta["attribute"]) == ("offline", None)


async def test_a_disabled_trigger_does_nothing(build: Build) -> None:
    harness = await build(**one_trigger(enabled=False)).start()
    await harness.report("home/sensor", {"state": "on"})
    assert await runs(harness) == 0


async def test_the_same_button_pressed_in_quick_succession_is_one_job_with_debounce(build: Build) -> None:
    harness = await build(**one_trigger(attribute="press", debounce="2s")).start()
    for _ in range(3):
        await harness.report("home/press", "single")
        await harness.advance(1)
    assert await runs(harness) == 0
    await harness.advance(1.1)
    assert await runs(harness) == 1
    await harness.advance(60)
    assert await runs(harness) == 1


async def test_throttle_runs_at_most_once_per_its_length_and_counts_the_rest(build: Build) -> None:
    harness = await build(**one_trigger(attribute="press", throttle="1m")).start()
    for _ in range(5):
        await harness.report("home/press", "single")
        await harness.advance(10)
        await harness.restart()
    assert await runs(harness) == 1
    await harness.advance(60)
    await harness.report("home/press", "single")
    assert await runs(harness) == 2
    await harness.report("home/press", "single")
    counters = (await harness.data("service/health"))["counters"]
    assert counters["skipped_by_reason"] == {"throttled": 1}
    assert counters["fired"] == counters["jobs"] + counters["skipped"] == 2


# -- deadlines through kills ------------------------------------------------------------------------------------------

HOLDS: dict[str, dict[str, Any]] = {
    "duration": {"states": ["on"], "duration": "60s"},
    "debounce": {"states": ["on"], "debounce": "60s"},
    "threshold": {"attribute": "battery", "below": 20, "duration": "60s"},
    "availability": {"availability": "offline", "duration": "60s"},
    "another entity": {"entity": "other", "states": ["on"], "duration": "60s"},
    "periodicity": {"states": ["on"], "duration": "60s", "periodicity": "1h"},
    "from": {"from": ["off"], "duration": "60s"},
    "silence": {"silence": "60s"},
}


async def arm(harness: ServiceHarness, *, keep: bool = False) -> None:
    """Report what arms each of HOLDS."""
    for topic, before, after in (
        ("home/sensor", {"state": "off", "battery": 50}, {"state": "on", "battery": 10}),
        ("home/sensor/availability", "online", "offline"),
        ("home/other", "off", "on"),
    ):
        await harness.report(topic, before)
        await harness.report(topic, after, retain=keep)


@pytest.mark.parametrize("key", HOLDS)
async def test_armed_then_killed_it_fires_at_its_time(build: Build, key: str) -> None:
    harness = await build(**one_trigger(**HOLDS[key])).start()
    await arm(harness)
    await harness.advance(20)
    assert await runs(harness) == 0
    await harness.restart()
    if key == "silence":
        await harness.advance(57.5)  # silence counts from our connection, which is two seconds old by now
        assert await runs(harness) == 0
        await harness.advance(1)
    else:
        await harness.advance(37)
        assert await runs(harness) == 0
        await harness.advance(2)
    assert await runs(harness) == 1


@pytest.mark.parametrize("key", HOLDS)
async def test_due_while_the_service_was_down_it_fires_once_and_not_before_things_are_quiet(
    build: Build, key: str
) -> None:
    harness = await build(**one_trigger(**HOLDS[key])).start()
    await arm(harness)
    await harness.advance(20)
    await harness.crash()
    await harness.advance(300)
    await harness.start(quiet=False)
    assert await runs(harness) == 0
    await harness.advance(0.9)
    assert await runs(harness) == 0
    await harness.advance(60 if key == "silence" else 0.2)
    assert await runs(harness) == 1
    await harness.advance(600)
    assert await runs(harness) == 1


@pytest.mark.parametrize("moment", ["before record", "after record", "after publish"])
@pytest.mark.parametrize("key", HOLDS)
async def test_killed_in_the_moment_of_firing_it_has_fired_exactly_once(build: Build, key: str, moment: str) -> None:
    harness = await build(**one_trigger(**HOLDS[key])).start()
    await arm(harness)
    await harness.advance(59.5)
    harness.die_at(moment)
    await harness.advance(1)
    assert not harness.running
    await harness.start()
    await harness.advance(61)
    assert await runs(harness) == 1
    assert len(set(harness.texts("out/sensor"))) == 1
    await harness.restart()
    await harness.advance(600)
    assert await runs(harness) == 1


@pytest.mark.parametrize("key", [each for each in HOLDS if each != "silence"])
async def test_what_came_to_an_end_while_the_service_was_down_does_not_fire(build: Build, key: str) -> None:
    """A light is not switched off on a person who came in while the broker was away."""
    harness = await build(**one_trigger(**HOLDS[key])).start()
    await arm(harness, keep=True)
    await harness.crash()
    await harness.advance(300)
    harness.send("home/sensor", {"state": "off", "battery": 50}, retain=True)
    harness.send("home/sensor/availability", "online", retain=True)
    harness.send("home/other", "off", retain=True)
    await harness.start()
    await harness.advance(600)
    assert await runs(harness) == 0


async def test_repeats_go_on_over_kills_on_their_grid(build: Build) -> None:
    harness = await build(**one_trigger(states=["on"], periodicity="60s")).start()
    await harness.report("home/sensor", {"state": "on"})
    began = harness.clock.now()
    for _ in range(7):
        await harness.advance(25)
        await harness.restart()
    fired = sorted(round((job.created_at - began).total_seconds()) for job in await harness.jobs("op"))
    assert fired[0] == 0
    assert all(0 <= at % 60 <= 2 for at in fired)
    assert len(fired) == 1 + int((harness.clock.now() - began).total_seconds() // 60)


@pytest.mark.parametrize(("how", "after"), [("resume", 40), ("restart", 60), ("drop", None)])
async def test_on_restart(build: Build, how: str, after: float | None) -> None:
    harness = await build(**one_trigger(states=["on"], duration="60s", on_restart=how)).start()
    await harness.report("home/sensor", {"state": "on"})
    await harness.advance(20)
    await harness.crash()
    await harness.start(quiet=False)
    await harness.advance((after or 60) - 1)
    assert await runs(harness) == 0
    await harness.advance(2)
    assert await runs(harness) == (0 if after is None else 1)
    await harness.report("home/sensor", {"state": "off"})
    await harness.report("home/sensor", {"state": "on"})
    await harness.advance(61)
    assert await runs(harness) == (1 if after is None else 2)


async def test_a_lost_connection_is_no_restart(build: Build) -> None:
    harness = await build(**one_trigger(states=["on"], duration="60s", on_restart="drop")).start()
    await harness.report("home/sensor", {"state": "on"})
    await harness.advance(20)
    await harness.disconnect()
    await harness.advance(41)
    assert await runs(harness) == 1


async def test_a_hold_that_lasted_long_enough_is_not_undone_by_what_comes_in_the_same_moment(build: Build) -> None:
    harness = await build(**one_trigger(states=["on"], duration="60s")).start()
    await harness.report("home/sensor", {"state": "on"})
    harness.clock._ns += 60_050_000_000
    harness.send("home/sensor", {"state": "off"})
    await harness.settle()
    assert await runs(harness) == 1


@pytest.mark.parametrize("days", [1, -1])
@pytest.mark.parametrize("key", ["duration", "silence", "debounce"])
async def test_a_wall_clock_that_is_set_while_running_moves_no_deadline(build: Build, key: str, days: int) -> None:
    harness = await build(**one_trigger(**HOLDS[key])).start()
    await arm(harness)
    await harness.advance(20)
    harness.clock.step(days=days)
    await harness.advance(38)
    assert await runs(harness) == 0
    await harness.advance(3)
    assert await runs(harness) == 1
    await harness.advance(300)
    assert await runs(harness) == 1


async def test_a_hold_armed_right_after_the_wall_clock_was_set_keeps_its_time_too(build: Build) -> None:
    harness = await build(**one_trigger(states=["on"], duration="60s")).start()
    await harness.report("home/sensor", {"state": "off"})
    harness.clock.step(days=1)
    await harness.report("home/sensor", {"state": "on"})
    await harness.advance(59)
    assert await runs(harness) == 0
    await harness.advance(2)
    assert await runs(harness) == 1


# -- silence ----------------------------------------------------------------------------------------------------------


async def test_silence_counts_from_the_last_live_report_also_one_that_changes_nothing(build: Build) -> None:
    harness = await build(**one_trigger(silence="60s")).start()
    for _ in range(5):
        await harness.report("home/sensor", {"state": "on"})
        await harness.advance(50)
    assert await runs(harness) == 0
    await harness.advance(11)
    [job] = await harness.jobs("op")
    assert job.process_meta is None
    await harness.advance(600)
    assert await runs(harness) == 1
    await harness.report("home/sensor", {"state": "on"})
    await harness.advance(61)
    assert await runs(harness) == 2


async def test_an_entity_that_never_reported_is_silent_from_our_connection_on(build: Build) -> None:
    harness = await build(**one_trigger(silence="60s")).start(quiet=False)
    await harness.advance(59)
    assert await runs(harness) == 0
    await harness.advance(2)
    assert await runs(harness) == 1


async def test_what_others_say_about_it_and_what_is_retained_breaks_no_silence(build: Build) -> None:
    harness = build(**one_trigger(silence="60s"))
    harness.send("home/sensor", {"state": "on"}, retain=True)
    await harness.start(quiet=False)
    await harness.advance(50)
    await harness.report("home/sensor/availability", "online")
    await harness.report("home/other", "on")
    await harness.advance(11)
    assert await runs(harness) == 1


async def test_while_the_broker_is_away_nothing_is_silent(build: Build) -> None:
    harness = await build(**one_trigger(silence="60s")).start()
    await harness.report("home/sensor", {"state": "on"})
    harness.jitter = 1.0
    await harness.advance(40)
    await harness.disconnect()
    await harness.advance(50)
    assert harness.connected
    assert await runs(harness) == 0


async def test_a_silence_with_periodicity_reminds_while_it_lasts(build: Build) -> None:
    harness = await build(**one_trigger(silence="60s", periodicity="30s")).start()
    await harness.report("home/sensor", {"state": "on"})
    await harness.advance(125)
    assert await runs(harness) == 3
    await harness.restart()
    await harness.advance(30)
    assert await runs(harness) == 4


# -- moments ----------------------------------------------------------------------------------------------------------


async def test_at_start_runs_once_for_each_start_and_not_for_a_reconnection(build: Build) -> None:
    harness = await build(**one_trigger(at="start")).start()
    assert [job.process_meta for job in await harness.jobs("op")] == [None]
    await harness.disconnect()
    await harness.advance(60)
    assert await runs(harness) == 1
    await harness.restart()
    assert await runs(harness) == 2


async def test_at_start_waits_until_the_service_is_ready(build: Build) -> None:
    harness = build(**one_trigger(at="start"))
    harness.broker.down()
    await harness.start()
    await harness.advance(120)
    assert await runs(harness) == 0
    harness.broker.up()
    await harness.advance(40)
    assert await runs(harness) == 1


async def test_an_operation_that_is_attached_to_nothing_goes_by_the_clock_too(build: Build) -> None:
    guard = {"entity": "gate", "states": ["open"]}
    harness = await build(
        objects={"gate": an_object("home/gate")},
        operations={
            "start": an_operation(topic="out/start", triggers=[{"at": "start"}]),
            "never": an_operation(topic="out/never", triggers=[{"at": "start", "conditions": guard}]),
            "sunset": an_operation(topic="out/sunset", triggers=[{"at": "sunset"}]),
        },
        service=BERLIN,
    ).start()
    await harness.advance(24 * 3600)
    assert {job.operation_id: job.owner for job in await harness.jobs()} == {"start": None, "sunset": None}
    assert (await harness.counters())["skipped_by_reason"] == {"condition": 1}


def berlin_sunset(month: int, day: int) -> datetime:
    return {(3, 1): datetime(2026, 3, 1, 16, 44, tzinfo=UTC), (3, 2): datetime(2026, 3, 2, 16, 46, tzinfo=UTC)}[
        (month, day)
    ]


@pytest.mark.parametrize(("offset", "minutes"), [(None, 0), ("-30m", -30), ("1h", 60)])
async def test_at_sunset_with_an_offset(build: Build, offset: str | None, minutes: int) -> None:
    keys = {"at": "sunset"} | ({} if offset is None else {"offset": offset})
    harness = await build(**one_trigger(BERLIN, **keys)).start()  # it is noon, UTC
    await harness.advance(24 * 3600)
    [job] = await harness.jobs("op")
    assert job.process_meta is None
    late = (job.created_at - berlin_sunset(3, 1)).total_seconds() / 60 - minutes
    assert abs(late) < 4


async def test_a_sunset_that_was_missed_runs_once_on_start_and_not_again(build: Build) -> None:
    harness = await build(**one_trigger(BERLIN, at="sunset")).start()
    await harness.crash()
    await harness.advance(5 * 24 * 3600)
    await harness.start()
    assert await runs(harness) == 1
    await harness.restart()
    assert await runs(harness) == 1
    await harness.advance(24 * 3600)
    assert await runs(harness) == 2


async def test_a_sunset_that_was_missed_does_not_run_without_catch_up(build: Build) -> None:
    config = one_trigger(BERLIN, at="sunset")
    config["operations"]["op"]["catch_up"] = False
    harness = await build(**config).start()
    await harness.crash()
    await harness.advance(5 * 24 * 3600)
    await harness.start()
    assert await runs(harness) == 0
    await harness.advance(24 * 3600)
    assert await runs(harness) == 1


async def test_killed_in_the_moment_of_a_sunset_it_has_run_once(build: Build) -> None:
    for moment in ("before record", "after record"):
        harness = await build(**one_trigger(BERLIN, at="sunset")).start()
        at_noon = harness.clock.now().replace(hour=12, minute=0)
        await harness.advance(2 * 3600)
        harness.die_at(moment, times=2 if moment == "before record" else 1)
        await harness.advance(6 * 3600)
        if not harness.running:
            await harness.start()
        await harness.advance(60)
        assert [job.created_at.date() for job in await harness.jobs("op")] == [at_noon.date()], moment
        await harness.crash()
        await harness.advance(16 * 3600)


# -- what is counted and kept ------------------------------------------------------------------------------------------


async def test_holds_of_an_operation_that_is_gone_do_not_come_back_with_it(build: Build) -> None:
    config = one_trigger(states=["on"], duration="60s")
    harness = await build(**config).start()
    await harness.report("home/sensor", {"state": "on"})
    await harness.crash()
    harness.configure(**{**config, "operations": {}})
    await harness.start()
    await harness.report("home/sensor", {"state": "off"})
    await harness.crash()
    harness.configure(**config)
    await harness.start()
    await harness.advance(600)
    assert await runs(harness) == 0


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"event_driven": False}, "event_driven"),
        ({"active": False}, "inactive"),
        ({"conditions": {"entity": "other", "states": ["on"]}}, "condition"),
        ({"mode": "single", "type": "work"}, "mode"),
        ({"breaker": {"firings": 1, "within": "10s", "pause": "60s"}}, "breaker"),
    ],
)
async def test_a_match_that_does_not_run_is_counted_by_reason_and_kept_if_that_is_wanted(
    build: Build, keys: dict[str, Any], reason: str
) -> None:
    for record in (False, True):
        config = one_trigger()
        operation = config["operations"]["op"] | keys | {"record_skipped": record}
        if operation["type"] == "work":
            operation = {key: value for key, value in operation.items() if key not in ("topic", "message")}
        harness = await build(**config | {"operations": {"op": operation}}).start()
        skipped = (await harness.data("service/health"))["counters"]["skipped"]
        assert skipped == 0
        await harness.report("home/sensor", {"state": "one"})
        await harness.report("home/sensor", {"state": "two"})
        counters = (await harness.data("service/health"))["counters"]
        assert set(counters["skipped_by_reason"]) == {reason}
        assert counters["fired"] == counters["jobs"] + counters["skipped"] == 2
        kept = statuses(await harness.jobs("op")).get("skipped", 0)
        assert kept == (counters["skipped"] if record else 0)
        if record:
            [job] = [each for each in await harness.jobs("op") if each.status.value == "skipped"][:1]
            assert job.timeline[-1].message.startswith(f"Job skipped: {reason}")
            assert job.process_meta is not None
        await harness.crash()
