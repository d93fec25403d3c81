"""The cookbook's pages: each configuration is read from its page and does what the page says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from house import House

from mqttjobs.config.yaml12 import parse

Build = Callable[..., House]

PAGES = Path(__file__).parents[2] / "docs" / "cookbook"


def recipe(name: str) -> dict[str, Any]:
    """Return the one configuration of a page."""
    [text] = re.findall(r"```yaml\n(.*?)```", (PAGES / f"{name}.md").read_text(), re.DOTALL)
    content: dict[str, Any] = parse(text, name).content
    return content


def test_every_page_is_in_the_list_and_tested_here() -> None:
    pages = {each.stem for each in PAGES.glob("*.md")} - {"README"}
    listed = set(re.findall(r"\]\(([a-z-]+)\.md\)", (PAGES / "README.md").read_text()))
    tested = set(re.findall(r'recipe\("([a-z-]+)"\)', Path(__file__).read_text()))
    assert pages == listed == tested


async def test_motion_light(build: Build) -> None:
    house = await build(**recipe("motion-light")).start()  # noon
    commands = "zigbee2mqtt/hall_light/set"
    await house.report("zigbee2mqtt/hall_motion", {"occupancy": True})
    assert house.texts(commands) == [], "it is day"
    await house.advance(10 * 3600)
    await house.report("zigbee2mqtt/hall_motion", {"occupancy": False})
    await house.report("zigbee2mqtt/hall_motion", {"occupancy": True})
    await house.report("zigbee2mqtt/hall_light", {"state": "ON"})
    assert house.documents(commands) == [{"state": "ON"}]
    assert [job.status.value for job in await house.jobs("light_on")] == ["completed"]
    await house.report("zigbee2mqtt/hall_motion", {"occupancy": False})
    await house.advance(200)
    await house.restart()
    await house.advance(97)
    assert len(house.texts(commands)) == 1
    await house.advance(2)
    assert house.documents(commands)[1:] == [{"state": "OFF"}]


async def test_washing_machine(build: Build) -> None:
    house = await build(**recipe("washing-machine")).start()
    plug = "zigbee2mqtt/washer_plug"
    for power, seconds in ((300, 600), (2, 100), (1800, 600), (4.5, 170), (0.4, 0)):
        await house.report(plug, {"state": "ON", "power": power})
        await house.advance(seconds)
    assert house.texts("notify/phone") == []
    await house.restart()
    await house.advance(9)
    assert house.documents("notify/phone") == [{"title": "Laundry", "text": "Washing machine is done"}]
    for power in (5.2, 4.8, 9.9, 0.4):
        await house.report(plug, {"state": "ON", "power": power})
        await house.advance(600)
    assert len(house.texts("notify/phone")) == 1


async def test_window_heating(build: Build) -> None:
    house = await build(**recipe("window-heating")).start()
    commands = "zigbee2mqtt/bedroom_radiator/set"
    radiator, window = "zigbee2mqtt/bedroom_radiator", "zigbee2mqtt/bedroom_window"
    await house.report(radiator, {"system_mode": "heat", "running_state": "heat"})
    await house.report(window, {"contact": False})
    await house.advance(121)
    assert house.documents(commands) == [{"system_mode": "off"}]
    await house.report(radiator, {"system_mode": "off", "running_state": "idle"})
    await house.report(window, {"contact": True})
    assert house.documents(commands)[1:] == [{"system_mode": "heat"}]
    await house.report(window, {"contact": False})
    await house.advance(300)
    assert len(house.texts(commands)) == 2, "it does not heat"
    await house.report(radiator, {"system_mode": "heat", "running_state": "heat"})
    assert house.documents(commands)[2:] == [{"system_mode": "off"}]


async def test_button_double_press(build: Build) -> None:
    house = build(**recipe("button-double-press"))
    button = "zigbee2mqtt/bedside_button"
    house.send(button, {"action": "double"}, retain=True)
    await house.start()
    for action in ("double", "double", "single", "hold", "hold", "hold"):
        await house.report(button, {"action": action})
        await house.report(button, {"action": ""})
    assert len(house.texts("zigbee2mqtt/bedside_lamp/set")) == 2
    assert len(house.texts("zigbee2mqtt/all_lights/set")) == 1
    assert house.texts("notify/phone") == []
    await house.advance(2.1)
    assert len(house.texts("notify/phone")) == 1


@pytest.mark.parametrize("down", [False, True])
async def test_low_battery(build: Build, down: bool) -> None:
    house = await build(**recipe("low-battery")).start()
    for name, battery in (("door", 9), ("window", 80), ("cellar", 14)):
        await house.report(f"sensors/{name}", {"contact": True, "battery": battery})
    if down:
        await house.crash()
        await house.advance(22 * 3600)  # it was one o'clock in Berlin
        await house.start()
    else:
        await house.advance(20 * 3600 - 60)
        assert house.texts("notify/phone") == []
        await house.advance(61)
    assert sorted(house.texts("notify/phone")) == [
        "Sensor cellar has 14 percent left",
        "Sensor door has 9 percent left",
    ]
    await house.advance(3600)
    assert len(house.texts("notify/phone")) == 2
