"""Classes with `ids: any`: members appear as they report, survive restarts, and have everything others have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from house import House, an_object, an_operation

Build = Callable[..., House]


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


async def ids(house: House) -> list[str]:
    return [each["id"] for each in (await house.data("objects/list", limit=100))["items"]]


async def test_a_member_appears_with_its_first_report_and_its_triggers_run(build: Build) -> None:
    house = await build(**plant()).start()
    assert await ids(house) == []
    await house.report("plant/line_7/belt", {"speed": 3})
    assert await ids(house) == ["line_7"]
    assert house.texts("out/line_7") == ["Belt line_7"]
    await house.report("plant/line_7/motor", "hot")
    [line] = (await house.data("objects/list"))["items"]
    assert (line["class"], line["properties"], line["attributes"]) == ("belt", {"hall": "2"}, {"motor": "hot"})
    assert (await house.counters())["unmatched"] == 0


async def test_members_and_their_values_and_holds_survive_a_kill(build: Build) -> None:
    config = plant()
    config["operations"]["op"] = an_operation(
        {"class": "belt"}, topic="out/{{ id }}", triggers=[{"states": ["0"], "duration": "60s"}]
    )
    house = await build(**config).start()
    for line in ("a", "b"):
        await house.report(f"plant/{line}/belt", {"speed": 0})
    await house.advance(20)
    await house.restart()
    assert await ids(house) == ["a", "b"]
    assert (await house.data("objects/get", id="a"))["state"] == "0"
    await house.advance(41)
    assert [len(house.texts(f"out/{line}")) for line in ("a", "b")] == [1, 1]


@pytest.mark.parametrize("moment", ["before record", "after record"])
async def test_killed_while_a_member_appears_it_is_there_once(build: Build, moment: str) -> None:
    house = await build(**plant()).start()
    house.die_at(moment)
    await house.report("plant/a/belt", {"speed": 1})
    await house.start()
    assert await ids(house) == ["a"]
    assert len(house.texts("out/a")) == 1


async def test_a_member_that_could_not_be_stored_is_stored_when_the_store_is_back(build: Build) -> None:
    house = await build(**plant()).start()
    house.store.broken = True
    await house.report("plant/a/belt", {"speed": 1})
    house.store.broken = False
    await house.advance(5)
    await house.restart()
    assert await ids(house) == ["a"]
    assert len(house.texts("out/a")) == 1


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
    house = await build(**plant()).start()
    await house.report(topic, payload)
    assert await ids(house) == []
    await house.counters()


async def test_there_are_as_many_as_are_allowed_and_the_rest_is_told(build: Build) -> None:
    house = await build(**plant(service={"max_objects": 3}, objects={"one": an_object("one")})).start()
    for line in "abcd":
        await house.report(f"plant/{line}/belt", {"speed": 1})
    assert await ids(house) == ["one", "a", "b"]
    assert [each["reason"] for each in house.documents("mqttjobs/event/rejected")] == ["too_many_objects"] * 2
    await house.restart()
    assert await ids(house) == ["one", "a", "b"]


async def test_a_retained_report_brings_a_member_too_without_firing(build: Build) -> None:
    house = build(**plant())
    house.send("plant/a/belt", {"speed": 1}, retain=True)
    await house.start()
    assert await ids(house) == ["a"]
    assert await house.jobs() == []


async def test_the_services_own_topics_make_no_members(build: Build) -> None:
    config = plant()
    config["classes"]["belt"]["state"] = {"topic": "{{ id }}/info"}
    config["classes"]["belt"]["attributes"] = {}
    house = await build(**config).start()
    assert await ids(house) == []
    await house.report("shop/info", "open")
    assert await ids(house) == ["shop"]


async def test_a_class_without_topics_takes_reports_under_the_services_own(build: Build) -> None:
    house = await build(classes={"thing": {"ids": "any"}}).start()
    await house.report("mqttjobs/state/objects/cup", "full")
    await house.report("mqttjobs/state/links/cup", "full")
    assert await ids(house) == ["cup"]


async def test_the_silence_of_a_member_that_appeared_is_noticed(build: Build) -> None:
    config = plant()
    config["operations"]["op"]["triggers"] = [{"silence": "60s"}]
    house = await build(**config).start()
    await house.report("plant/a/belt", {"speed": 1})
    await house.advance(59)
    assert await house.jobs() == []
    await house.advance(2)
    assert len(await house.jobs()) == 1


async def test_members_stay_over_a_reload_and_take_the_classs_new_shape(build: Build) -> None:
    users = {"anonymous": {"permissions": ["admin"]}}
    house = await build(**plant(users=users)).start()
    await house.report("plant/a/belt", {"speed": 1})
    changed = plant(users=users)
    changed["classes"]["belt"]["properties"] = {"hall": "3"}
    house.configure(**changed)
    told = await house.data("config/reload")
    assert (told["added"]["objects"], told["removed"]["objects"], told["changed"]["objects"]) == ([], [], ["a"])
    assert (await house.data("objects/get", id="a"))["properties"] == {"hall": "3"}
    house.configure(**{**changed, "classes": {}, "operations": {}})
    told = await house.data("config/reload")
    assert told["removed"]["objects"] == ["a"]
    house.configure(**changed)
    await house.data("config/reload")
    assert await ids(house) == ["a"]
