"""Pending triggers survive SIGKILL and a broker that is away, and are decided after the replayed reports."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.brokers import MosquittoBroker
from tests.clients import Client
from tests.running import RunningService, StartService

HOLD_S = 1.5
PERIOD_S = 0.8
ROOMS = 12

CONFIG: dict[str, Any] = {
    "classes": {"room": {"ids": [f"room_{{01..{ROOMS}}}"], "state": {"topic": "room/{{ id }}"}}},
    "operations": {
        "off": {
            "attach": {"class": "room"},
            "type": "mqtt",
            "topic": "off/{{ id }}",
            "message": "{{ job.id }}",
            "triggers": [{"states": ["clear"], "duration": HOLD_S}],
        },
        "on": {
            "attach": {"class": "room"},
            "type": "mqtt",
            "topic": "on/{{ id }}",
            "message": "{{ job.id }}",
            "trigger_states": ["occupied"],
        },
        "nag": {
            "attach": {"class": "room"},
            "type": "mqtt",
            "topic": "nag/{{ id }}",
            "message": "{{ job.id }}",
            "triggers": [{"states": ["open"], "periodicity": PERIOD_S}],
        },
    },
}


@pytest.fixture
def service_and_client(
    mosquitto: MosquittoBroker, start_service: StartService
) -> Iterator[tuple[RunningService, Client]]:
    service = start_service(mosquitto.port, CONFIG)
    with service.client() as client:
        client.subscribe("off/#", "on/#", "nag/#", "mqttjobs/status")
        yield service, client


def report(client: Client, room: str, state: str, *, retain: bool = False) -> datetime:
    """Report a state, and return the time since which the service has it."""
    client.publish(f"room/{room}", state.encode(), retain=retain)
    found = client.until(lambda each: _state(each, room, state))
    return datetime.fromisoformat(found["state_since"])


def _state(client: Client, room: str, state: str) -> Any:
    found = client.data("objects/get", {"id": room})
    return found if found["state"] == state else None


def jobs_of(client: Client, operation: str, room: str | None = None) -> list[dict[str, Any]]:
    """Return the jobs of an operation, oldest first."""
    query = {"operation_id": operation, "limit": 100, "fields": ["owner_id", "created", "process_meta", "status"]}
    items: list[dict[str, Any]] = client.data("jobs/list", query)["items"][::-1]
    return [each for each in items if room in (None, each["owner_id"])]


def created(job: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(job["created"])


def sleep(seconds: float) -> None:
    """Let real time pass, which is what these tests are about."""
    threading.Event().wait(seconds)


def test_a_pending_trigger_keeps_its_deadline_over_kills(service_and_client: tuple[RunningService, Client]) -> None:
    service, client = service_and_client
    since = report(client, "room_01", "clear")
    for _ in range(2):
        service.kill()
        service.run()
    client.wait_topic("off/room_01")
    (job,) = client.until(lambda each: jobs_of(each, "off"))
    due = since + timedelta(seconds=HOLD_S)
    ready = datetime.fromisoformat([each for each in service.events if each["event"] == "connected"][-1]["timestamp"])
    assert created(job) >= due
    assert created(job) - max(due, ready + timedelta(seconds=1)) < timedelta(seconds=1.5), "the duration began again"
    assert (job["process_meta"]["triggerStates"], job["process_meta"]["state"]) == (["clear"], "clear")


@pytest.mark.slow
def test_a_deadline_that_passed_while_the_service_was_away_fires_once_despite_requests_and_a_kill(
    service_and_client: tuple[RunningService, Client],
) -> None:
    service, client = service_and_client
    report(client, "room_01", "clear")
    service.kill()
    sleep(HOLD_S)
    service.run()
    client.until(lambda each: jobs_of(each, "off"), within_s=10)
    service.kill()
    service.run()
    sleep(HOLD_S)
    assert len(jobs_of(client, "off")) == 1


@pytest.mark.parametrize("reported", ["queued", "retained", "retained-3.1.1"])
def test_a_pending_trigger_is_dropped_when_the_state_changed_while_the_service_was_away(
    service_and_client: tuple[RunningService, Client], mosquitto: MosquittoBroker, reported: str
) -> None:
    service, client = service_and_client
    report(client, "room_01", "clear", retain=True)
    report(client, "room_02", "clear", retain=True)
    service.kill()
    if reported == "retained-3.1.1":
        service.write_config(CONFIG | {"mqtt": {"protocol": "3.1.1"}})
    if reported != "queued":
        mosquitto.stop()
        mosquitto.forget()  # the session is lost too: only the retained message has the state
        mosquitto.start()
    with service.client(protocol="3.1.1") as sensor:
        sensor.publish("room/room_01", b"occupied", retain=True)
        if reported != "queued":
            sensor.publish("room/room_02", b"clear", retain=True)
        sensor.subscribe("on/#", "off/#")
        sleep(HOLD_S)
        service.run()
        sensor.wait_topic("off/room_02")
        sensor.wait_topic("on/room_01")
        assert not jobs_of(sensor, "off", "room_01")


@pytest.mark.slow
def test_a_deadline_while_the_broker_is_away_waits_for_the_reports_after_the_reconnect(
    service_and_client: tuple[RunningService, Client], mosquitto: MosquittoBroker
) -> None:
    service, client = service_and_client
    report(client, "room_01", "clear")
    report(client, "room_02", "clear")
    mosquitto.stop()
    sleep(HOLD_S + 0.5)
    mosquitto.start()
    with service.client() as sensor:
        sensor.publish("room/room_01", b"occupied")
        service.wait_event("connected", 2)
        sensor.until(lambda each: jobs_of(each, "off", "room_02"))
        assert not jobs_of(sensor, "off", "room_01")
        again = [each for each in service.events if each["event"] == "connected"][-1]["timestamp"]
        assert created(jobs_of(sensor, "off", "room_02")[0]) >= datetime.fromisoformat(again)


def test_a_state_that_is_set_by_hand_counts_towards_a_duration(
    service_and_client: tuple[RunningService, Client],
) -> None:
    _, client = service_and_client
    sleep(1.5)  # by then everything that a start does is done
    client.data("states/set", {"object": "room_01", "state": "clear"})
    client.wait_topic("off/room_01", within_s=HOLD_S + 8)


@pytest.mark.slow
def test_every_pending_trigger_fires_exactly_once_whenever_the_service_is_killed(
    service_and_client: tuple[RunningService, Client],
) -> None:
    service, client = service_and_client
    chance = random.Random(7)  # noqa: S311 - the time of a kill is no secret
    rooms = [f"room_{number:02}" for number in range(1, ROOMS + 1)]
    for place in range(0, ROOMS, 3):
        for room in rooms[place : place + 3]:
            client.publish(f"room/{room}", b"clear")
        sleep(chance.uniform(0, 0.6))
        service.kill()
        sleep(chance.uniform(0, 0.3))
        service.start()
        if chance.random() < 0.7:
            service.wait_ready()
            sleep(chance.uniform(0, 1.6))
    service.wait_ready()
    client.until(lambda each: len({job["owner_id"] for job in jobs_of(each, "off")}) == ROOMS)
    sleep(HOLD_S)
    assert Counter(each["owner_id"] for each in jobs_of(client, "off")) == Counter(rooms)
    for room in rooms:
        payloads = [each.payload for each in client.messages if each.topic == f"off/{room}"]
        assert len(set(payloads)) == 1, "the publishes are of two jobs"


@pytest.mark.slow
def test_a_repeat_goes_on_at_its_interval_over_kills_and_does_not_catch_up(
    service_and_client: tuple[RunningService, Client],
) -> None:
    service, client = service_and_client
    since = report(client, "room_01", "open")
    client.wait_count(lambda each: each.topic == "nag/room_01", 2)
    service.kill()
    sleep(3 * PERIOD_S)
    service.run()
    before = len(jobs_of(client, "nag"))
    client.until(lambda each: len(jobs_of(each, "nag")) >= before + 3)
    jobs = jobs_of(client, "nag")
    # A late firing stays on the grid: the next may follow soon, and no more come than intervals have passed.
    assert len(jobs) <= (created(jobs[-1]) - since) / timedelta(seconds=PERIOD_S) + 1
    gaps = [(created(b) - created(a)).total_seconds() for a, b in pairwise(jobs)]
    assert max(gaps) >= 3 * PERIOD_S, "the service was away"
    client.publish("room/room_01", b"closed")
    assert _until_quiet(client)


def _until_quiet(client: Client) -> bool:
    """Whether nothing more fires after the state has changed."""
    client.until(lambda each: _state(each, "room_01", "closed"))
    count = len(jobs_of(client, "nag"))
    sleep(2 * PERIOD_S)
    return len(jobs_of(client, "nag")) == count
