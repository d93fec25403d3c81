"""Fixtures for all tests, and how tests share the machine: brokers, and the real program."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from mqttjobs.transport.embedded import EmbeddedBroker
from tests.brokers import MISSING, MOSQUITTO, MosquittoBroker, StartMosquitto, free_port
from tests.installed import build_mqttjobs
from tests.running import RunningService, StartService, StartShared
from tests.turns import Turns

settings.register_profile("usual", deadline=None, print_blob=True)  # a busy machine is slow, not wrong
settings.register_profile("deep", deadline=None, print_blob=True, max_examples=2000)  # --hypothesis-profile=deep
settings.load_profile("usual")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the contract suites run over plugins of others: see "Testing a plugin" in docs/extending.md."""
    group = parser.getgroup("mqttjobs", "plugins under test in tests/contracts")
    add = partial(group.addoption, action="append", default=[])
    add("--store", metavar="URL", help="run the contract of Store over this store")
    add("--bench", metavar="MODULE:CLASS", help="run the contract of Transport over this broker and transport")
    add("--operation", metavar="JSON", help="run the contract of the operation types over this operation")


TURNS = pytest.StashKey[Turns]()
FIRST = ("system", "cli", "plugins", "contracts")
"""The folders whose modules take longest: they start first, so that no worker is left with one of them at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Let the programs under test heed Ctrl-C: a shell has its background jobs, and what they start, ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        config.stash[TURNS] = Turns(Path(config.option.basetemp).parent)


def pytest_unconfigure(config: pytest.Config) -> None:
    if TURNS in config.stash:
        config.stash[TURNS].close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return two workers for each processor, since tests of the real program wait half of their time.

    One worker runs a whole module, so more workers than modules are not started, and none for one module alone.
    """
    workers = 2 * (os.cpu_count() or 1)
    modules = {argument.partition("::")[0] for argument in config.args}
    if all(module.endswith(".py") for module in modules):
        workers = min(workers, len(modules))
    return workers if workers > 1 else 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the modules for the workers: those with slow tests first, and in each the tests that run alone last."""
    if TURNS not in config.stash:
        return
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    ranks = {name: rank for rank, name in enumerate(FIRST)}

    def rank(item: pytest.Item) -> tuple[bool, int, Path, bool]:
        folder = ranks.get(item.path.parent.name, len(ranks))
        return item.path not in slow, folder, item.path, item.get_closest_marker("alone") is not None

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hold the turn of a test while it runs; the wait for the turn does not count as time of the test."""
    turns = item.config.stash.get(TURNS, None)
    if turns is None:
        return (yield)
    with turns.take(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[StartMosquitto]:
    """Start Mosquitto brokers with more configuration lines; running brokers are killed after the test.

    Without the program the test is skipped, or fails if MQTTJOBS_REQUIRE_MOSQUITTO=1.
    """
    if MOSQUITTO is None:
        if os.environ.get("MQTTJOBS_REQUIRE_MOSQUITTO") == "1":
            pytest.fail(f"{MISSING}, and MQTTJOBS_REQUIRE_MOSQUITTO=1")
        pytest.skip(MISSING)
    brokers: list[MosquittoBroker] = []

    def start(*config: str, anonymous: bool = True, autosave: bool = True) -> MosquittoBroker:
        directory = tmp_path / f"mosquitto-{len(brokers)}"
        broker = MosquittoBroker(directory, config, anonymous=anonymous, autosave=autosave)
        brokers.append(broker)
        broker.start()
        return broker

    yield start
    for broker in brokers:
        broker.kill()


@pytest.fixture
def mosquitto(start_mosquitto: StartMosquitto) -> MosquittoBroker:
    """A Mosquitto without passwords."""
    return start_mosquitto()


@pytest.fixture
async def embedded_broker() -> AsyncIterator[EmbeddedBroker]:
    """The broker of the demo, in this process: MQTT 3.1.1 only, no redelivery."""
    async with EmbeddedBroker(port=free_port()) as broker:
        yield broker


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of mqttjobs."""
    return build_mqttjobs(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartShared]:
    """Start a broker and the real program for all tests of a module, because each start takes a second."""
    if MOSQUITTO is None:
        if os.environ.get("MQTTJOBS_REQUIRE_MOSQUITTO") == "1":
            pytest.fail(f"{MISSING}, and MQTTJOBS_REQUIRE_MOSQUITTO=1")
        pytest.skip(MISSING)
    started: list[tuple[MosquittoBroker, RunningService]] = []

    def start(config: Mapping[str, Any], *, directory: Path | None = None, **more: Any) -> RunningService:
        broker = MosquittoBroker(tmp_path_factory.mktemp("mosquitto"), autosave=False)
        broker.start()
        service = RunningService(directory or tmp_path_factory.mktemp("service"), broker.port, config, **more)
        started.append((broker, service))
        service.run()
        return service

    yield start
    for broker, service in started:
        service.kill()
        broker.kill()


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[StartService]:
    """Start the real program with a configuration; running services are killed after the test.

    `start(port, config, run=True, …)` waits until the service is connected; RunningService has the other arguments.
    """
    services: list[RunningService] = []

    def start(port: int, config: Mapping[str, Any] | str, *, run: bool = True, **more: Any) -> RunningService:
        service = RunningService(tmp_path / f"service-{len(services)}", port, config, **more)
        services.append(service)
        if run:
            service.run()
        return service

    yield start
    for service in services:
        service.kill()
