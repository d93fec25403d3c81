"""A whole service over the memory leaves: started, killed at any moment, started again, asked and reported to.

Everything happens on a HandLoop. Nothing a dead service still does has an effect: its store is shut and its connection
cut in the very moment of its death.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from desk import Desk
from handclock import CHILDREN, HandClock, HandLoop

from mqttjobs.config.load import load
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.protocol import encode
from mqttjobs.domain.topics import matches
from mqttjobs.service.app import Service, will_of
from mqttjobs.service.settings import Settings
from mqttjobs.store.base import JobQuery
from mqttjobs.store.memory import MemoryStore
from mqttjobs.transport.base import Publication, Session, Transport
from mqttjobs.transport.memory import MemoryBroker, MemoryTransport

WRITES = frozenset({"record", "claim", "prune"})
STOP_S = 60.0


def an_object(topic: str | None = None, **keys: Any) -> dict[str, Any]:
    """Return an object as a configuration has it; `topic` is its state's, left out: its own under <base>/state."""
    return keys if topic is None else {"state": {"topic": topic, **keys.pop("state", {})}, **keys}


def a_link(source: str, target: str, **keys: Any) -> dict[str, Any]:
    """Return a link as a configuration has it."""
    return {"source": source, "target": target, **keys}


def an_operation(attach: str | Mapping[str, str] | None = None, **keys: Any) -> dict[str, Any]:
    """Return an operation as a configuration has it: unless said otherwise it publishes its job's id to out/<id>.

    `attach` is an object's id, or the mapping itself.
    """
    whole: dict[str, Any] = {"type": "mqtt"}
    if attach is not None:
        whole["attach"] = {"object": attach} if isinstance(attach, str) else attach
    if keys.get("type", "mqtt") == "mqtt":
        whole |= {"topic": "out/{{ id }}" if attach is not None else "out", "message": "{{ job.id }}"}
    return whole | keys


@lru_cache(maxsize=32)
def _settings(text: str) -> Settings:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mqttjobs.yaml"
        file.write_text(text)
        return load(file, environ={})


def settings_of(config: Mapping[str, Any]) -> Settings:
    """Return the settings of a configuration given as a mapping; ConfigError as from a file."""
    service = {"hostname": "hub", "time_zone": "UTC", **config.get("service", {})}
    return _settings(json.dumps({**config, "service": service}))


class _Door:
    """The store as one process sees it: it takes time if the house says so, and is shut when the process is dead."""

    def __init__(self, life: Life, store: MemoryStore) -> None:
        self._life = life
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)

        async def call(*args: Any, **named: Any) -> Any:
            life = self._life
            life.moment(f"before {name}")
            if life.house.latency_s:
                await asyncio.sleep(life.house.latency_s)
                life.moment()
            found = await method(*args, **named)
            life.moment(f"after {name}")
            if life.house.latency_s and name in WRITES:
                await asyncio.sleep(life.house.latency_s)
                life.moment()
            return found

        return call


class _Line:
    """A session as one process sees it: cut when the process is dead."""

    def __init__(self, life: Life, session: Session) -> None:
        self._life = life
        self._session = session

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._session, name)
        if name not in ("publish", "acknowledge"):
            return found

        def call(*args: Any) -> Any:
            self._life.moment(f"before {name}")
            result = found(*args)
            self._life.moment(f"after {name}")
            return result

        return call


class _Wire:
    """The transport as one process sees it."""

    def __init__(self, life: Life, transport: Transport) -> None:
        self._life = life
        self._transport = transport

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        self._life.moment("before connect")
        async with self._transport.connect() as session:
            self._life.connections += 1
            yield _Line(self._life, session)  # type: ignore[misc]


class Life:
    """One process of the service, from its start to its end or death."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.dead = False
        self.connections = 0
        self.stop = asyncio.Event()
        self.reload = asyncio.Event()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._fate: str | None = None
        self._times = 0
        settings = house.settings
        options = replace(settings.connect, will=will_of(settings))
        self.service = Service(
            settings,
            _Door(self, house.store),  # type: ignore[arg-type]
            _Wire(self, MemoryTransport(house.broker, options)),
            clock=house.clock,
            new_id=house.new_id,
            load=lambda: house.settings,
            jitter=lambda: house.jitter,
        )
        context = copy_context()
        context.run(CHILDREN.set, self.tasks)
        run = self.service.run(self.stop, self.reload)
        self.main: asyncio.Task[None] = context.run(asyncio.get_running_loop().create_task, run)

    def die_at(self, moment: str, times: int) -> None:
        """Die at the given moment, when it comes for that many times from now on."""
        self._fate, self._times = moment, times

    def moment(self, name: str = "") -> None:
        """Pass a moment, or die in it; a dead process does nothing any more."""
        if not self.dead and name == self._fate:
            self._times -= 1
            if self._times <= 0:
                self.die()
        if self.dead:
            raise asyncio.CancelledError

    def die(self) -> None:
        """Be killed: from now on nothing that is still on its way arrives anywhere."""
        self.dead = True
        self.house.broker.drop(self.house.settings.connect.client_id)


@dataclass(frozen=True)
class Question:
    """A request that was sent, and the answers that came to it."""

    house: House
    topic: str
    since: int

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The bodies, in order."""
        sent = self.house.broker.published[self.since :]
        return [json.loads(each.payload) for each in sent if each.topic == self.topic]

    @property
    def answer(self) -> dict[str, Any]:
        """The one answer."""
        answers = self.answers
        assert len(answers) == 1, f"{len(answers)} answers on {self.topic}"
        return answers[0]


class House:
    """The service with all that is around it. Configurations are mappings with the keys of the file.

    Attributes:
        clock: time.
        broker, store: what outlives every process.
        desk: the runs of operations of the type `work`.
        latency_s: how long each access to the store takes, before and after its effect.
        jitter: what the wait before the next connection is drawn as, from 0 to 1; never 0, or it would be for ever.
        life: the running process, or None.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HandLoop), "a house stands on a HandLoop: see tests/service/conftest.py"
        self.clock: HandClock = loop.clock
        self.desk = Desk.opened()
        self.broker = MemoryBroker()
        self.store = MemoryStore()
        self.latency_s = 0.0
        self.jitter = 0.1
        self.life: Life | None = None
        self._ids = itertools.count(1)
        self.configure(**config)

    # -- the life of the service ---------------------------------------------------------------------------------

    def configure(self, **config: Any) -> None:
        """Put another configuration in place, for the next start or reload."""
        self.config = config
        self.settings = settings_of(config)
        self.base = self.settings.base_topic

    def new_id(self) -> str:
        return f"00000000-0000-7000-8000-{next(self._ids):012d}"

    async def start(self, *, quiet: bool = True) -> House:
        """Start the service; `quiet`: wait until what fell due while it was away has been tested."""
        assert self.life is None, "it runs already"
        self.life = Life(self)
        await self.settle()
        if quiet:
            await self.advance(2)
        return self

    async def stop(self) -> None:
        """Stop it cleanly; it may die on the way."""
        life = self._running()
        life.stop.set()
        for _ in range(int(STOP_S * 10)):
            await self.clock.settle()
            if life.main.done() or life.dead:
                break
            await self.clock.advance(0.1)
        if life.dead:
            await self._look_after()
            return
        self.life = None
        await life.main

    async def crash(self) -> None:
        """Kill it now."""
        if self.life is not None:
            self.life.die()
            await self.settle()

    async def restart(self) -> None:
        """Kill it and start it again."""
        await self.crash()
        await self.start()

    def die_at(self, moment: str, times: int = 1) -> None:
        """Kill it `before` or `after` it does something: "before acknowledge", "after record", "after publish" …"""
        self._running().die_at(moment, times)

    async def reload(self) -> None:
        """Reload the configuration as SIGHUP does."""
        self._running().reload.set()
        await self.settle()

    def _running(self) -> Life:
        assert self.life is not None, "it does not run"
        return self.life

    @property
    def running(self) -> bool:
        return self.life is not None

    @property
    def connected(self) -> bool:
        return self.life is not None and self.life.service.workshop.publisher.connected

    # -- time ----------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Let everything happen that needs no time; a process that died is buried, one that failed fails the test."""
        await self.clock.settle()
        await self._look_after()

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        await self.clock.advance(seconds)
        await self._look_after()

    async def _look_after(self) -> None:
        life = self.life
        if life is None:
            return
        if not life.dead:
            if life.main.done():
                self.life = None
                await life.main
                raise AssertionError("the service ended by itself")
            return
        self.life = None
        for _ in range(30):
            left = [task for task in life.tasks if not task.done()]
            for task in left:
                task.cancel()
            if not left:
                break
            await self.clock.settle()
        await asyncio.gather(life.main, return_exceptions=True)
        assert not life.tasks, "tasks of a dead process go on"
        self.desk.burn()

    # -- what the world does -------------------------------------------------------------------------------------

    def send(self, topic: str, payload: Any = b"", *, qos: int = 1, retain: bool = False, **more: Any) -> int:
        """Publish as another client, and return the reason code; a mapping is sent as JSON."""
        if isinstance(payload, dict | list):
            payload = encode(payload)
        if isinstance(payload, str):
            payload = payload.encode()
        return self.broker.publish(Publication(topic, payload, qos, retain, **more))

    async def report(self, topic: str, payload: Any = b"", **more: Any) -> None:
        """Publish, and let it take effect."""
        self.send(topic, payload, **more)
        await self.settle()

    async def disconnect(self) -> None:
        """Cut the connection; the service makes the next one by itself, a moment later."""
        self.broker.drop(self.settings.connect.client_id)
        await self.settle()

    def put(
        self, method: str, *, lane: str | None = None, user_properties: Sequence[tuple[str, str]] = (), **params: Any
    ) -> Question:
        """Ask, without waiting for the answer."""
        prefix = self.base if lane is None else f"{self.base}/users/{lane}"
        topic = f"{prefix}/response/asked-{next(self._ids)}"
        question = Question(self, topic, len(self.broker.published))
        self.send(f"{prefix}/request/{method}", params, response_topic=topic, user_properties=tuple(user_properties))
        return question

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask, and return the one answer; it takes the time that the store takes."""
        question = self.put(method, **params)
        await self.settle()
        if self.latency_s:
            await self.advance(10 * self.latency_s)
        return question.answer

    async def data(self, method: str, **params: Any) -> Any:
        """Ask, and return the data of a good answer."""
        answer = await self.ask(method, **params)
        assert answer["status"] == "ok", answer
        return answer["data"]

    # -- what there is to see ------------------------------------------------------------------------------------

    async def jobs(self, operation_id: str | None = None, **filters: Any) -> list[Job]:
        """Return stored jobs, oldest first."""
        page = await self.store.find(JobQuery(operation_id=operation_id, limit=1_000_000, **filters))
        return list(reversed(page.jobs))

    def sent(self, topic_filter: str) -> list[Publication]:
        """Return what was published under a filter, by anyone, in order."""
        return [each for each in self.broker.published if matches(topic_filter, each.topic)]

    def texts(self, topic_filter: str) -> list[str]:
        """Return the payloads that were published under a filter."""
        return [each.payload.decode() for each in self.sent(topic_filter)]

    def documents(self, topic_filter: str) -> list[dict[str, Any]]:
        """Return the JSON that was published under a filter."""
        return [json.loads(each.payload) for each in self.sent(topic_filter)]

    async def counters(self) -> dict[str, Any]:
        """Return the counters of service/health; they add up."""
        counters: dict[str, Any] = (await self.data("service/health"))["counters"]
        verdicts = ("changed", "duplicate", "unchanged", "retained_skipped", "ignored", "invalid", "unmatched")
        assert counters["received"] == sum(counters[each] for each in verdicts), counters
        assert counters["fired"] == counters["jobs"] + counters["skipped"], counters
        assert counters["skipped"] == sum(counters["skipped_by_reason"].values()), counters
        return counters


def statuses(jobs: Sequence[Job]) -> Counter[str]:
    """Return how many jobs there are by status."""
    return Counter(job.status.value for job in jobs)
