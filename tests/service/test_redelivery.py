"""A message that comes again is known for what it is, whatever ended the connection or the process (behaviour 1.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from house import House, an_object, an_operation

from mqttjobs.transport.base import Message

Build = Callable[..., House]

SAYS = "{{ previous_state }}>{{ state }}"


def a_lamp(**state: Any) -> dict[str, Any]:
    return {
        "objects": {"lamp": an_object("home/lamp", state=state)},
        "operations": {"echo": an_operation("lamp", message=SAYS, triggers=[{}])},
    }


def deliver(house: House, message: Message) -> None:
    """Hand a message to the service as the broker would, whatever its flags."""
    kept = house.broker._clients["mqttjobs"]
    assert kept.session is not None
    kept.session.push(message)


PRESS = Message("home/lamp", b"press", qos=1, packet_id=7)


async def test_a_redelivery_of_a_committed_message_is_counted_and_does_nothing(build: Build) -> None:
    house = await build(**a_lamp(event=True)).start()
    deliver(house, PRESS)
    await house.settle()
    deliver(house, replace(PRESS, duplicate=True))
    await house.settle()
    assert len(await house.jobs()) == 1
    assert (await house.counters())["duplicate"] == 1


async def test_a_redelivery_is_recognised_by_the_next_process_too(build: Build) -> None:
    house = await build(**a_lamp(event=True)).start()
    house.die_at("before acknowledge")
    await house.report("home/lamp", "press")
    assert not house.running
    await house.start()
    assert len(await house.jobs()) == 1
    assert (await house.counters())["duplicate"] == 1


async def test_dup_alone_proves_nothing(build: Build) -> None:
    house = await build(**a_lamp(event=True)).start()
    house.die_at("before record")
    await house.report("home/lamp", "press")
    await house.start()
    assert len(await house.jobs()) == 1
    counters = await house.counters()
    assert (counters["duplicate"], counters["changed"]) == (0, 1)


async def test_the_same_identifier_without_dup_is_a_new_message(build: Build) -> None:
    house = await build(**a_lamp(event=True)).start()
    for message in (PRESS, PRESS, replace(PRESS, duplicate=True)):
        deliver(house, message)
        await house.settle()
    assert len(await house.jobs()) == 2


async def test_another_message_under_a_stored_identifier_is_no_duplicate(build: Build) -> None:
    house = await build(**a_lamp(event=True)).start()
    deliver(house, PRESS)
    deliver(house, replace(PRESS, payload=b"hold", duplicate=True))
    await house.settle()
    assert house.texts("out/lamp") == ["null>press", "press>hold"]


async def test_a_new_session_forgets_the_identifiers_of_the_old_one(build: Build) -> None:
    house = await build(**a_lamp(event=True)).start()
    deliver(house, PRESS)
    await house.settle()
    house.broker.forget("mqttjobs")
    await house.advance(2)
    deliver(house, replace(PRESS, duplicate=True))
    await house.settle()
    assert len(await house.jobs()) == 2
    await house.restart()
    deliver(house, replace(PRESS, duplicate=True, packet_id=8))
    await house.settle()
    assert len(await house.jobs()) == 3


async def test_a_lost_session_is_told_as_a_possible_gap(build: Build) -> None:
    house = await build(**a_lamp()).start()
    assert house.documents("mqttjobs/event/rejected") == []
    house.broker.forget("mqttjobs")
    await house.advance(2)
    assert [each["reason"] for each in house.documents("mqttjobs/event/rejected")] == ["session_lost"]
