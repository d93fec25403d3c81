"""A random walk of a service and its agents, each killed and cut off at any moment: nothing lost, nothing twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet import AGENTS, KEY
from house import House, an_operation
from station import Station

HOSTS = ("a", "b", "c")
STEPS = 100
LIMIT_S = 60


class Walk:
    """One walk. What is begun on the desk lies there until a step ends it."""

    def __init__(self, house: House, stations: list[Station], chance: random.Random) -> None:
        self.house = house
        self.stations = stations
        self.chance = chance
        self.asked: list[str] = []

    async def step(self) -> None:
        steps = [self.execute] * 4 + [self.finish] * 6 + [self.wait] * 3
        steps += [self.cut, self.kill_agent, self.kill_service, self.stop_broker]
        await self.chance.choice(steps)()

    async def execute(self) -> None:
        if self.house.connected:
            answer = await self.house.ask("operations/execute", id=self.chance.choice(["once", "everywhere", "again"]))
            if answer["code"] == 201:
                self.asked.append(answer["data"]["id"])

    async def finish(self) -> None:
        going = self.house.desk.going
        if going:
            run = self.chance.choice(going)
            if self.chance.random() < 0.8:
                run.complete({"host": run.context.hostname})
            else:
                run.fail()
            await self.house.settle()

    async def wait(self) -> None:
        await self.house.advance(self.chance.choice([0.5, 5, 12]))

    async def cut(self) -> None:
        clients = [*(station.settings.connect.client_id for station in self.stations), "mqttjobs"]
        self.house.broker.drop(self.chance.choice(clients))
        await self.house.settle()

    async def kill_agent(self) -> None:
        await self.chance.choice(self.stations).restart()

    async def kill_service(self) -> None:
        await self.house.restart()

    async def stop_broker(self) -> None:
        self.house.broker.down()
        await self.house.advance(self.chance.choice([1, 20]))
        self.house.broker.up()
        await self.house.advance(12)

    async def heal(self) -> None:
        """Let everything come to its end."""
        for _ in range(40):
            for run in self.house.desk.going:
                run.complete({"host": run.context.hostname})
            await self.house.advance(10)


@pytest.mark.parametrize("seed", range(20))
async def test_a_walk_loses_and_doubles_nothing(build: Callable[..., House], tmp_path: Path, seed: int) -> None:
    house = build(
        agents=AGENTS,
        operations={
            "once": an_operation(type="work", target="_any", timeout=LIMIT_S),
            "everywhere": an_operation(type="work", target="_all", timeout=LIMIT_S),
            "again": an_operation(type="work", target="_any", timeout=LIMIT_S, delivery="at_least_once"),
        },
    )
    await house.start()
    stations = [Station(tmp_path / host, broker=house.broker, host=host, key=KEY, max_jobs=2) for host in HOSTS]
    for station in stations:
        await station.start()
    walk = Walk(house, stations, random.Random(seed))  # noqa: S311 - a walk is to be repeated
    for _ in range(STEPS):
        await walk.step()
    await walk.heal()
    runs = Counter((run.context.job_id, run.context.hostname) for run in house.desk.runs)
    jobs = {job.id: job for job in await house.jobs()}
    assert set(walk.asked) <= jobs.keys()
    for job in jobs.values():
        assert job.ended, f"{job.operation_id} {job.id} is lost: {job.timeline}"
        told = Counter((event.hostname, event.kind) for event in job.timeline if event.kind in ("completed", "started"))
        if job.operation_id != "again":
            assert all(count == 1 for count in told.values()), job.timeline
            assert all(runs[job.id, host] <= 1 for host in HOSTS), "something ran twice on an agent"
        if job.operation_id == "once":
            assert sum(runs[job.id, host] for host in HOSTS) <= 1, "something ran on two agents"
        for event in job.timeline:
            assert event.kind != "completed" or runs[job.id, event.hostname] >= 1
    for station in stations:
        await station.crash()
