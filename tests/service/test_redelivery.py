"""A message that comes again is known for what it is, whatever ended the connection or the process (behaviour 1.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mqttjobs.transport.base import Message
from tests.service.harness import ServiceHarness, an_object, an_operation

Build = Callable[..., ServiceHarness]

SAYS = "{{ previous_state }}>{{ state }}"


def a_lamp(**state: Any) -> dict[str, Any]:
    return {
        "objects": {"lamp": an_object("home/lamp", state=state)},
        "operations": {"echo": an_operation("lamp", message=SAYS, triggers=[{}])},
    }


def deliver(harness: ServiceHarness, message: Message) -> None:
    """Hand a message to the service as the broker would, whatever its flags."""
    kept = harness.broker._clients["mqttjobs"]
    assert kept.session is not None
    kept.session.push(message)


PRESS = Message("home/lamp", b"press", qos=1, packet_id=7)


async def test_a_redelivery_of_a_committed_message_is_counted_and_does_nothing(build: Build) -> None:
    harness = await build(**a_lamp(event=True)).start()
    deliver(harness, PRESS)
    await harness.settle()
    deliver(harness, replace(PRESS, duplicate=True))
    await harness.settle()
    assert len(await harness.jobs()) == 1
    assert (await harness.counters())["duplicate"] == 1


async def test_a_redelivery_is_recognised_by_the_next_process_too(build: Build) -> None:
    harness = await build(**a_lamp(event=True)).start()
    harness.die_at("before acknowledge")
    await harness.report("home/lamp", "press")
    assert not harness.running
    await harness.start()
    assert len(await harness.jobs()) == 1
    assert (await harness.counters())["duplicate"] == 1


async def test_dup_alone_proves_nothing(build: Build) -> None:
    harness = await build(**a_lamp(event=True)).start()
    harness.die_at("before record")
    await harness.report("home/lamp", "press")
    await harness.start()
    assert len(await harness.jobs()) == 1
    counters = await harness.counters()
    assert (counters["duplicate"], counters["changed"]) == (0, 1)


async def test_the_same_identifier_without_dup_is_a_new_message(build: Build) -> None:
    harness = await build(**a_lamp(event=True)).start()
    for message in (PRESS, PRESS, replace(PRESS, duplicate=True)):
        deliver(harness, message)
        await harness.settle()
    assert len(await harness.jobs()) == 2


async def test_another_message_under_a_stored_identifier_is_no_duplicate(build: Build) -> None:
    harness = await build(**a_lamp(event=True)).start()
    deliver(harness, PRESS)
    deliver(harness, replace(PRESS, payload=b"hold", duplicate=True))
    await harness.settle()
    assert harness.texts("out/lamp") == ["null>press", "press>hold"]


async def test_a_new_session_forgets_the_identifiers_of_the_old_one(build: Build) -> None:
    harness = await build(**a_lamp(event=True)).start()
    deliver(harness, PRESS)
    await harness.settle()
    harness.broker.forget("mqttjobs")
    await harness.advance(2)
    deliver(harness, replace(PRESS, duplicate=True))
    await harness.settle()
    assert len(await harness.jobs()) == 2
    await harness.restart()
    deliver(harness, replace(PRESS, duplicate=True, packet_id=8))
    await harness.settle()
    assert len(await harness.jobs()) == 3


async def test_a_lost_session_is_reported_as_a_possible_gap(build: Build) -> None:
    harness = await build(**a_lamp()).start()
    assert harness.documents("mqttjobs/event/rejected") == []
    harness.broker.forget("mqttjobs")
    await harness.advance(2)
    assert [each["reason"] for each in harness.documents("mqttjobs/event/rejected")] == ["session_lost"]
