"""Confirmations, on_failure, discovery and simulation: the real program over a real broker."""

from __future__ import annotations

from typing import Any

import pytest

from tests.brokers import MosquittoBroker
from tests.clients import Client
from tests.running import StartService

pytestmark = pytest.mark.mosquitto

CONFIG: dict[str, Any] = {
    "objects": {"lamp": {"state": {"topic": "home/lamp"}}},
    "classes": {"sensor": {"ids": "any", "state": {"topic": "sensors/{{ id }}"}}},
    "operations": {
        "switch": {
            "attach": {"object": "lamp"},
            "type": "mqtt",
            "topic": "home/lamp/set",
            "message": "ON",
            "confirm": {"states": ["ON"], "within": "1s"},
            "on_failure": "cry",
        },
        "cry": {
            "attach": {"object": "lamp"},
            "type": "mqtt",
            "topic": "out/cry",
            "message": {"error": "{{ params.error }}", "job": "{{ params.job_id }}"},
        },
        "seen": {
            "attach": {"class": "sensor"},
            "type": "mqtt",
            "topic": "out/seen/{{ id }}",
            "message": "{{ state }}",
            "triggers": [{}],
        },
    },
}


def test_a_confirmed_publish_completes_and_an_unconfirmed_one_runs_on_failure(
    mosquitto: MosquittoBroker, start_service: StartService
) -> None:
    start_service(mosquitto.port, CONFIG)
    with Client(mosquitto.port) as client:
        client.subscribe("home/lamp/set", "out/#", "mqttjobs/event/job/#")
        first = client.ask("operations/execute", {"id": "switch"})["data"]
        client.wait_topic("home/lamp/set")
        client.publish("home/lamp", "ON")
        done = client.wait_topic("mqttjobs/event/job/completed/switch/lamp").json
        assert done["id"] == first["id"]
        second = client.ask("operations/execute", {"id": "switch"})["data"]
        assert client.wait_topic("out/cry").json == {"error": "unconfirmed", "job": second["id"]}
        assert client.ask("jobs/get", {"id": second["id"]})["data"]["error"] == "unconfirmed"


def test_discovered_members_survive_a_kill_and_a_simulation_adds_none(
    mosquitto: MosquittoBroker, start_service: StartService
) -> None:
    service = start_service(mosquitto.port, CONFIG)
    with Client(mosquitto.port) as client:
        client.subscribe("out/#")
        for name in ("attic", "cellar"):
            client.publish(f"sensors/{name}", "open")
            assert client.wait_topic(f"out/seen/{name}").payload == b"open"
        service.kill()
        service.run()
        items = client.ask("objects/list", {"limit": 100})["data"]["items"]
        assert {each["id"]: each["state"] for each in items} == {"lamp": None, "attic": "open", "cellar": "open"}
        simulated = client.ask(
            "operations/simulate", {"reports": ["attic=shut", {"topic": "sensors/new", "payload": "hi"}]}
        )
        runs = [(run["object"], run["rendered"]["message"]) for run in simulated["data"]["runs"]]
        assert runs == [("attic", "shut"), ("new", "hi")]
        assert len(client.ask("objects/list")["data"]["items"]) == 3
        assert not [each for each in client.messages if each.payload in (b"shut", b"hi")]
