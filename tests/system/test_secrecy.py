"""The secrets of `${ENV:…}` and `${FILE:…}` reach their destination and are recorded nowhere (contract 2)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tests.brokers import StartMosquitto
from tests.clients import Client
from tests.running import RunningService, StartService, mqttjobs

NAMES = (
    "BROKER",
    "KEY",
    "NAME",
    "DEFAULT",
    "PROPERTY",
    "TOPIC",
    "MESSAGE",
    "ARGUMENT",
    "VARIABLE",
    "PREFERENCE",
    "FILE",
    "WILDCARD",
)
SECRETS = {f"SECRET_{name}": f"{name.lower()}-s3cr3t-0123456789" for name in NAMES} | {
    "SECRET_WILDCARD": "wildcard-s3cr3t/#-0123456789"
}

CONFIG: dict[str, Any] = {
    "mqtt": {"username": "hub", "password": "${ENV:SECRET_BROKER}"},
    "users": {
        "root": {"api_key": "${ENV:SECRET_KEY}", "permissions": ["admin"], "email": "${ENV:SECRET_PROPERTY}"},
    },
    "objects": {
        "lamp": {
            "name": "Lamp ${ENV:SECRET_NAME}",
            "state": {"topic": "home/lamp"},
            "properties": {"token": "${ENV:SECRET_PROPERTY}", "deep": {"list": ["a ${FILE:secret.txt} b"]}},
        }
    },
    "operations": {
        "tell": {
            "attach": {"object": "lamp"},
            "type": "mqtt",
            "topic": "cloud/${ENV:SECRET_TOPIC}/lamp",
            "message": {
                "key": "${ENV:SECRET_MESSAGE}",
                "token": "{{ properties.token }}",
                "all": "{{ properties.deep }}",
                "name": "{{ name }}",
            },
            "trigger_states": ["on"],
        },
        "refused": {"attach": {"object": "lamp"}, "type": "mqtt", "topic": "a/${ENV:SECRET_WILDCARD}"},
        "run": {
            "attach": {"object": "lamp"},
            "type": "script",
            "name": "Run ${ENV:SECRET_ARGUMENT}",
            "description": "with ${FILE:secret.txt}",
            "args": ["${ENV:SECRET_ARGUMENT}", "{{ properties.token }}"],
            "env": {"OWN": "${ENV:SECRET_VARIABLE}"},
            "preferences": [{"key": "pin", "value": "${ENV:SECRET_PREFERENCE}"}],
            "text": 'echo "::message:: using $1"; echo "$@ $OWN $MQTTJOBS_PREF_PIN $MQTTJOBS_PROPERTIES_TOKEN";'
            ' env | sort; cat; echo "failed with $1" >&2; cat >&2 </proc/self/environ; exit 3',
        },
        "answer": {
            "attach": {"object": "lamp"},
            "type": "script",
            "text": """printf '{"token": "%s", "pin": "%s"}' "$MQTTJOBS_PROPERTIES_TOKEN" "$OWN" """,
            "env": {"OWN": "${ENV:SECRET_VARIABLE}"},
        },
        "default": {
            "attach": {"object": "lamp"},
            "type": "script",
            "params": {"type": "object", "properties": {"pin": {"default": "${ENV:SECRET_DEFAULT}"}, "own": {}}},
            "text": """test "$MQTTJOBS_PARAMS_PIN" = "$WANTED" && test "$MQTTJOBS_PARAMS_OWN" != "$WANTED" """
            """&& grep -F '"pin":"'"$WANTED"'"'""",
            "env": {"WANTED": "${ENV:SECRET_DEFAULT}"},
        },
    },
}


@pytest.fixture
def service_and_client(
    start_mosquitto: StartMosquitto, start_service: StartService
) -> Iterator[tuple[RunningService, Client]]:
    broker = start_mosquitto(autosave=False)
    service = start_service(broker.port, CONFIG, run=False, environment=SECRETS, arguments=["--log-level", "debug"])
    (service.directory / "secret.txt").write_text(SECRETS["SECRET_FILE"] + "\n")
    service.run()
    with service.client() as client:
        client.subscribe("mqttjobs/event/#", "mqttjobs/info", "mqttjobs/response/#", "cloud/#")
        yield service, client


def assert_no_secret(text: str | bytes, where: str) -> None:
    """Assert that no secret is in a text."""
    data = text if isinstance(text, bytes) else text.encode()
    for name, secret in SECRETS.items():
        assert secret.encode() not in data, f"{name} is in {where}"


def test_a_secret_reaches_its_destination_and_is_recorded_nowhere(
    service_and_client: tuple[RunningService, Client],
) -> None:
    service, client = service_and_client
    key = SECRETS["SECRET_KEY"]

    def ask(method: str, **params: Any) -> Any:
        return client.data(method, params, api_key=key)

    client.publish("home/lamp", b"on")
    received = client.wait_for(lambda each: each.topic.startswith("cloud/"))
    assert received.topic == f"cloud/{SECRETS['SECRET_TOPIC']}/lamp"
    assert received.json == {
        "key": SECRETS["SECRET_MESSAGE"],
        "token": SECRETS["SECRET_PROPERTY"],
        "all": {"list": [f"a {SECRETS['SECRET_FILE']} b"]},
        "name": f"Lamp {SECRETS['SECRET_NAME']}",
    }
    run = ask("operations/execute", id="run", wait=True)
    assert (run["status"], run["description"]["exitCode"]) == ("failed", 3)
    assert run["description"]["stdout"].splitlines()[0] == (
        "${ENV:SECRET_ARGUMENT} ${ENV:SECRET_PROPERTY} ${ENV:SECRET_VARIABLE} ${ENV:SECRET_PREFERENCE} "
        "${ENV:SECRET_PROPERTY}"
    )
    assert ask("operations/execute", id="answer", wait=True)["result"] == {
        "token": "${ENV:SECRET_PROPERTY}", "pin": "${ENV:SECRET_VARIABLE}",
    }  # fmt: skip
    given = {"own": "${ENV:SECRET_DEFAULT}"}
    default = ask("operations/execute", id="default", params=given, wait=True)
    assert default["status"] == "completed", "secrets are resolved in a default, and not in what a caller sends"
    assert default["params"] == {"own": "${ENV:SECRET_DEFAULT}", "pin": "${ENV:SECRET_DEFAULT}"}
    assert ask("operations/execute", id="refused", wait=True)["status"] == "failed"
    for method, params in [
        ("jobs/list", {}), ("operations/list", {}), ("objects/list", {}), ("objects/get", {"id": "lamp"}),
        ("service/info", {}), ("service/health", {}), ("states/history", {"object": "lamp"}), ("config/reload", {}),
        *(("operations/get", {"id": each}) for each in CONFIG["operations"]),
    ]:  # fmt: skip
        assert_no_secret(json.dumps(ask(method, **params)), method)
    published = [each for each in client.messages if not each.topic.startswith("cloud/")]
    assert any("event/job/failed/run" in each.topic for each in published)
    for message in published:
        assert_no_secret(message.payload, message.topic)
    assert service.stop() == 0
    assert_no_secret(service.log, "the log")
    with sqlite3.connect(service.database) as database:
        for line in database.iterdump():
            assert_no_secret(line, "the database")
    database.close()
    for file in service.directory.iterdir():
        if file.name != "secret.txt":
            assert_no_secret(file.read_bytes(), file.name)


def test_the_problems_of_a_configuration_are_printed_without_its_secrets(
    service_and_client: tuple[RunningService, Client],
) -> None:
    service, _ = service_and_client
    service.write_config(
        {
            **CONFIG,
            "mqtt": {**CONFIG["mqtt"], "base_topic": "${ENV:SECRET_WILDCARD}", "protocol": "${ENV:SECRET_KEY}"},
            "service": {"timeout": "${ENV:SECRET_TOPIC}", "concurrency": "${FILE:secret.txt}"},
            "users": {"root": {"api_key": "${ENV:SECRET_NONE}", "permissions": ["${ENV:SECRET_KEY}"]}},
            "objects": {"lamp": {"state": {"topic": "${ENV:SECRET_WILDCARD}"}, "class": "${ENV:SECRET_PROPERTY}"}},
            "links": {"two": {"source": "${ENV:SECRET_PROPERTY}", "target": "lamp"}},
        }
    )
    refused = mqttjobs("check", str(service.file), **SECRETS)
    assert refused.returncode == 2
    assert "SECRET_NONE" in refused.stderr
    assert len(refused.stderr.splitlines()) >= 8, refused.stderr
    assert_no_secret(refused.stderr, "the output of check")
