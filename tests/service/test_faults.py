"""A store that fails, a broker that goes, and signals in the middle of it (behaviour 6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from house import House, an_object, an_operation, statuses

Build = Callable[..., House]

OBJECTS = {"lamp": an_object("home/lamp")}
ECHO = {"echo": an_operation("lamp", message="{{ state }}", triggers=[{}])}
CONFIG = {"objects": OBJECTS, "operations": ECHO}


def unacknowledged(house: House) -> int:
    """Return how many messages the broker still keeps for the service."""
    return len(house.broker._clients["mqttjobs"].unacknowledged)


async def test_nothing_is_acknowledged_that_was_not_stored_and_it_goes_on_by_itself(build: Build) -> None:
    house = await build(**CONFIG).start()
    house.store.broken = True
    for text in ("a", "b", "c"):
        await house.report("home/lamp", text)
    await house.advance(30)
    assert unacknowledged(house) == 3
    health = await house.data("service/health")
    assert health["status"] == "degraded"
    assert any("store" in reason for reason in health["reasons"])
    house.store.broken = False
    await house.advance(2)
    assert unacknowledged(house) == 0
    assert house.texts("out/lamp") == ["a", "b", "c"]
    health = await house.data("service/health")
    assert (health["status"], health["reasons"]) == ("ok", [])
    assert (await house.counters())["changed"] == 3


async def test_a_kill_while_the_store_fails_loses_nothing(build: Build) -> None:
    house = await build(**CONFIG).start()
    house.store.broken = True
    await house.report("home/lamp", "a")
    await house.advance(5)
    await house.crash()
    house.store.broken = False
    await house.start()
    assert house.texts("out/lamp") == ["a"]


async def test_an_outcome_that_cannot_be_written_is_written_later(build: Build) -> None:
    house = await build(operations={"dig": an_operation(type="work")}).start()
    await house.data("operations/execute", id="dig")
    house.store.broken = True
    house.desk.going[0].complete({"n": 1})
    await house.advance(10)
    assert statuses(await house.jobs()) == {"processing": 1}
    assert (await house.data("service/health"))["status"] == "degraded"
    house.store.broken = False
    await house.advance(2)
    assert statuses(await house.jobs()) == {"completed": 1}


async def test_a_request_that_needs_the_store_is_told_to_ask_again(build: Build) -> None:
    house = await build(**CONFIG).start()
    house.store.broken = True
    answer = await house.ask("operations/execute", id="echo")
    assert (answer["code"], answer["reason"], answer["retryable"]) == (503, "unavailable", True)
    house.store.broken = False
    await house.advance(2)
    assert (await house.ask("operations/execute", id="echo"))["code"] == 201
    assert len(await house.jobs()) == 1


async def test_it_connects_and_answers_while_the_store_fails(build: Build) -> None:
    house = await build(**CONFIG).start()
    house.store.broken = True
    await house.disconnect()
    await house.report("home/lamp", "a")
    await house.advance(5)
    assert (await house.data("service/health"))["status"] == "degraded"
    house.broker.forget("mqttjobs")
    await house.advance(5)
    await house.report("home/lamp", "b")
    house.store.broken = False
    await house.advance(3)
    assert house.texts("out/lamp")[-1] == "b"
    assert house.broker.retained["mqttjobs/status"].payload == b"online"
    assert (await house.data("service/health"))["status"] == "ok"


async def test_identifiers_of_a_lost_session_are_forgotten_even_if_the_store_failed_at_that_moment(
    build: Build,
) -> None:
    button = {"lamp": an_object("home/lamp", state={"event": True})}
    house = await build(objects=button, operations=ECHO).start()
    await house.report("home/lamp", "press")
    house.broker.forget("mqttjobs")
    house.store.broken = True
    await house.advance(3)
    house.send("home/lamp", "press")
    await house.advance(1)
    await house.disconnect()
    await house.advance(3)
    house.store.broken = False
    await house.advance(3)
    assert house.texts("out/lamp") == ["press", "press"]


async def test_a_reload_waits_for_the_store(build: Build) -> None:
    house = await build(**CONFIG).start()
    house.store.broken = True
    house.configure(objects=OBJECTS, operations={"more": an_operation("lamp", message="more", triggers=[{}])})
    await house.reload()
    await house.advance(10)
    assert house.running
    info = await house.data("service/info")
    assert info["operations"] == 1
    house.store.broken = False
    await house.advance(3)
    await house.report("home/lamp", "a")
    assert house.texts("out/lamp") == ["more"]


async def test_a_reload_that_is_asked_for_while_the_store_fails_changes_nothing(build: Build) -> None:
    admin = {"anonymous": {"permissions": ["admin"]}}
    house = await build(**CONFIG, users=admin).start()
    house.configure(objects={"other": an_object("home/other")}, operations={}, users=admin)
    house.store.broken = True
    assert (await house.ask("config/reload"))["code"] == 503
    house.store.broken = False
    await house.advance(2)
    await house.report("home/lamp", "a")
    assert house.texts("out/lamp") == ["a"]
    await house.report("home/other", "a")
    assert (await house.counters())["received"] == 1
    assert (await house.ask("config/reload"))["code"] == 200
    await house.report("home/other", "b")
    await house.report("home/lamp", "b")
    counters = await house.counters()
    assert (counters["received"], counters["changed"]) == (2, 2)


async def test_a_reload_while_the_broker_is_away_takes_effect_when_it_is_back(build: Build) -> None:
    house = await build(**CONFIG).start()
    house.broker.down()
    await house.advance(1)
    house.configure(
        objects={"other": an_object("home/other")}, operations={"echo": an_operation("other", triggers=[{}])}
    )
    await house.reload()
    house.broker.up()
    await house.advance(5)
    await house.report("home/other", "a")
    await house.report("home/lamp", "a")
    assert (await house.counters())["received"] == 1
    assert len(await house.jobs()) == 1


async def test_a_connection_that_is_lost_in_the_middle_of_a_reload_ends_nothing(build: Build) -> None:
    house = await build(**CONFIG).start()
    house.configure(
        objects={"other": an_object("home/other")}, operations={"echo": an_operation("other", triggers=[{}])}
    )
    assert house.life is not None
    house.life.reload.set()
    house.broker.drop("mqttjobs")
    await house.advance(5)
    assert house.connected
    await house.report("home/other", "a")
    assert len(await house.jobs()) == 1


@pytest.mark.parametrize("broken", [False, True])
async def test_a_stop_ends_the_service_whatever_the_store_does(build: Build, *, broken: bool) -> None:
    house = await build(**CONFIG).start()
    await house.report("home/lamp", "a")
    await house.report("home/lamp", "a")
    house.store.broken = broken
    await house.report("home/lamp", "b")
    await house.stop()
    assert house.broker.retained["mqttjobs/status"].payload == b"offline"
    house.store.broken = False
    await house.start()
    assert house.texts("out/lamp") == ["a", "b"]


async def test_a_stop_while_the_broker_is_away_ends_the_service(build: Build) -> None:
    house = await build(**CONFIG).start()
    house.broker.down()
    await house.advance(100)
    await house.stop()


async def test_a_broker_that_is_not_there_yet_is_waited_for(build: Build) -> None:
    house = build(**CONFIG)
    house.broker.down()
    await house.start()
    await house.advance(300)
    assert not house.connected
    house.broker.up()
    await house.advance(5)
    await house.report("home/lamp", "a")
    assert house.texts("out/lamp") == ["a"]


async def test_the_last_will_and_the_farewell_say_offline(build: Build) -> None:
    house = await build(**CONFIG).start()
    status = "mqttjobs/status"
    assert house.broker.retained[status].payload == b"online"
    await house.crash()
    assert house.broker.retained[status].payload == b"offline"
    await house.start()
    assert house.broker.retained[status].payload == b"online"
    await house.stop()
    assert house.broker.retained[status].payload == b"offline"
