"""Requests: where the answer goes, which error comes first, and that there is exactly one answer (contract 4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from handclock import HandLoop
from house import House, an_object, an_operation

from mqttjobs.transport.base import Message

Build = Callable[..., House]

KEY = "0123456789abcdef"
OBJECTS = {"lamp": an_object("home/lamp")}
OPERATIONS = {"say": an_operation("lamp")}
READER = {"reader": {"api_key": KEY, "permissions": ["job:read"]}}
OPEN = {"objects": OBJECTS, "operations": OPERATIONS}
CLOSED = {**OPEN, "users": READER}


def answers(house: House, topic_filter: str = "mqttjobs/response/#") -> list[dict[str, Any]]:
    return house.documents(topic_filter)


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
    house = await build(**CLOSED).start()
    house.send(f"mqttjobs/request/{method}", params | {"transaction": "t"})
    await house.settle()
    [answer] = answers(house, f"mqttjobs/response/{method}")
    assert (answer["status"], answer["code"], answer["reason"]) == ("error", code, reason)
    assert answer["transaction"] == "t"
    assert answer["retryable"] is False
    assert "no uuid" not in json.dumps(answer)
    if reason == "forbidden":
        assert "operation:execute" in answer["details"]
    assert await house.jobs() == []


async def test_a_well_formed_unknown_id_and_one_out_of_scope_are_answered_alike(build: Build) -> None:
    objects = {**OBJECTS, "door": an_object("home/door")}
    operations = {"all": an_operation([{"object": "lamp"}, {"object": "door"}], triggers=[{}])}
    users = {"bob": {"api_key": KEY, "permissions": ["job:read"], "objects": ["lamp"]}}
    house = await build(objects=objects, operations=operations, users=users).start()
    await house.report("home/door", "x")
    [job] = await house.jobs()
    hidden = await house.ask("jobs/get", api_key=KEY, id=job.id)
    unknown = await house.ask("jobs/get", api_key=KEY, id=job.id.replace("-7000-", "-7001-"))
    assert {**hidden, "details": ""} == {**unknown, "details": ""}
    assert hidden["details"].replace(job.id, "") == unknown["details"].replace(job.id.replace("-7000-", "-7001-"), "")
    assert hidden["code"] == 404


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
    house = await build(**OPEN).start()
    house.send(
        "mqttjobs/request/jobs/get", payload, response_topic="mqttjobs/response/me", correlation_data=b"\x00\xff"
    )
    await house.settle()
    [sent] = house.sent("mqttjobs/response/me")
    answer = json.loads(sent.payload)
    assert answer["code"] == (413 if len(payload) > 65_536 else 400)
    assert answer["reason"] in ("invalid_json", "invalid_request", "too_large")
    assert (sent.correlation_data, sent.content_type, sent.retain) == (b"\x00\xff", "application/json", False)
    assert len(sent.payload) < 2000
    assert b"k" * 65 not in sent.payload
    assert (await house.data("service/health"))["status"] == "ok"


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
async def test_whatever_is_reported_the_counters_add_up_and_the_good_is_not_lost(build: Build, payload: bytes) -> None:
    objects = {"lamp": an_object("home/lamp", state={"value": "id"})}
    house = await build(objects=objects, operations={"say": an_operation("lamp", triggers=[{}])}).start()
    house.send("home/lamp", payload)
    house.send("home/lamp", {"id": "good"})
    await house.settle()
    counters = await house.counters()
    assert counters["received"] == 2
    assert (await house.data("objects/get", id="lamp"))["state"] == "good"
    told = house.documents("mqttjobs/event/rejected")
    assert len(told) == counters["invalid"]
    assert all(each["topic"] == "home/lamp" and each["reason"] and each["details"] for each in told)
    assert house.broker._clients["mqttjobs"].unacknowledged == {}


async def test_rejections_are_limited_and_each_is_counted(build: Build) -> None:
    house = await build(**OPEN).start()
    for _ in range(500):
        house.send("home/lamp", b"\xff")
    await house.settle()
    assert len(house.sent("mqttjobs/event/rejected")) == 50
    assert (await house.counters())["invalid"] == 500
    await house.advance(1)
    for _ in range(500):
        house.send("home/lamp", b"\xff")
    await house.settle()
    assert len(house.sent("mqttjobs/event/rejected")) == 70


async def test_at_most_five_fields_are_named_and_unknown_ones_are_cut(build: Build) -> None:
    house = await build(**OPEN).start()
    answer = await house.ask("jobs/list", **{f"{n}" * 100: n for n in range(1, 9)})
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
    house = await build(**OPEN).start()
    answer = await house.ask("service/info", transaction=transaction)
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
    house = await build(**OPEN).start()
    given = {"response_topic": place} if how == "response topic" else {}
    body = {"id": "say"} | ({"reply_to": place} if how == "reply_to" else {})
    before = len(house.broker.published)
    house.send("mqttjobs/request/operations/execute", body, **given)
    await house.settle()
    new = [each for each in house.broker.published[before + 1 :] if "/event/" not in each.topic]
    assert [each.topic for each in new] == ["mqttjobs/response/operations/execute"]
    assert json.loads(new[0].payload)["reason"] == "reply_topic_not_allowed"
    assert await house.jobs() == []


async def test_an_answer_goes_to_the_response_topic_then_reply_to_then_the_mirror(build: Build) -> None:
    house = await build(**OPEN, mqtt={"reply_topics": ["apps/+/inbox"]}).start()
    ask = "mqttjobs/request/service/info"
    both = {"reply_to": "mqttjobs/response/two"}
    house.send(ask, both, response_topic="mqttjobs/response/one", qos=0)
    house.send(ask, both)
    house.send(ask, b"")
    house.send(ask, {"reply_to": "apps/me/inbox"}, qos=2)
    await house.settle()
    for topic, qos in [
        ("mqttjobs/response/one", 0), ("mqttjobs/response/two", 1), ("mqttjobs/response/service/info", 1),
        ("apps/me/inbox", 1),
    ]:  # fmt: skip
        [sent] = house.sent(topic)
        assert (sent.qos, sent.retain) == (qos, False), topic


async def test_a_lane_answers_in_the_lane_and_may_name_places_in_it(build: Build) -> None:
    house = await build(**OPEN).start()
    ask = "mqttjobs/users/bob/request/service/info"
    house.send(ask)
    house.send(ask, response_topic="mqttjobs/users/bob/response/mine")
    house.send(ask, response_topic="mqttjobs/users/eve/response/mine")
    await house.settle()
    mirror = answers(house, "mqttjobs/users/bob/response/service/info")
    assert [each["code"] for each in mirror] == [200, 403]
    assert [each["code"] for each in answers(house, "mqttjobs/users/bob/response/mine")] == [200]
    assert house.sent("mqttjobs/users/eve/#") == []


async def test_a_request_that_lies_retained_is_not_even_asked_for(build: Build) -> None:
    house = build(**OPEN)
    house.send("mqttjobs/request/operations/execute", {"id": "say"}, retain=True)
    await house.start()
    await house.disconnect()
    await house.advance(3)
    assert await house.jobs() == []
    assert house.sent("mqttjobs/response/#") == []


async def test_a_request_that_arrives_retained_is_refused_reported_and_never_answered(build: Build) -> None:
    house = await build(**OPEN).start()
    session = house.broker._clients["mqttjobs"].session
    assert session is not None
    topic = "mqttjobs/request/operations/execute"
    session.push(Message(topic, b'{"id": "say"}', qos=1, retain=True, packet_id=9))
    await house.settle()
    assert await house.jobs() == []
    assert house.sent("mqttjobs/response/#") == []
    [told] = house.documents("mqttjobs/event/rejected")
    assert (told["topic"], told["reason"]) == (topic, "retained_request")


async def test_requests_that_came_while_the_service_was_down_are_answered_once(build: Build) -> None:
    house = await build(**OPEN).start()
    await house.crash()
    house.send("mqttjobs/request/operations/execute", {"id": "say"})
    await house.start()
    house.broker.drop("mqttjobs")
    await house.advance(3)
    assert len(answers(house)) == 1
    assert len(await house.jobs()) == 1


async def test_a_request_that_the_broker_repeats_is_not_carried_out_again(build: Build) -> None:
    house = await build(**OPEN).start()
    house.die_at("before acknowledge")
    house.send("mqttjobs/request/operations/execute", {"id": "say"})
    await house.settle()
    assert not house.running
    await house.start()
    assert len(await house.jobs()) <= 1
    assert len(answers(house)) <= 1


async def test_a_slow_query_holds_up_neither_intake_nor_other_requests(build: Build) -> None:
    operations = {"say": an_operation("lamp", triggers=[{}])}
    house = await build(objects=OBJECTS, operations=operations).start()
    slow = asyncio.Event()
    find = house.store.find

    async def wait_and_find(query: Any) -> Any:
        await slow.wait()
        return await find(query)

    house.store.find = wait_and_find  # type: ignore[method-assign]
    questions = [house.put("jobs/list") for _ in range(50)]
    await house.report("home/lamp", "on")
    assert len(house.texts("out/lamp")) == 1
    assert (await house.data("service/health"))["counters"]["changed"] == 1
    assert all(each.answers == [] for each in questions)
    slow.set()
    await house.settle()
    assert all(each.answer["data"]["total_items"] == 1 for each in questions)


async def test_every_request_of_a_crowd_is_answered_exactly_once(build: Build) -> None:
    house = await build(**OPEN).start()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HandLoop)
    questions = [house.put("service/info" if n % 2 else "jobs/list", transaction=n) for n in range(1500)]
    await house.advance(5)
    assert [each.answer["transaction"] for each in questions] == list(range(1500))
    assert sum((await house.counters())["requests_by_result"].values()) >= 1500
