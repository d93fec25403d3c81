"""times and within in the service: counted over kills, reloads and clocks that are set, explained and simulated."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mqttjobs.errors import ConfigError
from tests.service.harness import ServiceHarness, a_link, an_object, an_operation, settings_of

Build = Callable[..., ServiceHarness]


def a_button(operation: dict[str, Any] | None = None, **trigger: Any) -> dict[str, Any]:
    """Return a button whose every report is an event, and an operation on it: three times within ten seconds."""
    button = an_object(
        "home/button",
        state={"value": "action", "event": True},
        attributes={"battery": {}, "held": {"event": True}},
        availability={"topic": "home/button/availability"},
    )
    keys = {"times": 3, "within": "10s", **trigger}
    return {
        "objects": {"button": button, "lamp": an_object("home/lamp")},
        "operations": {"op": an_operation("button", triggers=[keys], **(operation or {}))},
    }


async def press(harness: ServiceHarness, action: str = "single", seconds: float = 1) -> int:
    """Press the button, a moment after the last time; return how many jobs there are."""
    await harness.advance(seconds)
    await harness.report("home/button", {"action": action})
    return len(await harness.jobs())


async def test_a_button_that_is_pressed_three_times_starts_one_job(build: Build) -> None:
    harness = await build(**a_button(states=["single"])).start()
    assert [await press(harness) for _ in range(7)] == [0, 0, 1, 1, 1, 2, 2]
    job = (await harness.jobs())[0]
    assert job.process_meta is not None
    assert (job.process_meta["triggerStates"], job.process_meta["state"]) == (["single"], "single")


async def test_presses_that_are_too_far_apart_start_nothing(build: Build) -> None:
    harness = await build(**a_button()).start()
    assert [await press(harness, seconds=5.5) for _ in range(6)] == [0] * 6
    assert await press(harness, seconds=4.5) == 1


async def test_other_states_in_between_are_not_counted(build: Build) -> None:
    harness = await build(**a_button(states=["single"])).start()
    actions = ["single", "double", "single", "hold", "single"]
    assert [await press(harness, action) for action in actions] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("trigger", "topic", "payloads"),
    [
        ({"from": ["off"]}, "home/lamp", ["off", "on", "off", "on", "off", "on"]),
        ({"not_from": ["off"]}, "home/lamp", ["on", "off", "on", "off"]),
        ({"above": 5, "hysteresis": 2}, "home/lamp", [6, 5, 6, 1, 6, 3, 6]),
        ({"below": 5}, "home/lamp", [4, 3, 6, 4, "?", 4, 6, 4]),
        ({"attribute": "colour", "states": ["red"]}, "home/lamp/colour", ["red", "blue", "red", "blue", "red"]),
        ({"availability": "offline"}, "home/lamp/there", ["offline", "online", "offline", "online", "offline"]),
    ],
)
async def test_it_goes_with_every_key_that_fires_at_a_change(
    build: Build, trigger: dict[str, Any], topic: str, payloads: list[Any]
) -> None:
    lamp = an_object("home/lamp", attributes={"colour": {"topic": "home/lamp/colour"}}, availability="home/lamp/there")
    triggers = [trigger | {"times": 3, "within": "1m"}]
    harness = await build(objects={"lamp": lamp}, operations={"op": an_operation("lamp", triggers=triggers)}).start()
    for payload in payloads[:-1]:
        await harness.report(topic, str(payload))
        assert await harness.jobs() == []
    await harness.restart()
    await harness.report(topic, str(payloads[-1]))
    assert len(await harness.jobs()) == 1


async def test_it_counts_for_each_owner_what_another_entity_does(build: Build) -> None:
    harness = await build(
        classes={"room": {"ids": ["r{1..2}"], "state": {"topic": "room/{{ id }}"}}},
        objects={"a": an_object("home/a"), "b": an_object("home/b")},
        links={"ab": a_link("a", "b")},
        operations={
            "rooms": an_operation({"class": "room"}, triggers=[{"entity": "a", "times": 2, "within": "10s"}]),
            "link": an_operation({"link": "ab"}, triggers=[{"entity": "target", "times": 2, "within": "10s"}]),
        },
    ).start()
    for topic, state in (("home/a", "on"), ("home/b", "on"), ("room/r1", "warm"), ("home/a", "off")):
        await harness.report(topic, state)
    assert sorted(job.owner.id for job in await harness.jobs() if job.owner) == ["r1", "r2"]
    await harness.report("home/b", "off")
    assert [job.owner.id for job in await harness.jobs("link") if job.owner] == ["ab"]


async def test_conditions_and_throttle_are_asked_when_it_fires(build: Build) -> None:
    conditions = {"entity": "lamp", "states": ["on"]}
    harness = await build(**a_button(conditions=conditions, throttle="20s")).start()
    assert [await press(harness) for _ in range(3)] == [0, 0, 0]
    await harness.report("home/lamp", "on")
    assert [await press(harness) for _ in range(6)] == [0, 0, 1, 1, 1, 1]
    assert (await harness.counters())["skipped_by_reason"] == {"condition": 1, "throttled": 1}


async def test_a_retained_first_report_is_not_counted(build: Build) -> None:
    harness = build(
        objects={"lamp": an_object("home/lamp")},
        operations={"op": an_operation("lamp", triggers=[{"times": 2, "within": "1h"}])},
    )
    harness.send("home/lamp", "on", retain=True)
    await harness.start()
    await harness.report("home/lamp", "off")
    assert len(await harness.jobs()) == 0
    await harness.report("home/lamp", "on")
    assert len(await harness.jobs()) == 1


async def test_reports_of_one_moment_count_each_and_a_redelivery_does_not(build: Build) -> None:
    harness = await build(**a_button()).start()
    for _ in range(3):
        harness.send("home/button", {"action": "single"})
    await harness.settle()
    assert len(await harness.jobs()) == 1
    harness.send("home/button", {"action": "single"})
    harness.die_at("before acknowledge")
    await harness.settle()
    assert not harness.running
    await harness.start()
    assert await press(harness) == 1
    assert await press(harness) == 2


@pytest.mark.parametrize("moment", ["before record", "after record", "before acknowledge", "after acknowledge"])
@pytest.mark.parametrize("fatal", [2, 3])
async def test_killed_between_the_second_time_and_the_third_it_goes_on_counting(
    build: Build, moment: str, fatal: int
) -> None:
    """The press in whose middle the service dies comes again, or was recorded; it is one press."""
    harness = await build(**a_button()).start()
    for number in range(1, 7):
        if number == fatal:
            harness.die_at(moment)
        await harness.report("home/button", {"action": "single"})
        if number == fatal:
            assert not harness.running
            await harness.start()
        await harness.advance(1)
        assert len(await harness.jobs()) == number // 3
    assert len(harness.texts("out/button")) == 2


async def test_a_day_without_the_service_is_longer_than_the_window(build: Build) -> None:
    harness = await build(**a_button()).start()
    await press(harness)
    await press(harness)
    await harness.crash()
    await harness.advance(86_400)
    await harness.start()
    assert [await press(harness) for _ in range(3)] == [0, 0, 1]


@pytest.mark.parametrize(("how", "after"), [("resume", [1]), ("restart", [0, 0, 1]), ("drop", [0, 0, 1])])
async def test_on_restart_says_whether_the_count_goes_on(build: Build, how: str, after: list[int]) -> None:
    harness = await build(**a_button(on_restart=how)).start()
    await press(harness)
    await press(harness)
    await harness.restart()
    assert [await press(harness, seconds=0.1) for _ in after] == after


async def test_a_reload_keeps_the_count_of_an_operation_that_is_as_it_was(build: Build) -> None:
    config = a_button()
    harness = await build(**config).start()
    await press(harness)
    await press(harness)
    harness.configure(**config, links={"new": a_link("button", "lamp")})
    await harness.reload()
    assert await press(harness) == 1
    await press(harness)
    await press(harness)
    harness.configure(**a_button(states=["single"]))
    await harness.reload()
    assert await press(harness) == 1, "it is another operation now, and has counted nothing"


@pytest.mark.parametrize("days", [-1, 1])
async def test_a_wall_clock_that_is_set_changes_nothing(build: Build, days: int) -> None:
    harness = await build(**a_button()).start()
    await press(harness)
    await press(harness, seconds=4)
    harness.clock.step(days=days)
    assert await press(harness, seconds=7) == 0, "the first one is eleven seconds ago"
    assert await press(harness, seconds=2) == 1


async def test_explain_says_how_far_it_is(build: Build) -> None:
    harness = await build(**a_button(states=["single"])).start()

    async def explained() -> dict[str, Any]:
        [trigger] = (await harness.data("operations/explain", id="op"))["triggers"]
        return {name: trigger[name] for name in ("told", "waiting_for", "until")}

    told = "watches the state of button, and runs when it becomes single, 3 times within 10s"
    nothing = {"told": told, "waiting_for": "that it becomes single, 3 times within 10s", "until": None}
    assert await explained() == nothing
    await press(harness)
    await press(harness)
    assert await explained() == {
        "told": told,
        "waiting_for": "2 of 3 within 10s, 1 more to come",
        "until": "2026-03-01T12:00:13.000Z",
    }
    await harness.advance(9.5)
    assert (await explained())["waiting_for"] == "1 of 3 within 10s, 2 more to come"
    await harness.advance(1)
    assert await explained() == nothing


async def test_a_simulation_says_what_is_counted_and_what_would_run(build: Build) -> None:
    harness = await build(**a_button(states=["single"])).start()
    await press(harness)
    pressed = {"object": "button", "state": "single"}
    steps = (await harness.data("operations/simulate", reports=[pressed, {"after": "2s"}, pressed]))["steps"]
    [first], [last] = steps[0]["seen"], steps[2]["seen"]
    assert first["waiting"] == [
        {
            "operation_id": "op",
            "object": "button",
            "waiting_for": "2 of 3 within 10s, 1 more to come",
            "until": "2026-03-01T12:00:13.000Z",
        }
    ]
    assert (first["runs"], [run["operation_id"] for run in last["runs"]]) == ([], ["op"])
    assert (last["waiting"], last["given_up"]) == ([], [])
    assert await press(harness) == 0, "the service counted one"


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        ({"within": None}, "times needs within: say in what time"),
        ({"times": None}, "within needs times: say how often"),
        ({"times": 1}, "times: must be at least 2"),
        ({"times": 101}, "times: must be at most 100"),
        ({"times": 2.5}, "times: must be a whole number"),
        ({"within": 0}, "within: must be more than nothing"),
        ({"within": "soon"}, "within: a duration is a number of seconds"),
        ({"attribute": "battery", "duration": "5s"}, "they come: duration cannot stand beside it"),
        ({"attribute": "battery", "for": "5s"}, "they come: duration cannot stand beside it"),
        ({"attribute": "battery", "periodicity": "5s"}, "they come: periodicity cannot stand beside it"),
        ({"debounce": "5s"}, "times counts changes at the moment they come: debounce cannot stand beside it"),
        ({"silence": "5s"}, "times is about state changes and cannot stand beside silence; use conditions"),
        ({"at": "sunset"}, "times is about state changes and cannot stand beside at; use conditions"),
        ({"tims": 3}, "tims: unknown key; did you mean 'times'?"),
    ],
)
def test_check_says_what_is_wrong(trigger: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings_of(a_button(**trigger))
    [problem] = error.value.problems
    assert message in problem.message, json.dumps(trigger)


@pytest.mark.parametrize("trigger", [{}, {"attribute": "held", "throttle": "5s"}, {"times": 100, "within": "30d"}])
def test_check_takes_what_is_good(trigger: dict[str, Any]) -> None:
    assert settings_of(a_button(**trigger)).installation.operations["op"].triggers
