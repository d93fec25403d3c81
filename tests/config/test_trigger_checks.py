"""What `check` says of triggers and conditions: every mistake in words, with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mqttjobs.config.load import load
from mqttjobs.errors import ConfigError

WORLD = """\
service: {latitude: 52.5, longitude: 13.4}
objects:
  hall:
    state: {topic: home/hall}
    attributes: {battery: {}, button: {topic: home/button, event: true}}
  lamp: {state: {topic: home/lamp}}
links:
  both: {source: hall, target: lamp}
operations:
  other: {type: mqtt, topic: out/other}
  op:
    attach: {object: hall}
    type: mqtt
    topic: out/op
"""


def problems(tmp_path: Path, text: str) -> list[str]:
    """Return what is wrong, as `line: message`."""
    file = tmp_path / "mqttjobs.yaml"
    file.write_text(text)
    try:
        load(file, environ={})
    except ConfigError as error:
        return [f"{each.line}: {each.message}" for each in error.problems]
    return []


def of_trigger(tmp_path: Path, trigger: Any) -> list[str]:
    written = yaml.safe_dump([trigger], default_flow_style=True, width=1000).strip()
    return problems(tmp_path, f"{WORLD}    triggers: {written}\n")


@pytest.mark.parametrize(
    "trigger",
    [
        {"states": ["on"], "from": "off", "not_from": ["a"], "not_states": "b", "for": "5m", "periodicity": 60},
        {"attribute": "battery", "above": 5, "below": 20, "hysteresis": 1, "duration": "1s"},
        {"attribute": "button", "debounce": "300ms", "throttle": "1m"},
        {"silence": "1d", "periodicity": "1d"},
        {"silence": "1d", "entity": "lamp"},
        {"at": "sunset", "offset": "-30m"},
        {"at": "start", "conditions": {"any": [{"entity": "lamp", "states": "on"}, {"after": "sunset"}]}},
        {"entity": "both", "states": ["on"], "on_restart": "drop", "enabled": False},
        {"states": None, "for": None, "above": None, "hysteresis": None, "at": None, "offset": None},
        {"from": None, "attribute": None, "availability": None, "conditions": None, "silence": "1h"},
        {},
    ],
)
def test_what_is_good_is_taken(tmp_path: Path, trigger: dict[str, Any]) -> None:
    assert of_trigger(tmp_path, trigger) == []


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        ({"stats": ["on"]}, "unknown key; did you mean 'states'?"),
        ({"entity": "lampe"}, "there is no object or link 'lampe'; did you mean 'lamp'?"),
        ({"entity": "source"}, "source is an end of a link, and the operation is not attached to one"),
        ({"attribute": "batery"}, "there is no attribute 'batery'; did you mean 'battery'?"),
        ({"entity": "lamp", "attribute": "battery"}, "there is no attribute 'battery'"),
        ({"attribute": "button", "duration": "5s"}, "a value with event: true lasts no time"),
        ({"attribute": "button", "above": 5}, "a value with event: true lasts no time"),
        ({"attribute": "button", "periodicity": 5}, "a value with event: true lasts no time"),
        ({"availability": "offline"}, "object hall has no availability"),
        ({"availability": "away"}, "must be one of 'online' or 'offline'"),
        ({"above": 20, "below": 5}, "no number is above the one and below the other"),
        ({"hysteresis": 5}, "hysteresis belongs to above or below"),
        ({"silence": "1h", "states": ["on"]}, "states is about state changes and cannot stand beside silence"),
        ({"at": "sunset", "duration": "5m"}, "duration is about state changes and cannot stand beside at"),
        ({"at": "noon"}, "must be one of 'start', 'sunrise' or 'sunset'"),
        ({"at": "start", "offset": "5m"}, "offset belongs to at: sunrise or at: sunset"),
        ({"duration": 0}, "must be more than nothing"),
        ({"debounce": "soon"}, "a duration is a number of seconds"),
        ({"on_restart": "forget"}, "must be one of 'resume', 'restart' or 'drop'"),
        ({"on_restart": None}, "must be one of 'resume', 'restart' or 'drop'"),
        ({"enabled": None}, "must be true or false"),
        ({"enabled": 1}, "must be true or false"),
        ({"hysteresis": "5"}, "must be a number"),
        ({"silence": "1h", "at": "start"}, "silence and at are triggers of their own; use two triggers"),
        ({"at": "start", "entity": "lamp"}, "at is a moment: entity and periodicity cannot stand beside it"),
        ({"at": None, "offset": "5m"}, "offset belongs to at: sunrise or at: sunset"),
        ({"availability": "online", "states": ["on"]}, "availability is watched instead of the state: states cannot"),
        ({"attribute": "button", "duration": "5s", "below": 1}, "lasts no time; below, duration cannot be used on it"),
        ({"conditions": {"entity": "nobody", "states": "on"}}, "there is no object or link 'nobody'"),
        ({"conditions": {"attribute": "batery", "states": "on"}}, "there is no attribute 'batery'"),
        ({"conditions": {"not": {"before": "noon"}}}, "must be a time such as 22:00, or sunrise, or sunset"),
        ({"conditions": []}, "must be a condition, or a list of conditions"),
    ],
)
def test_what_is_wrong_is_reported_with_its_line(tmp_path: Path, trigger: dict[str, Any], message: str) -> None:
    [reported] = of_trigger(tmp_path, trigger)
    assert message in reported
    assert reported.startswith("15: operations.op.triggers.0")


@pytest.mark.parametrize(
    "keys",
    [
        "    triggers: [{at: sunset}]",
        "    conditions: {after: sunset}",
        "    triggers: [{conditions: {after: sunset}}]",
    ],
)
def test_without_a_place_the_sun_keeps_office_hours_and_a_warning_says_so(tmp_path: Path, keys: str) -> None:
    text = WORLD.replace("service: {latitude: 52.5, longitude: 13.4}", "service: {latitude: null, longitude: null}")
    path = tmp_path / "mqttjobs.yaml"
    path.write_text(f"{text}{keys}\n")
    [warning] = load(path).warnings
    assert path.read_text().splitlines()[warning.line - 1].strip() == keys.strip()
    assert warning.message.startswith("warning: operations.")
    assert "sunrise and sunset are taken to be about 06:00 and 18:00" in warning.message
    path.write_text(f"{WORLD}{keys}\n")
    assert load(path).warnings == ()


def test_half_a_place_is_none(tmp_path: Path) -> None:
    text = WORLD.replace("service: {latitude: 52.5, longitude: 13.4}", "service: {latitude: 52.5}")
    [reported] = problems(tmp_path, f"{text}    triggers: [{{at: sunset}}]\n")
    assert "a place needs both, service.latitude and service.longitude" in reported


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("on_failure: othr", "operations.op.on_failure: there is no operation 'othr'; did you mean 'other'?"),
        (
            "conditions: {states: [on], entity: lmp}",
            "operations.op.conditions.entity: there is no object or link 'lmp'",
        ),
        (
            "confirm: {states: ON, within: 5s, entity: nobody}",
            "operations.op.confirm.entity: there is no object or link",
        ),
        ("confirm: {states: ON}", "operations.op.confirm.within: is missing"),
        ("breaker: on", "operations.op.breaker: must be off, or a mapping with firings, within and pause"),
        ("breaker: {firings: 0}", "operations.op.breaker.firings: must be at least 1"),
    ],
)
def test_the_keys_of_operations_are_checked_too(tmp_path: Path, keys: str, message: str) -> None:
    [reported] = problems(tmp_path, f"{WORLD}    {keys}\n")
    assert message in reported
    assert reported.startswith("15: ")


def test_confirm_belongs_to_what_publishes(tmp_path: Path) -> None:
    text = WORLD + "  run: {type: script, text: 'true', confirm: {states: on, within: 5s}}\n"
    assert problems(tmp_path, text) == ["15: operations.run.confirm: belongs to operations of the type mqtt"]


def test_triggers_of_an_operation_that_is_attached_to_nothing_go_by_the_clock_alone(tmp_path: Path) -> None:
    good = WORLD + "  free: {type: mqtt, topic: out/x, triggers: [{at: start}]}\n"
    assert problems(tmp_path, good) == []
    bad = WORLD + "  free: {type: mqtt, topic: out/x, triggers: [{states: on}]}\n"
    [reported] = problems(tmp_path, bad)
    assert "nothing is watched" in reported


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{ids: any, state: {topic: plant/belt}}", "classes.belt.state: with ids: any every topic has {{ id }} in it"),
        ("{ids: any, attributes: {motor: {topic: plant/motor}}}", "with ids: any every topic has {{ id }} in it"),
        ("{ids: some}", "must be a list of ids and ranges such as line_{001..200}, or any"),
    ],
)
def test_classes_whose_ids_are_any(tmp_path: Path, written: str, message: str) -> None:
    [reported] = problems(tmp_path, f"classes:\n  belt: {written}\n")
    assert message in reported


def test_two_classes_whose_ids_are_any_cannot_have_the_same_topics(tmp_path: Path) -> None:
    one = '{ids: any, state: {topic: "plant/{{ id }}"}}'
    [reported] = problems(tmp_path, f"classes:\n  a: {one}\n  b: {one}\n")
    assert "its members would have the topics of those of a" in reported


def test_operations_of_a_class_whose_ids_are_any_are_checked_like_all(tmp_path: Path) -> None:
    text = """\
classes:
  belt: {ids: any, state: {topic: "plant/{{ id }}/belt"}}
operations:
  op: {attach: {class: belt}, type: mqtt, topic: "plant/{{ id }}/belt", message: x, triggers: [{}]}
  other: {attach: {class: belt}, type: mqtt, topic: out, triggers: [{attribute: motor}]}
"""
    reported = problems(tmp_path, text)
    assert any("there is no attribute 'motor'" in each for each in reported)
    assert any("a loop" in each for each in reported)
