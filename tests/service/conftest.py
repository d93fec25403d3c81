"""Tests of the service floor run on time that is moved by hand, over the leaves that keep everything in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest
from desk import Desk
from handclock import HandLoop
from house import House


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], HandLoop]]:
    return {"by-hand": HandLoop}


@pytest.fixture(autouse=True)
def _desk_is_put_away() -> Iterator[None]:
    yield
    Desk.closed()


@pytest.fixture
async def build() -> AsyncIterator[Callable[..., House]]:
    """Build houses: `build(objects={…}, operations={…})`, as in a configuration file; they fall with the test."""
    houses: list[House] = []

    def make(**config: Any) -> House:
        house = House(config)
        houses.append(house)
        return house

    yield make
    for house in houses:
        await house.crash()
