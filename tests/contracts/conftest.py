"""The contract suites run on uvloop, as the service does, over mqttjobs's own plugins or over those of others.

With `--store`, `--bench` or `--operation` a suite runs over the plugins that these name, and over no others: see
"Testing a plugin" in docs/extending.md.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from mqttjobs.store.base import Store
from tests.contracts.fixtures import Bench
from tests.contracts.members import BENCHES, OPERATIONS, STORES, a_bench, a_store


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given = metafunc.config.getoption
    if "store_url" in metafunc.fixturenames:
        urls = given("--store")
        metafunc.parametrize("store_url", urls or STORES.values(), ids=urls or STORES.keys())
    if "bench_name" in metafunc.fixturenames:
        metafunc.parametrize("bench_name", given("--bench") or BENCHES)
    if "definition" in metafunc.fixturenames:
        definitions = [json.loads(each) for each in given("--operation")] or list(OPERATIONS.values())
        metafunc.parametrize("definition", definitions, ids=[each["type"] for each in definitions])


@pytest.fixture
async def store(store_url: str, tmp_path: Path) -> AsyncIterator[Store]:
    made = a_store(store_url, tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def bench(bench_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    made = a_bench(bench_name, lambda: request.getfixturevalue("start_mosquitto"), tmp_path)
    await made.open()
    yield made
    await made.close()
