"""An agent on time that is moved by hand, over the broker in memory, and what a service would send it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import Any

from mqttjobs.agent.app import Agent
from mqttjobs.agent.settings import AgentSettings
from mqttjobs.domain.protocol import encode, milliseconds
from mqttjobs.domain.signatures import check_signature, signed
from mqttjobs.errors import ConnectionLost
from mqttjobs.transport.backends.memory import MemoryBroker, MemoryTransport
from mqttjobs.transport.base import ConnectOptions, Publication, Session
from tests.service.fake_jobs import FakeJobs
from tests.service.hand_clock import CHILDREN, HandClock, HandLoop

KEY = "the secret of the station"
HOST = "web1"


class _TransportProxy:
    """The transport as one process sees it: a dead one connects no more."""

    def __init__(self, agent: AgentHarness, options: ConnectOptions) -> None:
        self._agent_harness = agent
        self._options = options

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        if self._agent_harness.dead:
            raise ConnectionLost("dead")
        async with MemoryTransport(self._agent_harness.broker, self._options).connect() as session:
            yield session


class AgentHarness:
    """One agent and its broker. `desk` has the runs of operations of the type `work`; state outlives every process."""

    def __init__(
        self, folder: Path, *, broker: MemoryBroker | None = None, host: str = HOST, key: str = KEY, **settings: Any
    ) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HandLoop), "a station stands on a HandLoop"
        self.clock: HandClock = loop.clock
        self.fake_jobs = FakeJobs.opened() if broker is None else FakeJobs.current
        self.broker = broker or MemoryBroker()
        connect = ConnectOptions(url="memory://station", client_id="agent" if broker is None else f"agent-{host}")
        self.settings = AgentSettings(host, key, folder, connect=connect, **settings)
        self._dead = False
        self.stop = asyncio.Event()
        self.main: asyncio.Task[None] | None = None
        self.agent: Agent | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._numbers = itertools.count(1)

    @property
    def dead(self) -> bool:
        """Whether the process is being buried."""
        return self._dead

    # -- its life ------------------------------------------------------------------------------------------------

    async def start(self) -> AgentHarness:
        """Start a process of the agent."""
        assert self.main is None, "it runs already"
        self.stop.clear()
        self.agent = Agent(
            self.settings,
            clock=self.clock,
            new_token=lambda: f"connection-{next(self._numbers)}",
            jitter=lambda: 1.0,
            connect=lambda settings, will: _TransportProxy(self, replace(settings.connect, will=will)),
        )
        context = copy_context()
        context.run(CHILDREN.set, self._tasks)
        self.main = context.run(asyncio.get_running_loop().create_task, self.agent.run(self.stop))
        await self.settle()
        return self

    async def leave(self) -> None:
        """Stop it cleanly."""
        assert self.main is not None
        self.stop.set()
        await self.settle()
        await self.main
        self.main = None

    async def crash(self) -> None:
        """Kill it: nothing that it still does has an effect, and its journal is as it was."""
        if self.main is None or self.agent is None:
            return
        journal = self.agent._journal
        written = journal._path.read_bytes() if journal._path.exists() else b""
        self._dead = True
        self.broker.drop(self.settings.connect.client_id)
        self.fake_jobs.burn(self.settings.hostname)
        for _ in range(30):
            left = [task for task in self._tasks if not task.done()]
            for task in left:
                task.cancel()
            await self.settle()
            if not left:
                break
        assert not self._tasks, "tasks of a dead process go on"
        self._dead = False
        journal._path.write_bytes(written)
        self.main = None

    async def restart(self) -> None:
        """Kill it and start it again."""
        await self.crash()
        await self.start()

    async def settle(self) -> None:
        """Let everything happen that needs no time."""
        await self.clock.settle()

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        await self.clock.advance(seconds)

    # -- what it is told -----------------------------------------------------------------------------------------

    def assignment(self, **changes: Any) -> dict[str, Any]:
        """Return an assignment, not yet signed: `work`, for ten seconds from now."""
        number = next(self._numbers)
        return {
            "hostname": HOST,
            "job_id": f"job-{number}",
            "attempt": 1,
            "token": f"token-{number:08}",
            "operation": {"type": "work", "name": f"work-{number}"},
            "operation_id": "backup",
            "params": {},
            "timeout": 60.0,
            "delivery": "at_most_once",
            "expires_at": milliseconds(self.clock.now()) + 10_000,
            **changes,
        }

    async def send(self, what: str, body: dict[str, Any], **more: Any) -> bytes:
        """Publish something for the agent, signed if it is not, and return the bytes."""
        payload = encode(body if "signature" in body else signed(body, KEY))
        self.broker.publish(Publication(f"mqttjobs/agents/{HOST}/{what}", payload, 1, **more))
        await self.settle()
        return payload

    async def assign(self, **changes: Any) -> dict[str, Any]:
        """Assign something and return it."""
        body = self.assignment(**changes)
        await self.send("assign", body)
        return body

    async def order(self, command: str, **more: Any) -> None:
        """Give an order."""
        await self.send("control", {"command": command, "expires_at": milliseconds(self.clock.now()) + 60_000, **more})

    # -- what it says --------------------------------------------------------------------------------------------

    def said(self, what: str) -> list[dict[str, Any]]:
        """Return what it published, each signed."""
        topic = f"mqttjobs/agents/{HOST}/{what}"
        found = [json.loads(each.payload) for each in self.broker.published if each.topic == topic]
        for body in found:
            check_signature(body, KEY)
        return found

    def events(self, token: str | None = None) -> list[str]:
        """Return the events that it reported, of one assignment or of all."""
        return [each["event"] for each in self.said("report") if token in (None, each["token"])]

    @property
    def last(self) -> dict[str, Any]:
        """Its last report."""
        return self.said("report")[-1]

    @property
    def state(self) -> str:
        """What its retained status says."""
        retained = self.broker.retained[f"mqttjobs/agents/{HOST}/status"]
        state: str = json.loads(retained.payload)["state"]
        return state

    @property
    def rejected(self) -> list[str]:
        """Why something that it was told had no effect."""
        topic = "mqttjobs/event/rejected"
        return [json.loads(each.payload)["reason"] for each in self.broker.published if each.topic == topic]
