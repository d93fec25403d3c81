"""A whole service over the memory leaves: started, killed at any moment, started again, asked and reported to."""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mqttjobs.config.load import load
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.protocol import encode
from mqttjobs.domain.topics import matches
from mqttjobs.service.settings import Settings
from mqttjobs.store.backends.memory import MemoryStore
from mqttjobs.store.base import JobQuery
from mqttjobs.transport.backends.memory import MemoryBroker
from mqttjobs.transport.base import Publication
from tests.service.fake_jobs import FakeJobs
from tests.service.hand_clock import HandClock, HandLoop
from tests.service.service_process import ServiceProcess

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


def work(attach: str | Mapping[str, str] | None = "lamp", **keys: Any) -> dict[str, Any]:
    """Return an operation that goes on until the test ends it (see Desk), started by every change."""
    return an_operation(attach, **{"type": "work", "triggers": [{}] if attach else [], "timeout": "1d", **keys})


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


@dataclass(frozen=True)
class Question:
    """A request that was sent, and the answers that came to it."""

    harness: ServiceHarness
    topic: str
    since: int

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The bodies, in order."""
        sent = self.harness.broker.published[self.since :]
        return [json.loads(each.payload) for each in sent if each.topic == self.topic]

    @property
    def answer(self) -> dict[str, Any]:
        """The one answer."""
        answers = self.answers
        assert len(answers) == 1, f"{len(answers)} answers on {self.topic}"
        return answers[0]


class ServiceHarness:
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
        self.fake_jobs = FakeJobs.opened()
        self.broker = MemoryBroker()
        self.store = MemoryStore()
        self.latency_s = 0.0
        self.jitter = 0.1
        self.process: ServiceProcess | None = None
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

    async def start(self, *, quiet: bool = True) -> ServiceHarness:
        """Start the service; `quiet`: wait until what fell due while it was away has been tested."""
        assert self.process is None, "it runs already"
        self.process = ServiceProcess(self)
        await self.settle()
        if quiet:
            await self.advance(2)
        return self

    async def stop(self) -> None:
        """Stop it cleanly; it may die on the way."""
        process = self._running()
        process.stop.set()
        for _ in range(int(STOP_S * 10)):
            await self.clock.settle()
            if process.main.done() or process.dead:
                break
            await self.clock.advance(0.1)
        if process.dead:
            await self._check_process()
            return
        self.process = None
        await process.main

    async def crash(self) -> None:
        """Kill it now."""
        if self.process is not None:
            self.process.die()
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

    def _running(self) -> ServiceProcess:
        assert self.process is not None, "it does not run"
        return self.process

    @property
    def running(self) -> bool:
        return self.process is not None

    @property
    def connected(self) -> bool:
        return self.process is not None and self.process.service.connected

    # -- time ----------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Let everything happen that needs no time; a process that died is buried, one that failed fails the test."""
        await self.clock.settle()
        await self._check_process()

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        await self.clock.advance(seconds)
        await self._check_process()

    async def _check_process(self) -> None:
        process = self.process
        if process is None:
            return
        if not process.dead:
            if process.main.done():
                self.process = None
                await process.main
                raise AssertionError("the service ended by itself")
            return
        self.process = None
        for _ in range(30):
            left = [task for task in process.tasks if not task.done()]
            for task in left:
                task.cancel()
            if not left:
                break
            await self.clock.settle()
        await asyncio.gather(process.main, return_exceptions=True)
        assert not process.tasks, "tasks of a dead process go on"
        self.fake_jobs.burn(self.settings.service.hostname)

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
        report_results = ("changed", "duplicate", "unchanged", "retained_skipped", "ignored", "invalid", "unmatched")
        assert counters["received"] == sum(counters[each] for each in report_results), counters
        assert counters["fired"] == counters["jobs"] + counters["skipped"], counters
        assert counters["skipped"] == sum(counters["skipped_by_reason"].values()), counters
        return counters


def statuses(jobs: Sequence[Job]) -> Counter[str]:
    """Return how many jobs there are by status."""
    return Counter(job.status.value for job in jobs)
