"""No state change is lost and none runs twice, whatever is killed and whenever (behaviour 3.1 and 6)."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pytest

from tests.brokers import MosquittoBroker, StartMosquitto
from tests.clients import Client
from tests.running import RunningService, StartService

KILLS = {"5": 33, "3.1.1": 7}
CHANGES_PER_KILL = 310
"""State changes sent for each kill: more than 10,000 in all."""
DEVICES = 40
WORK_S = 60.0
BATCH = 150
HANG_S = 1.0
"""How long a broker hangs: less than the keepalive, so that no connection is lost."""

PLANT: dict[str, Any] = {
    "classes": {"device": {"ids": [f"dev_{{01..{DEVICES}}}"], "state": {"topic": "plant/{{ id }}/count"}}},
    "operations": {
        "pass_on": {
            "attach": {"class": "device"},
            "type": "mqtt",
            "topic": "out/{{ id }}",
            "message": {"n": "{{ state }}", "job": "{{ job.id }}"},
            "triggers": [{}],
        }
    },
}


class Stream:
    """State changes of many devices, each with its own number, and the publishes of their jobs."""

    def __init__(self, port: int) -> None:
        self._sender = Client(port)
        self._observer = Client(port)
        self._observer.subscribe("out/#")
        self._sent: list[Any] = []
        self.jobs: dict[int, set[str]] = defaultdict(set)
        self.order: dict[str, list[int]] = defaultdict(list)
        self._read = 0

    @property
    def total(self) -> int:
        return len(self._sent)

    def send(self, count: int) -> None:
        """Publish `count` changes, without waiting."""
        for number in range(self.total, self.total + count):
            device = f"dev_{number % DEVICES + 1:02}"
            self._sent.append(self._sender.publish(f"plant/{device}/count", str(number), wait=False))

    def wait_acknowledged(self) -> None:
        """Wait until the broker has acknowledged all changes."""
        wait_acknowledged(self._sent)

    def count_published(self) -> int:
        """Read new publishes, and return how many changes have one."""
        for message in self._observer.messages[self._read :]:
            self._read += 1
            number = int(message.json["n"])
            if number not in self.jobs:
                self.order[message.topic].append(number)
            self.jobs[number].add(message.json["job"])
        return len(self.jobs)

    def wait_published(self, count: int, within_s: float = WORK_S) -> None:
        """Wait until at least `count` changes have a publish."""
        deadline = time.monotonic() + within_s
        while self.count_published() < count:
            assert time.monotonic() < deadline, f"{self.count_published()} of {count} changes were published"
            threading.Event().wait(0.005)

    def close(self) -> None:
        self._sender.close()
        self._observer.close()


@pytest.fixture
def fast_mosquitto(start_mosquitto: StartMosquitto) -> MosquittoBroker:
    """A broker that does not save its data at each message; it is not killed here."""
    return start_mosquitto(autosave=False)


@pytest.fixture
def stream(fast_mosquitto: MosquittoBroker) -> Iterator[Stream]:
    stream = Stream(fast_mosquitto.port)
    yield stream
    stream.close()


def all_jobs(client: Client, *fields: str) -> list[dict[str, Any]]:
    """Return every job, newest first, page by page over MQTT."""
    jobs: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.data("jobs/list", {"limit": 100, "fields": list(fields), "cursor": cursor}, within_s=WORK_S)
        jobs += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return jobs


@pytest.mark.slow
@pytest.mark.mosquitto
@pytest.mark.timeout(240)
@pytest.mark.parametrize("protocol", KILLS)
def test_every_acknowledged_change_is_exactly_one_job_however_often_the_service_is_killed(
    stream: Stream, fast_mosquitto: MosquittoBroker, start_service: StartService, protocol: str
) -> None:
    chance = random.Random(33)  # noqa: S311 - the time of a kill is no secret
    service = start_service(fast_mosquitto.port, PLANT | {"mqtt": {"protocol": protocol}})
    for _ in range(KILLS[protocol]):
        stream.send(CHANGES_PER_KILL // 2)
        _run_for_a_while(service, stream, chance)
        stream.send(CHANGES_PER_KILL // 2)
        service.kill()
        service.start()
    service.wait_ready()
    stream.wait_acknowledged()
    stream.wait_published(stream.total)

    with service.client(protocol=protocol) as client:
        client.until(lambda each: _counts(each)["completed"] >= stream.total, within_s=WORK_S)
        jobs = all_jobs(client, "uid", "id", "status", "process_meta", "description")
    assert len({job["uid"] for job in jobs}) == len(jobs)
    of_changes = Counter(int(job["process_meta"]["state"]) for job in jobs)
    assert not set(range(stream.total)) - of_changes.keys(), "changes without a job"
    assert not [number for number, count in of_changes.items() if count > 1], "changes with two jobs"
    assert {job["status"] for job in jobs} == {"completed"}
    by_number = {int(job["process_meta"]["state"]): job for job in jobs}
    for number, job in by_number.items():
        assert stream.jobs[number] == {job["id"]}, "the publish is of another job"
        assert job["description"] == {"topic": f"out/dev_{number % DEVICES + 1:02}", "message": _message(number, job)}
    for topic, numbers in stream.order.items():
        assert numbers == sorted(numbers), f"{topic} is out of order"


def _message(number: int, job: dict[str, Any]) -> str:
    return f'{{"n":"{number}","job":"{job["id"]}"}}'


def _counts(client: Client) -> dict[str, int]:
    counts: dict[str, int] = client.data("jobs/list", {"limit": 1, "fields": []})["status_counts"]
    return counts


def _run_for_a_while(service: RunningService, stream: Stream, chance: random.Random) -> None:
    """Wait until a random moment: during the start, just after the connect, or under full load."""
    moment = chance.random()
    if moment < 0.1:
        threading.Event().wait(chance.uniform(0, 0.8))
        return
    service.wait_ready()
    if moment > 0.2:
        before = stream.count_published()
        stream.wait_published(before + chance.randint(1, min(2 * CHANGES_PER_KILL, stream.total - before)))


def wait_saved(broker: MosquittoBroker, mark: str) -> None:
    """Wait until the broker has saved its data: its file then has a mark that was published last."""
    with Client(broker.port) as client:
        client.publish(f"mark/{mark}", mark, retain=True)
    deadline = time.monotonic() + WORK_S
    while mark.encode() not in broker.saved:
        assert time.monotonic() < deadline, "the broker did not save its data"
        threading.Event().wait(0.01)


def send(sender: Client, numbers: Iterator[int]) -> dict[int, Any]:
    """Publish a batch of changes without waiting; return paho's delivery information for each number."""
    return {
        number: sender.publish(f"plant/dev_{number % DEVICES + 1:02}/count", str(number), wait=False)
        for number in islice(numbers, BATCH)
    }


def wait_acknowledged(sent: Iterable[Any]) -> None:
    for info in sent:
        info.wait_for_publish(WORK_S)
        assert info.is_published(), "the broker did not acknowledge it"


def states_that_ran(client: Client) -> Counter[int]:
    return Counter(int(job["process_meta"]["state"]) for job in all_jobs(client, "process_meta"))


@pytest.mark.slow
@pytest.mark.mosquitto
def test_no_stored_change_is_lost_when_the_broker_hangs_restarts_or_dies_under_load(
    start_mosquitto: StartMosquitto, start_service: StartService
) -> None:
    broker = start_mosquitto()
    service = start_service(broker.port, PLANT)
    safe: list[int] = []
    once: list[int] = []
    numbers = iter(range(10_000))
    lost = 0
    for fault in ("freeze", "restart", "kill", "freeze and kill"):
        with Client(broker.port, reconnect=False) as sender:
            before = send(sender, numbers)
            wait_acknowledged(before.values())
            wait_saved(broker, f"mark-{fault}")
            during = send(sender, numbers)
            wait_acknowledged(list(during.values())[: BATCH // 2])
            if "freeze" in fault:
                broker.freeze()
                threading.Event().wait(HANG_S)
            if "kill" in fault:
                broker.restart(kill=True)
            elif "freeze" in fault:
                broker.thaw()
                wait_acknowledged(during.values())
            else:
                broker.restart()
        safe += before
        if "kill" not in fault:
            once += [*before, *(number for number, info in during.items() if info.is_published())]
        if fault != "freeze":
            lost += 1
            service.wait_event("connection-lost", lost)
            service.wait_event("connected", lost + 1)
    with service.client() as client:
        client.until(lambda each: states_that_ran(each).keys() >= {*safe, *once}, within_s=WORK_S, pause_s=0.5)
        client.until(lambda each: _counts(each)["completed"] == sum(_counts(each).values()))
        ran = states_that_ran(client)
        assert not [number for number in once if ran[number] != 1], "changes with two jobs"
