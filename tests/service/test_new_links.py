"""A link that is added to a running installation has the state of what it follows from the start (behaviour 1.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.harness import ServiceHarness, a_link, an_object, an_operation

Build = Callable[..., ServiceHarness]

OBJECTS = {"motion": an_object("home/motion", attributes={"battery": {}}), "lamp": an_object("home/lamp")}
LINKS = {"hall": a_link("motion", "lamp")}
OPERATIONS = {"tell": an_operation({"link": "hall"}, message="{{ previous_state }}>{{ state }}", triggers=[{}])}


@pytest.mark.parametrize("how", ["reload", "restart"])
async def test_a_new_link_does_not_take_a_repeated_report_of_its_source_for_a_change(build: Build, how: str) -> None:
    harness = await build(objects=OBJECTS).start()
    await harness.report("home/motion", {"state": "occupied", "battery": 80})
    harness.configure(objects=OBJECTS, links=LINKS, operations=OPERATIONS)
    await getattr(harness, how)()
    link: dict[str, Any] = await harness.data("links/get", id="hall")
    assert (link["state"], link["attributes"]) == ("occupied", {"battery": "80"})
    await harness.report("home/motion", {"state": "occupied", "battery": 80})
    assert await harness.jobs() == []
    await harness.report("home/motion", {"state": "clear", "battery": 80})
    assert harness.texts("out/hall") == ["occupied>clear"]


async def test_the_first_report_of_a_source_is_still_a_change_of_its_link(build: Build) -> None:
    harness = await build(objects=OBJECTS, links=LINKS, operations=OPERATIONS).start()
    await harness.report("home/motion", "occupied")
    assert harness.texts("out/hall") == ["null>occupied"]
