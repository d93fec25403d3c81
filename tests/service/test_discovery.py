"""Classes with `ids: any`: members appear as they report, survive restarts, and have everything others have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.harness import ServiceHarness, an_object, an_operation

Build = Callable[..., ServiceHarness]


def plant(**more: Any) -> dict[str, Any]:
    return {
        "classes": {
            "belt": {
                "ids": "any",
                "name": "Belt {{ id }}",
                "properties": {"hall": "2"},
                "state": {"topic": "plant/{{ id }}/belt", "value": "speed"},
                "attributes": {"motor": {"topic": "plant/{{ id }}/motor"}},
            }
        },
        "operations": {
            "op": an_operation({"class": "belt"}, topic="out/{{ id }}", message="{{ name }}", triggers=[{}])
        },
        **more,
    }


async def ids(harness: ServiceHarness) -> list[str]:
    return [each["id"] for each in (await harness.data("objects/list", limit=100))["items"]]


async def test_a_member_appears_with_its_first_report_and_its_triggers_run(build: Build) -> None:
    harness = await build(**plant()).start()
    assert await ids(harness) == []
    await harness.report("plant/line_7/belt", {"speed": 3})
    assert await ids(harness) == ["line_7"]
    assert harness.texts("out/line_7") == ["Belt line_7"]
    await harness.report("plant/line_7/motor", "hot")
    [line] = (await harness.data("objects/list"))["items"]
    assert (line["class"], line["properties"], line["attributes"]) == ("belt", {"hall": "2"}, {"motor": "hot"})
    assert (await harness.counters())["unmatched"] == 0


async def test_members_and_their_values_and_holds_survive_a_kill(build: Build) -> None:
    config = plant()
    config["operations"]["op"] = an_operation(
        {"class": "belt"}, topic="out/{{ id }}", triggers=[{"states": ["0"], "duration": "60s"}]
    )
    harness = await build(**config).start()
    for line in ("a", "b"):
        await harness.report(f"plant/{line}/belt", {"speed": 0})
    await harness.advance(20)
    await harness.restart()
    assert await ids(harness) == ["a", "b"]
    assert (await harness.data("objects/get", id="a"))["state"] == "0"
    await harness.advance(41)
    assert [len(harness.texts(f"out/{line}")) for line in ("a", "b")] == [1, 1]


@pytest.mark.parametrize("moment", ["before record", "after record"])
async def test_killed_while_a_member_appears_it_is_there_once(build: Build, moment: str) -> None:
    harness = await build(**plant()).start()
    harness.die_at(moment)
    await harness.report("plant/a/belt", {"speed": 1})
    await harness.start()
    assert await ids(harness) == ["a"]
    assert len(harness.texts("out/a")) == 1


async def test_a_member_that_could_not_be_stored_is_stored_when_the_store_is_back(build: Build) -> None:
    harness = await build(**plant()).start()
    harness.store.broken = True
    await harness.report("plant/a/belt", {"speed": 1})
    harness.store.broken = False
    await harness.advance(5)
    await harness.restart()
    assert await ids(harness) == ["a"]
    assert len(harness.texts("out/a")) == 1


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("plant/a/belt", ""),
        ("plant/a/belt", "{"),
        ("plant/a/belt", {"weight": 3}),
        ("plant/a/belt", {"speed": "unavailable"}),
        ("plant/a b/belt", {"speed": 3}),
        ("plant/ä/belt", {"speed": 3}),
        (f"plant/{'x' * 65}/belt", {"speed": 3}),
        ("plant//belt", {"speed": 3}),
    ],
)
async def test_what_says_nothing_makes_no_member(build: Build, topic: str, payload: Any) -> None:
    harness = await build(**plant()).start()
    await harness.report(topic, payload)
    assert await ids(harness) == []
    await harness.counters()


async def test_there_are_as_many_as_are_allowed_and_the_rest_is_reported(build: Build) -> None:
    harness = await build(**plant(service={"max_objects": 3}, objects={"one": an_object("one")})).start()
    for line in "abcd":
        await harness.report(f"plant/{line}/belt", {"speed": 1})
    assert await ids(harness) == ["one", "a", "b"]
    assert [each["reason"] for each in harness.documents("mqttjobs/event/rejected")] == ["too_many_objects"] * 2
    await harness.restart()
    assert await ids(harness) == ["one", "a", "b"]


async def test_a_retained_report_brings_a_member_too_without_firing(build: Build) -> None:
    harness = build(**plant())
    harness.send("plant/a/belt", {"speed": 1}, retain=True)
    await harness.start()
    assert await ids(harness) == ["a"]
    assert await harness.jobs() == []


async def test_the_services_own_topics_make_no_members(build: Build) -> None:
    config = plant()
    config["classes"]["belt"]["state"] = {"topic": "{{ id }}/info"}
    config["classes"]["belt"]["attributes"] = {}
    harness = await build(**config).start()
    assert await ids(harness) == []
    await harness.report("shop/info", "open")
    assert await ids(harness) == ["shop"]


async def test_a_class_without_topics_takes_reports_under_the_services_own(build: Build) -> None:
    harness = await build(classes={"thing": {"ids": "any"}}).start()
    await harness.report("mqttjobs/state/objects/cup", "full")
    await harness.report("mqttjobs/state/links/cup", "full")
    assert await ids(harness) == ["cup"]


async def test_the_silence_of_a_member_that_appeared_is_noticed(build: Build) -> None:
    config = plant()
    config["operations"]["op"]["triggers"] = [{"silence": "60s"}]
    harness = await build(**config).start()
    await harness.report("plant/a/belt", {"speed": 1})
    await harness.advance(59)
    assert await harness.jobs() == []
    await harness.advance(2)
    assert len(await harness.jobs()) == 1


async def test_members_stay_over_a_reload_and_take_the_classs_new_shape(build: Build) -> None:
    users = {"anonymous": {"permissions": ["admin"]}}
    harness = await build(**plant(users=users)).start()
    await harness.report("plant/a/belt", {"speed": 1})
    changed = plant(users=users)
    changed["classes"]["belt"]["properties"] = {"hall": "3"}
    harness.configure(**changed)
    reported = await harness.data("config/reload")
    assert (reported["added"]["objects"], reported["removed"]["objects"], reported["changed"]["objects"]) == (
        [],
        [],
        ["a"],
    )
    assert (await harness.data("objects/get", id="a"))["properties"] == {"hall": "3"}
    harness.configure(**{**changed, "classes": {}, "operations": {}})
    reported = await harness.data("config/reload")
    assert reported["removed"]["objects"] == ["a"]
    harness.configure(**changed)
    await harness.data("config/reload")
    assert await ids(harness) == ["a"]
