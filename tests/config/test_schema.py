"""The JSON Schema for editors: it accepts what `check` accepts, refuses what is misspelled, and describes every key."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mqttjobs.config.schema import configuration_schema
from mqttjobs.config.yaml12 import parse
from tests.config.whole import WHOLE
from tests.config.writing import problems
from tests.transcripts import blocks, documents

ROOT = Path(__file__).parents[2]
SCHEMA = configuration_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
ENVIRONMENT = {"NUMBER": "5", "YES": "true", "SOON": "5m", "MODE": "single", "LARGE": "32KiB", "NIGHTLY": "0 3 * * *"}


def refusals(text: str) -> list[str]:
    """Return what the schema says is wrong with a configuration."""
    return [error.message for error in VALIDATOR.iter_errors(parse(text, "home.yaml").content)]


# -- the configurations of the project ---------------------------------------------------------------------------------


def configurations() -> Iterator[tuple[str, str]]:
    """Yield every configuration that is shown or shipped; those beside a plugin need its types."""
    for file in [*(ROOT / "config").glob("*.yaml"), ROOT / "mqttjobs/cli/demo.yaml"]:
        yield str(file.relative_to(ROOT)), file.read_text()
    for document in documents(ROOT):
        found = blocks(document)
        if not any(block.language == "toml" for block in found):
            name = str(document.relative_to(ROOT))
            yield from ((f"{name}:{block.line}", block.text) for block in found if block.language == "yaml")


@pytest.mark.parametrize(("where", "text"), list(configurations()), ids=[where for where, _ in configurations()])
def test_every_configuration_of_the_project_is_valid_unless_it_is_called_wrong(where: str, text: str) -> None:
    assert bool(refusals(text)) is text.startswith("# wrong"), where


def test_there_are_configurations_in_the_readme_the_documentation_and_the_folder_of_examples() -> None:
    names = [where for where, _ in configurations()]
    for start in ("README.md", "docs/configuration.md", "docs/cookbook/", "config/", "mqttjobs/cli/"):
        assert any(name.startswith(start) for name in names), start


# -- what is refused, by the schema and by check alike -----------------------------------------------------------------

OPERATION = "operations:\n  op: {type: mqtt, topic: a, "


@pytest.mark.parametrize(
    "text",
    [
        "sevice: {}",
        "mqtt: {usrname: x}",
        "mqtt: {tls: {cafile: x}}",
        "mqtt: {protocol: 4}",
        "mqtt: {password: 12345}",
        "mqtt: {session_expiry: never}",
        "mqtt: {client_id: ''}",
        "mqtt: [x]",
        "store: {retention: {complete: 1d}}",
        "store: {retention: {max_jobs: 0}}",
        "service: {timeout: 0}",
        "service: {timeout: 0s}",
        "service: {timeout: 5 minutes}",
        "service: {timeout: true}",
        "service: {timeout: -5}",
        "service: {max_payload: 64 kilobytes}",
        "service: {max_payload: 1.5}",
        "service: {max_payload: 2000000}",
        "service: {concurrency: '4'}",
        "service: {concurrency: 0}",
        "service: {latitude: 91, longitude: 5}",
        "service: {latitude: 5}",
        "service: {hostname: a b}",
        "service: {inline_operations: [mqt]}",
        "service: {event_qos: 2}",
        "agents: {key: ''}",
        "users: {bob: {api_key: short}}",
        "users: {bob: {permissions: [job:reed]}}",
        "users: {bob: {apikey: 0123456789abcdef}}",
        "users: {'b b': {}}",
        "objects: {lamp: {propertys: {}}}",
        "objects: {lamp: {state: {retained: never}}}",
        "objects: {lamp: {state: {value: a..b}}}",
        "objects: {lamp: {state: {map: {a: [b]}}}}",
        "objects: {lamp: {attributes: {battery: {topik: x}}}}",
        "objects: {lamp: {attributes: {'a b': {}}}}",
        "objects: {'a b': {}}",
        "objects: [lamp]",
        "objects: {lamp: {}}\nlinks: {hall: {source: lamp}}",
        "objects: {lamp: {}}\nlinks: {hall: {source: lamp, target: lamp, state: middle}}",
        "objects: {lamp: {}}\nlinks: {hall: {source: lamp, target: lamp, state: {topik: x}}}",
        "classes: {room: {name: Room}}",
        "classes: {room: {ids: all}}",
        "operations: {op: {topic: a}}",
        "operations: {op: {type: mqt, topic: a}}",
        "operations: {op: {type: mqtt}}",
        "operations: {op: {type: mqtt, topic: a, path: /bin/x}}",
        "operations: {op: {type: program, path: bin/x}}",
        "operations: {op: {type: program, path: /bin/x, args: x}}",
        "operations: {op: {type: script}}",
        "operations: {op: {type: script, text: a, ref: b}}",
        "operations: {op: {type: script, text: a, interpreter: []}}",
        "operations: {op: }",
        f"{OPERATION}qos: 3}}",
        f"{OPERATION}active: yes}}",
        f"{OPERATION}attach: {{}}}}",
        f"{OPERATION}attach: {{object: a, class: b}}}}",
        f"{OPERATION}attach: [{{objekt: a}}]}}",
        f"{OPERATION}attach: lamp}}",
        f"{OPERATION}retry: 3}}",
        f"{OPERATION}retry: {{factor: 0.5}}}}",
        f"{OPERATION}mode: queue}}",
        f"{OPERATION}schedule: 0 3 * *}}",
        f"{OPERATION}schedule: {{every: 0.1}}}}",
        f"{OPERATION}schedule: {{evry: 5m}}}}",
        f"{OPERATION}breaker: on}}",
        f"{OPERATION}breaker: {{firings: 0}}}}",
        f"{OPERATION}preferences: [{{key: a b}}]}}",
        f"{OPERATION}preferences: [{{key: '${{ENV:NUMBER}}'}}]}}",
        f"{OPERATION}qos: '${{ENV:NUMBER}}'}}",
        f"{OPERATION}confirm: {{states: [on]}}}}",
        f"{OPERATION}confirm: {{states: [], within: 5s}}}}",
        f"{OPERATION}rollout: {{batch: 0}}, target: _all}}",
        f"{OPERATION}trigger: []}}",
        f"{OPERATION}trigger_states: {{a: b}}}}",
        f"{OPERATION}triggerStates: []}}",
        f"{OPERATION}triggers: {{states: [on]}}}}",
        f"{OPERATION}triggers: [{{at: start, stats: [on]}}]}}",
        f"{OPERATION}triggers: [{{at: noon}}]}}",
        f"{OPERATION}triggers: [{{at: sunset, offset: late}}]}}",
        f"{OPERATION}triggers: [{{at: start, conditions: {{afer: '22:00'}}}}]}}",
        f"{OPERATION}triggers: [{{duration: 5m, for: 5m}}]}}",
        f"{OPERATION}triggers: [null]}}",
        f"{OPERATION}conditions: []}}",
        f"{OPERATION}conditions: {{}}}}",
        f"{OPERATION}conditions: {{entity: lamp}}}}",
        f"{OPERATION}conditions: {{any: [{{before: 25:00}}]}}}}",
        f"{OPERATION}conditions: {{not: {{weekdays: [someday]}}}}}}",
        f"{OPERATION}conditions: {{all: []}}}}",
    ],
)
def test_what_is_wrong_is_refused_by_the_schema_and_by_check(text: str) -> None:
    assert refusals(text)
    assert problems(text, ENVIRONMENT)


# -- what is accepted, by check and by the schema alike ----------------------------------------------------------------

REPLACED: Mapping[tuple[str, ...], list[Any]] = {
    ("mqtt", "protocol"): [5, "5", "3.1.1"],
    ("mqtt", "session_expiry"): [0, 0.5, "90", " 10 s ", "1.5h", "${ENV:SOON}"],
    ("mqtt", "trust_user_lanes"): [True, "${ENV:YES}"],
    ("store", "retention", "max_jobs"): [1, "${ENV:NUMBER}"],
    ("service", "hostname"): [None, "hub-1.local"],
    ("service", "time_zone"): [None, "UTC"],
    ("service", "timeout"): [0.25, "500ms", "30d", "${ENV:SOON}"],
    ("service", "max_payload"): [1, "1MiB", "2 KB", "700", "${ENV:LARGE}"],
    ("service", "concurrency"): [10_000, "${ENV:NUMBER}"],
    ("service", "event_qos"): [1],
    ("service", "latitude"): [-90, "${ENV:NUMBER}"],
    ("users", "alice"): [None, {"objects": None, "links": ["hall"]}, {"permissions": ["job:read", "admin"]}],
    ("classes", "room", "ids"): [["room_1", "x", 5], ["room_1", "x", "line_{001..003}", True]],
    ("classes", "room", "availability"): [None, {"topic": "a/{{ id }}", "offline": 0, "online": 1}],
    ("objects", "lamp", "attributes"): [{"b": None}, {"b": {"value": 0}}, {"b": {"map": {"1": True, "2": 2.5}}}],
    ("objects", "y"): [None, {"class": "room", "availability": {"topic": "t"}}, {"class": None}],
    ("objects", "lamp", "state"): [{"ignore": []}, {"topic": None, "ignore": [0, "x"], "retained": "ignore"}],
    ("links", "hall", "state"): ["source"],
    ("operations", "publish", "attach"): [{"object": "lamp"}, [{"class": "room"}], {"object": "lamp", "link": None}],
    ("operations", "publish", "retry"): [{}, {"max": 0}, {"attempts": "${ENV:NUMBER}"}],
    ("operations", "publish", "mode"): ["single", "${ENV:MODE}"],
    ("operations", "publish", "max"): [None, 7],
    ("operations", "publish", "schedule"): [{"every": "10m"}, {"every": 1}, None, "${ENV:NIGHTLY}", "*/5 8-17 * * 1-5"],
    ("operations", "publish", "timeout"): [None, 1],
    ("operations", "publish", "version"): ["1", 1.5, None, True],
    ("operations", "publish", "delivery"): [None, "at_most_once"],
    ("operations", "publish", "trigger_states"): ["on", 5, True, ["on", 5, True]],
    ("operations", "publish", "message"): ["text", 5, ["a"], None, True],
    ("operations", "publish", "triggers"): [[], [{}], [{"for": 5}], [{"states": 5, "conditions": None}]],
    ("operations", "program", "params"): [None, {}, {"type": "object"}],
    ("operations", "program", "args"): [[]],
    ("operations", "program", "preferences"): [[], [{"key": "k"}], [{"key": "a.b-c", "value": {"x": [1]}}]],
    ("operations", "script", "interpreter"): [["/usr/bin/env", "python3"]],
    ("operations", "guarded", "breaker"): ["off", {}, {"firings": 1}, {"pause": 0.5}],
    ("operations", "guarded", "rollout"): [None],
    ("operations", "guarded", "confirm"): [None, {"states": "on", "within": 5}, {"states": [0, True], "within": "1s"}],
    ("operations", "guarded", "conditions"): [
        None,
        [{"after": "6:30", "before": "22:00:30"}],
        {"after": "sunrise", "entity": "lamp", "states": 5},
        {"not": [{"weekdays": "Monday"}, {"any": {"above": 5, "below": 6.5}}]},
        {"weekdays": ["MON", "tuesday"]},
        [[{"all": [[{"before": "sunset"}]]}]],
        {"above": "5", "states": None, "attribute": None},
    ],
    ("operations", "guarded", "triggers"): [
        [{"at": "sunrise", "offset": 60}, {"at": "start"}],
        [{"at": "sunset", "offset": "+5m"}, {"at": "sunset", "offset": -5}],
        [{"above": 5, "hysteresis": "${ENV:NUMBER}"}],
        [{"availability": None, "from": "a", "on_restart": "restart", "enabled": "${ENV:YES}"}],
    ],
}
"""Other ways to write what stands at a place of WHOLE, each as good."""
UNNEEDED = [
    ("mqtt",),
    ("store",),
    ("service", "max_payload"),
    ("classes", "room", "name"),
    ("objects", "lamp", "state"),
    ("operations", "publish", "delivery"),
    ("operations", "program", "env"),
    ("operations", "guarded", "conditions"),
]


def with_changes(replaced: Mapping[tuple[str, ...], Any], left_out: set[tuple[str, ...]]) -> Any:
    """Return WHOLE with other values at some places, and without others."""
    made = copy.deepcopy(WHOLE)
    for place, value in replaced.items():
        around = made
        for part in place[:-1]:
            around = around[part]
        around[place[-1]] = copy.deepcopy(value)
    for place in left_out:
        around = made
        for part in place[:-1]:
            around = around[part]
        del around[place[-1]]
    return made


@pytest.mark.parametrize(
    ("place", "value"), [(place, value) for place, values in REPLACED.items() for value in values], ids=str
)
def test_every_spelling_of_a_key_is_accepted(place: tuple[str, ...], value: Any) -> None:
    text = json.dumps(with_changes({place: value}, set()))
    assert problems(text, ENVIRONMENT) == []
    assert refusals(text) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries({}, optional={place: st.sampled_from(values) for place, values in REPLACED.items()}),
    st.sets(st.sampled_from(UNNEEDED), max_size=3),
)
def test_what_check_accepts_the_schema_accepts(
    replaced: dict[tuple[str, ...], Any], left_out: set[tuple[str, ...]]
) -> None:
    text = json.dumps(with_changes(replaced, left_out))
    assert problems(text, ENVIRONMENT) == []
    assert refusals(text) == []


def test_an_object_leaves_to_its_class_what_its_own_availability_lacks() -> None:
    text = """
    classes: {room: {ids: [r], availability: {topic: "a/{{ id }}"}}}
    objects: {r: {availability: {online: here}}, door: {class: room, availability: {value: x}}}
    """
    assert problems(text) == refusals(text) == []


@pytest.mark.parametrize("text", ["", "{}", "mqtt:\nobjects:\noperations:\n", "users: {bob: }"])
def test_what_is_empty_is_accepted(text: str) -> None:
    assert problems(text) == refusals(text) == []


# -- the schema itself -------------------------------------------------------------------------------------------------


def test_it_is_a_schema_of_its_draft() -> None:
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["title"]


def parts(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every mapping inside a schema, and where it is."""
    if isinstance(schema, dict):
        yield where, schema
        for key, inner in schema.items():
            yield from parts(inner, f"{where}.{key}")
    elif isinstance(schema, list):
        for number, inner in enumerate(schema):
            yield from parts(inner, f"{where}.{number}")


def keys() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key that has a meaning of its own: of sections, entities, operations, types, triggers, conditions."""
    for where, part in parts(SCHEMA):
        if isinstance(part.get("properties"), dict) and part.get("type") == "object":
            yield from ((f"{where}.{key}", inner) for key, inner in part["properties"].items())


@pytest.mark.parametrize(("where", "schema"), list(keys()), ids=[where for where, _ in keys()])
def test_every_key_has_a_description_in_sentences(where: str, schema: dict[str, Any]) -> None:
    while "description" not in schema:
        assert "$ref" in schema, where
        target: Any = SCHEMA
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    assert re.match(r"[A-Z`].*[.)]\Z", schema["description"]), where


def test_no_mapping_takes_an_unknown_key() -> None:
    whole = [part for _, part in parts(SCHEMA) if part.get("type") == "object" and "properties" in part]
    assert len(whole) > 20
    assert all(part["additionalProperties"] is False for part in whole)


def test_every_reference_leads_somewhere() -> None:
    for where, part in parts(SCHEMA):
        if isinstance(part.get("$ref"), str):
            target: Any = SCHEMA
            for name in part["$ref"].removeprefix("#/").split("/"):
                assert name in target, where
                target = target[name]


def test_an_operation_is_one_of_its_types_each_with_its_own_keys() -> None:
    types = {each["title"]: each for each in SCHEMA["$defs"]["operation"]["oneOf"]}
    assert types.keys() >= {"mqtt", "program", "script"}
    for name, each in types.items():
        assert each["properties"]["type"]["const"] == name
        assert {"attach", "triggers", "trigger_states", "triggerStates", "retry"} <= each["properties"].keys()
    assert "path" in types["program"]["required"]
    assert "path" not in types["mqtt"]["properties"]
