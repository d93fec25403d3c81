"""The simulated devices of the demo: a repeating script of reports, and lights that obey commands."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Protocol

import orjson

from mqttjobs.domain.model import Json
from mqttjobs.transport.base import ConnectOptions, Message, Publication, Session, Subscription, create_transport

COMMANDS = "zigbee2mqtt/+/set"
CYCLE_S = 16.0
ROOMS = 4
WINDOW_OPENS = 25.0
"""Degrees above which the window of a room opens."""


class Sleep(Protocol):
    """Waits, as asyncio.sleep does."""

    async def __call__(self, seconds: float, /) -> None:
        """Return after `seconds`."""


def _motion(occupied: bool) -> tuple[str, Json]:
    return "zigbee2mqtt/hall_motion", {"occupancy": occupied, "battery": 87}


SCRIPT: tuple[tuple[float, str, Json], ...] = (
    (0.2, *_motion(occupied=True)),
    (1.0, "zigbee2mqtt/doorbell", {"action": "single"}),
    (1.5, "zigbee2mqtt/washer", {"program": "cotton", "power": 640}),
    (2.0, *_motion(occupied=False)),
    (3.0, "zigbee2mqtt/doorbell", {"action": "single"}),
    (4.0, "zigbee2mqtt/washer", {"program": "idle", "power": 2.5}),
    (5.0, "plant/printer/paper", "low"),
    (7.0, *_motion(occupied=True)),
    (8.5, *_motion(occupied=False)),
    (10.0, *_motion(occupied=True)),
    (11.0, "zigbee2mqtt/doorbell", {"action": "double"}),
    (11.5, *_motion(occupied=False)),
    (13.0, "plant/printer/paper", "full"),
)
"""Second of the cycle, topic, content; at 8.5 s the hall is empty for too short a time to switch the light off."""


def reports() -> list[tuple[float, str, Json]]:
    """Return one cycle of reports in order, as (second, topic, content): the script, and the reports of the rooms."""
    climate = [
        (0.5 + second + 0.1 * room, f"climate/room_{room}", weather(room, second))
        for second in range(0, int(CYCLE_S) - 1, 2)
        for room in range(1, ROOMS + 1)
    ]
    return sorted([*SCRIPT, *climate], key=lambda each: each[0])


def weather(room: int, second: int) -> Json:
    """Return the report of a room: 21 to 27 degrees as a triangle wave, shifted by room, and a window open when hot."""
    phase = (second / CYCLE_S + room / ROOMS) % 1.0
    temperature = round(21.0 + 6.0 * (1.0 - abs(2.0 * phase - 1.0)), 1)
    return {"temperature": temperature, "window": temperature > WINDOW_OPENS}


def light_report(message: Message) -> Publication | None:
    """Return what a light reports after a command on its `/set` topic; None for a message that is no command."""
    try:
        command = orjson.loads(message.payload)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(command, dict) or "state" not in command:
        return None
    topic = message.topic.removesuffix("/set")
    return Publication(topic, orjson.dumps({"state": command["state"], "brightness": 254}), qos=1, retain=True)


async def simulate(url: str, sleep: Sleep = asyncio.sleep) -> None:
    """Run the devices on the broker at `url` until cancelled."""
    options = ConnectOptions(url=url, client_id=f"demo-devices-{secrets.token_hex(4)}", clean=True, protocol="3.1.1")
    async with create_transport(options).connect() as session:
        await session.subscribe([Subscription(COMMANDS, replay=False)])
        lights = asyncio.create_task(_run_lights(session), name="lights")
        try:
            await play(session.publish, sleep)
        finally:
            lights.cancel()
            await asyncio.gather(lights, return_exceptions=True)


async def play(publish: Callable[[Publication], object], sleep: Sleep) -> None:
    """Publish the cycle of reports again and again, each at its second, until cancelled."""
    cycle = reports()
    while True:
        now_s = 0.0
        for at_s, topic, content in cycle:
            await sleep(at_s - now_s)
            now_s = at_s
            payload = content.encode() if isinstance(content, str) else orjson.dumps(content)
            publish(Publication(topic, payload, qos=1))
        await sleep(CYCLE_S - now_s)


async def _run_lights(session: Session) -> None:
    while True:
        messages = await session.receive()
        session.acknowledge(messages)
        for message in messages:
            answer = light_report(message)
            if answer is not None:
                session.publish(answer)
