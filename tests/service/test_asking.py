"""Requests: where the answer goes, which error comes first, and that there is exactly one answer (contract 4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from mqttjobs.transport.base import Message
from tests.service.hand_clock import HandLoop
from tests.service.harness import ServiceHarness, an_object, an_operation

Build = Callable[..., ServiceHarness]

KEY = "0123456789abcdef"
OBJECTS = {"lamp": an_object("home/lamp")}
OPERATIONS = {"say": an_operation("lamp")}
READER = {"reader": {"api_key": KEY, "permissions": ["job:read"]}}
OPEN = {"objects": OBJECTS, "operations": OPERATIONS}
CLOSED = {**OPEN, "users": READER}


def answers(harness: ServiceHarness, topic_filter: str = "mqttjobs/response/#") -> list[dict[str, Any]]:
    return harness.documents(topic_filter)


# -- which error comes first -------------------------------------------------------------------------------------------

WRONG_TOPIC = {"reply_to": "home/lamp/set"}
WRONG_KEY = {"api_key": "wrong-wrong-wrong"}
RIGHT_KEY = {"api_key": KEY}

ORDER = [
    ("nothing/known", WRONG_TOPIC | WRONG_KEY, 403, "reply_topic_not_allowed"),
    ("nothing/known", WRONG_KEY, 401, "unauthorized"),
    ("nothing/known", {}, 401, "unauthorized"),
    ("nothing/known", RIGHT_KEY | {"rubbish": 1}, 404, "unknown_method"),
    ("operations/execute", RIGHT_KEY | {"rubbish": 1}, 403, "forbidden"),
    ("jobs/get", RIGHT_KEY | {"rubbish": 1, "id": 7}, 400, "invalid_request"),
    ("jobs/get", RIGHT_KEY | {"id": "no uuid"}, 400, "invalid_request"),
    ("jobs/get", RIGHT_KEY | {"id": 7}, 404, "not_found"),
]


@pytest.mark.parametrize(("method", "params", "code", "reason"), ORDER)
async def test_errors_come_in_the_order_of_the_contract(
    build: Build, method: str, params: dict[str, Any], code: int, reason: str
) -> None:
    harness = await build(**CLOSED).start()
    harness.send(f"mqttjobs/request/{method}", params | {"transaction": "t"})
    await harness.settle()
    [answer] = answers(harness, f"mqttjobs/response/{method}")
    assert (answer["status"], answer["code"], answer["reason"]) == ("error", code, reason)
    assert answer["transaction"] == "t"
    assert answer["retryable"] is False
    assert "no uuid" not in json.dumps(answer)
    if reason == "forbidden":
        assert "operation:execute" in answer["details"]
    assert await harness.jobs() == []


async def test_a_well_formed_unknown_id_and_one_out_of_scope_are_answered_alike(build: Build) -> None:
    objects = {**OBJECTS, "door": an_object("home/door")}
    operations = {"all": an_operation([{"object": "lamp"}, {"object": "door"}], triggers=[{}])}
    users = {"bob": {"api_key": KEY, "permissions": ["job:read"], "objects": ["lamp"]}}
    harness = await build(objects=objects, operations=operations, users=users).start()
    await harness.report("home/door", "x")
    [job] = await harness.jobs()
    secret_templates = await harness.ask("jobs/get", api_key=KEY, id=job.id)
    unknown = await harness.ask("jobs/get", api_key=KEY, id=job.id.replace("-7000-", "-7001-"))
    assert {**secret_templates, "details": ""} == {**unknown, "details": ""}
    assert secret_templates["details"].replace(job.id, "") == unknown["details"].replace(
        job.id.replace("-7000-", "-7001-"), ""
    )
    assert secret_templates["code"] == 404


HOSTILE = {
    "not UTF-8": b"\xff\xfe{",
    "truncated": b'{"id": ',
    "5,000 deep": b'{"id":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "NaN": b'{"id": NaN}',
    "1e999": b'{"id": 1e999}',
    "lone surrogate": rb'{"id": "\ud800"}',
    "BOM": b'\xef\xbb\xbf{"id": 1}',
    "4,000 digits": b'{"id": ' + b"9" * 4000 + b"}",
    "NUL": rb'{"id": "\u0000"}',
    "twice the same key": b'{"id": 1, "id": 2}',
    "no object": b"[1]",
    "text": b'"x"',
    "null": b"null",
    "200 KB": b'{"id": "' + b"x" * 200_000 + b'"}',
    "unknown key": b'{"id": 1, "' + b"k" * 300 + b'": 1}',
    "wrong type": b'{"id": {"a": 1}}',
    "boolean": b'{"id": true}',
    "negative": b'{"id": -1}',
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
async def test_whatever_is_asked_there_is_one_answer_that_repeats_nothing(build: Build, payload: bytes) -> None:
    harness = await build(**OPEN).start()
    harness.send(
        "mqttjobs/request/jobs/get", payload, response_topic="mqttjobs/response/me", correlation_data=b"\x00\xff"
    )
    await harness.settle()
    [sent] = harness.sent("mqttjobs/response/me")
    answer = json.loads(sent.payload)
    assert answer["code"] == (413 if len(payload) > 65_536 else 400)
    assert answer["reason"] in ("invalid_json", "invalid_request", "too_large")
    assert (sent.correlation_data, sent.content_type, sent.retain) == (b"\x00\xff", "application/json", False)
    assert len(sent.payload) < 2000
    assert b"k" * 65 not in sent.payload
    assert (await harness.data("service/health"))["status"] == "ok"


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
async def test_whatever_is_reported_the_counters_add_up_and_the_good_is_not_lost(build: Build, payload: bytes) -> None:
    objects = {"lamp": an_object("home/lamp", state={"value": "id"})}
    harness = await build(objects=objects, operations={"say": an_operation("lamp", triggers=[{}])}).start()
    harness.send("home/lamp", payload)
    harness.send("home/lamp", {"id": "good"})
    await harness.settle()
    counters = await harness.counters()
    assert counters["received"] == 2
    assert (await harness.data("objects/get", id="lamp"))["state"] == "good"
    reported = harness.documents("mqttjobs/event/rejected")
    assert len(reported) == counters["invalid"]
    assert all(each["topic"] == "home/lamp" and each["reason"] and each["details"] for each in reported)
    assert harness.broker._clients["mqttjobs"].unacknowledged == {}


async def test_rejections_are_limited_and_each_is_counted(build: Build) -> None:
    harness = await build(**OPEN).start()
    for _ in range(500):
        harness.send("home/lamp", b"\xff")
    await harness.settle()
    assert len(harness.sent("mqttjobs/event/rejected")) == 50
    assert (await harness.counters())["invalid"] == 500
    await harness.advance(1)
    for _ in range(500):
        harness.send("home/lamp", b"\xff")
    await harness.settle()
    assert len(harness.sent("mqttjobs/event/rejected")) == 70


async def test_at_most_five_fields_are_named_and_unknown_ones_are_cut(build: Build) -> None:
    harness = await build(**OPEN).start()
    answer = await harness.ask("jobs/list", **{f"{n}" * 100: n for n in range(1, 9)})
    assert len(answer["invalid_fields"]) == 5
    assert all(len(name) <= 64 for name in answer["invalid_fields"])


@pytest.mark.parametrize(
    ("transaction", "fine"),
    [
        ("a" * 256, True), ("a" * 257, False), ("ä" * 129, False), (5, True), (1.5, True), (True, True), ([], False),
        ({}, False),
    ],
)  # fmt: skip
async def test_a_transaction_is_a_scalar_of_256_bytes_and_is_echoed(
    build: Build, transaction: Any, *, fine: bool
) -> None:
    harness = await build(**OPEN).start()
    answer = await harness.ask("service/info", transaction=transaction)
    assert answer["code"] == (200 if fine else 400)
    if fine:
        assert answer["transaction"] == transaction
    else:
        assert "transaction" in answer["invalid_fields"]


# -- where the answer goes ---------------------------------------------------------------------------------------------

FORBIDDEN_PLACES = [
    "home/lamp/set", "mqttjobs/request/jobs/list", "mqttjobs/state/objects/lamp", "mqttjobs/response/+",
    "mqttjobs/response/#", "mqttjobs/responses/x", "$SYS/x", "", "mqttjobs/users/bob/response/x",
    "mqttjobs/response/a\0b", "MQTTJOBS/response/x", "mqttjobs/event/rejected",
]  # fmt: skip


@pytest.mark.parametrize("place", FORBIDDEN_PLACES)
@pytest.mark.parametrize("how", ["response topic", "reply_to"])
async def test_an_answer_goes_nowhere_it_may_not_and_the_request_is_not_carried_out(
    build: Build, place: str, how: str
) -> None:
    if how == "reply_to" and "\0" in place:
        return
    harness = await build(**OPEN).start()
    given = {"response_topic": place} if how == "response topic" else {}
    body = {"id": "say"} | ({"reply_to": place} if how == "reply_to" else {})
    before = len(harness.broker.published)
    harness.send("mqttjobs/request/operations/execute", body, **given)
    await harness.settle()
    new = [each for each in harness.broker.published[before + 1 :] if "/event/" not in each.topic]
    assert [each.topic for each in new] == ["mqttjobs/response/operations/execute"]
    assert json.loads(new[0].payload)["reason"] == "reply_topic_not_allowed"
    assert await harness.jobs() == []


async def test_an_answer_goes_to_the_response_topic_then_reply_to_then_the_mirror(build: Build) -> None:
    harness = await build(**OPEN, mqtt={"reply_topics": ["apps/+/inbox"]}).start()
    ask = "mqttjobs/request/service/info"
    both = {"reply_to": "mqttjobs/response/two"}
    harness.send(ask, both, response_topic="mqttjobs/response/one", qos=0)
    harness.send(ask, both)
    harness.send(ask, b"")
    harness.send(ask, {"reply_to": "apps/me/inbox"}, qos=2)
    await harness.settle()
    for topic, qos in [
        ("mqttjobs/response/one", 0), ("mqttjobs/response/two", 1), ("mqttjobs/response/service/info", 1),
        ("apps/me/inbox", 1),
    ]:  # fmt: skip
        [sent] = harness.sent(topic)
        assert (sent.qos, sent.retain) == (qos, False), topic


async def test_a_lane_answers_in_the_lane_and_may_name_places_in_it(build: Build) -> None:
    harness = await build(**OPEN).start()
    ask = "mqttjobs/users/bob/request/service/info"
    harness.send(ask)
    harness.send(ask, response_topic="mqttjobs/users/bob/response/mine")
    harness.send(ask, response_topic="mqttjobs/users/eve/response/mine")
    await harness.settle()
    cache = answers(harness, "mqttjobs/users/bob/response/service/info")
    assert [each["code"] for each in cache] == [200, 403]
    assert [each["code"] for each in answers(harness, "mqttjobs/users/bob/response/mine")] == [200]
    assert harness.sent("mqttjobs/users/eve/#") == []


async def test_a_request_that_lies_retained_is_not_even_asked_for(build: Build) -> None:
    harness = build(**OPEN)
    harness.send("mqttjobs/request/operations/execute", {"id": "say"}, retain=True)
    await harness.start()
    await harness.disconnect()
    await harness.advance(3)
    assert await harness.jobs() == []
    assert harness.sent("mqttjobs/response/#") == []


async def test_a_request_that_arrives_retained_is_refused_reported_and_never_answered(build: Build) -> None:
    harness = await build(**OPEN).start()
    session = harness.broker._clients["mqttjobs"].session
    assert session is not None
    topic = "mqttjobs/request/operations/execute"
    session.push(Message(topic, b'{"id": "say"}', qos=1, retain=True, packet_id=9))
    await harness.settle()
    assert await harness.jobs() == []
    assert harness.sent("mqttjobs/response/#") == []
    [reported] = harness.documents("mqttjobs/event/rejected")
    assert (reported["topic"], reported["reason"]) == (topic, "retained_request")


async def test_requests_that_came_while_the_service_was_down_are_answered_once(build: Build) -> None:
    harness = await build(**OPEN).start()
    await harness.crash()
    harness.send("mqttjobs/request/operations/execute", {"id": "say"})
    await harness.start()
    harness.broker.drop("mqttjobs")
    await harness.advance(3)
    assert len(answers(harness)) == 1
    assert len(await harness.jobs()) == 1


async def test_a_request_that_the_broker_repeats_is_not_carried_out_again(build: Build) -> None:
    harness = await build(**OPEN).start()
    harness.die_at("before acknowledge")
    harness.send("mqttjobs/request/operations/execute", {"id": "say"})
    await harness.settle()
    assert not harness.running
    await harness.start()
    assert len(await harness.jobs()) <= 1
    assert len(answers(harness)) <= 1


async def test_a_slow_query_holds_up_neither_intake_nor_other_requests(build: Build) -> None:
    operations = {"say": an_operation("lamp", triggers=[{}])}
    harness = await build(objects=OBJECTS, operations=operations).start()
    slow = asyncio.Event()
    find = harness.store.find

    async def wait_and_find(query: Any) -> Any:
        await slow.wait()
        return await find(query)

    harness.store.find = wait_and_find  # type: ignore[method-assign]
    questions = [harness.put("jobs/list") for _ in range(50)]
    await harness.report("home/lamp", "on")
    assert len(harness.texts("out/lamp")) == 1
    assert (await harness.data("service/health"))["counters"]["changed"] == 1
    assert all(each.answers == [] for each in questions)
    slow.set()
    await harness.settle()
    assert all(each.answer["data"]["total_items"] == 1 for each in questions)


async def test_every_request_of_a_crowd_is_answered_exactly_once(build: Build) -> None:
    harness = await build(**OPEN).start()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HandLoop)
    questions = [harness.put("service/info" if n % 2 else "jobs/list", transaction=n) for n in range(1500)]
    await harness.advance(5)
    assert [each.answer["transaction"] for each in questions] == list(range(1500))
    assert sum((await harness.counters())["requests_by_result"].values()) >= 1500
