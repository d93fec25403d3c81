"""`${ENV:NAME}` and `${FILE:path}` are looked up, and what they stand for never leaves the process (contract 2)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mqttjobs.domain.model import STATE, EntityKind, ValueKey
from mqttjobs.domain.operation_document import OperationView, operation_document
from mqttjobs.domain.protocol import encode
from mqttjobs.errors import ConfigError
from tests.config.writing import an_object, an_operation, good, problems

ENV = {"TOKEN": "hunter2-hunter2-hunter2", "HOST": "broker.example", "ROOM": "attic-of-secrets", "EMPTY": ""}
FILES = {"keys/alice.txt": "alice-secret-key-1\n", "pw": "p4ssw0rd"}


def test_they_are_replaced_in_what_the_service_uses() -> None:
    settings = good(
        """
        mqtt: {url: "mqtt://${ENV:HOST}:1883", username: u, password: "${FILE:pw}"}
        users: {alice: {api_key: "${FILE:keys/alice.txt}"}}
        objects:
          lamp: {state: {topic: "house/${ENV:ROOM}/lamp", map: {"1": "${ENV:ROOM}"}}}
        operations:
          op: {type: mqtt, topic: a, timeout: "${ENV:EMPTY}5s", attach: {object: lamp}, trigger_states: ["${ENV:ROOM}"]}
        """,
        ENV,
        FILES,
    )
    assert settings.connect.url == "mqtt://broker.example:1883"
    assert settings.connect.password == "p4ssw0rd"  # noqa: S105 - a test's
    assert settings.installation.users["alice"].api_key == "alice-secret-key-1"
    assert an_object(settings, "lamp").sources[STATE].topic == "house/attic-of-secrets/lamp"
    assert an_operation(settings, "op").triggers[0].states_waited_for == ("attic-of-secrets",)
    assert an_operation(settings, "op").timeout is not None
    assert settings.reveal("ENV:TOKEN") == "${ENV:TOKEN}"
    assert settings.reveal("ENV:ROOM") == "attic-of-secrets"


def test_a_number_or_a_boolean_may_stand_behind_a_name_where_one_is_needed() -> None:
    settings = good(
        """
        mqtt: {password: "${ENV:N}", trust_user_lanes: "${ENV:YES}", tls: {insecure: "${ENV:YES}"}}
        service:
          {concurrency: "${ENV:N}", latitude: "${ENV:F}", longitude: 0, hostname: "${ENV:N}", max_objects: "${ENV:N}0"}
        operations: {op: {type: mqtt, topic: a, active: "${ENV:NO}", retry: {attempts: "${ENV:N}"}}}
        """,
        {"N": "12", "YES": "true", "NO": "false", "F": "52.5"},
    )
    assert settings.connect.password == "12"  # noqa: S105 - a test's
    assert (settings.mqtt.trust_user_lanes, settings.connect.tls.insecure) == (True, True)
    assert (settings.service.concurrency, settings.service.latitude) == (12, 52.5)
    assert (settings.service.hostname, settings.service.max_objects) == ("12", 120)
    assert (an_operation(settings, "op").active, an_operation(settings, "op").retry.attempts) == (False, 12)


@pytest.mark.parametrize("text", ["service: {concurrency: '${ENV:TOKEN}'}", "mqtt: {trust_user_lanes: '${ENV:HOST}'}"])
def test_a_text_behind_a_name_is_no_number(text: str) -> None:
    (problem,) = problems(text, ENV)
    assert "must be" in problem


def test_what_documents_show_keeps_the_names() -> None:
    settings = good(
        """
        users: {alice: {display_name: "${ENV:TOKEN}", email: "${ENV:TOKEN}", role: "${ENV:TOKEN}"}}
        classes: {room: {ids: [r], name: "${ENV:TOKEN} {{ id }}", properties: {k: "${ENV:TOKEN}"}}}
        objects: {lamp: {name: "${ENV:TOKEN}", properties: {deep: [{k: "${ENV:TOKEN}"}]}}}
        links: {hall: {source: lamp, target: r, name: "${ENV:TOKEN}", properties: {k: "${ENV:TOKEN}"}}}
        operations:
          op:
            name: "${ENV:TOKEN}"
            description: "${ENV:TOKEN}"
            environment: "${ENV:TOKEN}"
            version: "${ENV:TOKEN}"
            preferences: [{key: k, value: "${ENV:TOKEN}", description: "${ENV:TOKEN}"}]
            params: {properties: {x: {default: "${ENV:TOKEN}"}}}
            type: program
            path: /bin/true
            args: ["${ENV:TOKEN}"]
            env: {TOKEN: "${ENV:TOKEN}"}
        """,
        ENV,
    )
    operation = an_operation(settings, "op")
    view = OperationView(
        operation,
        None,
        active=True,
        total=0,
        running=0,
        last_ids=(),
        latest=None,
        next_due=None,
        process=("true", "/bin/true"),
        users=settings.installation.users,
    )
    shown: list[Any] = [operation_document(view), operation.definition, operation.name, operation.params]
    for entity in settings.installation.entities.values():
        shown += [entity.name, entity.properties]
    for user in settings.installation.users.values():
        shown += [user.display_name, user.email, user.role]
    text = encode(shown).decode()
    assert ENV["TOKEN"] not in text
    assert text.count("${ENV:TOKEN}") >= 20


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mqtt: {password: '${ENV:NOTHING}'}", "2: mqtt.password: the environment has no variable NOTHING"),
        ("mqtt: {password: '${FILE:nothing.txt}'}", "2: mqtt.password: the file nothing.txt cannot be read"),
        ("mqtt: {password: '${FILE:.}'}", "2: mqtt.password: the file . cannot be read"),
        ('mqtt: {password: "${FILE:a\\0b}"}', "2: mqtt.password: the file"),
        ("objects: {lamp: {properties: {deep: [{k: '${ENV:NOTHING}'}]}}}", "2: objects.lamp.properties.deep.0.k: "),
        ("operations: {op: {type: mqtt, topic: a, message: {k: '${ENV:NOTHING}'}}}", "2: operations.op.message.k: "),
    ],
)
def test_a_missing_one_is_reported_where_it_is_named(text: str, problem: str) -> None:
    found = problems(f"# first\n{text}", ENV)
    assert len(found) == 1, found
    assert found[0].startswith(problem)


def test_a_file_that_is_not_utf_8_and_an_environment_that_is_not_are_reported() -> None:
    assert len(problems("mqtt: {password: '${ENV:BAD}'}", {"BAD": "a\udcff"})) == 1


def test_every_place_that_names_a_missing_one_is_reported() -> None:
    found = problems("mqtt:\n  username: '${ENV:NO}'\n  password: '${ENV:NO}'\n")
    assert [each.partition(":")[0] for each in found] == ["2", "3"]


@pytest.mark.parametrize(
    "text",
    [
        "mqtt: {url: '${ENV:TOKEN}'}",
        "mqtt: {protocol: '${ENV:TOKEN}'}",
        "mqtt: {base_topic: '${ENV:TOKEN}/#'}",
        "mqtt: {session_expiry: '${ENV:TOKEN}'}",
        "mqtt: {reply_topics: ['${ENV:TOKEN}#']}",
        "store: {url: '${ENV:TOKEN}'}",
        "service: {time_zone: '${ENV:TOKEN}'}",
        "service: {hostname: '${ENV:TOKEN} '}",
        "service: {inline_operations: ['${ENV:TOKEN}']}",
        "service: {concurrency: '${ENV:TOKEN}'}",
        "users: {bob: {permissions: ['${ENV:TOKEN}']}}",
        "users: {bob: {objects: ['${ENV:TOKEN}']}}",
        "users: {bob: {links: ['${ENV:TOKEN}']}}",
        "objects: {lamp: {class: '${ENV:TOKEN}'}}",
        "objects: {lamp: {state: {topic: '${ENV:TOKEN}/#'}}}",
        "objects: {lamp: {state: {retained: '${ENV:TOKEN}'}}}",
        "objects: {lamp: {state: {value: '${ENV:TOKEN}..x'}}}",
        "classes: {room: {ids: ['${ENV:TOKEN} x']}}",
        "classes: {room: {ids: ['{2..1}${ENV:TOKEN}']}}",
        "classes: {a: {ids: ['${ENV:TOKEN}']}, b: {ids: ['${ENV:TOKEN}']}}",
        (
            "classes: {a: {ids: [x, y], state: {topic: '${ENV:TOKEN}/{{ id }}', event: true}}, "
            "b: {ids: ['${ENV:TOKEN}', z], state: {topic: '{{ id }}/x'}}}"
        ),
        "links: {l: {source: '${ENV:TOKEN}', target: '${ENV:TOKEN}'}}",
        "operations: {op: {type: '${ENV:TOKEN}'}}",
        "operations: {op: {type: mqtt, topic: a, attach: {object: '${ENV:TOKEN}'}}}",
        "operations: {op: {type: mqtt, topic: a, attach: [{class: '${ENV:TOKEN}'}]}}",
        "operations: {op: {type: mqtt, topic: a, attach: {link: '${ENV:TOKEN}'}, mode: x}}",
        "operations: {op: {type: mqtt, topic: a, mode: '${ENV:TOKEN}'}}",
        "operations: {op: {type: mqtt, topic: a, timeout: '${ENV:TOKEN}'}}",
        "operations: {op: {type: mqtt, topic: a, schedule: '${ENV:TOKEN}'}}",
        "users: {bob: {}}\noperations: {op: {type: mqtt, topic: a, run_as: '${ENV:TOKEN}'}}",
        (
            "objects: {lamp: {}}\n"
            "operations: {op: {type: mqtt, topic: a, attach: {object: lamp}, triggers: [{attribute: '${ENV:TOKEN}'}]}}"
        ),
    ],
)
def test_no_problem_tells_what_stands_behind_a_name(text: str) -> None:
    found = problems(text, ENV)
    assert found
    for problem in found:
        assert "hunter2" not in problem


def test_a_recorded_definition_gets_its_secrets_and_one_that_was_sent_in_does_not() -> None:
    settings = good("operations: {op: {type: mqtt, topic: a, timeout: '${ENV:LIMIT}'}}", {"LIMIT": "12345s"})
    assert settings.build is not None
    definition = an_operation(settings, "op").definition
    assert settings.build({**definition, "topic": "b"}, configured=True).timeout == timedelta(seconds=12345)
    with pytest.raises(ConfigError) as caught:
        settings.build(definition)
    assert "12345" not in str(caught.value)


def test_keys_that_look_like_secrets_are_nothing_special() -> None:
    settings = good("objects: {lamp: {properties: {'${ENV:NOTHING}': 1}}}")
    assert an_object(settings, "lamp").properties == {"${ENV:NOTHING}": 1}
    assert ValueKey(EntityKind.OBJECT, "lamp", STATE).entity in settings.installation.entities
