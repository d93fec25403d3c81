"""An operation that is sent in runs where its request says, or where it says itself (contract 4 and 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fleet import AGENTS, FakeAgent
from house import House

Build = Callable[..., House]
INLINE = {"type": "mqtt", "topic": "t", "message": "m"}


async def fleet(build: Build) -> tuple[House, list[FakeAgent]]:
    house = build(agents=AGENTS, users={"anonymous": {"permissions": ["admin"]}})
    await house.start()
    agents = [FakeAgent(house, name, group=f"web.{name}") for name in ("a", "b")]
    for agent in agents:
        await agent.status()
    return house, agents


@pytest.mark.parametrize(
    ("target", "hosts"), [("a", ["a"]), ("_any", ["a"]), ("_all", ["a", "b"]), ("group:web.b", ["b"]), ("_local", [])]
)
@pytest.mark.parametrize("inside", [True, False])
async def test_it_goes_to_those_that_are_meant(build: Build, target: str, hosts: list[str], inside: bool) -> None:
    house, agents = await fleet(build)
    if inside:
        started = await house.data("jobs/create", operation=INLINE | {"target": target})
    else:
        started = await house.data("jobs/create", operation=INLINE, target=target)
    job = await house.data("jobs/get", id=started["id"])
    assert job["target"] == target
    assert [agent.hostname for agent in agents if agent.sent("assign")] == hosts
    assert len(house.sent("t")) == (target == "_local")


async def test_what_the_request_says_wins(build: Build) -> None:
    house, [a, b] = await fleet(build)
    await house.data("jobs/create", operation=INLINE | {"target": "a"}, target="b")
    assert (len(a.sent("assign")), len(b.sent("assign"))) == (0, 1)


@pytest.mark.parametrize("target", ["c", "group:db", "no target", "_some"])
@pytest.mark.parametrize("inside", [True, False])
async def test_a_target_that_nobody_is_is_400_and_nothing_is_recorded(build: Build, target: str, inside: bool) -> None:
    house, _ = await fleet(build)
    body: dict[str, Any] = (
        {"operation": INLINE | {"target": target}} if inside else {"operation": INLINE, "target": target}
    )
    refused = await house.ask("jobs/create", **body)
    assert (refused["code"], refused["reason"]) == (400, "invalid_request")
    assert await house.jobs() == []


async def test_a_retry_of_it_goes_where_the_old_one_went(build: Build) -> None:
    house, [a, _] = await fleet(build)
    started = await house.data("jobs/create", operation=INLINE, target="a")
    again = await house.data("jobs/retry", id=started["id"])
    assert (await house.data("jobs/get", id=again["id"]))["target"] == "a"
    assert len(a.sent("assign")) == 2
