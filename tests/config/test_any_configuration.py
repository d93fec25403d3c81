"""Nothing that can be written makes anything but a configuration or a ConfigError, told in words and with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.config.whole import WHOLE, changed, places
from tests.config.writing import problems


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
@example(place=("service", "program_dirs"), value=["\0"], rename=False)
@example(place=("operations", "program", "path"), value="/a\0", rename=False)
@example(place=("operations", "script"), value={"type": "script", "ref": "a\0b"}, rename=False)
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
