"""Nothing that can be written makes anything but a configuration or a ConfigError, told in words and with its place."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.config.writing import problems

WHOLE: dict[str, Any] = {
    "mqtt": {
        "url": "mqtt://u:p@h:1883",
        "username": "u",
        "password": "p",
        "client_id": "c",
        "session_expiry": "1d",
        "protocol": "auto",
        "base_topic": "mqttjobs",
        "reply_topics": ["a/#"],
        "trust_user_lanes": False,
        "tls": {"ca_file": "a", "cert_file": None, "key_file": None, "insecure": False},
    },
    "store": {
        "url": "sqlite:///x.db",
        "retention": {"completed": "1d", "failed": 5, "max_jobs": 3, "history_per_value": 1},
    },
    "service": {
        "hostname": "h",
        "concurrency": 1,
        "poll_window": "2s",
        "timeout": 60,
        "program_dirs": ["/bin"],
        "event_qos": 0,
        "inline_operations": ["mqtt"],
        "max_payload": "64KiB",
        "time_zone": "Europe/Berlin",
        "latitude": 1.5,
        "longitude": 2,
    },
    "users": {
        "alice": {"api_key": "0123456789abcdef", "permissions": ["admin"], "objects": ["lamp"], "links": ["hall"]}
    },
    "classes": {
        "room": {
            "ids": ["room_{1..3}", "x"],
            "name": "Room {{ id }}",
            "properties": {"a": 1},
            "state": {"topic": "r/{{ id }}", "value": "v", "map": {"1": "on"}, "retained": "fire", "ignore": ["x"]},
            "attributes": {"t": {"topic": "t/{{ id }}", "event": True}},
            "availability": "a/{{ id }}",
        },
    },
    "objects": {
        "lamp": {
            "name": "Lamp",
            "properties": {"p": [1]},
            "state": {"topic": "lamp", "value": "a.0"},
            "attributes": {"b": {}},
        },
        "room_1": {"state": {"value": "w"}},
        "y": {"class": "room", "availability": {"topic": "q", "value": "s", "online": "1", "offline": "0"}},
    },
    "links": {
        "hall": {"source": "lamp", "target": "x", "state": "target"},
        "own": {"source": "lamp", "target": "y", "state": {"topic": "own"}, "attributes": {"z": {"value": "z"}}},
    },
    "operations": {
        "publish": {
            "attach": [{"object": "lamp"}, {"link": "hall"}, {"class": "room"}],
            "type": "mqtt",
            "topic": "a/{{ id }}",
            "message": {"x": "{{ payload }}"},
            "qos": 1,
            "retain": False,
            "trigger_states": ["on"],
            "triggers": [{"states": ["a"], "duration": "5m", "periodicity": "1m"}, {"states": "b", "for": 5}],
            "retry": {"attempts": 2, "first": 1, "factor": 2, "max": 5},
            "mode": "queued",
            "max": 2,
            "priority": 1,
            "schedule": "0 3 * * *",
            "timeout": "5s",
            "run_as": "alice",
            "version": 1,
            "delivery": "at_least_once",
        },
        "program": {
            "attach": {"link": "own"},
            "type": "program",
            "path": "/bin/true",
            "args": ["a", "{{ id }}"],
            "env": {"A": "b"},
            "params": {"type": "object", "properties": {"to": {"type": "string", "default": "x"}}},
            "preferences": [{"key": "k", "value": 1, "description": "d"}],
        },
        "script": {"type": "script", "text": "echo", "interpreter": ["/bin/sh"], "schedule": {"every": "10m"}},
        "guarded": {
            "attach": [{"object": "lamp"}, {"link": "own"}],
            "type": "mqtt",
            "topic": "guarded",
            "triggers": [
                {"from": ["a"], "not_from": "b", "not_states": ["c"], "debounce": "1s", "throttle": 5},
                {"above": 5, "below": 9.5, "hysteresis": 1, "duration": "1m", "on_restart": "drop"},
                {"entity": "room_1", "attribute": "t", "enabled": False},
                {"silence": "1h"},
                {"at": "sunset", "offset": "-30m", "conditions": {"weekdays": ["mon"]}},
                {"states": ["on"], "conditions": [{"entity": "self", "states": ["on"]}]},
            ],
            "conditions": {
                "any": [
                    {"all": [{"entity": "lamp", "attribute": "b", "above": 1}, {"not": {"after": "22:00"}}]},
                    {"before": "sunrise", "weekdays": ["sat", "sun"]},
                ]
            },
            "confirm": {"entity": "self", "states": ["on"], "within": "5s"},
            "breaker": {"firings": 5, "within": "1s", "pause": "1m"},
            "on_failure": "script",
            "allow_loop": True,
            "record_skipped": True,
        },
    },
}


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the place of everything in a configuration."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(each for key, item in inner for each in places(item, (*place, key)))]


def changed(place: tuple[Any, ...], value: Any, *, rename: bool) -> Any:
    """Return WHOLE with something else at a place, or under another name."""
    made = copy.deepcopy(WHOLE)
    if not place:
        return value
    around = made
    for part in place[:-1]:
        around = around[part]
    if rename and isinstance(around, dict):
        around[str(value)] = around.pop(place[-1])
    else:
        around[place[-1]] = value
    return made


def assert_told_well(text: str) -> list[str]:
    found = problems(text, {"SECRET": "very-secret-text"})
    lines = text.count("\n") + 1
    for problem in found:
        line, _, message = problem.partition(": ")
        assert 0 <= int(line) <= lines
        assert message.strip()
        assert "\n" not in message
        for foreign in (
            "validation error",
            "Section",
            "Input should",
            "function-",
            "[key]",
            "pydantic",
            "Traceback",
            "object at 0x",
        ):
            assert foreign not in message, message
        assert "very-secret" not in message
    return found


def test_the_whole_of_it_is_good() -> None:
    assert assert_told_well(yaml.safe_dump(WHOLE)) == []


message = st.sampled_from(
    [
        "",
        "on",
        "a/#",
        "a/+",
        "{{ id }}",
        "{{ x",
        "${ENV:SECRET}",
        "${ENV:NOTHING}",
        "${FILE:/}",
        "\0",
        "lamp",
        "room",
        "room_1",
        "hall",
        "x" * 100,
        "ä",
        "source",
        "5m",
        "-1",
        "1e999",
        "mqttjobs/status",
        "$SYS/x",
        "{1..999999999}",
        "a.b..c",
        "[",
        "null",
        "{{ __class__ }}",
        "/",
        "..",
        "0 0 30 2 *",
        "%s",
        "\U0001f600",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | message | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(message | st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(places(WHOLE)), values, st.booleans())
@example(place=("objects", "y", "class"), value=["room"], rename=False)
@example(place=("objects", "y", "class"), value={"a": 1}, rename=False)
@example(place=("operations", "publish", "message"), value=10**30, rename=False)
@example(place=("operations", "publish", "message"), value=float("inf"), rename=False)
@example(place=("service", "timeout"), value=10**400, rename=False)
@example(place=("classes", "room", "ids"), value=["{1..99999999}"], rename=False)
def test_no_change_to_a_configuration_does_anything_but_make_another_or_a_reported_problem(
    place: tuple[Any, ...], value: Any, rename: bool
) -> None:
    made = changed(place, value, rename=rename)
    assert_told_well(yaml.safe_dump(made, allow_unicode=True))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([*WHOLE, "other"]), values, max_size=4))
def test_no_structure_does_anything_but_that(value: Any) -> None:
    assert_told_well(yaml.safe_dump(value))


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=80)
    | st.lists(
        st.sampled_from(
            [
                "mqtt",
                "objects",
                ": ",
                "\n",
                "\n  ",
                "- ",
                "{",
                "}",
                "[",
                "]",
                "&a ",
                "*a",
                "!!str ",
                "'",
                '"',
                "#",
                "{{ id }}",
                "|",
                ">",
                "? ",
                "<<: ",
                "\t",
                "---\n",
                "on",
                "5",
                "~",
                "${ENV:SECRET}",
                "lamp",
            ]
        ),
        max_size=25,
    ).map(lambda parts: "".join(parts).encode())
)
def test_no_bytes_do_anything_but_that(raw: bytes) -> None:
    for problem in problems(raw):
        assert problem


@pytest.mark.parametrize("name", list(WHOLE))
def test_no_section_is_needed_but_those_that_others_name(name: str) -> None:
    made = {key: value for key, value in WHOLE.items() if key != name}
    found = assert_told_well(json.dumps(made))
    assert all("there is no" in each for each in found)


def test_a_hundred_references_to_nothing_among_thousands_of_names_are_reported_soon() -> None:
    made = {
        "classes": {"line": {"ids": ["line_{00001..20000}"]}},
        "links": {f"l{number}": {"source": f"lone_{number}", "target": "line_00001"} for number in range(100)},
    }
    assert len(assert_told_well(yaml.safe_dump(made))) == 100
