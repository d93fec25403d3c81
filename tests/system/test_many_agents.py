"""Fifty agents and two hundred broadcasts while connections break and the broker is killed: none lost, none twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mqttjobs.agent.app import Agent
from mqttjobs.agent.settings import KEEPALIVE, AgentSettings
from mqttjobs.clock import SystemClock
from mqttjobs.domain.jobs import Outcome
from mqttjobs.executors.base import RunContext, executor_types
from mqttjobs.executors.types.mqtt import Mqtt
from mqttjobs.transport.base import ConnectOptions, Publication, Session, Transport, create_transport
from tests.brokers import StartMosquitto
from tests.clients import Client
from tests.running import StartService

KEY = "fifty know it"
AGENTS = 50
JOBS = 200
LONGEST_RUN_S = 0.3
CHANCE = random.Random()  # noqa: S311 - the time of a fault is no secret
INSTALLATION: dict[str, Any] = {
    "agents": {"key": KEY},
    "operations": {
        "count": {"type": "mqtt", "topic": "count", "target": "_all", "delivery": "at_most_once", "timeout": "20s"}
    },
}


class Count(Mqtt):
    """Replaces `mqtt` in the agents of this process: counts its runs, and takes a random time."""

    kind: ClassVar[str] = "mqtt"
    runs: ClassVar[Counter[tuple[str, str]]] = Counter()

    async def run(self, context: RunContext) -> Outcome:
        self.runs[(context.job_id, context.hostname)] += 1
        await asyncio.sleep(CHANCE.random() * LONGEST_RUN_S)
        return Outcome(ok=True, result={"host": context.hostname})


class CuttableTransport:
    """A transport whose connection can be cut at any moment, as by a network."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._session: Any = None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        async with self._transport.connect() as session:
            self._session = session
            yield session

    def cut(self) -> None:
        if self._session is not None:
            self._session.cut()


class Fleet:
    """The agents of this process."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port = port
        self._folder = folder
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.transports: list[CuttableTransport] = []

    def start(self, hostname: str) -> None:
        options = ConnectOptions(
            url=f"mqtt://127.0.0.1:{self._port}", client_id=f"agent-{hostname}", keepalive=KEEPALIVE, protocol="5"
        )
        settings = AgentSettings(hostname, KEY, self._folder / hostname, connect=options)

        def connect(settings: AgentSettings, will: Callable[[], Publication]) -> Transport:
            transport = CuttableTransport(create_transport(replace(settings.connect, will=will)))
            self.transports.append(transport)
            return transport

        agent = Agent(settings, clock=SystemClock(), jitter=lambda: CHANCE.random() / 10, connect=connect)
        self._tasks.append(asyncio.create_task(agent.run(self._stop)))

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    monkeypatch.setitem(executor_types(), "mqtt", Count)  # type: ignore[arg-type]
    Count.runs = Counter()
    return Count.runs


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_fifty_agents_run_each_job_once(
    start_mosquitto: StartMosquitto,
    start_service: StartService,
    tmp_path: Path,
    counting: Counter[tuple[str, str]],
) -> None:
    mosquitto = start_mosquitto(autosave=False)
    service = await asyncio.to_thread(start_service, mosquitto.port, INSTALLATION)
    fleet = Fleet(mosquitto.port, tmp_path / "fleet")
    for number in range(AGENTS):
        fleet.start(f"h{number:02}")
    try:
        await in_thread(service, lambda client: client.until(lambda asked: ready(asked) == AGENTS, within_s=60))
        chaos = asyncio.create_task(break_connections(fleet))
        first = await in_thread(service, lambda client: submit(client, JOBS // 2))
        await asyncio.to_thread(mosquitto.restart, kill=True)
        second = await in_thread(service, lambda client: submit(client, JOBS // 2))
        chaos.cancel()
        await asyncio.gather(chaos, return_exceptions=True)
        documents = await in_thread(
            service, lambda client: [client.ended(job_id, within_s=90) for job_id in first + second]
        )
    finally:
        await fleet.stop()
    expected = {(job["id"], hostname) for job in documents for hostname in job["agent_states"]}
    assert len(documents) == JOBS
    assert len(expected) > JOBS * AGENTS / 2
    assert Counter(job["status"] for job in documents) == {"completed": JOBS}
    assert set(counting) == expected
    assert set(counting.values()) == {1}, "something ran twice"
    for job in documents:
        assert {hostname: answer["data"] for hostname, answer in job["responses"].items()} == {
            hostname: {"host": hostname} for hostname in job["agent_states"]
        }
        events = Counter((event["hostname"], event["event"]) for event in job["timeline"])
        assert set(events.values()) == {1}, "something was counted twice"


async def in_thread(service: Any, work: Callable[[Client], Any]) -> Any:
    """Call `work` with a client of the service in a thread, while the agents run in this one."""

    def connected() -> Any:
        with service.client() as client:
            return work(client)

    return await asyncio.to_thread(connected)


def ready(client: Client) -> int:
    """Return how many agents are ready; 0 until the service is connected again."""
    client.subscribe("mqttjobs/status")
    if client.wait_topic("mqttjobs/status").payload != b"online":
        return 0
    found: int = client.data("service/health")["agents"]["ready"]
    return found


def submit(client: Client, count: int) -> list[str]:
    """Start `count` broadcasts, once most agents are ready."""
    client.until(lambda asked: ready(asked) > AGENTS * 0.8, within_s=60)
    return [client.data("operations/execute", {"id": "count"})["id"] for _ in range(count)]


async def break_connections(fleet: Fleet) -> None:
    while True:
        await asyncio.sleep(CHANCE.random() * 0.2)
        CHANCE.choice(fleet.transports).cut()
