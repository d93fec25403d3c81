"""YAML 1.2: on and off are texts, a key stands once, and every problem has its line."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from mqttjobs.config.yaml12 import parse
from mqttjobs.errors import ConfigError
from tests.config.writing import problems


def content(text: str) -> Any:
    document = parse(text, "home.yaml")
    assert document.problems == []
    return document.content


def reported(text: str) -> list[str]:
    """Return what is wrong, whether reading ended there or not."""
    try:
        document = parse(text, "home.yaml")
    except ConfigError as error:
        return [f"{each.line}: {each.message}" for each in error.problems]
    return [f"{each.line}: {each.message}" for each in document.problems]


@pytest.mark.parametrize(
    "word",
    [
        "on",
        "off",
        "yes",
        "no",
        "On",
        "OFF",
        "y",
        "n",
        "Yes",
        "12:30:45",
        "0b1",
        "1_000",
        "2026-03-01",
        "=",
        "<",
        ".nan",
        ".inf",
        "-.inf",
        "1e",
        "0o8",
        "0xg",
        "+",
        "nul",
        "tRUE",
    ],
)
def test_what_other_versions_read_as_something_else_is_a_text(word: str) -> None:
    assert content(word) == word
    assert content(f"[{word}, {{k: {word}}}]") == [word, {"k": word}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("Null", None),
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("007", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("5.0", 5.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        ("'5'", "5"),
        ('"true"', "true"),
        ("'null'", "null"),
        ("|\n  5\n", "5\n"),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_scalars_of_the_core_schema(text: str, value: Any) -> None:
    made = content(text)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("!!str 5", "5"),
        ("!!str on", "on"),
        ("!!int '5'", 5),
        ("!!float 5", 5.0),
        ("!!bool 'true'", True),
        ("!!null ''", None),
        ("!!seq [1]", [1]),
        ("!!map {a: 1}", {"a": 1}),
        ("!!str true", "true"),
    ],
)
def test_the_tags_of_the_core_schema(text: str, value: Any) -> None:
    made = content(text)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "!secret password",
        "!include other.yaml",
        "!!python/object:os.system x",
        "!!binary aGk=",
        "!x {a: 1}",
        "!env [A]",
        "!!timestamp 2026-03-01",
        "!!int x",
        "!!set {a, b}",
    ],
)
def test_other_tags_are_reported_and_not_dropped(text: str) -> None:
    (problem,) = reported(f"# a comment\nkey: {text}")
    assert problem.startswith("2: ")
    assert text.split(maxsplit=1)[0].removeprefix("!!") in problem


def test_a_secret_of_home_assistant_is_reported_what_to_write_instead() -> None:
    (problem,) = reported("mqtt:\n  password: !secret mqtt_password\n")
    assert problem.startswith("2: ")
    assert "${FILE:" in problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true: a", {"true": "a"}),
        ("1: a", {"1": "a"}),
        ("1.50: a", {"1.50": "a"}),
        ("on: a", {"on": "a"}),
        ("null: a", {"null": "a"}),
        ("False: a", {"false": "a"}),
        ("'true': a", {"true": "a"}),
        ("007: a", {"007": "a"}),
    ],
)
def test_keys_are_texts(text: str, value: Any) -> None:
    assert content(text) == value


@pytest.mark.parametrize(
    "text", ["a: 1\nb: 2\na: 3", "{a: 1, b: 2,\n\n a: 3}", "'a': 1\nb: 2\na: 3", "true: 1\nb: 2\nTrue: 3"]
)
def test_a_key_stands_once(text: str) -> None:
    (problem,) = reported(text)
    assert problem.startswith("3: ")
    assert "twice" in problem


def test_a_line_break_in_a_key_does_not_break_what_is_reported() -> None:
    assert problems('"a\\nb": 1') == ["1: a\\x0ab: unknown section"]
    assert reported('"a\\nb": 1\n"a\\nb": 2') == ["2: the key a\\x0ab stands twice here"]


def test_every_repeated_key_is_reported() -> None:
    assert len(reported("a: {x: 1, x: 2}\nb:\n  - {y: 1, y: 2}\n  - {z: 1, z: 2, z: 3}\n")) == 4


@pytest.mark.parametrize("text", ["? [a, b]\n: 1", "? {a: 1}\n: 1", "{[a]: 1}"])
def test_a_key_that_is_no_text_is_reported(text: str) -> None:
    (problem,) = reported(text)
    assert problem.startswith("1: a key is a text")


def test_merge_keys_are_not_part_of_yaml_1_2_and_anchors_are() -> None:
    assert content("a: &x {k: 1}\nb: *x") == {"a": {"k": 1}, "b": {"k": 1}}
    (problem,) = reported("a: &x {k: 1}\nb:\n  <<: *x\n")
    assert problem.startswith("3: merge keys")
    assert content("'<<': 1") == {"<<": 1}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n\n", 2),
        ("a: 1\nb: {x: 1\n", 2),
        ("a: 1\nb: 'x\nc: 2\n", 2),
        ("a:\n\tb: 1", 2),
        ("a: b: c", 1),
        ("- a\nb", 2),
        ("x: 1\na: *nothing", 2),
        ("a: 1\n---\nb: 2", 2),
        ("%YAML 9\n--- a", 1),
        ("a: \x01", 1),
        ("a: 1\nb: \x7f\n", 2),
        ("a: 1\nb: @x\n", 2),
        ("a: 1\nb: {{ id }}/x\n", 2),
    ],
)
def test_what_is_no_yaml_is_reported_in_one_line_with_its_place(text: str, line: int) -> None:
    (problem,) = reported(text)
    assert "\n" not in problem
    assert problem.startswith(f"{line}: this is not YAML: ")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a:\n\tb: 1", "indent with spaces"),
        ("a:\n  b: 1\n\tc: 2", "indent with spaces"),
        ("topic: {{ id }}/set", "put a text with {{ … }} in quotes"),
        ("topic: {{ id }}", "put a text with {{ … }} in quotes"),
        ("name: @home", "begins with @ in quotes"),
        ("name: %home", "begins with % in quotes"),
    ],
)
def test_what_people_trip_over_is_explained(text: str, hint: str) -> None:
    assert hint in reported(text)[0]


@pytest.mark.parametrize(
    "text",
    [
        "9" * 5000,
        "-" + "9" * 5000,
        "0x" + "f" * 5000,
        str(2**64),
        str(-(2**63) - 1),
        "1e999",
        "-1e999",
        "9" * 5000 + ".5",
        "!!int '" + "9" * 5000 + "'",
        "0o" + "7" * 30,
    ],
)
def test_numbers_that_no_json_can_hold_are_reported(text: str) -> None:
    (problem,) = reported(f"a: 1\nb: {text}")
    assert problem.startswith("2: ")
    assert "number" in problem
    assert len(problem) < 100


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000 + "x", "[" * 70 + "]" * 70, "&a [*a]"]
)
def test_nesting_beyond_all_measure_is_reported_and_crashes_nothing(text: str) -> None:
    assert len(reported(text)) == 1


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for number in range(1, 12):
        laughs += f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]\n"
    (problem,) = reported(laughs)
    assert "aliases" in problem


def test_a_lone_surrogate_is_reported() -> None:
    assert len(reported('a: "\\ud800"')) == 1
    assert len(reported('"\\ud800": a')) == 1


@given(st.text(max_size=60) | st.text(alphabet="ab:-[]{}&*!|>'\"%@#?, \n\t0.<", max_size=60))
@example("\ud800")
@example('"\\ud800"')
@example("!<a> b")
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    with suppress(ConfigError):
        parse(text, "home.yaml")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\ufffe\uffff"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(plain)
def test_json_is_yaml(value: Any) -> None:
    assert content(json.dumps(value, ensure_ascii=False)) == value


@given(plain)
def test_what_another_writer_writes_is_read_as_it_was_meant(value: Any) -> None:
    assert content(yaml.safe_dump(value, default_style='"')) == value  # what it leaves plain, 1.1 and 1.2 read apart


@pytest.mark.parametrize("raw", [b"\xff\xfea\x00", b"a: \xff", b"\x80"])
def test_a_file_that_is_not_utf_8_is_reported(raw: bytes) -> None:
    assert problems(raw) == ["0: is not UTF-8"]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert problems(b"\xef\xbb\xbfobjects: {}\n") == []
