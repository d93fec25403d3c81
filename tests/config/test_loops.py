"""Loops that `check` sees beforehand (behaviour 4): found where they are, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqttjobs.config.load import load
from mqttjobs.config.loops import _loops
from mqttjobs.errors import ConfigError


def reported(tmp_path: Path, config: dict[str, Any]) -> list[str]:
    file = tmp_path / "mqttjobs.yaml"
    file.write_text(json.dumps(config))
    try:
        load(file, environ={"ROOM": "hall"})
    except ConfigError as error:
        return [each.message for each in error.problems]
    return []


def publishing(topic: str, message: Any = "x", states: list[str] | None = None, **more: Any) -> dict[str, Any]:
    trigger = {} if states is None else {"states": states}
    return {"type": "mqtt", "topic": topic, "message": message, "triggers": [trigger], **more}


def lamp(operation: dict[str, Any], **state: Any) -> dict[str, Any]:
    """Return a configuration with a lamp and one operation of it."""
    return {
        "objects": {"lamp": {"state": {"topic": "home/lamp", **state}, "properties": {"own": "home/lamp"}}},
        "operations": {"op": {"attach": {"object": "lamp"}, **operation}},
    }


@pytest.mark.parametrize(
    "operation",
    [
        publishing("home/lamp"),
        publishing("home/{{ id }}"),
        publishing("{{ properties.own }}"),
        publishing("home/{{ payload.where }}"),
        publishing("home/lamp", "on", ["on"]),
        publishing("home/lamp", "{{ payload.next }}", ["on"]),
        publishing("home/lamp", {"state": "on", "by": "{{ name }}"}, ["on"]),
    ],
)
def test_a_publish_that_triggers_its_own_operation_is_an_error(tmp_path: Path, operation: dict[str, Any]) -> None:
    [problem] = reported(tmp_path, lamp(operation))
    assert problem == (
        "operations.op.topic: what it publishes starts it again: a loop; say allow_loop: true if that is meant"
    )
    assert reported(tmp_path, lamp({**operation, "allow_loop": True})) == []


@pytest.mark.parametrize(
    "operation",
    [
        publishing("home/lamp/set"),
        publishing("home/other"),
        publishing("other/{{ payload.where }}"),
        publishing("home/{{ payload.where }}/set"),
        publishing("home/lamp", "off", ["on"]),
        publishing("home/lamp", {"state": "off", "by": "{{ name }}"}, ["on"]),
        publishing("home/lamp", {"battery": 5}),
        publishing("home/lamp", "unavailable"),
        publishing("home/lamp", "x", triggers=[{"enabled": False}]),
        publishing("home/lamp", "4", triggers=[{"above": 5}]),
    ],
)
def test_what_does_not_come_back_is_no_loop(tmp_path: Path, operation: dict[str, Any]) -> None:
    assert reported(tmp_path, lamp(operation)) == []


def test_what_is_published_is_read_as_the_value_reads_it(tmp_path: Path) -> None:
    operation = publishing("home/lamp", {"data": {"power": True}}, ["on"])
    assert reported(tmp_path, lamp(operation, value="data.power", map={"true": "on"}))
    assert not reported(tmp_path, lamp(operation, value="data.power", map={"true": "off"}))
    assert not reported(tmp_path, lamp(operation, value="data.state"))


def test_a_cycle_over_several_operations_is_reported_once_with_its_way(tmp_path: Path) -> None:
    config = {
        "objects": {name: {"state": {"topic": f"home/{name}"}} for name in "abc"},
        "operations": {
            name: {"attach": {"object": name}, **publishing(f"home/{following}")}
            for name, following in (("a", "b"), ("b", "c"), ("c", "a"))
        },
    }
    [problem] = reported(tmp_path, config)
    assert problem.startswith(
        "operations.a.topic: what it publishes starts b, which starts c, which starts a again: a loop"
    )
    config["operations"]["b"]["allow_loop"] = True
    assert reported(tmp_path, config) == []


def test_a_loop_through_a_link_a_class_or_the_services_own_state_topics(tmp_path: Path) -> None:
    through_link = {
        "objects": {"a": {"state": {"topic": "home/a"}}, "b": {"properties": {"to": "home/a"}}},
        "links": {"ab": {"source": "a", "target": "b"}},
        "operations": {"op": {"attach": {"link": "ab"}, **publishing("{{ target.properties.to }}")}},
    }
    assert reported(tmp_path, through_link)
    of_class = {
        "classes": {"room": {"ids": ["r{1..3}"], "state": {"topic": "room/{{ id }}"}}},
        "operations": {"op": {"attach": {"class": "room"}, **publishing("room/{{ id }}")}},
    }
    assert reported(tmp_path, of_class)
    own = {
        "objects": {"a": {}},
        "operations": {"op": {"attach": {"object": "a"}, **publishing("mqttjobs/state/objects/a")}},
    }
    assert reported(tmp_path, own)


def test_a_topic_behind_a_secret_is_followed_and_not_reported(tmp_path: Path) -> None:
    config = lamp(publishing("home/${ENV:ROOM}"))
    config["objects"]["lamp"]["state"]["topic"] = "home/hall"
    [problem] = reported(tmp_path, config)
    assert "hall" not in problem


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from("abcdefg"), st.lists(st.sampled_from("abcdefg"), max_size=3)))
def test_an_operation_is_reported_in_a_loop_exactly_if_it_can_be_left_and_come_back_to(
    graph: dict[str, list[str]],
) -> None:
    def reachable(name: str) -> set[str]:
        found: set[str] = set()
        ahead = [each for each in graph[name] if each in graph]
        while ahead:
            each = ahead.pop()
            if each not in found:
                found.add(each)
                ahead += [following for following in graph[each] if following in graph]
        return found

    loops = list(_loops(graph))
    for loop in loops:
        for name, following in zip(loop, [*loop[1:], loop[0]], strict=True):
            assert following in graph[name]
    on_loops = {name for name in graph if name in reachable(name)}
    in_told = {name for loop in loops for name in loop}
    assert in_told <= on_loops
    assert bool(loops) is bool(on_loops)
