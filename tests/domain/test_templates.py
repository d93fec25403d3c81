"""`{{ dotted.path }}` is substitution and nothing else (contract 2)."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mqttjobs.domain.model import Json
from mqttjobs.domain.templates import (
    Template,
    as_text,
    lookup,
    revealed,
    secret_names,
    topic_problem,
)
from mqttjobs.domain.topics import check_topic
from mqttjobs.errors import TemplateError
from tests.domain.builders import json_values

BASE = "mqttjobs"
SECRETS = {"ENV:TOKEN": "s3cret", "FILE:key.txt": "k3y", "ENV:TRICK": "{{ id }} ${ENV:TOKEN}"}


def reveal(name: str) -> str:
    return SECRETS[name]


def rendered(source: Json, variables: dict[str, Json] | None = None) -> Json:
    return Template.of(source).render(variables or {}).value


# -- what is put in ---------------------------------------------------------------------------------------------------


@given(json_values)
def test_a_mapping_value_that_is_exactly_one_variable_keeps_its_type(value: Json) -> None:
    for source in ("{{ payload.x }}", "{{payload.x}}", "{{\tpayload.x \n}}"):
        made = rendered({"deep": [{"here": source}]}, {"payload": {"x": value}})
        assert made == {"deep": [{"here": value}]}
        assert type(made["deep"][0]["here"]) is type(value)


@given(json_values)
def test_elsewhere_a_value_that_is_not_text_is_put_in_as_json(value: Json) -> None:
    made = rendered("<{{ payload.x }}>", {"payload": {"x": value}})
    assert made[0] + made[-1] == "<>"
    assert made[1:-1] == value if isinstance(value, str) else json.loads(made[1:-1]) == value
    alone = Template.of("{{ payload.x }}").render({"payload": {"x": value}}).text
    assert alone == made[1:-1]


@given(st.text(max_size=20))
@example("{{ id }}")
@example("${ENV:TOKEN}")
@example("{{ params.text }}")
@example("}} {{")
def test_what_is_put_in_is_never_looked_at_again(text: str) -> None:
    variables = {"id": "lamp", "params": {"text": text}}
    made = Template.of("a{{ params.text }}b{{ id }}").render(variables, {}, reveal)
    assert made.value == f"a{text}blamp"
    assert made.shown == made.value
    assert Template.of({"x": "{{ params.text }}"}).render(variables, {}, reveal).value == {"x": text}


@given(st.text(max_size=20), st.text(max_size=20))
def test_text_without_variables_stays_as_it_is(before: str, after: str) -> None:
    assume("{{" not in before and "{{" not in after and not before.endswith("{"))
    assert rendered(before) == before
    assert rendered({before: [after, 5, None, True, 1.5]}) == {before: [after, 5, None, True, 1.5]}
    assert rendered(before + "{{ id }}" + after, {"id": "x"}) == f"{before}x{after}"


def test_text_that_looks_like_json_can_hold_variables() -> None:
    assert rendered('{"a":{"b":{{ payload.x }}}}', {"payload": {"x": 5}}) == '{"a":{"b":5}}'


def test_keys_are_not_filled_in() -> None:
    assert rendered({"{{ id }}": "{{ id }}"}, {"id": "lamp"}) == {"{{ id }}": "lamp"}


EXPRESSIONS = (
    "{{ }}",
    "{{ 1 + 1 }}",
    "{{ a b }}",
    "{{ a. }}",
    "{{ .a }}",
    "{{ a..b }}",
    "{{ a|upper }}",
    "{{ a['b'] }}",
    "{{ f() }}",
    "{{ __import__('os') }}",
    "{{ {{ a }} }}",
    "{{{ a }}}",
    "{{ ä }}",
)


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_expression_is_no_variable(text: str) -> None:
    with pytest.raises(ValueError, match="no expression"):
        Template.of(text)


@pytest.mark.parametrize("text", ["{{ id", "{{", "x {{ id }} {{ name"])
def test_a_variable_that_is_not_closed_is_reported(text: str) -> None:
    with pytest.raises(ValueError, match="not closed"):
        Template.of(text)


@given(st.text(alphabet="{} id.$EV:N\n", max_size=30))
def test_any_text_is_a_template_or_refused_with_a_value_error(text: str) -> None:
    with suppress(ValueError):
        template = Template.of(text)
        with suppress(TemplateError):
            template.render({"id": "lamp"})


# -- variables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", "lamp"),
        ("properties.x", 5),
        ("payload.list.1.a", True),
        ("payload.list", [1, {"a": True}]),
        ("payload.2", "two"),
        ("payload.none", None),
        ("payload.a-b", 1),
    ],
)
def test_a_dotted_path_is_looked_up(path: str, value: Json) -> None:
    payload = {"list": [1, {"a": True}], "2": "two", "none": None, "a-b": 1}
    assert lookup({"id": "lamp", "properties": {"x": 5}, "payload": payload}, path) == value


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "payload.nothing",
        "payload.list.2",
        "payload.list.-1",
        "payload.list.x",
        "id.x",
        "id.0",
        "payload.none.x",
        "payload.list." + "9" * 5000,
        "payload.list.²",
        "__class__",
        "payload.keys",
    ],
)
def test_an_unknown_variable_fails_and_is_named(path: str) -> None:
    variables = {"id": "lamp", "payload": {"list": [1, 2], "none": None}}
    with pytest.raises(TemplateError) as caught:
        lookup(variables, path)
    assert path in caught.value.details
    assert "unknown variable" in caught.value.details


def test_the_variables_of_a_template_are_known_before_it_is_rendered() -> None:
    template = Template.of({"a": ["{{ id }}{{ payload.x }}", {"b": "{{ id }}"}], "c": "${ENV:TOKEN}", "d": 5})
    assert template.names == {"id", "payload.x"}
    assert not template.constant
    assert not Template.of("${ENV:TOKEN}").constant
    assert Template.of({"a": [1, "x"]}).constant


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_a_secret_is_in_the_value_and_never_in_what_is_shown() -> None:
    template = Template.of({"key": "Bearer ${ENV:TOKEN}", "file": "${FILE:key.txt}", "id": "{{ id }}"})
    made = template.render({"id": "lamp"}, {}, reveal)
    assert made.value == {"key": "Bearer s3cret", "file": "k3y", "id": "lamp"}
    assert made.shown == {"key": "Bearer ${ENV:TOKEN}", "file": "${FILE:key.txt}", "id": "lamp"}
    assert made.shown_text == as_text(made.shown)


def test_a_secret_in_a_property_is_revealed_where_the_property_is_used() -> None:
    variables = {"properties": {"key": "${ENV:TOKEN}", "list": [{"k": "${FILE:key.txt}"}], "plain": 1}}
    secret_templates = {"properties.key": "${ENV:TOKEN}", "properties.list.0.k": "${FILE:key.txt}"}
    one = Template.of("{{ properties.key }}").render(variables, secret_templates, reveal)
    assert (one.value, one.shown) == ("s3cret", "${ENV:TOKEN}")
    whole = Template.of({"p": "{{ properties }}"}).render(variables, secret_templates, reveal)
    assert whole.value == {"p": {"key": "s3cret", "list": [{"k": "k3y"}], "plain": 1}}
    assert whole.shown == {"p": variables["properties"]}
    assert revealed(variables, "", secret_templates, reveal)["properties"]["key"] == "s3cret"


def test_a_secret_that_looks_like_a_variable_stays_what_it_is() -> None:
    assert Template.of("<${ENV:TRICK}>").render({"id": "x"}, {}, reveal).value == "<{{ id }} ${ENV:TOKEN}>"


def test_what_a_caller_or_a_message_says_is_never_a_secret() -> None:
    variables = {"params": {"x": "${ENV:TOKEN}"}, "payload": {"y": ["${FILE:key.txt}"]}, "state": "${ENV:TOKEN}"}
    made = Template.of(["{{ params.x }}", "{{ payload.y }}", "a {{ state }}"]).render(variables, {}, reveal)
    assert made.value == ["${ENV:TOKEN}", ["${FILE:key.txt}"], "a ${ENV:TOKEN}"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("${ENV:A} ${FILE:b/c.txt}", ["ENV:A", "FILE:b/c.txt"]),
        ("$ENV:A", []),
        ("${HOME}", []),
        ("${ENV:}", []),
        ("${env:A}", []),
        ("$${ENV:A}", ["ENV:A"]),
    ],
)
def test_the_names_of_secrets_in_a_text(text: str, names: list[str]) -> None:
    assert secret_names(text) == names


# -- topics -----------------------------------------------------------------------------------------------------------


def topic(text: str, **variables: Any) -> str:
    return Template.of(text).render_topic(variables, base_topic=BASE).text


def test_a_topic_is_filled_in() -> None:
    assert (
        topic("{{ target.properties.command_topic }}", target={"properties": {"command_topic": "a/b/set"}}) == "a/b/set"
    )
    assert topic("climate/{{ id }}/say", id="room_1") == "climate/room_1/say"
    assert topic("out/{{ payload.n }}", payload={"n": 5}) == "out/5"
    assert topic("mqttjobs/state/objects/{{ id }}", id="x") == "mqttjobs/state/objects/x"


NOT_FOR_US = (
    "a/+/b",
    "#",
    "a/#",
    "+",
    "a\0b",
    "",
    "$SYS/x",
    "$share/g/x",
    "mqttjobs",
    "mqttjobs/status",
    "mqttjobs/",
    "mqttjobs/state",
    "mqttjobs/request/jobs/list",
    "mqttjobs/event/job",
    "mqttjobs/statement",
)


@pytest.mark.parametrize("wrong", NOT_FOR_US)
def test_a_topic_that_may_not_be_published_to_fails_wherever_it_comes_from(wrong: str) -> None:
    assert topic_problem(wrong, BASE)
    with pytest.raises(TemplateError):
        topic("{{ properties.t }}", properties={"t": wrong})
    with pytest.raises(TemplateError):
        topic(wrong + "{{ properties.t }}", properties={"t": ""})


@pytest.mark.parametrize(
    "name",
    [
        "payload.x",
        "state",
        "previous_state",
        "params.x",
        "attributes.x",
        "source.state",
        "target.payload.x",
        "source.attributes.x",
        "payload",
        "params",
    ],
)
@pytest.mark.parametrize("value", ["a/b", "/", "/etc", "a/"])
def test_a_value_from_a_message_or_a_caller_brings_no_level_into_a_topic(name: str, value: str) -> None:
    variables: Json = value
    for part in reversed(name.split(".")):
        variables = {part: variables}
    with pytest.raises(TemplateError, match="would bring a /"):
        Template.of(f"out/{{{{ {name} }}}}").render_topic(variables, base_topic=BASE)
    assert Template.of(f"{{{{ {name} }}}}").render(variables).text == value


@given(st.text(max_size=10), st.sampled_from(["payload.x", "state", "params.x", "properties.x"]))
@example("+", "state")
@example("#", "params.x")
@example("a/b", "payload.x")
@example("\ud800", "payload.x")
def test_no_rendered_topic_is_anything_but_plain_and_allowed(value: str, name: str) -> None:
    variables: Json = value
    for part in reversed(name.split(".")):
        variables = {part: variables}
    for text in (f"{{{{ {name} }}}}", f"out/{{{{ {name} }}}}", f"mqttjobs/{{{{ {name} }}}}"):
        try:
            made = Template.of(text).render_topic(variables, base_topic=BASE).text
        except TemplateError:
            continue
        check_topic(made)
        assert not made.startswith("$")
        assert made != BASE
        assert not made.startswith(f"{BASE}/") or made.startswith(f"{BASE}/state/")
        if name != "properties.x":
            assert made.count("/") == text.count("/")


def test_a_secret_can_be_part_of_a_topic_and_is_not_shown() -> None:
    made = Template.of("house/${ENV:TOKEN}/{{ id }}").render_topic({"id": "x"}, {}, reveal, base_topic=BASE)
    assert (made.text, made.shown_text) == ("house/s3cret/x", "house/${ENV:TOKEN}/x")
