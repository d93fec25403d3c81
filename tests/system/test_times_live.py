"""times and within in the real program over a real broker: counted through SIGKILL, and shown on the command line."""

from __future__ import annotations

from typing import Any

import pytest

from tests.brokers import MosquittoBroker
from tests.clients import Client
from tests.running import StartService, mqttjobs

pytestmark = pytest.mark.mosquitto

TOPIC = "home/button"
CONFIG: dict[str, Any] = {
    "objects": {"button": {"state": {"topic": TOPIC, "event": True}}},
    "operations": {
        "leave": {
            "attach": {"object": "button"},
            "type": "mqtt",
            "topic": "out/leave",
            "message": "{{ job.id }}",
            "triggers": [{"states": ["single"], "times": 3, "within": "1h"}],
        }
    },
}


def waiting_for(client: Client) -> str:
    """Return what the trigger waits for, once everything that was published before has been taken in."""
    [trigger] = client.data("operations/explain", {"id": "leave"})["triggers"]
    return str(trigger["waiting_for"])


@pytest.mark.parametrize("down", [False, True])
def test_a_count_survives_kills_and_the_third_time_fires_once(
    mosquitto: MosquittoBroker, start_service: StartService, down: bool
) -> None:
    service = start_service(mosquitto.port, CONFIG)
    with service.client() as client:
        client.subscribe("out/#")
        for count in (1, 2):
            client.publish(TOPIC, "single")
            client.until(lambda each, count=count: waiting_for(each).startswith(f"{count} of 3 within 1h"))
            service.kill()
            if count == 1 or not down:
                service.run()
        client.publish(TOPIC, "single")
        if down:
            service.run()
        client.wait_topic("out/leave")
        client.until(lambda each: each.data("jobs/list", {"status": "completed"})["total_items"] == 1)
        service.kill()
        service.run()
        client.until(lambda each: waiting_for(each) == "that it becomes single, 3 times within 1h")
        [job] = client.data("jobs/list")["items"]
        assert job["status"] == "completed"
        assert [each.payload.decode() for each in client.messages if each.topic == "out/leave"] == [job["id"]]


def test_the_command_line_checks_simulates_and_explains_it(
    mosquitto: MosquittoBroker, start_service: StartService
) -> None:
    service = start_service(mosquitto.port, CONFIG)
    config = str(service.file)
    assert mqttjobs("check", config).returncode == 0
    pressed = ("--report", "button=single")
    simulated = mqttjobs("test", config, *pressed, "--after", "10m", *pressed, *pressed).stdout.splitlines()
    counts = [line.strip().partition(", until")[0] for line in simulated if "leave for button" in line]
    assert counts[:2] == [f"leave for button waits: {n} of 3 within 1h, {3 - n} more to come" for n in (1, 2)]
    assert "leave for button runs, trigger 1: mqtt topic out/leave" in counts[2]
    assert len(counts) == 3
    with service.client() as client:
        client.publish(TOPIC, "single")
        client.until(lambda each: waiting_for(each).startswith("1 of 3"))
    broker = ("--url", f"mqtt://127.0.0.1:{mosquitto.port}")
    explained = mqttjobs("operations", "explain", "leave", *broker).stdout
    assert "runs when it becomes single, 3 times within 1h." in explained
    assert "It waits for this: 1 of 3 within 1h, 2 more to come, until " in explained
