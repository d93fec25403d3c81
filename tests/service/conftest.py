"""Tests of the service floor run on time that is moved by hand, over the leaves that keep everything in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.service.fake_jobs import FakeJobs
from tests.service.hand_clock import HandLoop
from tests.service.harness import ServiceHarness


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], HandLoop]]:
    return {"by-hand": HandLoop}


@pytest.fixture(autouse=True)
def _no_fake_type_is_left() -> Iterator[None]:
    yield
    FakeJobs.closed()


@pytest.fixture
async def build() -> AsyncIterator[Callable[..., ServiceHarness]]:
    """Build houses: `build(objects={…}, operations={…})`, as in a configuration file; they fall with the test."""
    harnesses: list[ServiceHarness] = []

    def make(**config: Any) -> ServiceHarness:
        harness = ServiceHarness(config)
        harnesses.append(harness)
        return harness

    yield make
    for harness in harnesses:
        await harness.crash()
