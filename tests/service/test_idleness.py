"""Whatever it waits for, the service waits: it wakes up a few times a second at most, and never turns in circles."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.service.harness import ServiceHarness, an_object, an_operation, work

Build = Callable[..., ServiceHarness]

WAKES_PER_S = 5

BUSY_LIFE = {
    "objects": {"lamp": an_object("home/lamp"), "button": an_object("home/button", state={"event": True})},
    "operations": {
        "held": an_operation("lamp", triggers=[{"states": ["on"], "duration": "10s", "periodicity": "20s"}]),
        "silent": an_operation("lamp", triggers=[{"silence": "30s"}]),
        "often": an_operation(schedule={"every": "10s"}),
        "queued": work("button", mode="queued"),
        "again": work("button", retry={"attempts": 100, "first": "1s", "factor": 1}),
        "queued_publish": an_operation("button", mode="queued", triggers=[{}]),
    },
    "service": {"concurrency": 1},
}


@pytest.mark.parametrize("store_broken", [False, True])
@pytest.mark.parametrize("broker", ["up", "down", "frozen"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_it_is_idle_while_it_waits(build: Build, *, store_broken: bool, broker: str, restarted: bool) -> None:
    harness = await build(**BUSY_LIFE).start()
    await harness.report("home/lamp", "on")
    for _ in range(3):
        await harness.report("home/button", "down")
    await harness.advance(5)
    if restarted:
        await harness.crash()
        await harness.advance(3600)
    if broker == "down":
        harness.broker.down()
    if restarted:
        await harness.start()
    if broker == "frozen":
        harness.broker.freeze()
    harness.store.broken = store_broken
    for text in ("on", "off", "on"):
        harness.send("home/lamp", text)
    before = harness.clock.timers
    await harness.advance(600)
    assert harness.clock.timers - before < 600 * WAKES_PER_S
    harness.store.broken = False
    harness.broker.thaw()
    harness.broker.up()
    await harness.advance(60)
    assert (await harness.data("service/health"))["status"] == "ok"
    assert (await harness.data("objects/get", id="lamp"))["state"] == "on"
