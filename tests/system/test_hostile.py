"""Whatever arrives, the service stays up, loses no good message, and its counters add up (behaviour 5)."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from tests import wire
from tests.brokers import StartMosquitto, free_port
from tests.clients import Client, Received
from tests.running import RunningService, StartService
from tests.wire import Wire

MARK = "hunter2"
"""A text in hostile input that must not be repeated in any response, event or log."""
KEY = "a-key-of-alice-0123456789"
EXPIRED_S = 2.5
"""After this time Mosquitto has dropped a message that expires in one second: it counts in whole seconds."""

PLANT: dict[str, Any] = {
    "objects": {
        "bare": {"state": {"topic": "plant/bare"}},
        "deep": {"state": {"topic": "plant/deep", "value": "a.0.b"}, "attributes": {"other": {"value": "other"}}},
        "own": {},
        "button": {"state": {"topic": "plant/button", "event": True}},
    },
    "operations": {
        "pass_on": {
            "attach": [{"object": "bare"}, {"object": "deep"}, {"object": "own"}, {"object": "button"}],
            "type": "mqtt",
            "topic": "out/{{ id }}",
            "message": "{{ state }}",
            "triggers": [{}],
        },
        "greet": {
            "attach": {"object": "bare"},
            "type": "script",
            "text": "true",
            "params": {"type": "object", "properties": {"to": {"type": "string"}}, "additionalProperties": False},
        },
    },
}


@dataclass(frozen=True)
class Hostile:
    """A payload, its result and reason as a report of `bare`, and its code and reason as a request."""

    payload: bytes
    report_result: str
    reason: str | None = None
    code: int = 400
    answer: str = "invalid_json"


def _json(text: str) -> bytes:
    return text.encode()


HOSTILE: dict[str, Hostile] = {
    "not UTF-8": Hostile(b"\xff\xfe\x80" + MARK.encode(), "invalid", "not_utf8"),
    "not UTF-8 inside JSON": Hostile(b'{"state": "\xff' + MARK.encode() + b'"}', "invalid", "invalid_json"),
    "UTF-16": Hostile('{"state": "hunter2"}'.encode("utf-16"), "invalid", "not_utf8"),
    "truncated": Hostile(_json('{"state": "hunter2'), "invalid", "invalid_json"),
    "two values": Hostile(_json('{"state": "hunter2"} {}'), "invalid", "invalid_json"),
    "5,000 lists deep": Hostile(b"[" * 5000 + b"]" * 5000, "invalid", "invalid_json"),
    "5,000 objects deep": Hostile(b'{"hunter2":' * 5000 + b"1" + b"}" * 5000, "invalid", "invalid_json"),
    "60,000 brackets": Hostile(b"[" * 60_000, "invalid", "invalid_json"),
    "NaN": Hostile(_json('{"state": NaN, "a": "hunter2"}'), "invalid", "invalid_json"),
    "Infinity": Hostile(_json('{"state": -Infinity}'), "invalid", "invalid_json"),
    "1e999": Hostile(_json('{"state": 1e999}'), "invalid", "invalid_json"),
    "4,000 digits": Hostile(b'{"state": ' + b"9" * 4000 + b"}", "invalid", "invalid_json"),
    "65 bits": Hostile(_json('{"state": 18446744073709551616}'), "invalid", "invalid_json"),
    "a lone surrogate": Hostile(rb'{"state": "hunter2\ud800"}', "invalid", "invalid_json"),
    "an encoded surrogate": Hostile(b'{"state": "\xed\xa0\x80"}', "invalid", "invalid_json"),
    "a byte order mark": Hostile(b'\xef\xbb\xbf{"state": "hunter2"}', "invalid", "invalid_json"),
    "NUL": Hostile(b"hunter2\0", "invalid", "nul"),
    "NUL inside JSON": Hostile(rb'{"state": "hunter2\u0000"}', "invalid", "invalid_json"),
    "NUL in a key": Hostile(rb'{"hunter2\u0000": 1}', "invalid", "invalid_json"),
    "a key twice": Hostile(_json('{"state": "hunter2", "state": "off"}'), "invalid", "invalid_json"),
    "a comment": Hostile(_json('{"state": "on" /* hunter2 */}'), "invalid", "invalid_json"),
    "single quotes": Hostile(_json("{'state': 'hunter2'}"), "invalid", "invalid_json"),
    "10,001 values": Hostile(b"[" + b"1," * 10_000 + b"1]", "invalid", "invalid_json"),
    "200 KB": Hostile(MARK.encode() * 30_000, "invalid", "too_large", 413, "too_large"),
    "200 KB of JSON": Hostile(
        b'{"state": "' + MARK.encode() * 30_000 + b'"}', "invalid", "too_large", 413, "too_large"
    ),
    "an object as state": Hostile(_json('{"state": {"hunter2": 1}}'), "ignored", None, 400, "invalid_request"),
    "a list as state": Hostile(_json('{"state": ["hunter2"]}'), "ignored", None, 400, "invalid_request"),
    "null as state": Hostile(_json('{"state": null}'), "ignored", None, 400, "invalid_request"),
    "a list": Hostile(_json('["hunter2"]'), "ignored", None, 400, "invalid_request"),
    "unknown keys alone": Hostile(_json('{"hunter": 2}'), "ignored", None, 400, "invalid_request"),
    "nothing": Hostile(b"", "ignored", None, 200, "ok"),
}
TWO_MEGABYTES = b'{"state": "' + b"x" * 2_000_000 + b'"}'


@pytest.fixture(params=["mosquitto-5", "mosquitto-3.1.1", "embedded"])
def plant(
    request: pytest.FixtureRequest, start_service: StartService, start_mosquitto: StartMosquitto
) -> Iterator[tuple[RunningService, Client]]:
    """The service with a client on each broker, both with the same protocol version."""
    five = request.param == "mosquitto-5"
    config = PLANT | {"mqtt": {"protocol": "auto" if five else "3.1.1"}}
    if request.param == "embedded":
        service = start_service(free_port(), config, arguments=["--embedded-broker"])
    else:
        service = start_service(start_mosquitto(autosave=False).port, config)
    with service.client(protocol="5" if five else "3.1.1") as client:
        client.subscribe("mqttjobs/event/#", "mqttjobs/response/#", "out/#")
        yield service, client


@pytest.fixture
def mqtt5(start_service: StartService, start_mosquitto: StartMosquitto) -> Iterator[tuple[RunningService, Client]]:
    """The service on Mosquitto, with an MQTT 5 client that receives all events and responses."""
    service = start_service(start_mosquitto(autosave=False).port, PLANT)
    with service.client() as client:
        client.subscribe("mqttjobs/event/#", "mqttjobs/response/#", "out/#")
        yield service, client


def counters(client: Client) -> dict[str, Any]:
    """Return the counters, and assert that they add up."""
    found: dict[str, Any] = client.data("service/health")["counters"]
    report_results = ("changed", "duplicate", "unchanged", "retained_skipped", "ignored", "invalid", "unmatched")
    assert found["received"] == sum(found[each] for each in report_results)
    assert found["fired"] == found["jobs"] + found["skipped"]
    assert found["skipped"] == sum(found["skipped_by_reason"].values())
    assert found["requests"] == sum(found["requests_by_result"].values())
    return found


def assert_nothing_is_repeated(service: RunningService, client: Client, mark: str = MARK) -> None:
    """Assert that neither a received message nor the log has the mark."""
    for message in client.messages:
        assert mark.encode() not in message.payload, message.topic
    assert mark not in service.log


def test_hostile_reports_do_no_harm_and_each_is_published_as_rejected(plant: tuple[RunningService, Client]) -> None:
    service, client = plant
    for hostile in HOSTILE.values():
        client.publish("plant/bare", hostile.payload)
    client.publish("plant/bare", TWO_MEGABYTES)
    client.publish("plant/bare", b"on")
    client.wait_topic("out/bare")
    reported = [each.json for each in client.messages if each.topic == "mqttjobs/event/rejected"]
    arrived = 0 if client.five else 1  # on MQTT 5 the broker drops packets over our Maximum Packet Size
    expected_reasons = [each.reason for each in HOSTILE.values() if each.reason] + ["too_large"] * arrived
    assert [each["reason"] for each in reported] == expected_reasons
    assert {each["topic"] for each in reported} == {"plant/bare"}
    assert all(each.keys() == {"topic", "reason", "details", "timestamp"} and each["details"] for each in reported)
    expected = Counter(each.report_result for each in HOSTILE.values()) + Counter(changed=1, invalid=arrived)
    found = counters(client)
    assert {report_result: found[report_result] for report_result in expected} == expected
    assert (found["received"], found["jobs"]) == (expected.total(), 1)
    assert_nothing_is_repeated(service, client)


def test_invalid_reports_on_the_services_own_topics_are_rejected_and_good_ones_used(
    plant: tuple[RunningService, Client],
) -> None:
    service, client = plant
    wrong = {
        "by": '{"state": "on", "by": ["hunter2"]}',
        "by too long": json.dumps({"state": "on", "by": MARK * 200}),
        "timestamp": '{"state": "on", "timestamp": "hunter2"}',
        "timestamp true": '{"state": "on", "timestamp": true}',
        "event_id": '{"state": "on", "event_id": {"hunter2": 1}}',
        "reason": '{"state": "on", "reason": 5}',
    }
    for payload in wrong.values():
        client.publish("mqttjobs/state/objects/own", payload)
    unknown_topics = [
        "mqttjobs/state/objects/nobody",
        "mqttjobs/state/links/own",
        "mqttjobs/state/objects/own/deeper",
        "mqttjobs/state",
        "mqttjobs/state//",
        "mqttjobs/state/" + "a/" * 190,
    ]
    for topic in unknown_topics:
        client.publish(topic, MARK)
    client.publish("plant/deep", '{"a": {"0": {"b": {}}}, "other": [1]}')
    client.publish("plant/deep", '{"a": [[]], "other": null}')
    client.publish("mqttjobs/state/objects/own", '{"state": "on", "by": null, "timestamp": 5, "more": "hunter2"}')
    client.wait_topic("out/own")
    reported = [each.json["reason"] for each in client.messages if each.topic == "mqttjobs/event/rejected"]
    assert Counter(reported) == {"invalid_report": len(wrong), "unknown_entity": len(unknown_topics)}
    found = counters(client)
    assert (found["invalid"], found["unmatched"], found["ignored"], found["changed"]) == (
        len(wrong), len(unknown_topics), 2, 1,
    )  # fmt: skip
    assert MARK not in service.log


def test_each_hostile_request_gets_exactly_one_response(plant: tuple[RunningService, Client]) -> None:
    service, client = plant
    with Wire(service.port, five=client.five) as sender:
        for name, hostile in HOSTILE.items():
            properties = b""
            if client.five:
                properties = wire.response_topic(b"mqttjobs/response/here") + wire.correlation(name.encode())
            sender.publish(b"mqttjobs/request/jobs/list", hostile.payload, properties=properties)
        sender.publish(b"mqttjobs/request/jobs/list", TWO_MEGABYTES)
    where = "mqttjobs/response/here" if client.five else "mqttjobs/response/jobs/list"
    too_large = [] if client.five else [(413, "too_large")]
    client.wait_count(lambda each: each.topic == where, len(HOSTILE) + len(too_large))
    found = counters(client)
    answers = [each for each in client.messages if each.topic == where]
    given = [(each.code, each.answer) for each in HOSTILE.values()] + too_large
    assert Counter(map(_code_and_reason, answers)) == Counter(given)
    if client.five:
        assert {each.correlation: _code_and_reason(each) for each in answers} == {
            name.encode(): (each.code, each.answer) for name, each in HOSTILE.items()
        }
    assert found["requests_by_result"] == {
        "400": sum(each.code == 400 for each in HOSTILE.values()), "413": 2 + len(too_large), "ok": 1,
    }  # fmt: skip
    assert_nothing_is_repeated(service, client)


def _code_and_reason(message: Received) -> tuple[int, str]:
    body = message.json
    return body["code"], body.get("reason", body["status"])


WRONG_PARAMETERS: list[tuple[str, dict[str, Any], int]] = [
    ("jobs/list", {"limit": True}, 400),
    ("jobs/list", {"limit": 1.5}, 400),
    ("jobs/list", {"limit": "10"}, 400),
    ("jobs/list", {"offset": 2**63}, 400),
    ("jobs/list", {"status": [[MARK]]}, 400),
    ("jobs/list", {"status": {"a": MARK}}, 400),
    ("jobs/list", {"object": [5]}, 400),
    ("jobs/list", {"since": MARK}, 400),
    ("jobs/list", {"since": 10**18}, 400),
    ("jobs/list", {"since": "-" + "9" * 4000 + "d"}, 400),
    ("jobs/list", {"cursor": MARK}, 400),
    ("jobs/list", {"fields": [MARK * 100]}, 400),
    ("jobs/get", {"id": True}, 400),
    ("jobs/get", {"id": -1}, 400),
    ("jobs/get", {"id": 2**64 - 1}, 400),
    ("jobs/get", {"id": "9" * 4000}, 400),
    ("jobs/get", {"id": "' OR 1=1 -- " + MARK}, 400),
    ("jobs/get", {}, 400),
    ("jobs/add_result", {"id": 1, "payload": [MARK]}, 400),
    ("operations/execute", {"id": "greet", "params": {"to": 5}}, 400),
    ("operations/execute", {"id": "greet", "params": [MARK]}, 400),
    ("operations/execute", {"id": "greet", "wait": "yes"}, 400),
    ("operations/execute", {"id": "../../" + MARK}, 404),
    ("objects/get", {"id": "%s\u202e" + MARK}, 404),
    ("states/set", {"object": "own", "state": {"a": MARK}}, 400),
    ("states/set", {"object": "own", "state": None}, 400),
    ("jobs/list", {"transaction": MARK * 100}, 400),
    ("jobs/list", {"transaction": {"a": MARK}}, 400),
    ("jobs/list", {"api_key": MARK}, 401),
    ("jobs/list", {"api_key": [MARK]}, 401),
    ("jobs/list", {"reply_to": {"a": MARK}}, 403),
]


def test_errors_for_wrong_parameters_do_not_repeat_them(
    plant: tuple[RunningService, Client],
) -> None:
    service, client = plant
    for method, params, code in WRONG_PARAMETERS:
        since = len(client.messages)
        client.publish(f"mqttjobs/request/{method}", params)
        answer = client.wait_topic(f"mqttjobs/response/{method}", since=since).json
        assert answer["code"] == code, (method, params, answer)
        assert len(json.dumps(answer)) < 2000
    assert counters(client)["requests_by_result"].keys() == {"400", "401", "403", "404"}
    assert client.data("jobs/list")["total_items"] == 0
    assert_nothing_is_repeated(service, client)


REPLY_TOPICS: dict[str, bytes] = {
    "everything": b"#",
    "a wildcard": b"mqttjobs/response/#",
    "a wildcard level": b"mqttjobs/response/+/x",
    "the broker's own": b"$SYS/broker/load",
    "the broker's own below": b"$mqttjobs/response/x",
    "a light switch": b"zigbee2mqtt/hall_light/set",
    "a state": b"mqttjobs/state/objects/own",
    "a request": b"mqttjobs/request/jobs/list",
    "an event": b"mqttjobs/event/rejected",
    "our status": b"mqttjobs/status",
    "somebody's lane": b"mqttjobs/users/alice/response/x",
    "a neighbour": b"mqttjobs/responses/x",
    "60 KB": b"elsewhere/" + b"a/" * 30_000,
}


@pytest.mark.mosquitto
def test_a_forbidden_reply_topic_gets_no_response_and_runs_nothing(mqtt5: tuple[RunningService, Client]) -> None:
    service, client = mqtt5
    method = "operations/execute"
    with Client(service.port) as everyone, Wire(service.port) as sender:
        everyone.subscribe("#", "$SYS/#")
        for name, topic in REPLY_TOPICS.items():
            since = len(client.messages)
            sender.publish(
                f"mqttjobs/request/{method}".encode(), b'{"id": "greet"}', properties=wire.response_topic(topic)
            )
            answer = client.wait_topic(f"mqttjobs/response/{method}", since=since).json
            assert (answer["code"], answer["reason"]) == (403, "reply_topic_not_allowed"), name
        assert client.data("jobs/list")["total_items"] == 0
        assert counters(client)["received"] == 0
        answers = [each for each in everyone.messages if b'"reply_topic_not_allowed"' in each.payload]
    assert {each.topic for each in answers} == {f"mqttjobs/response/{method}"}
    assert len(answers) == len(REPLY_TOPICS)


@pytest.mark.mosquitto
def test_a_response_reaches_the_longest_allowed_topic(mqtt5: tuple[RunningService, Client]) -> None:
    service, client = mqtt5
    longest = "mqttjobs/response/" + "x" * 60_000
    with Wire(service.port) as sender:
        sender.publish(b"mqttjobs/request/service/info", properties=wire.response_topic(longest.encode()))
    assert client.wait_topic(longest).json["status"] == "ok"


@pytest.mark.mosquitto
@pytest.mark.parametrize("count", [900, 5_000, 60_000])
def test_thousands_of_properties_neither_stop_the_service_nor_lose_the_request(
    mqtt5: tuple[RunningService, Client], count: int
) -> None:
    service, client = mqtt5
    many = wire.user_property(b"a", MARK.encode()) * count
    named = wire.response_topic(b"mqttjobs/response/here") + wire.correlation(b"c" * 60_000)
    with Wire(service.port) as sender:
        sender.publish(b"mqttjobs/request/service/info", properties=named + many)
    client.wait_for(lambda each: each.topic in ("mqttjobs/response/here", "mqttjobs/response/service/info"))
    assert counters(client)["requests_by_result"] == {"ok": 1}


@pytest.mark.mosquitto
def test_strange_request_topics_run_nothing_and_get_a_response_where_possible(
    mqtt5: tuple[RunningService, Client],
) -> None:
    _, client = mqtt5
    client.subscribe("mqttjobs/users/#")
    unknown = [
        "mqttjobs/request/jobs/LIST",
        "mqttjobs/request//list",
        "mqttjobs/request/jobs/",
        "mqttjobs/request//",
        "mqttjobs/request/__class__/__init__",
        "mqttjobs/request/\u202e/\u0661",
        "mqttjobs/users//request/jobs/nothing",
        "mqttjobs/users/$SYS/request/jobs/nothing",
        "mqttjobs/users/users/request/request/request",
    ]
    for topic in unknown:
        since = len(client.messages)
        client.publish(topic, {"transaction": 5})
        answer = client.wait_topic(topic.replace("request", "response", 1), since=since).json
        assert (answer["code"], answer["reason"], answer["transaction"]) == (404, "unknown_method", 5)
    ignored = [
        "mqttjobs/request",
        "mqttjobs/request/jobs",
        "mqttjobs/request/jobs/list/x",
        "mqttjobs/users/a/request/jobs",
    ]
    for topic in ignored:
        client.publish(topic, b"{}")
    assert counters(client)["requests_by_result"] == {"404": len(unknown)}


@pytest.mark.mosquitto
def test_the_service_never_acts_on_its_own_events_responses_or_status(mqtt5: tuple[RunningService, Client]) -> None:
    _, client = mqtt5
    document = client.data("operations/execute", {"id": "greet", "wait": True})
    before = counters(client)
    for topic in (
        "mqttjobs/event/job/completed/greet/bare",
        "mqttjobs/event/rejected",
        "mqttjobs/response/operations/execute",
        "mqttjobs/status",
        "mqttjobs/info",
        "mqttjobs/agents/hub/report",
    ):
        client.publish(topic, document)
    after = counters(client)
    assert after["received"] == before["received"] == 0
    assert after["requests"] == before["requests"] + 1
    assert client.data("jobs/list")["total_items"] == 1


@pytest.mark.mosquitto
def test_a_flood_of_rejections_is_published_in_part_and_counted_in_full(
    mqtt5: tuple[RunningService, Client],
) -> None:
    service, client = mqtt5
    began = time.monotonic()
    for _ in range(1000):
        client.publish("plant/bare", b"{", wait=False)
    client.publish("plant/bare", b"on")
    client.wait_topic("out/bare")
    found = counters(client)
    lasted_s = time.monotonic() - began
    reported = sum(each.topic == "mqttjobs/event/rejected" for each in client.messages)
    assert (found["invalid"], found["changed"]) == (1000, 1)
    assert 0 < reported <= 50 + 20 * lasted_s + 1
    assert service.log.count('"event": "rejected"') <= 50 + 20 * lasted_s + 1


@pytest.mark.mosquitto
def test_guessed_keys_get_twenty_responses_a_second_and_delay_no_other_request(
    start_service: StartService, start_mosquitto: StartMosquitto
) -> None:
    users = {"alice": {"api_key": KEY, "permissions": ["job:read"]}}
    service = start_service(start_mosquitto(autosave=False).port, PLANT | {"users": users})
    with service.client() as client:
        client.subscribe("mqttjobs/response/#")
        began = time.monotonic()
        for number in range(500):
            client.publish("mqttjobs/request/jobs/list", {"api_key": f"{MARK}-{number}"}, wait=False)
        assert client.data("jobs/list", api_key=KEY)["total_items"] == 0
        lasted_s = time.monotonic() - began
        refused = [each.json["code"] for each in client.messages if each.topic == "mqttjobs/response/jobs/list"]
        assert set(refused) == {401}
        assert len(refused) <= 20 + 20 * lasted_s + 1
        found = client.data("service/health", api_key=KEY)["counters"]["requests_by_result"]
        assert found["401"] + found["401_dropped"] == 500
        assert found["401"] == len(refused)
    assert KEY not in service.log
    assert MARK not in service.log


@pytest.mark.mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_retained_or_expired_request_runs_nothing(
    start_service: StartService, start_mosquitto: StartMosquitto, protocol: str
) -> None:
    service = start_service(start_mosquitto(autosave=False).port, PLANT | {"mqtt": {"protocol": protocol}})
    service.kill()
    with service.client(protocol=protocol) as client:
        client.subscribe("mqttjobs/event/rejected", "mqttjobs/response/#", "mqttjobs/status")
        client.publish("mqttjobs/request/operations/execute", {"id": "greet"}, retain=True)
        if client.five:
            with Wire(service.port) as sender:
                late = b'{"id": "greet", "transaction": "late"}'
                sender.publish(b"mqttjobs/request/operations/execute", late, properties=wire.expires_in(1))
            threading.Event().wait(EXPIRED_S)
        service.run()
        # The broker queued the retained request as a live one: it came while the service was away.
        client.wait_topic("mqttjobs/response/operations/execute")
        assert client.data("jobs/list")["total_items"] == 1
        service.stop()
        service.run()
        if not client.five:
            assert client.wait_topic("mqttjobs/event/rejected").json["reason"] == "retained_request"
        assert client.data("jobs/list")["total_items"] == 1
        answers = [each for each in client.messages if each.topic == "mqttjobs/response/operations/execute"]
        assert [each.json["code"] for each in answers] == [201]


@pytest.mark.mosquitto
@pytest.mark.parametrize("qos", [0, 2])
def test_qos_0_and_2_work_too(mqtt5: tuple[RunningService, Client], qos: int) -> None:
    _, client = mqtt5
    client.publish("plant/button", b"press", qos=qos)
    client.publish("plant/button", b"press", qos=qos)
    client.wait_count(lambda each: each.topic == "out/button", 2)
    client.publish("mqttjobs/request/service/info", {"transaction": "t"}, qos=qos)
    assert client.wait_topic("mqttjobs/response/service/info").qos == min(qos, 1)
    assert counters(client)["changed"] == 2


def test_bytes_that_are_not_mqtt_harm_neither_the_embedded_broker_nor_its_log(start_service: StartService) -> None:
    service = start_service(free_port(), PLANT, arguments=["--embedded-broker"])
    chance = random.Random(1)  # noqa: S311 - any bytes do
    cut_short = b"\x10\xe6\xa6\x52\x00\x04MQTT\x05\x02\x00\x3c" + b"x" * 500
    for junk in (cut_short, *(chance.randbytes(chance.randint(1, 3000)) for _ in range(30))):
        with socket.create_connection(("127.0.0.1", service.port)) as sender, suppress(OSError):
            sender.sendall(junk)
    with service.client(protocol="3.1.1") as client:
        client.subscribe("out/#")
        client.publish("plant/bare", b"on")
        client.wait_topic("out/bare")
    assert "Traceback" not in service.log
