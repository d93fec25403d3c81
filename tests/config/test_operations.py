"""Operations: what their keys mean, and what is wrong with them in words (contract 2)."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from mqttjobs.domain.model import Delivery, Mode
from mqttjobs.domain.operations import COMMON_KEYS, Attach, Operation, Retry
from mqttjobs.domain.schedules import Interval
from mqttjobs.executors.base import executor_types
from tests.config.writing import an_operation, good, problems

HOME = """
objects:
  motion: {attributes: {battery: {}, action: {event: true}}}
  lamp: {}
  door: {state: {event: true}}
links:
  hall: {source: motion, target: lamp}
classes:
  room: {ids: [room_1, room_2], attributes: {window: {}}}
users:
  alice: {permissions: [admin]}
operations:
"""
FIRST = HOME.count("\n") + 1


def operation(body: str, home: str = HOME) -> Operation:
    return an_operation(good(f"{home}  op: {body}\n"), "op")


def reported(body: str) -> list[str]:
    """Return what is wrong with an operation, without the line."""
    found = problems(f"{HOME}  op: {body}\n")
    assert all(each.startswith(f"{FIRST}: ") for each in found), found
    return [each.partition(": ")[2] for each in found]


def test_every_key_that_all_types_share() -> None:
    made = operation(
        """
    attach: [{object: lamp}, {link: hall}, {class: room}]
    name: Light on
    description: Switches the light on
    type: mqtt
    topic: "{{ id }}/set"
    message: {state: "ON"}
    params: {type: object, properties: {to: {type: string}}}
    timeout: 30s
    retry: {attempts: 3, first: 2s, factor: 3, max: 1m}
    mode: queued
    max: 5
    priority: -2
    active: false
    schedule: "0 3 * * *"
    catch_up: false
    event_driven: false
    run_as: alice
    environment: plant
    version: 1.5
    preferences: [{key: colour, value: {r: 1}, description: Which one}, {key: plain}]
    delivery: at_most_once
    target: _local
    trigger_states: [on, 5, true]
"""
    )
    assert made.attach == (Attach(object="lamp"), Attach(link="hall"), Attach.model_validate({"class": "room"}))
    assert (made.name, made.description, made.type) == ("Light on", "Switches the light on", "mqtt")
    assert made.params == {"type": "object", "properties": {"to": {"type": "string"}}}
    assert made.timeout == timedelta(seconds=30)
    assert made.retry == Retry(attempts=3, first=timedelta(seconds=2), factor=3.0, max=timedelta(minutes=1))
    assert (made.mode, made.max, made.priority, made.active) == (Mode.QUEUED, 5, -2, False)
    assert made.schedule == "0 3 * * *"
    assert (made.catch_up, made.event_driven, made.run_as) == (False, False, "alice")
    assert (made.environment, made.version, made.delivery) == ("plant", "1.5", Delivery.AT_MOST_ONCE)
    assert [(each.key, each.value, each.description) for each in made.preferences] == [
        ("colour", {"r": 1}, "Which one"),
        ("plain", None, ""),
    ]
    assert made.triggers[0].states_waited_for == ("on", "5", "true")


@pytest.mark.parametrize(
    ("kind", "keys", "delivery", "uses_slot"),
    [
        ("mqtt", "topic: a", Delivery.AT_LEAST_ONCE, False),
        ("program", "path: /bin/true", Delivery.AT_MOST_ONCE, True),
        ("script", "text: echo", Delivery.AT_MOST_ONCE, True),
    ],
)
def test_the_defaults_of_each_type(kind: str, keys: str, delivery: Delivery, uses_slot: bool) -> None:
    made = operation(f"{{type: {kind}, {keys}}}")
    assert (made.name, made.delivery, made.uses_slot, made.mode) == ("op", delivery, uses_slot, Mode.PARALLEL)
    assert (made.attach, made.triggers, made.schedule, made.timeout, made.max) == ((), (), None, None, None)
    assert (made.active, made.event_driven, made.catch_up, made.priority, made.retry.attempts) == (
        True,
        True,
        True,
        0,
        1,
    )


@pytest.mark.parametrize(
    ("attach", "places"),
    [
        ("{object: lamp}", [Attach(object="lamp")]),
        ("{link: hall}", [Attach(link="hall")]),
        ("{class: room}", [Attach.model_validate({"class": "room"})]),
        ("[{class: room}, {object: lamp}]", [Attach.model_validate({"class": "room"}), Attach(object="lamp")]),
        ("[]", []),
    ],
)
def test_the_forms_of_attach(attach: str, places: list[Attach]) -> None:
    assert list(operation(f"{{type: mqtt, topic: a, attach: {attach}}}").attach) == places


@pytest.mark.parametrize(
    ("attach", "problem"),
    [
        ("{object: lampp}", "op.attach.object: there is no object 'lampp'; did you mean 'lamp'?"),
        ("{link: hal}", "op.attach.link: there is no link 'hal'; did you mean 'hall'?"),
        ("{class: rooms}", "op.attach.class: there is no class 'rooms'; did you mean 'room'?"),
        ("[{object: lamp}, {object: dor}]", "op.attach.1.object: there is no object 'dor'; did you mean 'door'?"),
        ("{object: hall}", "op.attach.object: there is no object 'hall'"),
        (
            "{object: lamp, link: hall}",
            "op.attach: must name exactly one object, link or class; use a list for several",
        ),
        ("{}", "op.attach: must name exactly one object, link or class; use a list for several"),
        ("{objekt: lamp}", "op.attach.objekt: unknown key; did you mean 'object'?"),
        ("{class_id: room}", "op.attach.class_id: unknown key; did you mean 'class'?"),
        ("lamp", "op.attach: must be a list"),
        ("[lamp]", "op.attach.0: must be a mapping"),
        ("{object: 5}", "op.attach.object: must be a text; put it in quotes"),
        ("{object: [lamp]}", "op.attach.object: must be a text"),
    ],
)
def test_what_is_wrong_with_attach(attach: str, problem: str) -> None:
    assert problem.removeprefix("op.") in [
        each.removeprefix("operations.op.") for each in reported(f"{{type: mqtt, topic: a, attach: {attach}}}")
    ]


# -- triggers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("states", ["[on]", "on", '["on"]'])
@pytest.mark.parametrize("key", ["trigger_states: {}", "triggerStates: {}", "triggers: [{{states: {}}}]"])
def test_the_ways_to_say_which_states_start_an_operation(states: str, key: str) -> None:
    made = operation(f"{{type: mqtt, topic: a, attach: {{object: lamp}}, {key.format(states)}}}")
    (trigger,) = made.triggers
    assert trigger.states_waited_for == ("on",)
    assert "trigger_states" not in made.definition
    assert "triggerStates" not in made.definition


def test_trigger_states_and_triggers_add_up() -> None:
    made = operation(
        "{type: mqtt, topic: a, attach: {object: motion}, trigger_states: [a], triggers: [{}, {states: b, for: 5m}]}"
    )
    assert [trigger.states_waited_for for trigger in made.triggers] == [None, ("b",), ("a",)]
    assert [getattr(key, "duration", None) for key in made.triggers[1].waiting] == [timedelta(minutes=5)]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("trigger_states: []", "trigger_states: must be a list of states"),
        ("trigger_states: {a: b}", "trigger_states: must be a list of states"),
        ("trigger_states: [a, [b]]", "trigger_states.1: must be a text, a number, true or false"),
        ("triggerStates: [null]", "triggerStates.0: must be a text, a number, true or false"),
        ("triggers: {states: [on]}", "triggers: must be a list"),
        ("triggers: {states: [on]}, trigger_states: [a]", "triggers: must be a list"),
        ("triggers: [{states: []}]", "triggers.0.states: must not be empty"),
        ("triggers: [{state: [on]}]", "triggers.0.state: unknown key; did you mean 'states'?"),
        ("trigger_states: [a], triggers: [{}, {state: on}]", "triggers.1.state: unknown key; did you mean 'states'?"),
        (
            "triggers: [{duration: soon}]",
            "triggers.0.duration: a duration is a number of seconds, or 500ms, 10s, 5m, 2h, 30d",
        ),
        ("triggers: [{for: soon}]", "triggers.0.for: a duration is a number of seconds, or 500ms, 10s, 5m, 2h, 30d"),
        ("triggers: [{duration: 0}]", "triggers.0.duration: must be more than nothing"),
        ("triggers: [{periodicity: 0s}]", "triggers.0.periodicity: must be more than nothing"),
        ("triggers: [{duration: 5m, for: 5m}]", "triggers.0.for: "),
        ("triggers: [on]", "triggers.0: must be a mapping"),
        (
            "triggers: [{attribute: batery}]",
            "triggers.0.attribute: there is no attribute 'batery'; did you mean 'battery'?",
        ),
        ("triggers: [{attribute: action, for: 5s}]", "triggers.0: a value with event: true"),
        ("triggers: [{}, {attribute: action, periodicity: 5s}]", "triggers.1: a value with event: true"),
    ],
)
def test_what_is_wrong_with_triggers(keys: str, problem: str) -> None:
    found = reported(f"{{type: mqtt, topic: a, attach: {{object: motion}}, {keys}}}")
    assert len(found) == 1, found
    assert found[0].startswith(f"operations.op.{problem}")


def test_a_trigger_that_watches_nothing_is_reported() -> None:
    (problem,) = reported("{type: mqtt, topic: a, trigger_states: [on]}")
    assert problem == "operations.op.trigger_states: nothing is watched: say with attach what the operation belongs to"
    (problem,) = reported("{type: mqtt, topic: a, triggers: [{states: [on]}]}")
    assert problem.startswith("operations.op.triggers: nothing is watched")


@pytest.mark.parametrize("attach", ["{link: hall}", "{object: motion}", "[{object: lamp}, {link: hall}]"])
def test_an_event_value_has_no_duration_wherever_it_is_watched_from(attach: str) -> None:
    found = reported(f"{{type: mqtt, topic: a, attach: {attach}, triggers: [{{attribute: action, for: 5s}}]}}")
    assert any("event: true" in each for each in found)


def test_attributes_of_a_class_and_of_the_object_that_a_link_follows_can_be_watched() -> None:
    assert operation("{type: mqtt, topic: a, attach: {class: room}, triggers: [{attribute: window}]}").triggers
    assert operation("{type: mqtt, topic: a, attach: {link: hall}, triggers: [{attribute: battery}]}").triggers


# -- the keys of each type --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("{topic: a}", "type: is missing"),
        ("{type: mqt, topic: a}", "type: must be one of "),
        ("{type: 5, topic: a}", "type: must be a text; put it in quotes"),
        ("{type: mqtt}", "topic: is missing"),
        ("{type: mqtt, topic: ''}", "topic: must not be empty"),
        ("{type: mqtt, topic: a/+}", "topic: a topic has no wildcards"),
        ("{type: mqtt, topic: $SYS/x}", "topic: a topic that begins with $ belongs to the broker"),
        ("{type: mqtt, topic: mqttjobs/status}", "topic: topics under mqttjobs/ are the service's own"),
        ("{type: mqtt, topic: '{{ a b }}'}", "topic: between {{ and }} stands one variable"),
        ("{type: mqtt, topic: '{{ id'}", "topic: a {{ is not closed by }}"),
        ("{type: mqtt, topic: [a]}", "topic: must be a text"),
        ("{type: mqtt, topic: a, message: {x: '{{ 1+1 }}'}}", "message: between {{ and }} stands one variable"),
        ("{type: mqtt, topic: a, qos: 3}", "qos: must be at most 2"),
        ("{type: mqtt, topic: a, qos: '1'}", "qos: must be a whole number"),
        ("{type: mqtt, topic: a, retain: yes}", "retain: must be true or false"),
        ("{type: mqtt, topic: a, payload: x}", "payload: unknown key"),
        ("{type: mqtt, topic: a, mesage: x}", "mesage: unknown key; did you mean 'message'?"),
        ("{type: mqtt, topic: a, path: /bin/x}", "path: unknown key"),
        ("{type: program}", "path: is missing"),
        ("{type: program, path: bin/x}", "path: must be absolute"),
        ("{type: program, path: /bin/x, args: x}", "args: must be a list"),
        ("{type: program, path: /bin/x, args: [1]}", "args.0: must be a text; put it in quotes"),
        ("{type: program, path: /bin/x, args: ['{{ }}']}", "args: between {{ and }} stands one variable"),
        ("{type: program, path: /bin/x, env: {A: 5}}", "env.A: must be a text; put it in quotes"),
        ("{type: program, path: /bin/x, env: {'A=B': x}}", "env: a variable's name has no = and is not empty"),
        ("{type: program, path: /bin/x, text: x}", "text: unknown key"),
        ("{type: script}", "text: give either text or ref"),
        ("{type: script, text: a, ref: b}", "text: give either text or ref"),
        ("{type: script, text: 'echo {{ id }}'}", "text: variables are not put into a script's text"),
        ("{type: script, ref: nothing.sh}", "ref: there is no such file"),
        ("{type: script, ref: ../x.sh}", "ref: must be a file in the configuration's folder"),
        ("{type: script, text: a, interpreter: []}", "interpreter: must not be empty"),
        ("{type: script, text: a, path: /bin/x}", "path: unknown key"),
    ],
)
def test_what_is_wrong_with_the_keys_of_a_type(body: str, problem: str) -> None:
    found = reported(body)
    assert len(found) == 1, found
    assert found[0].startswith(f"operations.op.{problem}")


def test_a_script_by_reference_is_a_file_beside_the_configuration() -> None:
    text = f"{HOME}  op: {{type: script, ref: scripts/tidy.sh}}\n"
    assert an_operation(good(text, files={"scripts/tidy.sh": "echo"}), "op").definition["ref"] == "scripts/tidy.sh"


@pytest.mark.parametrize(
    "text", ["docker ps --format '{{.Names}}'", "jinja '{{ item }}'", "echo {{", "f() {{ :; }}", "echo ${{x}}"]
)
def test_double_braces_that_are_no_variable_of_ours_are_the_scripts_own(text: str) -> None:
    made = operation("{type: script, text: " + json.dumps(text) + "}")
    assert made.definition["text"] == text


@pytest.mark.parametrize(
    "name", ["id", "state", "properties.x", "payload.a.0", "source.properties.x", "params.to", "job.id"]
)
def test_a_variable_in_a_scripts_text_is_reported_what_to_write_instead(name: str) -> None:
    (problem,) = reported(f"{{type: script, text: 'echo {{{{ {name} }}}}'}}")
    assert "use $MQTTJOBS_" in problem


def test_programs_are_in_the_folders_that_are_allowed() -> None:
    service = "service: {program_dirs: [bin, /usr/bin]}\n"
    assert problems(f"{service}{HOME}  op: {{type: program, path: /usr/bin/env}}\n") == []
    (problem,) = problems(f"{service}{HOME}  op: {{type: program, path: /opt/x}}\n")
    assert "path: must be in one of service.program_dirs" in problem


# -- the keys that all types share ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("active: yes", "active: must be true or false"),
        ("active: 1", "active: must be true or false"),
        ("timeout: 0", "timeout: must be more than nothing"),
        ("timeout: 5 minutes", "timeout: a duration is"),
        ("timeout: 400000000000", "timeout: a duration is at most 100 years"),
        ("retry: 3", "retry: must be a mapping"),
        ("retry: {attempts: 0}", "retry.attempts: must be at least 1"),
        ("retry: {atempts: 2}", "retry.atempts: unknown key; did you mean 'attempts'?"),
        ("retry: {factor: 0.5}", "retry.factor: must be at least 1"),
        ("mode: queue", "mode: must be one of 'parallel', 'single', 'queued' or 'restart'; did you mean 'queued'?"),
        ("max: 0", "max: must be at least 1"),
        ("max: 1.5", "max: must be a whole number"),
        ("priority: high", "priority: must be a whole number"),
        ("schedule: 0 3 * *", "schedule: a cron schedule has five fields"),
        ("schedule: 0 25 * * *", "schedule: not a cron schedule"),
        ("schedule: 5", "schedule: must be a text or a mapping"),
        ("schedule: [a]", "schedule: must be a text or a mapping"),
        ("schedule: {every: 5m, evry: 5m}", "schedule.evry: unknown key; did you mean 'every'?"),
        ("schedule: {every: 0.1}", "schedule.every: must be at least a second"),
        ("delivery: once", "delivery: must be one of 'at_least_once' or 'at_most_once'"),
        ("run_as: alise", "run_as: there is no user 'alise'; did you mean 'alice'?"),
        ("params: {type: objekt}", "params: is no JSON Schema at type"),
        ("params: {properties: {a: {minLength: -1}}}", "params: is no JSON Schema at properties.a.minLength"),
        ("params: {properties: {a: {pattern: '('}}}", "params: is no JSON Schema at properties.a.pattern"),
        ("params: {properties: {a: {$ref: '#/nowhere'}}}", "params: "),
        ("params: {$ref: 'http://127.0.0.1:9/x.json'}", "params: "),
        ("params: [a]", "params: must be a mapping"),
        ("preferences: [{value: 1}]", "preferences.0.key: is missing"),
        ("preferences: [{key: a b}]", "preferences.0.key: must have 1 to 64 letters, digits, _, . or -"),
        ("preferences: {a: b}", "preferences: must be a list"),
        ("atach: {object: lamp}", "atach: unknown key; did you mean 'attach'?"),
        ("trigger: []", "trigger: unknown key; did you mean 'triggers'?"),
        ("name: 5", "name: must be a text; put it in quotes"),
        ("description: {a: b}", "description: must be a text"),
    ],
)
def test_what_is_wrong_with_a_key(keys: str, problem: str) -> None:
    found = reported(f"{{type: mqtt, topic: a, {keys}}}")
    assert len(found) == 1, found
    assert found[0].startswith(f"operations.op.{problem}")


@pytest.mark.parametrize("body", ["5", "[a]", "text"])
def test_an_operation_is_a_mapping(body: str) -> None:
    assert reported(body) == ["operations.op: must be a mapping"]


def test_an_interval() -> None:
    made = operation("{type: mqtt, topic: a, schedule: {every: 10m}}")
    assert made.schedule == Interval(every=timedelta(minutes=10))


def test_a_reference_inside_the_schema_is_good() -> None:
    made = operation(
        "{type: mqtt, topic: a, params: {$defs: {n: {type: integer}}, properties: {a: {$ref: '#/$defs/n'}}}}"
    )
    assert made.params is not None


def test_where_no_users_are_configured_any_text_can_be_run_as() -> None:
    assert (
        operation(
            "{type: mqtt, topic: a, run_as: whoever}", HOME.replace("users:\n  alice: {permissions: [admin]}\n", "")
        ).run_as
        == "whoever"
    )


def test_a_definition_is_as_it_was_written_and_its_fingerprint_is_of_it_alone() -> None:
    one = operation("{type: mqtt, topic: a, message: {b: 1, a: [on]}, timeout: 1m}")
    other = operation("{timeout: 1m, message: {a: [on], b: 1}, topic: a, type: mqtt}")
    assert one.definition == {"type": "mqtt", "topic": "a", "message": {"b": 1, "a": ["on"]}, "timeout": "1m"}
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != operation("{type: mqtt, topic: a, message: {b: 2, a: [on]}, timeout: 1m}").fingerprint


def test_no_type_has_a_key_that_all_types_share() -> None:
    shipped = {name: kind for name, kind in executor_types().items() if kind.__module__.startswith("mqttjobs.")}
    assert shipped.keys() >= {"mqtt", "program", "script"}
    for name, kind in shipped.items():
        assert not COMMON_KEYS & kind.model_fields.keys(), name


WRONG_VALUES: list[Any] = ["{a: [b]}", "[[]]", "{}", "-1", "1.5", "''", "true", "2026-01-01", '"\\0"', "~"]


@pytest.mark.parametrize("value", WRONG_VALUES)
@pytest.mark.parametrize("kind", ["mqtt", "program", "script"])
def test_no_value_of_any_key_crashes_or_is_reported_anywhere_but_at_its_key(kind: str, value: str) -> None:
    base = {"mqtt": {"topic": "a"}, "program": {"path": "/bin/x"}, "script": {"text": "a"}}[kind]
    for key in COMMON_KEYS | executor_types()[kind].model_fields.keys():
        keys = {**base, "type": kind, key: value}
        for problem in reported("{" + ", ".join(f"{name}: {written}" for name, written in keys.items()) + "}"):
            place = problem.partition(": ")[0].split(".")
            assert place[2:3] == [key] or key in ("type", "text", "ref"), (key, problem)
            assert not any(part.startswith(("Section", "str", "function")) for part in place[3:]), problem
