"""A reload keeps what belongs to unchanged operations, and lets go of what is needed no longer (behaviour 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.service.harness import ServiceHarness, an_object, an_operation, statuses

Build = Callable[..., ServiceHarness]

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


async def reload(harness: ServiceHarness, **config: Any) -> dict[str, Any]:
    harness.configure(**config)
    reported: dict[str, Any] = await harness.data("config/reload")
    return reported


async def test_an_open_breaker_and_a_throttle_outlast_a_reload(build: Build) -> None:
    slow = an_operation("door", triggers=[{"throttle": "1h"}])
    harness = await build(**a_hall(slow=slow)).start()
    for state in "abc":
        await harness.report("home/lamp", state)
    await harness.report("home/door", "open")
    await reload(harness, **a_hall(slow=slow, new=an_operation("door", topic="out/new")))
    await harness.report("home/lamp", "d")
    await harness.report("home/door", "closed")
    assert len(await harness.jobs("kept")) == 2
    assert len(await harness.jobs("slow")) == 1
    assert any("kept for lamp" in reason for reason in (await harness.data("service/health"))["reasons"])


async def test_a_changed_operation_begins_anew(build: Build) -> None:
    harness = await build(**a_hall()).start()
    for state in "abc":
        await harness.report("home/lamp", state)
    changed = a_hall()
    changed["operations"]["kept"]["name"] = "Another"
    reported = await reload(harness, **changed)
    assert reported["changed"]["operations"] == ["kept"]
    await harness.report("home/lamp", "d")
    assert len(await harness.jobs("kept")) == 3
    assert (await harness.data("service/health"))["status"] == "ok"


async def test_queues_and_running_jobs_of_unchanged_operations_go_on(build: Build) -> None:
    line = an_operation("door", type="work", mode="queued", triggers=[{}])
    harness = await build(**a_hall(line=line)).start()
    for state in "abc":
        await harness.report("home/door", state)
    await reload(harness, **a_hall(line=line, new=an_operation("lamp", topic="out/new")))
    for _ in range(3):
        [run] = harness.fake_jobs.going
        run.complete()
        await harness.settle()
    assert statuses(await harness.jobs("line")) == {"completed": 3}


async def test_silences_are_watched_under_the_new_configuration(build: Build) -> None:
    quiet = an_operation("door", topic="out/quiet", triggers=[{"silence": "60s"}])
    harness = await build(**a_hall()).start()
    await harness.advance(30)
    await reload(harness, **a_hall(quiet=quiet))
    await harness.advance(31)
    assert len(await harness.jobs("quiet")) == 1, "it counts from our connection, not from the reload"


async def test_filters_that_are_needed_no_longer_are_unsubscribed(build: Build) -> None:
    harness = await build(**a_hall()).start()
    smaller = a_hall()
    del smaller["objects"]["door"]
    reported = await reload(harness, **smaller)
    assert reported["removed"]["objects"] == ["door"]
    received = (await harness.counters())["received"]
    await harness.report("home/door", "open")
    assert (await harness.counters())["received"] == received
    await harness.report("home/lamp", "on")
    assert (await harness.counters())["received"] == received + 1


async def test_a_start_trigger_does_not_run_for_a_reload(build: Build) -> None:
    greet = an_operation("door", topic="out/greet", triggers=[{"at": "start"}])
    harness = await build(**a_hall()).start()
    await reload(harness, **a_hall(greet=greet))
    await harness.advance(60)
    assert await harness.jobs("greet") == []
    await harness.restart()
    assert len(await harness.jobs("greet")) == 1
