"""The contract of Transport and Session, over the memory transport and the real one with two brokers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mqttjobs.errors import ClientIdTaken, ConnectionLost, ConnectionRefused, TransportError
from mqttjobs.transport.backends.mqtt import client as mqtt_client
from mqttjobs.transport.base import ConnectOptions, Message, Publication, Subscription, create_transport
from mqttjobs.transport.embedded import EmbeddedBroker
from tests.brokers import MosquittoBroker, free_port
from tests.contracts.fixtures import (
    CONNACK_5,
    CONNACK_311,
    Bench,
    FakeServer,
    collect,
    connect,
    cut_connection,
    send,
    subscribe,
    within,
)

MOST_UNREAD = 5000
"""Far more messages than a transport may keep unread, and far fewer than are sent."""


def needs(able: bool, message: str) -> None:
    if not able:
        pytest.skip(message)


def numbered(count: int, topic: str = "t/a", qos: int = 1) -> list[Publication]:
    return [Publication(topic, str(n).encode(), qos) for n in range(count)]


def payloads(messages: list[Message]) -> list[bytes]:
    return [message.payload for message in messages]


# -- publish and receive ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"\x00\xff\xfe", "é{}".encode(), bytes(range(256)) * 1000])
@pytest.mark.parametrize("qos", [0, 1])
async def test_a_message_arrives_with_its_topic_payload_and_qos(bench: Bench, payload: bytes, qos: int) -> None:
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        await send(bench.options(), Publication("t/Küche/ 1", payload, qos))
        [message] = await collect(session, 1)
    assert (message.topic, message.payload) == ("t/Küche/ 1", payload)
    assert message.qos == qos or not bench.can.exact
    assert (message.retain, message.duplicate) == (False, False)
    assert (message.packet_id > 0) == (message.qos > 0)
    assert message.response_topic is None
    assert message.correlation_data is None
    assert message.user_properties == ()


@pytest.mark.parametrize("qos", [0, 1])
async def test_messages_arrive_in_the_order_in_which_they_were_published(bench: Bench, qos: int) -> None:
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        await send(bench.options(), *numbered(400, qos=qos))
        messages = await collect(session, 400)
    assert payloads(messages) == [str(n).encode() for n in range(400)]


async def test_a_session_receives_its_own_publications(bench: Bench) -> None:
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        codes = await asyncio.gather(*map(session.publish, numbered(50)))
        messages = await collect(session, 50)
    assert set(codes) == {0}
    assert payloads(messages) == [str(n).encode() for n in range(50)]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_publication_at_any_qos_completes_and_arrives(bench: Bench, qos: int) -> None:
    async with connect(bench.options(client_id="reader")) as reader, connect(bench.options()) as session:
        await subscribe(reader, "t/#")
        async with within():
            codes = [await session.publish(each) for each in numbered(5, qos=qos)]
        messages = await collect(reader, 5)
    assert codes == [0] * 5
    assert payloads(messages) == [b"0", b"1", b"2", b"3", b"4"]


async def test_publications_leave_in_call_order_whatever_their_qos(bench: Bench) -> None:
    async with connect(bench.options(client_id="reader")) as reader, connect(bench.options()) as session:
        await subscribe(reader, "t/#")
        futures = [session.publish(Publication("t/a", str(n).encode(), n % 2)) for n in range(100)]
        async with within():
            await asyncio.gather(*futures)
        messages = await collect(reader, 100)
    assert payloads(messages) == [str(n).encode() for n in range(100)]


async def test_receive_returns_at_most_the_limit_and_keeps_the_rest(bench: Bench) -> None:
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        await send(bench.options(), *numbered(10))
        got: list[Message] = []
        async with within():
            while len(got) < 10:
                new = await session.receive(3)
                assert 1 <= len(new) <= 3
                got += new
    assert payloads(got) == [str(n).encode() for n in range(10)]


async def test_a_cancelled_receive_loses_nothing(bench: Bench) -> None:
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        waiting = asyncio.create_task(session.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await send(bench.options(), *numbered(3))
        assert payloads(await collect(session, 3)) == [b"0", b"1", b"2"]


async def test_a_cancelled_publish_is_still_sent(bench: Bench) -> None:
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        session.publish(Publication("t/a", b"first", 1)).cancel()
        async with within():
            assert await session.publish(Publication("t/a", b"second", 1)) == 0
        assert payloads(await collect(session, 2)) == [b"first", b"second"]


@pytest.mark.parametrize("topic", ["", "a/+", "a/#", "a\0b", "a" * 65_536, "\ud800"])
async def test_an_invalid_topic_is_refused_and_the_connection_stays(bench: Bench, topic: str) -> None:
    async with connect(bench.options()) as session:
        with pytest.raises(ValueError, match="topic"):
            session.publish(Publication(topic, b"", 1))
        async with within():
            await session.publish(Publication("t/a", b"", 1))


async def test_properties_arrive_on_mqtt_5_and_are_left_out_on_3_1_1(bench: Bench) -> None:
    publication = Publication(
        "t/a", b"{}", 1, response_topic="answers/é", correlation_data=b"\x00\xff", content_type="application/json",
        user_properties=(("a", "1"), ("a", "2"), ("é", "")), expiry_s=3600,
    )  # fmt: skip
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        await send(bench.options(), publication)
        [message] = await collect(session, 1)
    if bench.can.five:
        assert message.response_topic == "answers/é"
        assert message.correlation_data == b"\x00\xff"
        assert message.user_properties == (("a", "1"), ("a", "2"), ("é", ""))
        assert message.expiry_s is not None
        assert 3500 < message.expiry_s <= 3600
    else:
        assert message.user_properties == ()
        assert (message.response_topic, message.correlation_data, message.expiry_s) == (None, None, None)
    assert message.payload == b"{}"


async def test_a_session_has_its_protocol(bench: Bench) -> None:
    async with connect(bench.options()) as session:
        assert session.protocol == ("5" if bench.can.five else "3.1.1")


async def test_a_publish_without_subscribers_has_a_reason_code_on_mqtt_5(bench: Bench) -> None:
    async with connect(bench.options()) as session, within():
        alone = [await session.publish(Publication("t/a", b"", qos)) for qos in (0, 1)]
        await subscribe(session, "t/#")
        heard = [await session.publish(Publication("t/a", b"", qos)) for qos in (0, 1)]
    assert alone == ([0, 0x10] if bench.can.five else [0, 0])
    assert heard == [0, 0]


# -- acknowledgement and redelivery ----------------------------------------------------------------------------------


async def test_unacknowledged_messages_come_again_with_dup_and_the_same_packet_id(bench: Bench) -> None:
    needs(bench.can.redelivers, "this broker does not send again")
    async with cut_connection(bench.options()) as session:
        await subscribe(session, "t/#")
        await send(bench.options(), *numbered(5))
        first = await collect(session, 5, acknowledge=False)
    async with connect(bench.options()) as session:
        assert session.resumed
        again = await collect(session, 5)
    assert [replace(message, duplicate=False) for message in again] == first
    assert all(message.duplicate for message in again)
    assert not any(message.duplicate for message in first)


async def test_messages_that_were_never_received_come_after_a_cut_too(bench: Bench) -> None:
    needs(bench.can.redelivers, "this broker does not send again")
    async with cut_connection(bench.options()) as session:
        await subscribe(session, "t/#")
        await send(bench.options(), *numbered(50))
    async with connect(bench.options()) as session:
        assert payloads(await collect(session, 50)) == [str(n).encode() for n in range(50)]


async def test_acknowledged_messages_do_not_come_again(bench: Bench) -> None:
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        await send(bench.options(), *numbered(3))
        await collect(session, 3)
    await send(bench.options(), Publication("t/a", b"marker", 1))
    async with connect(bench.options()) as session:
        [message] = await collect(session, 1)
    assert message.payload == b"marker"


async def test_only_unacknowledged_messages_come_again(bench: Bench) -> None:
    needs(bench.can.redelivers, "this broker does not send again")
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        await send(bench.options(), *numbered(4))
        messages = await collect(session, 4, acknowledge=False)
        session.acknowledge(messages[:2])
    async with connect(bench.options()) as session:
        assert payloads(await collect(session, 2)) == [b"2", b"3"]


async def test_acknowledging_messages_of_qos_0_does_no_harm(bench: Bench) -> None:
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        await send(bench.options(), *numbered(3, qos=0))
        await collect(session, 3)
        await send(bench.options(), *numbered(1))
        await collect(session, 1)
        async with within():
            await session.publish(Publication("t/b", b"", 1))


async def test_acknowledging_on_a_lost_connection_does_no_harm(bench: Bench) -> None:
    needs(bench.can.redelivers, "this broker does not send again")
    async with cut_connection(bench.options()) as old:
        await subscribe(old, "t/#")
        await send(bench.options(), *numbered(1))
        messages = await collect(old, 1, acknowledge=False)
    old.acknowledge(messages)
    async with connect(bench.options()) as session:
        assert payloads(await collect(session, 1)) == [b"0"]


async def test_a_session_knows_whether_it_was_resumed(bench: Bench) -> None:
    async with connect(bench.options()) as session:
        assert not session.resumed
        await subscribe(session, "t/#")
    async with connect(bench.options()) as session:
        assert session.resumed
    await send(bench.options(), *numbered(3))
    async with connect(bench.options()) as session:
        assert session.resumed
        assert payloads(await collect(session, 3)) == [b"0", b"1", b"2"]


async def test_a_clean_session_is_not_kept(bench: Bench) -> None:
    for _ in range(2):
        async with connect(bench.options(clean=True)) as session:
            assert not session.resumed
            await subscribe(session, "t/#")
            await send(bench.options(), Publication("t/a", b"marker", 1))
            assert payloads(await collect(session, 1, acknowledge=False)) == [b"marker"]


# -- subscriptions ---------------------------------------------------------------------------------------------------


async def test_retained_messages_are_replayed_at_every_subscribe_that_asks_for_them(bench: Bench) -> None:
    await send(bench.options(), Publication("t/a", b"kept", 1, retain=True), Publication("t/b", b"live", 1))
    async with connect(bench.options()) as session:
        for _ in range(2):
            await subscribe(session, Subscription("t/#", replay=True))
            [message] = await collect(session, 1)
            assert (message.topic, message.payload, message.retain) == ("t/a", b"kept", True)
        await send(bench.options(), Publication("t/a", b"newer", 1, retain=True))
        [message] = await collect(session, 1)
        assert (message.payload, message.retain) == (b"newer", False)


async def test_retained_messages_are_replayed_to_a_resumed_session_when_it_subscribes(bench: Bench) -> None:
    needs(bench.can.exact, "this broker replays at CONNECT too")
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        await send(bench.options(), Publication("t/a", b"kept", 1, retain=True))
        await collect(session, 1)
    async with connect(bench.options()) as session:
        assert session.resumed
        await send(bench.options(), Publication("t/b", b"marker", 1))
        assert payloads(await collect(session, 1)) == [b"marker"]
        await subscribe(session, "t/#")
        [message] = await collect(session, 1)
        assert (message.payload, message.retain) == (b"kept", True)


async def test_retained_messages_are_not_replayed_to_a_subscribe_that_does_not_ask(bench: Bench) -> None:
    needs(bench.can.five, "only MQTT 5 can leave them out")
    await send(bench.options(), Publication("t/a", b"kept", 1, retain=True))
    async with connect(bench.options()) as session:
        await subscribe(session, Subscription("t/#", replay=False))
        await subscribe(session, Subscription("t/#", replay=False))
        await send(bench.options(), Publication("t/b", b"marker", 1))
        assert payloads(await collect(session, 1)) == [b"marker"]


async def test_an_empty_retained_message_removes_the_one_before(bench: Bench) -> None:
    await send(bench.options(), Publication("t/a", b"kept", 1, retain=True), Publication("t/a", b"", 1, retain=True))
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        await send(bench.options(), Publication("t/b", b"marker", 1))
        assert payloads(await collect(session, 1)) == [b"marker"]


async def test_an_unsubscribed_filter_brings_no_more_messages(bench: Bench) -> None:
    async with connect(bench.options()) as session:
        await subscribe(session, "t/a", "t/b")
        async with within():
            await session.unsubscribe(["t/a", "never/there", "bad/#/filter"])
        await send(bench.options(), Publication("t/a", b"unwanted", 1), Publication("t/b", b"wanted", 1))
        assert payloads(await collect(session, 1)) == [b"wanted"]


async def test_an_invalid_filter_is_refused_and_those_beside_it_are_granted(bench: Bench) -> None:
    async with connect(bench.options()) as session:
        codes = await subscribe(session, "a/#/b", "t/a", "", "t/b+", "$share/group/t", "t/c")
        assert [code >= 0x80 for code in codes] == [True, False, True, True, True, False]
        await send(bench.options(), Publication("t/a", b"a", 1), Publication("t/c", b"c", 1))
        assert payloads(await collect(session, 2)) == [b"a", b"c"]


async def test_hundreds_of_filters_are_answered_each_in_order(bench: Bench) -> None:
    filters = [f"many/{n}" for n in range(450)]
    filters[333] = "not/#/one"
    async with connect(bench.options()) as session:
        codes = await subscribe(session, *filters)
        assert [place for place, code in enumerate(codes) if code >= 0x80] == [333]
        assert len(codes) == 450
        await send(bench.options(), Publication("many/449", b"last", 1))
        assert payloads(await collect(session, 1)) == [b"last"]


async def test_subscribing_works_while_hundreds_of_messages_wait_to_be_received(bench: Bench) -> None:
    needs(bench.can.flows, "this broker does not bear it")
    async with connect(bench.options(receive_maximum=65_535)) as session:
        await subscribe(session, "t/#")
        await send(bench.options(), *numbered(6000))
        assert all(code < 0x80 for code in await subscribe(session, "u/#"))
        await send(bench.options(), Publication("u/a", b"last", 1))
        messages = await collect(session, 6001)
    assert messages[-1].payload == b"last"


async def test_a_refused_subscription_has_a_reason_code(bench: Bench) -> None:
    needs(bench.can.refuses, "this broker refuses nothing")
    async with connect(bench.options()) as session:
        codes = await subscribe(session, "t/a", "forbidden/a", "t/b")
        assert [code >= 0x80 for code in codes] == [False, True, False]
        await send(bench.options(), Publication("t/b", b"b", 1))
        assert payloads(await collect(session, 1)) == [b"b"]


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_refused_publish_has_a_reason_code_on_mqtt_5(bench: Bench, qos: int) -> None:
    needs(bench.can.refuses, "this broker refuses nothing")
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        async with within():
            refused = await session.publish(Publication("forbidden/a", b"", qos))
            taken = await session.publish(Publication("t/a", b"", qos))
    assert refused == (0x87 if bench.can.five else 0)
    assert taken == 0


# -- the end of a connection -----------------------------------------------------------------------------------------

WILL = Publication("t/will", b"gone", 1)


async def test_the_will_is_published_when_the_connection_is_cut(bench: Bench) -> None:
    async with connect(bench.options(client_id="reader")) as reader:
        await subscribe(reader, "t/#")
        async with cut_connection(bench.options(will=WILL)):
            pass
        [message] = await collect(reader, 1)
    assert (message.topic, message.payload) == ("t/will", b"gone")


async def test_each_connection_has_a_will_of_its_own(bench: Bench) -> None:
    wills = iter([replace(WILL, payload=b"first"), replace(WILL, payload=b"second")])
    options = bench.options(will=lambda: next(wills))
    async with connect(bench.options(client_id="other")) as reader:
        await subscribe(reader, "t/will")
        for wanted in (b"first", b"second"):
            async with cut_connection(options):
                pass
            [message] = await collect(reader, 1)
            assert message.payload == wanted


async def test_the_will_is_not_published_on_a_clean_exit(bench: Bench) -> None:
    async with connect(bench.options(client_id="reader")) as reader:
        await subscribe(reader, "t/#")
        async with connect(bench.options(will=WILL)):
            pass
        await send(bench.options(), Publication("t/a", b"marker", 1))
        assert payloads(await collect(reader, 1)) == [b"marker"]


async def test_the_will_is_not_published_on_a_clean_exit_with_publications_in_flight(bench: Bench) -> None:
    async with connect(bench.options(client_id="reader")) as reader:
        await subscribe(reader, "t/will", "t/marker")
        for _ in range(30):
            async with connect(bench.options(will=WILL)) as session:
                for each in numbered(20):
                    session.publish(each)
        await send(bench.options(), Publication("t/marker", b"marker", 1))
        assert payloads(await collect(reader, 1)) == [b"marker"]


async def test_the_will_is_not_published_on_a_clean_exit_while_messages_arrive(bench: Bench) -> None:
    needs(bench.can.flows, "this broker holds a client's next connection up for every unacknowledged message")
    async with connect(bench.options(client_id="reader")) as reader, connect(bench.options(client_id="busy")) as busy:
        await subscribe(reader, "t/will", "t/marker")
        for _ in range(30):
            async with connect(bench.options(will=WILL)) as session:
                await subscribe(session, "t/a")
                futures = [busy.publish(each) for each in numbered(200)]
                await session.receive()
            async with within():
                await asyncio.gather(*futures)
        await send(bench.options(), Publication("t/marker", b"marker", 1))
        assert payloads(await collect(reader, 1)) == [b"marker"]


async def test_a_retained_will_is_sent_to_later_subscribers(bench: Bench) -> None:
    async with connect(bench.options(client_id="reader")) as reader:
        await subscribe(reader, "t/will")
        async with cut_connection(bench.options(will=replace(WILL, retain=True))):
            pass
        await collect(reader, 1)
    async with connect(bench.options(client_id="late")) as late:
        await subscribe(late, "t/will")
        [message] = await collect(late, 1)
    assert (message.payload, message.retain) == (b"gone", True)


@pytest.mark.parametrize("count", [1, 20, 200])
async def test_publications_just_before_a_clean_exit_arrive(bench: Bench, count: int) -> None:
    async with connect(bench.options(client_id="reader")) as reader:
        await subscribe(reader, "t/#")
        for _ in range(5):
            async with connect(bench.options()) as session:
                for each in numbered(count):
                    session.publish(each)
        async with within(5):
            messages = await collect(reader, 5 * count)
    assert payloads(messages) == [str(n).encode() for n in range(count)] * 5


async def test_every_call_raises_connection_lost_once_the_broker_is_gone(bench: Bench) -> None:
    with pytest.raises(ConnectionLost):
        async with connect(bench.options()) as session:
            await subscribe(session, "t/#")
            receiving = asyncio.create_task(session.receive())
            await asyncio.sleep(0)
            await bench.kill()
            async with within():
                with pytest.raises(ConnectionLost):
                    await receiving
                with pytest.raises(ConnectionLost):
                    await session.publish(Publication("t/a", b"", 1))
                with pytest.raises(ConnectionLost):
                    await session.publish(Publication("t/a", b"", 0))
                with pytest.raises(ConnectionLost):
                    await session.subscribe([Subscription("t/b")])
                with pytest.raises(ConnectionLost):
                    await session.unsubscribe(["t/b"])
                await session.receive()


async def test_an_unconfirmed_publish_raises_connection_lost(bench: Bench) -> None:
    needs(bench.can.freezes, "this broker cannot hang")
    async with connect(bench.options()) as session:
        bench.freeze()
        futures = [session.publish(each) for each in numbered(300)]
        await bench.kill()
        async with within():
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ConnectionLost}


async def test_publications_wait_while_the_broker_hangs_and_complete_after(bench: Bench) -> None:
    needs(bench.can.freezes, "this broker cannot hang")
    async with connect(bench.options()) as session:
        bench.freeze()
        futures = [session.publish(each) for each in numbered(300)]
        done, _ = await asyncio.wait(futures, timeout=0.2)
        bench.thaw()
        assert not done
        async with within():
            assert len(await asyncio.gather(*futures)) == 300


async def test_a_broker_that_cannot_be_reached_is_a_lost_connection(bench: Bench) -> None:
    await bench.kill()
    with pytest.raises(ConnectionLost):
        async with within(), connect(bench.options()):
            pytest.fail("there is no broker")


async def test_a_client_loses_its_connection_to_another_with_its_client_id(bench: Bench) -> None:
    expected = ClientIdTaken if bench.can.tells_takeover else ConnectionLost
    async with connect(bench.options()) as old:
        receiving = asyncio.create_task(old.receive())
        await asyncio.sleep(0)
        async with connect(bench.options()) as new:
            async with within():
                with pytest.raises(expected):
                    await receiving
                with pytest.raises(expected):
                    await old.subscribe([Subscription("t/#")])
            if bench.can.exact:
                await subscribe(new, "t/#")
                await send(bench.options(), Publication("t/a", b"new", 1))
                assert payloads(await collect(new, 1)) == [b"new"]


async def test_a_disconnect_for_a_taken_client_id_is_recognised() -> None:
    async with FakeServer(lambda _: CONNACK_5) as server:
        server.afterwards = bytes([0xE0, 2, 0x8E, 0])
        with pytest.raises(ClientIdTaken, match="subject"):
            async with within(), connect(ConnectOptions(server.url, "subject", protocol="5")) as session:
                await session.receive()


@pytest.mark.parametrize("reason", [0x00, 0x81, 0x8B, 0x8D, 0x98])
async def test_a_disconnect_for_another_reason_is_a_lost_connection(reason: int) -> None:
    async with FakeServer(lambda _: CONNACK_5) as server:
        server.afterwards = bytes([0xE0, 2, reason, 0])
        with pytest.raises(ConnectionLost):
            async with within(), connect(ConnectOptions(server.url, protocol="5")) as session:
                await session.receive()


async def test_bad_credentials_are_refused(bench: Bench) -> None:
    needs(bench.can.passwords, "this broker lets everyone in")
    bench.ask_for_passwords()
    with pytest.raises(ConnectionRefused) as refused:
        async with within(), connect(bench.options(username="alice", password="wrong-secret")):  # noqa: S106
            pytest.fail("the password was wrong")
    assert "wrong-secret" not in str(refused.value)


async def test_an_error_in_the_body_of_a_connection_is_raised(bench: Bench) -> None:
    with pytest.raises(LookupError):
        async with connect(bench.options()):
            raise LookupError


# -- crowds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("receive_maximum", [500, 65_535])
async def test_a_crowd_of_messages_waits_in_bounded_memory_and_then_arrives_in_order(
    bench: Bench, receive_maximum: int
) -> None:
    needs(bench.can.flows, "this broker does not bear it")
    async with connect(bench.options(receive_maximum=receive_maximum)) as session:
        await subscribe(session, "t/#")
        for start in range(0, 20_000, 2000):
            await send(bench.options(), *numbered(20_000)[start : start + 2000])
            assert bench.unread(session) <= MOST_UNREAD
        messages = await collect(session, 20_000)
    assert payloads(messages) == [str(n).encode() for n in range(20_000)]


async def test_twenty_thousand_publications_at_once_are_all_confirmed(bench: Bench) -> None:
    needs(bench.can.flows, "this broker does not bear it")
    async with connect(bench.options()) as session:
        async with asyncio.timeout(60):
            codes = await asyncio.gather(*map(session.publish, numbered(20_000)))
    assert set(codes) <= {0, 0x10}


async def test_thousands_of_user_properties_lose_neither_the_message_nor_the_connection(bench: Bench) -> None:
    needs(bench.can.five, "there are none before MQTT 5")
    crowd = tuple((f"k{n}", "v") for n in range(2000))
    async with connect(bench.options()) as session:
        await subscribe(session, "t/#")
        await send(
            bench.options(), Publication("t/a", b"odd", 1, user_properties=crowd), Publication("t/a", b"even", 1)
        )
        assert payloads(await collect(session, 2)) == [b"odd", b"even"]


async def test_a_publication_over_the_brokers_limit_is_refused_and_the_connection_stays(
    start_mosquitto: Callable[..., MosquittoBroker],
) -> None:
    broker = start_mosquitto("max_packet_size 2000", autosave=False)
    async with connect(ConnectOptions(broker.url, protocol="5")) as session, within():
        assert await session.publish(Publication("t/a", b"x" * 3000, 1)) == 0x95
        assert await session.publish(Publication("t/a", b"x", 1)) < 0x80


# -- the real transport only -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_small_packets_are_sent_at_once(mosquitto: MosquittoBroker, protocol: str) -> None:
    async with connect(ConnectOptions(mosquitto.url, protocol=protocol)) as session:
        inside: Any = session
        assert inside._paho.socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def a_publish(properties: bytes, payload: bytes = b"odd") -> bytes:
    """Return a PUBLISH packet of QoS 1 with the topic `t` and any bytes for properties."""
    body = b"\x00\x01t" + b"\x00\x07" + bytes([len(properties)]) + properties + payload
    return bytes([0x32, len(body)]) + body


@pytest.mark.parametrize(
    "properties",
    [
        b"\x7f\x00\x00",
        b"\x26\xff\xffab",
        b"\x26\x00\x02\xff\xfe\x00\x01a",
        b"\x08\x00\x05a",
        b"\x02\x00",
        b"\x01\x01\x01\x01",
        b"\x08\x00\x01a\x08\x00\x01b",
        b"\x0b\xff\xff\xff\xff\xff",
        b"\x00",
    ],
)
async def test_invalid_properties_do_not_end_the_connection(properties: bytes) -> None:
    async with FakeServer(lambda _: CONNACK_5) as server:
        server.afterwards = a_publish(properties) + a_publish(b"", b"even")
        async with connect(ConnectOptions(server.url, protocol="5")) as session:
            messages = await collect(session, 2)
            await server.wait_for(b"\x40\x02\x00\x07")
    assert payloads(messages) == [b"odd", b"even"]
    assert [message.packet_id for message in messages] == [7, 7]


async def test_a_topic_that_is_not_utf_8_does_not_end_the_connection() -> None:
    odd = b"\x32\x08\x00\x02\xff\xfe\x00\x07\x00x"
    async with FakeServer(lambda _: CONNACK_5) as server:
        server.afterwards = odd + a_publish(b"", b"even")
        async with connect(ConnectOptions(server.url, protocol="5")) as session:
            assert payloads(await collect(session, 2)) == [b"x", b"even"]


async def test_bytes_that_are_not_mqtt_are_a_lost_connection() -> None:
    async with FakeServer(lambda _: CONNACK_5) as server:
        server.afterwards = b"\xf0\xff\xff\xff\xff\xff HTTP/1.1 400 Bad Request"
        with pytest.raises(ConnectionLost):
            async with within(), connect(ConnectOptions(server.url, protocol="5")) as session:
                await session.receive()


# -- protocol auto ---------------------------------------------------------------------------------------------------


def auto(url: str, **changes: Any) -> ConnectOptions:
    return ConnectOptions(url, protocol="auto", **changes)


async def test_auto_uses_mqtt_5_where_the_broker_has_it(mosquitto: MosquittoBroker) -> None:
    transport = create_transport(auto(mosquitto.url))
    for _ in range(2):
        async with transport.connect() as session:
            assert session.protocol == "5"


async def test_auto_falls_back_for_a_broker_with_3_1_1_only(embedded_broker: EmbeddedBroker) -> None:
    transport = create_transport(auto(embedded_broker.url))
    async with within():
        session = None
        while session is None:
            try:
                async with transport.connect() as session:
                    assert session.protocol == "3.1.1"
                    await session.publish(Publication("t/a", b"", 1))
            except ConnectionLost:
                continue


async def test_auto_falls_back_after_two_closes_before_connack_and_stays_there() -> None:
    async with FakeServer(lambda level: CONNACK_311 if level == 4 else None) as server:
        transport = create_transport(auto(server.url))
        async with within():
            with pytest.raises(ConnectionLost):
                async with transport.connect():
                    pytest.fail("it was closed")
            assert server.levels == [5]
            for _ in range(2):
                async with transport.connect() as session:
                    assert session.protocol == "3.1.1"
        assert server.levels == [5, 5, 4, 4]


@pytest.mark.parametrize(
    "refusal",
    [bytes([0x20, 3, 0, 0x84, 0]), bytes([0x20, 2, 0, 1])],
    ids=["reason 0x84", "return code 1"],
)
async def test_auto_falls_back_at_once_where_the_version_is_refused(refusal: bytes) -> None:
    async with FakeServer(lambda level: CONNACK_311 if level == 4 else refusal) as server:
        transport = create_transport(auto(server.url))
        async with within(), transport.connect() as session:
            assert session.protocol == "3.1.1"
        assert server.levels == [5, 4]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_configured_protocol_is_never_changed(protocol: str) -> None:
    async with FakeServer(lambda _: None) as server:
        transport = create_transport(ConnectOptions(server.url, protocol=protocol))
        for _ in range(3):
            with pytest.raises(ConnectionLost):
                async with within(), transport.connect():
                    pytest.fail("it was closed")
        assert server.levels == [5 if protocol == "5" else 4] * 3


async def test_auto_does_not_fall_back_after_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_client, "CONNECT_S", 0.2)
    async with FakeServer(lambda _: b"") as server:
        transport = create_transport(auto(server.url))
        for _ in range(3):
            with pytest.raises(ConnectionLost):
                async with within(), transport.connect():
                    pytest.fail("nobody answered")
        assert server.levels == [5, 5, 5]


async def test_auto_does_not_fall_back_when_nobody_listens() -> None:
    port = free_port()
    transport = create_transport(auto(f"mqtt://127.0.0.1:{port}"))
    for _ in range(3):
        with pytest.raises(ConnectionLost):
            async with within(), transport.connect():
                pytest.fail("nobody listens")
    assert transport._worked is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("reason", [0x86, 0x87, 0x88, 0x89, 0x8A, 0x97, 0x9F])
async def test_auto_does_not_fall_back_for_bad_credentials_or_a_busy_broker(reason: int) -> None:
    async with FakeServer(lambda _: bytes([0x20, 3, 0, reason, 0])) as server:
        transport = create_transport(auto(server.url))
        for _ in range(3):
            with pytest.raises(ConnectionRefused):
                async with within(), transport.connect():
                    pytest.fail("it was refused")
        assert server.levels == [5, 5, 5]


async def test_auto_reports_bad_credentials_of_a_real_broker(start_mosquitto: Callable[..., MosquittoBroker]) -> None:
    broker = start_mosquitto(anonymous=False)
    transport = create_transport(auto(broker.url, username="alice", password="wrong"))  # noqa: S106
    for _ in range(3):
        with pytest.raises(ConnectionRefused):
            async with within(), transport.connect():
                pytest.fail("the password was wrong")


async def test_auto_keeps_mqtt_5_once_it_worked_even_if_the_broker_closes_early() -> None:
    answers: list[bytes | None] = [CONNACK_5, None, None, None]
    async with FakeServer(lambda _: answers.pop(0)) as server:
        transport = create_transport(auto(server.url))
        async with within():
            async with transport.connect() as session:
                assert session.protocol == "5"
            for _ in range(3):
                with pytest.raises(ConnectionLost):
                    async with transport.connect():
                        pytest.fail("it was closed")
        assert server.levels == [5, 5, 5, 5]


async def test_closes_before_connack_count_only_when_they_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_client, "CONNECT_S", 0.2)
    answers: list[bytes | None] = [None, bytes([0x20, 3, 0, 0x88, 0]), None]
    async with FakeServer(lambda level: answers.pop(0) if level == 5 else CONNACK_311) as server:
        transport = create_transport(auto(server.url))
        async with within():
            for expected in (ConnectionLost, ConnectionRefused, TransportError):
                with pytest.raises(expected):
                    async with transport.connect():
                        pytest.fail("a broker that has answered in MQTT 5 knows it")
        assert server.levels == [5, 5, 5]


async def test_a_cancelled_connect_leaves_nothing_open() -> None:
    async with FakeServer(lambda _: b"") as server:
        transport = create_transport(auto(server.url))

        async def never() -> None:
            async with transport.connect():
                pytest.fail("nobody answered")

        connecting = asyncio.create_task(never())
        async with within():
            while not server.levels:
                await asyncio.sleep(0.01)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        async with within():
            while server.connections:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("url", ["", "127.0.0.1:1883", "http://127.0.0.1", "embedded://x"])
def test_an_unknown_transport_url_is_refused_with_what_to_use(url: str) -> None:
    with pytest.raises(TransportError, match="mqtt"):
        create_transport(ConnectOptions(url))
