"""An operation that is sent in runs where its request says, or where it says itself (contract 4 and 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.fake_agents import AGENTS, FakeAgent
from tests.service.harness import ServiceHarness

Build = Callable[..., ServiceHarness]
INLINE = {"type": "mqtt", "topic": "t", "message": "m"}


async def fleet(build: Build) -> tuple[ServiceHarness, list[FakeAgent]]:
    harness = build(agents=AGENTS, users={"anonymous": {"permissions": ["admin"]}})
    await harness.start()
    agents = [FakeAgent(harness, name, group=f"web.{name}") for name in ("a", "b")]
    for agent in agents:
        await agent.status()
    return harness, agents


@pytest.mark.parametrize(
    ("target", "hosts"), [("a", ["a"]), ("_any", ["a"]), ("_all", ["a", "b"]), ("group:web.b", ["b"]), ("_local", [])]
)
@pytest.mark.parametrize("inside", [True, False])
async def test_it_goes_to_those_that_are_meant(build: Build, target: str, hosts: list[str], inside: bool) -> None:
    harness, agents = await fleet(build)
    if inside:
        started = await harness.data("jobs/create", operation=INLINE | {"target": target})
    else:
        started = await harness.data("jobs/create", operation=INLINE, target=target)
    job = await harness.data("jobs/get", id=started["id"])
    assert job["target"] == target
    assert [agent.hostname for agent in agents if agent.sent("assign")] == hosts
    assert len(harness.sent("t")) == (target == "_local")


async def test_what_the_request_says_wins(build: Build) -> None:
    harness, [a, b] = await fleet(build)
    await harness.data("jobs/create", operation=INLINE | {"target": "a"}, target="b")
    assert (len(a.sent("assign")), len(b.sent("assign"))) == (0, 1)


@pytest.mark.parametrize("target", ["c", "group:db", "no target", "_some"])
@pytest.mark.parametrize("inside", [True, False])
async def test_a_target_that_nobody_is_is_400_and_nothing_is_recorded(build: Build, target: str, inside: bool) -> None:
    harness, _ = await fleet(build)
    body: dict[str, Any] = (
        {"operation": INLINE | {"target": target}} if inside else {"operation": INLINE, "target": target}
    )
    refused = await harness.ask("jobs/create", **body)
    assert (refused["code"], refused["reason"]) == (400, "invalid_request")
    assert await harness.jobs() == []


async def test_a_retry_of_it_goes_where_the_old_one_went(build: Build) -> None:
    harness, [a, _] = await fleet(build)
    started = await harness.data("jobs/create", operation=INLINE, target="a")
    again = await harness.data("jobs/retry", id=started["id"])
    assert (await harness.data("jobs/get", id=again["id"]))["target"] == "a"
    assert len(a.sent("assign")) == 2
