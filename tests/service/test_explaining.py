"""Explain says why, simulate says what would be, and neither changes anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.harness import ServiceHarness, a_link, an_object, an_operation

Build = Callable[..., ServiceHarness]


def a_harness(**operation: Any) -> dict[str, Any]:
    return {
        "objects": {
            "hall": an_object("home/hall", attributes={"battery": {}}, state={"value": "state"}),
            "gate": an_object("home/gate"),
        },
        "operations": {"op": an_operation("hall", **operation)},
    }


async def explained(harness: ServiceHarness) -> dict[str, Any]:
    data: dict[str, Any] = await harness.data("operations/explain", id="op")
    return data


async def test_a_pending_hold_is_explained_with_its_deadline(build: Build) -> None:
    harness = await build(**a_harness(triggers=[{"states": ["clear"], "duration": "5m"}])).start()
    [trigger] = (await explained(harness))["triggers"]
    assert (trigger["satisfied"], trigger["until"], trigger["last_fired"]) == (False, None, None)
    assert trigger["told"] == "watches the state of hall, and runs when it becomes clear and stays so for 5m"
    await harness.report("home/hall", {"state": "clear"})
    began = harness.clock.now()
    [trigger] = (await explained(harness))["triggers"]
    assert trigger["watches"] == {
        "object": "hall",
        "attribute": None,
        "state": "clear",
        "since": began.isoformat(timespec="milliseconds")[:-6] + "Z",
    }
    assert (trigger["satisfied"], trigger["since"]) == (True, trigger["watches"]["since"])
    assert trigger["waiting_for"] == "that it stays clear"
    assert trigger["until"] == "2026-03-01T12:05:02.000Z"
    await harness.advance(301)
    [trigger] = (await explained(harness))["triggers"]
    assert trigger["last_fired"] == "2026-03-01T12:05:02.000Z"
    await harness.restart()
    assert (await explained(harness))["triggers"][0]["last_fired"] == "2026-03-01T12:05:02.000Z"


@pytest.mark.parametrize(
    ("trigger", "waiting"),
    [
        ({"silence": "1h"}, "that nothing is heard"),
        ({"at": "sunset", "offset": "-30m"}, "30m before the sun sets"),
        ({"attribute": "battery", "below": 20}, "that it falls below 20"),
        ({"from": "a", "not_states": ["b"]}, "that it becomes anything but b and was a before"),
        ({"states": ["on"], "throttle": "1m"}, "that it becomes on, at most once in 1m"),
        ({"debounce": "300ms"}, "that it changes, once it has been quiet for 300ms"),
        ({"above": 5, "below": 9.5, "periodicity": 60}, "that it comes between 5 and 9.5, and again every 1m"),
    ],
)
async def test_every_kind_of_trigger_is_reported_in_words(build: Build, trigger: dict[str, Any], waiting: str) -> None:
    config = a_harness(triggers=[trigger]) | {"service": {"latitude": 52.5, "longitude": 13.4}}
    harness = await build(**config).start()
    [reported] = (await explained(harness))["triggers"]
    assert reported["waiting_for"] == waiting
    assert (reported["until"] is not None) is ("at" in trigger or "silence" in trigger)


async def test_matches_that_did_not_run_are_reported_newest_first_and_twenty_at_most(build: Build) -> None:
    conditions = {"entity": "gate", "states": ["open"]}
    harness = await build(**a_harness(triggers=[{}], conditions=conditions)).start()
    for number in range(25):
        await harness.report("home/hall", {"state": str(number)})
    data = await explained(harness)
    assert data["conditions"] == {"satisfied": False, "told": "gate must be open, and is not known"}
    assert len(data["not_run"]) == 20
    assert data["not_run"][0] == {
        "timestamp": data["not_run"][0]["timestamp"],
        "object": "hall",
        "trigger": 0,
        "state": "24",
        "reason": "condition",
        "details": "gate must be open, and is not known",
    }


async def test_an_open_breaker_and_a_schedule_are_explained(build: Build) -> None:
    config = a_harness(
        triggers=[{}], schedule={"every": "10m"}, breaker={"firings": 1, "within": "10s", "pause": "60s"}
    )
    harness = await build(**config).start()
    for state in "ab":
        await harness.report("home/hall", {"state": state})
    data = await explained(harness)
    assert data["breaker"] == {"open_for": 60.0}
    assert data["schedule"]["told"] == "runs every 10m"
    assert data["schedule"]["next"] == "2026-03-01T12:10:00.000Z"


async def test_explain_asks_for_whom_where_there_are_several(build: Build) -> None:
    config = a_harness()
    config["operations"]["op"]["attach"] = [{"object": "hall"}, {"object": "gate"}]
    harness = await build(**config).start()
    assert (await harness.ask("operations/explain", id="op"))["code"] == 400
    assert (await harness.data("operations/explain", id="op", object="gate"))["object"] == "gate"
    assert (await harness.ask("operations/explain", id="nothing"))["code"] == 404


# -- simulate ---------------------------------------------------------------------------------------------------------


def motion_light() -> dict[str, Any]:
    return {
        "objects": {
            "motion": an_object(
                "z/motion", state={"value": "occupancy", "map": {"true": "occupied", "false": "clear"}}
            ),
            "light": {"properties": {"topic": "z/light/set"}},
        },
        "links": {"both": a_link("motion", "light")},
        "operations": {
            "on": an_operation(
                {"link": "both"}, topic="{{ target.properties.topic }}", message={"state": "ON"},
                trigger_states=["occupied"],
            ),
            "off": an_operation(
                {"link": "both"}, topic="{{ target.properties.topic }}", message={"state": "OFF"},
                triggers=[{"states": ["clear"], "duration": "5m"}],
            ),
        },
    }  # fmt: skip


async def test_simulate_plays_reports_messages_and_time_without_effects(build: Build) -> None:
    harness = await build(**motion_light()).start()
    before = harness.store._values.copy(), harness.store._trigger_states.copy(), len(harness.broker.published)
    data = await harness.data(
        "operations/simulate",
        reports=[
            "motion=occupied",
            {"after": "1m"},
            {"topic": "z/motion", "payload": {"occupancy": False}},
            {"after": 299},
            {"object": "motion", "state": "occupied"},
            {"object": "motion", "state": "clear", "after": 301},
        ],
    )
    runs = [(run["operation_id"], run["at"][11:19], run["rendered"]["message"]) for run in data["runs"]]
    assert runs == [
        ("on", "12:00:02", '{"state":"ON"}'),
        ("on", "12:06:01", '{"state":"ON"}'),
        ("off", "12:11:01", '{"state":"OFF"}'),
    ]
    assert data["runs"][0]["rendered"]["topic"] == "z/light/set"
    armed = data["steps"][2]["seen"][0]
    assert armed["result"] == "changed"
    assert armed["waiting"] == [{"operation_id": "off", "link": "both", "until": "2026-03-01T12:06:02.000Z"}]
    assert data["steps"][4]["seen"][0]["given_up"] == [{"operation_id": "off", "link": "both"}]
    assert (harness.store._values, harness.store._trigger_states) == before[:2]
    assert await harness.jobs() == []
    assert not harness.texts("z/light/set")


async def test_simulate_begins_with_what_is_stored(build: Build) -> None:
    harness = await build(**motion_light()).start()
    await harness.report("z/motion", {"occupancy": False})
    await harness.advance(100)
    data = await harness.data("operations/simulate", reports=[{"after": "199s"}, {"after": "2s"}])
    assert [run["operation_id"] for run in data["runs"]] == ["off"]
    await harness.advance(190)
    assert await harness.jobs("off") == []
    await harness.advance(20)
    assert len(await harness.jobs("off")) == 1


async def test_simulate_says_why_something_does_not_run_and_what_cannot_be_rendered(build: Build) -> None:
    harness = await build(
        **a_harness(triggers=[{}], message="{{ payload.missing }}", conditions={"entity": "gate", "states": ["open"]})
    ).start()
    reports = ["hall=a", "gate=open", "hall=b", {"topic": "home/hall", "payload": "{"}, {"topic": "nowhere"}]
    data = await harness.data("operations/simulate", reports=reports)
    assert [skipped_match["reason"] for skipped_match in data["not_run"]] == ["condition"]
    [run] = data["runs"]
    assert "payload.missing" in run["rendered"]["error"]
    assert (
        data["steps"][3]["seen"][0]["refused"][0].startswith("invalid_json") or data["steps"][3]["seen"][0]["refused"]
    )
    assert data["steps"][4]["seen"][0]["result"] == "unmatched"


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        (["hall"], "a report is written OBJECT=STATE"),
        (["nobody=on"], "there is no object or link 'nobody'"),
        (["hall.colour=red"], "has no attribute 'colour'"),
        ([{"after": "soon"}], "a duration is a number of seconds"),
        ([{"states": "on"}], "states"),
        ([{"object": "hall"}], "say with state what is reported"),
        ([{}], "give a report, a topic with its payload, or after"),
    ],
)
async def test_wrong_reports_are_reported_by_their_number(build: Build, reports: list[Any], message: str) -> None:
    harness = await build(**a_harness()).start()
    answer = await harness.ask("operations/simulate", reports=reports)
    assert answer["code"] == 400
    assert list(answer["invalid_fields"]) == ["reports"]
    assert message in answer["invalid_fields"]["reports"][0]


async def test_a_simulation_that_would_never_end_is_refused(build: Build) -> None:
    harness = await build(**a_harness(triggers=[{"periodicity": "1s"}])).start()
    answer = await harness.ask("operations/simulate", reports=["hall=on", {"after": "30d"}])
    assert answer["code"] == 400
    assert "more than 10000 runs" in answer["details"]


async def test_who_sees_less_is_shown_less(build: Build) -> None:
    key = "0123456789abcdef"
    users = {"ann": {"api_key": key, "permissions": ["operation:read"], "objects": ["gate"]}}
    config = a_harness(triggers=[{}]) | {"users": users}
    harness = await build(**config).start()
    data = await harness.data(
        "operations/simulate", api_key=key, reports=[{"topic": "home/hall", "payload": {"state": "on"}}]
    )
    assert (data["runs"], data["steps"][0]["seen"][0]["values"]) == ([], [])
    answer = await harness.ask("operations/simulate", api_key=key, reports=["hall=on"])
    assert answer["invalid_fields"]["reports"] == ["step 1: there is no object or link 'hall'"]
