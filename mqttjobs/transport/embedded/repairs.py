"""Corrections of amqtt: clients of other protocol versions, and retained messages of other clients' subscriptions."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Self

from amqtt.broker import Broker
from amqtt.mqtt.connect import ConnectPacket, ConnectPayload

KNOWN_VERSION = 4
"""The protocol level of MQTT 3.1.1."""


class KnownPayload(ConnectPayload):  # type: ignore[misc]  # amqtt ships no types
    """The payload of a CONNECT packet, which is parsed only for MQTT 3.1.1.

    amqtt takes MQTT 5 properties for a client id and waits for its rest for ever. With the payload skipped, the client
    gets the refusal (return code 1) that lets it try 3.1.1.
    """

    @classmethod
    async def from_stream(cls, reader: Any, fixed_header: Any, variable_header: Any) -> Self:
        """Parse the payload, or skip it."""
        if variable_header.proto_level == KNOWN_VERSION:
            known: Self = await super().from_stream(reader, fixed_header, variable_header)
            return known
        header = 2 + len(variable_header.proto_name.encode()) + 1 + 1 + 2
        with suppress(asyncio.IncompleteReadError):
            await reader.read(max(0, fixed_header.remaining_length - header))
        unread = cls()
        unread.client_id = unread.will_topic = unread.username = unread.password = "unread"  # noqa: S105 - nobody's
        unread.will_message = b""
        return unread


class RepairedBroker(Broker):  # type: ignore[misc]  # amqtt ships no types
    """amqtt's broker; a client that connects gets only the retained messages of its own subscriptions."""

    def __init__(self, config: dict[str, Any]) -> None:
        ConnectPacket.PAYLOAD = KnownPayload
        super().__init__(config)

    async def _publish_retained_messages_for_subscription(self, subscription: tuple[str, int], session: Any) -> None:
        """Publish the retained messages of the client's own subscription; amqtt calls this for those of all clients."""
        if any(own.client_id == session.client_id for own, _ in self._subscriptions.get(subscription[0], ())):
            await super()._publish_retained_messages_for_subscription(subscription, session)
