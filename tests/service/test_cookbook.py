"""The cookbook's pages: each configuration is read from its page and does what the page says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mqttjobs.config.yaml12 import parse
from tests.service.harness import ServiceHarness

Build = Callable[..., ServiceHarness]

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
    harness = await build(**recipe("motion-light")).start()  # noon
    commands = "zigbee2mqtt/hall_light/set"
    await harness.report("zigbee2mqtt/hall_motion", {"occupancy": True})
    assert harness.texts(commands) == [], "it is day"
    await harness.advance(10 * 3600)
    await harness.report("zigbee2mqtt/hall_motion", {"occupancy": False})
    await harness.report("zigbee2mqtt/hall_motion", {"occupancy": True})
    await harness.report("zigbee2mqtt/hall_light", {"state": "ON"})
    assert harness.documents(commands) == [{"state": "ON"}]
    assert [job.status.value for job in await harness.jobs("light_on")] == ["completed"]
    await harness.report("zigbee2mqtt/hall_motion", {"occupancy": False})
    await harness.advance(200)
    await harness.restart()
    await harness.advance(97)
    assert len(harness.texts(commands)) == 1
    await harness.advance(2)
    assert harness.documents(commands)[1:] == [{"state": "OFF"}]


async def test_washing_machine(build: Build) -> None:
    harness = await build(**recipe("washing-machine")).start()
    plug = "zigbee2mqtt/washer_plug"
    for power, seconds in ((300, 600), (2, 100), (1800, 600), (4.5, 170), (0.4, 0)):
        await harness.report(plug, {"state": "ON", "power": power})
        await harness.advance(seconds)
    assert harness.texts("notify/phone") == []
    await harness.restart()
    await harness.advance(9)
    assert harness.documents("notify/phone") == [{"title": "Laundry", "text": "Washing machine is done"}]
    for power in (5.2, 4.8, 9.9, 0.4):
        await harness.report(plug, {"state": "ON", "power": power})
        await harness.advance(600)
    assert len(harness.texts("notify/phone")) == 1


async def test_window_heating(build: Build) -> None:
    harness = await build(**recipe("window-heating")).start()
    commands = "zigbee2mqtt/bedroom_radiator/set"
    radiator, window = "zigbee2mqtt/bedroom_radiator", "zigbee2mqtt/bedroom_window"
    await harness.report(radiator, {"system_mode": "heat", "running_state": "heat"})
    await harness.report(window, {"contact": False})
    await harness.advance(121)
    assert harness.documents(commands) == [{"system_mode": "off"}]
    await harness.report(radiator, {"system_mode": "off", "running_state": "idle"})
    await harness.report(window, {"contact": True})
    assert harness.documents(commands)[1:] == [{"system_mode": "heat"}]
    await harness.report(window, {"contact": False})
    await harness.advance(300)
    assert len(harness.texts(commands)) == 2, "it does not heat"
    await harness.report(radiator, {"system_mode": "heat", "running_state": "heat"})
    assert harness.documents(commands)[2:] == [{"system_mode": "off"}]


async def test_button_double_press(build: Build) -> None:
    harness = build(**recipe("button-double-press"))
    button = "zigbee2mqtt/bedside_button"
    harness.send(button, {"action": "double"}, retain=True)
    await harness.start()
    for action in ("double", "double", "single", "hold", "hold", "hold"):
        await harness.report(button, {"action": action})
        await harness.report(button, {"action": ""})
    assert len(harness.texts("zigbee2mqtt/bedside_lamp/set")) == 2
    assert len(harness.texts("zigbee2mqtt/all_lights/set")) == 1
    assert harness.texts("notify/phone") == []
    await harness.advance(2.1)
    assert len(harness.texts("notify/phone")) == 1
    for seconds in (5, 2):
        await harness.advance(seconds)
        await harness.report(button, {"action": "single"})
    assert harness.texts("zigbee2mqtt/blinds/set") == []
    await harness.restart()
    await harness.report(button, {"action": "single"})
    assert len(harness.texts("zigbee2mqtt/blinds/set")) == 1


@pytest.mark.parametrize("down", [False, True])
async def test_low_battery(build: Build, down: bool) -> None:
    harness = await build(**recipe("low-battery")).start()
    for name, battery in (("door", 9), ("window", 80), ("cellar", 14)):
        await harness.report(f"sensors/{name}", {"contact": True, "battery": battery})
    if down:
        await harness.crash()
        await harness.advance(22 * 3600)  # it was one o'clock in Berlin
        await harness.start()
    else:
        await harness.advance(20 * 3600 - 60)
        assert harness.texts("notify/phone") == []
        await harness.advance(61)
    assert sorted(harness.texts("notify/phone")) == [
        "Sensor cellar has 14 percent left",
        "Sensor door has 9 percent left",
    ]
    await harness.advance(3600)
    assert len(harness.texts("notify/phone")) == 2
