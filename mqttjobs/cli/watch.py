"""Following job events: subscribe, show each event, and reconnect after a lost connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import orjson

from mqttjobs.cli.access import Access
from mqttjobs.cli.client import NoAnswer, connected, display_url
from mqttjobs.cli.terminal import print_note
from mqttjobs.domain.model import Json
from mqttjobs.domain.service_topics import job_event_topic, job_events
from mqttjobs.errors import ConnectionLost, TransportError
from mqttjobs.transport.base import REFUSED, Subscription, describe_refusal

PAUSE_S = 1.0

Show = Callable[[Mapping[str, Json]], None]


def filters(base_topic: str, statuses: Sequence[str], operation: str | None) -> list[str]:
    """Return the topic filters of job events, event/job/<status>/<operation>/<owner> (contract 3); no statuses: all."""
    wanted = list(dict.fromkeys(statuses)) or ["+"]
    if operation is None and wanted == ["+"]:
        return [f"{job_events(base_topic)}/#"]
    return [job_event_topic(base_topic, status, operation or "+", "+") for status in wanted]


async def follow(access: Access, wanted: Sequence[str], show: Show) -> None:
    """Call `show` with each job event until cancelled; reconnect after a lost connection.

    Raises:
        TransportError: the first connection could not be made, or the broker refuses the subscription.
    """
    was_connected = False
    while True:
        try:
            async with connected(access) as client:
                codes = await client.session.subscribe([Subscription(each, replay=False) for each in wanted])
                if max(codes) >= REFUSED:
                    refusal = describe_refusal(max(codes))
                    raise NoAnswer(f"the broker does not let us follow {wanted[0]}: {refusal}; check its ACL")
                if was_connected:
                    print_note("connected again", "yellow")
                was_connected = True
                while True:
                    messages = await client.session.receive()
                    client.session.acknowledge(messages)
                    for message in messages:
                        if message.topic.startswith(f"{job_events(access.base_topic)}/"):
                            _show_event(message.payload, show)
        except ConnectionLost:
            where = display_url(access.url)
            print_note(f"the connection to {where} was lost; trying again (events meanwhile are missing)", "yellow")
        except TransportError:
            if not was_connected:
                raise
        await asyncio.sleep(PAUSE_S)


def _show_event(payload: bytes, show: Show) -> None:
    try:
        job = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return
    if isinstance(job, dict) and "uid" in job:
        show(job)
