"""A reload keeps what belongs to unchanged operations, and lets go of what is needed no longer (behaviour 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from house import House, an_object, an_operation, statuses

Build = Callable[..., House]

ADMIN = {"users": {"anonymous": {"permissions": ["admin"]}}}


def a_hall(**more: Any) -> dict[str, Any]:
    return {
        **ADMIN,
        "objects": {"lamp": an_object("home/lamp"), "door": an_object("home/door")},
        "operations": {
            "kept": an_operation("lamp", triggers=[{}], breaker={"firings": 2, "within": "10s", "pause": "60s"}),
            **more,
        },
    }


async def reload(house: House, **config: Any) -> dict[str, Any]:
    house.configure(**config)
    told: dict[str, Any] = await house.data("config/reload")
    return told


async def test_an_open_breaker_and_a_throttle_outlast_a_reload(build: Build) -> None:
    slow = an_operation("door", triggers=[{"throttle": "1h"}])
    house = await build(**a_hall(slow=slow)).start()
    for state in "abc":
        await house.report("home/lamp", state)
    await house.report("home/door", "open")
    await reload(house, **a_hall(slow=slow, new=an_operation("door", topic="out/new")))
    await house.report("home/lamp", "d")
    await house.report("home/door", "closed")
    assert len(await house.jobs("kept")) == 2
    assert len(await house.jobs("slow")) == 1
    assert any("kept for lamp" in reason for reason in (await house.data("service/health"))["reasons"])


async def test_a_changed_operation_begins_anew(build: Build) -> None:
    house = await build(**a_hall()).start()
    for state in "abc":
        await house.report("home/lamp", state)
    changed = a_hall()
    changed["operations"]["kept"]["name"] = "Another"
    told = await reload(house, **changed)
    assert told["changed"]["operations"] == ["kept"]
    await house.report("home/lamp", "d")
    assert len(await house.jobs("kept")) == 3
    assert (await house.data("service/health"))["status"] == "ok"


async def test_queues_and_running_jobs_of_unchanged_operations_go_on(build: Build) -> None:
    line = an_operation("door", type="work", mode="queued", triggers=[{}])
    house = await build(**a_hall(line=line)).start()
    for state in "abc":
        await house.report("home/door", state)
    await reload(house, **a_hall(line=line, new=an_operation("lamp", topic="out/new")))
    for _ in range(3):
        [run] = house.desk.going
        run.complete()
        await house.settle()
    assert statuses(await house.jobs("line")) == {"completed": 3}


async def test_silences_are_watched_under_the_new_configuration(build: Build) -> None:
    quiet = an_operation("door", topic="out/quiet", triggers=[{"silence": "60s"}])
    house = await build(**a_hall()).start()
    await house.advance(30)
    await reload(house, **a_hall(quiet=quiet))
    await house.advance(31)
    assert len(await house.jobs("quiet")) == 1, "it counts from our connection, not from the reload"


async def test_filters_that_are_needed_no_longer_are_unsubscribed(build: Build) -> None:
    house = await build(**a_hall()).start()
    smaller = a_hall()
    del smaller["objects"]["door"]
    told = await reload(house, **smaller)
    assert told["removed"]["objects"] == ["door"]
    received = (await house.counters())["received"]
    await house.report("home/door", "open")
    assert (await house.counters())["received"] == received
    await house.report("home/lamp", "on")
    assert (await house.counters())["received"] == received + 1


async def test_a_start_trigger_does_not_run_for_a_reload(build: Build) -> None:
    greet = an_operation("door", topic="out/greet", triggers=[{"at": "start"}])
    house = await build(**a_hall()).start()
    await reload(house, **a_hall(greet=greet))
    await house.advance(60)
    assert await house.jobs("greet") == []
    await house.restart()
    assert len(await house.jobs("greet")) == 1
