"""A link that is added to a running installation has the state of what it follows from the start (behaviour 1.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from house import House, a_link, an_object, an_operation

Build = Callable[..., House]

OBJECTS = {"motion": an_object("home/motion", attributes={"battery": {}}), "lamp": an_object("home/lamp")}
LINKS = {"hall": a_link("motion", "lamp")}
OPERATIONS = {"tell": an_operation({"link": "hall"}, message="{{ previous_state }}>{{ state }}", triggers=[{}])}


@pytest.mark.parametrize("how", ["reload", "restart"])
async def test_a_new_link_does_not_take_a_repeated_report_of_its_source_for_a_change(build: Build, how: str) -> None:
    house = await build(objects=OBJECTS).start()
    await house.report("home/motion", {"state": "occupied", "battery": 80})
    house.configure(objects=OBJECTS, links=LINKS, operations=OPERATIONS)
    await getattr(house, how)()
    link: dict[str, Any] = await house.data("links/get", id="hall")
    assert (link["state"], link["attributes"]) == ("occupied", {"battery": "80"})
    await house.report("home/motion", {"state": "occupied", "battery": 80})
    assert await house.jobs() == []
    await house.report("home/motion", {"state": "clear", "battery": 80})
    assert house.texts("out/hall") == ["occupied>clear"]


async def test_the_first_report_of_a_source_is_still_a_change_of_its_link(build: Build) -> None:
    house = await build(objects=OBJECTS, links=LINKS, operations=OPERATIONS).start()
    await house.report("home/motion", "occupied")
    assert house.texts("out/hall") == ["null>occupied"]
