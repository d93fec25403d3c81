"""Publisher: order over lost connections, cancelled publications, and one that ends every connection."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress

import pytest

from mqttjobs.errors import ConnectionLost
from mqttjobs.transport.backends import memory
from mqttjobs.transport.backends.memory import MemoryBroker
from mqttjobs.transport.base import ConnectOptions, Publication
from mqttjobs.transport.publisher import Publisher
from tests.brokers import MosquittoBroker
from tests.contracts.fixtures import connect, cut_connection, within

StartMosquitto = Callable[..., MosquittoBroker]
TOO_LONG = (("k" * 70_000, "v"),)


@pytest.fixture
def options() -> ConnectOptions:
    return ConnectOptions(f"memory://{uuid.uuid4().hex}", "hub")


@pytest.fixture
def broker(options: ConnectOptions) -> MemoryBroker:
    return memory.broker(options.url.removeprefix("memory://"))


def numbered(count: int, first: int = 0) -> list[Publication]:
    return [Publication("t/a", str(n).encode(), 1) for n in range(first, first + count)]


def taken(broker: MemoryBroker) -> list[int]:
    return [int(publication.payload) for publication in broker.published]


async def test_a_publication_without_a_connection_waits_for_one(options: ConnectOptions, broker: MemoryBroker) -> None:
    publisher = Publisher()
    futures = [publisher.publish(each) for each in numbered(5)]
    assert (publisher.connected, publisher.backlog) == (False, 5)
    async with connect(options) as session, within():
        publisher.attach(session)
        assert await asyncio.gather(*futures) == [0x10] * 5
    assert taken(broker) == [0, 1, 2, 3, 4]


async def test_unconfirmed_publications_are_sent_again_in_order_before_later_ones(
    options: ConnectOptions, broker: MemoryBroker
) -> None:
    publisher = Publisher(window=3)
    async with cut_connection(options) as session:
        publisher.attach(session)
        broker.freeze()
        futures = [publisher.publish(each) for each in numbered(6)]
    publisher.detach()
    broker.thaw()
    futures += [publisher.publish(each) for each in numbered(2, first=6)]
    assert not any(future.done() for future in futures)
    async with connect(options) as session, within():
        publisher.attach(session)
        await asyncio.gather(*futures)
    assert taken(broker) == [0, 1, 2, 3, 4, 5, 6, 7]


async def test_a_publication_whose_future_was_cancelled_is_not_sent_again(
    options: ConnectOptions, broker: MemoryBroker
) -> None:
    publisher = Publisher(window=2)
    async with cut_connection(options) as session:
        publisher.attach(session)
        broker.freeze()
        futures = [publisher.publish(each) for each in numbered(5)]
    publisher.detach()
    broker.thaw()
    futures[1].cancel()
    futures[3].cancel()
    async with connect(options) as session, within():
        publisher.attach(session)
        await asyncio.gather(*(future for future in futures if not future.cancelled()))
    assert taken(broker) == [0, 2, 4]


async def test_no_more_than_the_window_is_in_flight(options: ConnectOptions, broker: MemoryBroker) -> None:
    publisher = Publisher(window=3)
    async with connect(options) as session, within():
        publisher.attach(session)
        broker.freeze()
        futures = [publisher.publish(each) for each in numbered(10)]
        assert publisher.backlog == 7
        broker.thaw()
        await asyncio.gather(*futures)
    assert taken(broker) == list(range(10))


@pytest.mark.parametrize("connected", [False, True])
async def test_an_invalid_topic_fails_its_caller_and_delays_no_other(
    options: ConnectOptions, broker: MemoryBroker, connected: bool
) -> None:
    publisher = Publisher()
    async with connect(options) as session, within():
        if connected:
            publisher.attach(session)
        before, odd, after = [publisher.publish(Publication(topic, b"1", 1)) for topic in ("t/a", "t/#", "t/b")]
        publisher.attach(session)
        with pytest.raises(ValueError, match="topic"):
            await odd
        assert await asyncio.gather(before, after) == [0x10, 0x10]


async def test_a_publication_that_cannot_be_encoded_does_not_end_the_connection(mosquitto: MosquittoBroker) -> None:
    """Otherwise it would end the next connection too."""
    publisher = Publisher()
    odd = publisher.publish(Publication("t/a", b"", 1, user_properties=TOO_LONG))
    good = publisher.publish(Publication("t/a", b"", 1))
    async with connect(ConnectOptions(mosquitto.url, protocol="5")) as session, within():
        publisher.attach(session)
        assert await good == 0x10
        with pytest.raises(ValueError, match="65535"):
            await odd
        behind = [publisher.publish(each) for each in numbered(1000)]
        odd = publisher.publish(Publication("t/a", b"", 1, user_properties=TOO_LONG))
        last = publisher.publish(Publication("t/a", b"", 1))
        await asyncio.gather(*behind, last)
        with pytest.raises(ValueError, match="65535"):
            await odd


async def test_a_publication_that_ends_every_connection_is_given_up_and_later_ones_are_sent(
    start_mosquitto: StartMosquitto,
) -> None:
    """A 3.1.1 broker has no other way to refuse a large packet than to close the connection."""
    broker = start_mosquitto("max_packet_size 2000", autosave=False)
    options = ConnectOptions(broker.url, "hub", protocol="3.1.1")
    publisher = Publisher()
    before, odd, *after = [
        publisher.publish(Publication("t/a", payload, 1)) for payload in (b"1", b"x" * 3000, b"2", b"3")
    ]
    connections = 0
    async with within():
        while not after[-1].done():
            connections += 1
            with suppress(ConnectionLost):
                async with connect(options) as session:
                    publisher.attach(session)
                    receiving = asyncio.ensure_future(session.receive())
                    await asyncio.wait({receiving, after[-1]}, return_when=asyncio.FIRST_COMPLETED)
                    if receiving.done():
                        receiving.result()
                    receiving.cancel()
            publisher.detach()
    assert 11 <= connections <= 15
    assert (before.result(), odd.result()) == (0, 0x80)


async def test_a_lost_connection_counts_against_the_first_unconfirmed_publication_only(
    options: ConnectOptions, broker: MemoryBroker
) -> None:
    publisher = Publisher()
    futures = [publisher.publish(each) for each in numbered(12)]
    for _ in range(12):
        async with cut_connection(options) as session:
            broker.freeze()
            publisher.attach(session)
            [publication] = [session.unconfirmed[0]]  # type: ignore[attr-defined]
            session.unconfirmed.clear()  # type: ignore[attr-defined]
            publication[1].set_result(0)
            await asyncio.sleep(0)
        publisher.detach()
        broker.thaw()
    assert [future.result() for future in futures] == [0] * 12
