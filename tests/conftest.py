"""Fixtures for all tests: brokers, and the real program."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from mqttjobs.transport.embedded import EmbeddedBroker
from tests.brokers import MISSING, MOSQUITTO, MosquittoBroker, StartMosquitto, free_port
from tests.installed import build_mqttjobs
from tests.running import RunningService, StartService, StartShared

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
