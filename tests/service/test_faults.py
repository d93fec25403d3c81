"""A store that fails, a broker that goes, and signals in the middle of it (behaviour 6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.service.harness import ServiceHarness, an_object, an_operation, statuses

Build = Callable[..., ServiceHarness]

OBJECTS = {"lamp": an_object("home/lamp")}
ECHO = {"echo": an_operation("lamp", message="{{ state }}", triggers=[{}])}
CONFIG = {"objects": OBJECTS, "operations": ECHO}


def unacknowledged(harness: ServiceHarness) -> int:
    """Return how many messages the broker still keeps for the service."""
    return len(harness.broker._clients["mqttjobs"].unacknowledged)


async def test_nothing_is_acknowledged_that_was_not_stored_and_it_goes_on_by_itself(build: Build) -> None:
    harness = await build(**CONFIG).start()
    harness.store.broken = True
    for text in ("a", "b", "c"):
        await harness.report("home/lamp", text)
    await harness.advance(30)
    assert unacknowledged(harness) == 3
    health = await harness.data("service/health")
    assert health["status"] == "degraded"
    assert any("store" in reason for reason in health["reasons"])
    harness.store.broken = False
    await harness.advance(2)
    assert unacknowledged(harness) == 0
    assert harness.texts("out/lamp") == ["a", "b", "c"]
    health = await harness.data("service/health")
    assert (health["status"], health["reasons"]) == ("ok", [])
    assert (await harness.counters())["changed"] == 3


async def test_a_kill_while_the_store_fails_loses_nothing(build: Build) -> None:
    harness = await build(**CONFIG).start()
    harness.store.broken = True
    await harness.report("home/lamp", "a")
    await harness.advance(5)
    await harness.crash()
    harness.store.broken = False
    await harness.start()
    assert harness.texts("out/lamp") == ["a"]


async def test_an_outcome_that_cannot_be_written_is_written_later(build: Build) -> None:
    harness = await build(operations={"dig": an_operation(type="work")}).start()
    await harness.data("operations/execute", id="dig")
    harness.store.broken = True
    harness.fake_jobs.going[0].complete({"n": 1})
    await harness.advance(10)
    assert statuses(await harness.jobs()) == {"processing": 1}
    assert (await harness.data("service/health"))["status"] == "degraded"
    harness.store.broken = False
    await harness.advance(2)
    assert statuses(await harness.jobs()) == {"completed": 1}


async def test_a_request_that_needs_the_store_is_reported_to_ask_again(build: Build) -> None:
    harness = await build(**CONFIG).start()
    harness.store.broken = True
    answer = await harness.ask("operations/execute", id="echo")
    assert (answer["code"], answer["reason"], answer["retryable"]) == (503, "unavailable", True)
    harness.store.broken = False
    await harness.advance(2)
    assert (await harness.ask("operations/execute", id="echo"))["code"] == 201
    assert len(await harness.jobs()) == 1


async def test_it_connects_and_answers_while_the_store_fails(build: Build) -> None:
    harness = await build(**CONFIG).start()
    harness.store.broken = True
    await harness.disconnect()
    await harness.report("home/lamp", "a")
    await harness.advance(5)
    assert (await harness.data("service/health"))["status"] == "degraded"
    harness.broker.forget("mqttjobs")
    await harness.advance(5)
    await harness.report("home/lamp", "b")
    harness.store.broken = False
    await harness.advance(3)
    assert harness.texts("out/lamp")[-1] == "b"
    assert harness.broker.retained["mqttjobs/status"].payload == b"online"
    assert (await harness.data("service/health"))["status"] == "ok"


async def test_identifiers_of_a_lost_session_are_forgotten_even_if_the_store_failed_at_that_moment(
    build: Build,
) -> None:
    button = {"lamp": an_object("home/lamp", state={"event": True})}
    harness = await build(objects=button, operations=ECHO).start()
    await harness.report("home/lamp", "press")
    harness.broker.forget("mqttjobs")
    harness.store.broken = True
    await harness.advance(3)
    harness.send("home/lamp", "press")
    await harness.advance(1)
    await harness.disconnect()
    await harness.advance(3)
    harness.store.broken = False
    await harness.advance(3)
    assert harness.texts("out/lamp") == ["press", "press"]


async def test_a_reload_waits_for_the_store(build: Build) -> None:
    harness = await build(**CONFIG).start()
    harness.store.broken = True
    harness.configure(objects=OBJECTS, operations={"more": an_operation("lamp", message="more", triggers=[{}])})
    await harness.reload()
    await harness.advance(10)
    assert harness.running
    info = await harness.data("service/info")
    assert info["operations"] == 1
    harness.store.broken = False
    await harness.advance(3)
    await harness.report("home/lamp", "a")
    assert harness.texts("out/lamp") == ["more"]


async def test_a_reload_that_is_asked_for_while_the_store_fails_changes_nothing(build: Build) -> None:
    admin = {"anonymous": {"permissions": ["admin"]}}
    harness = await build(**CONFIG, users=admin).start()
    harness.configure(objects={"other": an_object("home/other")}, operations={}, users=admin)
    harness.store.broken = True
    assert (await harness.ask("config/reload"))["code"] == 503
    harness.store.broken = False
    await harness.advance(2)
    await harness.report("home/lamp", "a")
    assert harness.texts("out/lamp") == ["a"]
    await harness.report("home/other", "a")
    assert (await harness.counters())["received"] == 1
    assert (await harness.ask("config/reload"))["code"] == 200
    await harness.report("home/other", "b")
    await harness.report("home/lamp", "b")
    counters = await harness.counters()
    assert (counters["received"], counters["changed"]) == (2, 2)


async def test_a_reload_while_the_broker_is_away_takes_effect_when_it_is_back(build: Build) -> None:
    harness = await build(**CONFIG).start()
    harness.broker.down()
    await harness.advance(1)
    harness.configure(
        objects={"other": an_object("home/other")}, operations={"echo": an_operation("other", triggers=[{}])}
    )
    await harness.reload()
    harness.broker.up()
    await harness.advance(5)
    await harness.report("home/other", "a")
    await harness.report("home/lamp", "a")
    assert (await harness.counters())["received"] == 1
    assert len(await harness.jobs()) == 1


async def test_a_connection_that_is_lost_in_the_middle_of_a_reload_ends_nothing(build: Build) -> None:
    harness = await build(**CONFIG).start()
    harness.configure(
        objects={"other": an_object("home/other")}, operations={"echo": an_operation("other", triggers=[{}])}
    )
    assert harness.process is not None
    harness.process.reload.set()
    harness.broker.drop("mqttjobs")
    await harness.advance(5)
    assert harness.connected
    await harness.report("home/other", "a")
    assert len(await harness.jobs()) == 1


@pytest.mark.parametrize("broken", [False, True])
async def test_a_stop_ends_the_service_whatever_the_store_does(build: Build, *, broken: bool) -> None:
    harness = await build(**CONFIG).start()
    await harness.report("home/lamp", "a")
    await harness.report("home/lamp", "a")
    harness.store.broken = broken
    await harness.report("home/lamp", "b")
    await harness.stop()
    assert harness.broker.retained["mqttjobs/status"].payload == b"offline"
    harness.store.broken = False
    await harness.start()
    assert harness.texts("out/lamp") == ["a", "b"]


async def test_a_stop_while_the_broker_is_away_ends_the_service(build: Build) -> None:
    harness = await build(**CONFIG).start()
    harness.broker.down()
    await harness.advance(100)
    await harness.stop()


async def test_a_broker_that_is_not_there_yet_is_waited_for(build: Build) -> None:
    harness = build(**CONFIG)
    harness.broker.down()
    await harness.start()
    await harness.advance(300)
    assert not harness.connected
    harness.broker.up()
    await harness.advance(5)
    await harness.report("home/lamp", "a")
    assert harness.texts("out/lamp") == ["a"]


async def test_the_last_will_and_the_farewell_say_offline(build: Build) -> None:
    harness = await build(**CONFIG).start()
    status = "mqttjobs/status"
    assert harness.broker.retained[status].payload == b"online"
    await harness.crash()
    assert harness.broker.retained[status].payload == b"offline"
    await harness.start()
    assert harness.broker.retained[status].payload == b"online"
    await harness.stop()
    assert harness.broker.retained[status].payload == b"offline"
