"""What amqtt gets wrong for us, put right: clients of other versions, and retained messages that nobody asked for."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Self

from amqtt.broker import Broker
from amqtt.mqtt.connect import ConnectPacket, ConnectPayload

KNOWN_VERSION = 4
"""The protocol level of MQTT 3.1.1."""


class KnownPayload(ConnectPayload):  # type: ignore[misc]  # amqtt ships no types
    """What follows the header of a CONNECT packet, read only if it is 3.1.1's.

    amqtt takes the properties of MQTT 5 for a client id and waits for the rest of it for ever; read over, the client
    gets the refusal (return code 1) that lets it try 3.1.1.
    """

    @classmethod
    async def from_stream(cls, reader: Any, fixed_header: Any, variable_header: Any) -> Self:
        """Read the payload, or read over it."""
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
    """amqtt's broker, which sends a client that connects only what its own subscriptions match."""

    def __init__(self, config: dict[str, Any]) -> None:
        ConnectPacket.PAYLOAD = KnownPayload
        super().__init__(config)

    async def _publish_retained_messages_for_subscription(self, subscription: tuple[str, int], session: Any) -> None:
        """Publish for a client's own subscription; amqtt asks for everybody's at each CONNECT."""
        if any(own.client_id == session.client_id for own, _ in self._subscriptions.get(subscription[0], ())):
            await super()._publish_retained_messages_for_subscription(subscription, session)
