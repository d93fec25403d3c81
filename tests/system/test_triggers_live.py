"""Every key of a trigger, in the real program over a real broker; one service has them all."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from mqttjobs.domain.starting import At, Moment
from mqttjobs.domain.sun import Location, next_moment
from tests.brokers import MosquittoBroker
from tests.clients import Client, Received
from tests.running import StartService

pytestmark = pytest.mark.mosquitto


def operation(**trigger: Any) -> dict[str, Any]:
    return {
        "attach": {"object": "sensor"},
        "type": "mqtt",
        "topic": "out/{{ params.key }}",
        "message": "{{ job.id }}",
        "triggers": [trigger],
    }


TRIGGERS: dict[str, dict[str, Any]] = {
    "states": {"states": ["on"]},
    "from": {"from": ["off"]},
    "not_from": {"not_from": ["off"]},
    "not_states": {"not_states": ["off"]},
    "above": {"attribute": "power", "above": 5},
    "below": {"attribute": "power", "below": 5},
    "band": {"attribute": "power", "above": 3, "below": 8},
    "hysteresis": {"attribute": "power", "above": 5, "hysteresis": 3},
    "entity": {"entity": "other", "states": ["on"]},
    "duration": {"states": ["on"], "duration": "400ms"},
    "periodicity": {"states": ["held"], "periodicity": "400ms"},
    "debounce": {"attribute": "button", "debounce": "400ms"},
    "throttle": {"attribute": "button", "throttle": "1h"},
    "silence": {"entity": "quiet", "silence": "1s"},
    "availability": {"availability": "offline"},
    "start": {"at": "start"},
    "conditions": {"states": ["on"], "conditions": {"entity": "other", "states": ["on"]}},
    "false": {"states": ["on"], "conditions": {"not": {"entity": "sensor", "states": ["on"]}}},
    "disabled": {"states": ["on"], "enabled": False},
}

CONFIG: dict[str, Any] = {
    "objects": {
        "sensor": {
            "state": {"topic": "home/sensor", "value": "state"},
            "attributes": {"power": {}, "button": {"topic": "home/button", "event": True}},
            "availability": {"topic": "home/sensor/availability"},
        },
        "other": {"state": {"topic": "home/other"}},
        "quiet": {"state": {"topic": "home/quiet"}},
    },
    "operations": {key: operation(**trigger) | {"topic": f"out/{key}"} for key, trigger in TRIGGERS.items()},
}


def test_every_trigger_key_over_a_real_broker(mosquitto: MosquittoBroker, start_service: StartService) -> None:
    with Client(mosquitto.port) as watcher:
        watcher.subscribe("out/#")
        service = start_service(mosquitto.port, CONFIG)

        def out(key: str) -> Received:
            return watcher.wait_topic(f"out/{key}")

        out("start")
        watcher.publish("home/other", "on")
        out("entity")
        for state, power in (("off", 1), ("on", 4), ("on", 6), ("on", 4), ("on", 6), ("on", 1), ("on", 6)):
            watcher.publish("home/sensor", {"state": state, "power": power})
        for _ in range(3):
            watcher.publish("home/button", "single")
        watcher.publish("home/sensor/availability", "offline")
        for key in ("states", "from", "not_from", "not_states", "above", "below", "band", "hysteresis", "conditions"):
            out(key)
        for key in ("duration", "debounce", "throttle", "availability", "silence"):
            out(key)
        watcher.publish("home/sensor", {"state": "held", "power": 6})
        watcher.wait_count(lambda each: each.topic == "out/periodicity", 3)
        watcher.publish("home/sensor", {"state": "off", "power": 6})
        answer = watcher.ask("service/health")
        assert answer["data"]["counters"]["skipped_by_reason"] == {"throttled": 2, "condition": 1}
        service.kill()
        counted = Counter(each.topic.removeprefix("out/") for each in watcher.messages if each.topic.startswith("out/"))
        counted.pop("periodicity")
        assert counted == {
            "start": 1, "entity": 1, "states": 1, "from": 1, "not_from": 3, "not_states": 2, "above": 3, "below": 3,
            "band": 2, "hysteresis": 2, "conditions": 1, "duration": 1, "debounce": 1, "throttle": 1,
            "availability": 1, "silence": 1,
        }  # fmt: skip


LASTING: dict[str, dict[str, Any]] = {
    "duration": {"states": ["on"], "duration": "4s"},
    "debounce": {"states": ["on"], "debounce": "4s"},
    "below": {"attribute": "power", "below": 5, "duration": "4s"},
    "availability": {"availability": "offline", "duration": "4s"},
    "restarted": {"states": ["on"], "duration": "4s", "on_restart": "restart"},
    "dropped": {"states": ["on"], "duration": "4s", "on_restart": "drop"},
    "sunset": {"at": "sunset"},
}


@pytest.mark.slow
def test_every_trigger_key_with_a_deadline_survives_kills(
    mosquitto: MosquittoBroker, start_service: StartService
) -> None:
    """The service is killed while triggers are pending, and again right after they fired: each fires once."""
    operations = {key: operation(**trigger) | {"topic": f"out/{key}"} for key, trigger in LASTING.items()}
    config = CONFIG | {"operations": operations, "service": {"latitude": 52.5, "longitude": 13.4}}
    with Client(mosquitto.port) as watcher:
        watcher.subscribe("out/#")
        service = start_service(mosquitto.port, config)
        watcher.publish("home/sensor", {"state": "on", "power": 1})
        watcher.publish("home/sensor/availability", "offline")
        watcher.ask("service/info")
        service.kill()
        service.run()
        for key in ("duration", "debounce", "below", "availability", "restarted"):
            watcher.wait_topic(f"out/{key}")
        service.kill()
        service.run()
        watcher.publish("home/sensor", {"state": "off", "power": 1})
        watcher.ask("service/info")
        came = {each.topic.removeprefix("out/"): each.payload for each in watcher.messages if "out/" in each.topic}
        assert set(came) == {"duration", "debounce", "below", "availability", "restarted"}
        jobs = watcher.ask("jobs/list", {"limit": 100})["data"]
        assert jobs["total_items"] == len(came)


BERLIN = Location(52.5, 13.4)


def soon(moment: Moment, seconds: float) -> dict[str, Any]:
    """Return a trigger at the next sunrise or sunset, with an offset that makes it due in `seconds`."""
    now = datetime.now(UTC)
    plain = next_moment(At(moment), now, BERLIN)
    assert plain is not None
    return {"at": moment.value, "offset": f"-{(plain - now).total_seconds() - seconds:.3f}s"}


@pytest.mark.slow
def test_sunrise_and_sunset_fire_once_despite_kills_before_and_after(
    mosquitto: MosquittoBroker, start_service: StartService
) -> None:
    triggers = {"sunrise": soon(Moment.SUNRISE, 8), "sunset": soon(Moment.SUNSET, 8)}
    operations = {key: operation(**trigger) | {"topic": f"out/{key}"} for key, trigger in triggers.items()}
    config = CONFIG | {"operations": operations, "service": {"latitude": 52.5, "longitude": 13.4}}
    service = start_service(mosquitto.port, config)
    with service.client() as watcher:
        watcher.subscribe("out/#")
        service.kill()
        service.run()
        for key in triggers:
            watcher.wait_topic(f"out/{key}")
        watcher.until(lambda each: each.data("jobs/list", {"status": "completed"})["total_items"] == 2)
        assert [job["process_meta"] for job in watcher.data("jobs/list")["items"]] == [None, None]
        service.kill()
        service.run()
        assert watcher.data("jobs/list")["total_items"] == 2
