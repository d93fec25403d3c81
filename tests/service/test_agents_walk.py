"""A random walk of a service and its agents, each killed and cut off at any moment: nothing lost, nothing twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.agent_harness import AgentHarness
from tests.service.fake_agents import AGENTS, KEY
from tests.service.harness import ServiceHarness, an_operation

HOSTS = ("a", "b", "c")
STEPS = 100
LIMIT_S = 60


class Walk:
    """One walk. What is begun on the desk lies there until a step ends it."""

    def __init__(self, harness: ServiceHarness, agents_built: list[AgentHarness], chance: random.Random) -> None:
        self.harness = harness
        self.agents_built = agents_built
        self.chance = chance
        self.asked: list[str] = []

    async def step(self) -> None:
        steps = [self.execute] * 4 + [self.finish] * 6 + [self.wait] * 3
        steps += [self.cut, self.kill_agent, self.kill_service, self.stop_broker]
        await self.chance.choice(steps)()

    async def execute(self) -> None:
        if self.harness.connected:
            answer = await self.harness.ask(
                "operations/execute", id=self.chance.choice(["once", "everywhere", "again"])
            )
            if answer["code"] == 201:
                self.asked.append(answer["data"]["id"])

    async def finish(self) -> None:
        going = self.harness.fake_jobs.going
        if going:
            run = self.chance.choice(going)
            if self.chance.random() < 0.8:
                run.complete({"host": run.context.hostname})
            else:
                run.fail()
            await self.harness.settle()

    async def wait(self) -> None:
        await self.harness.advance(self.chance.choice([0.5, 5, 12]))

    async def cut(self) -> None:
        clients = [*(agent.settings.connect.client_id for agent in self.agents_built), "mqttjobs"]
        self.harness.broker.drop(self.chance.choice(clients))
        await self.harness.settle()

    async def kill_agent(self) -> None:
        await self.chance.choice(self.agents_built).restart()

    async def kill_service(self) -> None:
        await self.harness.restart()

    async def stop_broker(self) -> None:
        self.harness.broker.down()
        await self.harness.advance(self.chance.choice([1, 20]))
        self.harness.broker.up()
        await self.harness.advance(12)

    async def heal(self) -> None:
        """Let everything come to its end."""
        for _ in range(40):
            for run in self.harness.fake_jobs.going:
                run.complete({"host": run.context.hostname})
            await self.harness.advance(10)


@pytest.mark.parametrize("seed", range(20))
async def test_a_walk_loses_and_doubles_nothing(
    build: Callable[..., ServiceHarness], tmp_path: Path, seed: int
) -> None:
    harness = build(
        agents=AGENTS,
        operations={
            "once": an_operation(type="work", target="_any", timeout=LIMIT_S),
            "everywhere": an_operation(type="work", target="_all", timeout=LIMIT_S),
            "again": an_operation(type="work", target="_any", timeout=LIMIT_S, delivery="at_least_once"),
        },
    )
    await harness.start()
    agents_built = [
        AgentHarness(tmp_path / host, broker=harness.broker, host=host, key=KEY, max_jobs=2) for host in HOSTS
    ]
    for agent in agents_built:
        await agent.start()
    walk = Walk(harness, agents_built, random.Random(seed))  # noqa: S311 - a walk is to be repeated
    for _ in range(STEPS):
        await walk.step()
    await walk.heal()
    runs = Counter((run.context.job_id, run.context.hostname) for run in harness.fake_jobs.runs)
    jobs = {job.id: job for job in await harness.jobs()}
    assert set(walk.asked) <= jobs.keys()
    for job in jobs.values():
        assert job.ended, f"{job.operation_id} {job.id} is lost: {job.timeline}"
        reported = Counter(
            (event.hostname, event.kind) for event in job.timeline if event.kind in ("completed", "started")
        )
        if job.operation_id != "again":
            assert all(count == 1 for count in reported.values()), job.timeline
            assert all(runs[job.id, host] <= 1 for host in HOSTS), "something ran twice on an agent"
        if job.operation_id == "once":
            assert sum(runs[job.id, host] for host in HOSTS) <= 1, "something ran on two agents"
        for event in job.timeline:
            assert event.kind != "completed" or runs[job.id, event.hostname] >= 1
    for agent in agents_built:
        await agent.crash()
