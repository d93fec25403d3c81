"""A broker inside the process, for the demo and for tests on this machine alone."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from types import TracebackType
from typing import Any, Self

from mqttjobs.errors import TransportError

NOT_FOR_PRODUCTION = (
    "The embedded broker is for trying things out on this machine: it speaks MQTT 3.1.1, keeps nothing when it ends "
    "and does not repeat what was not acknowledged. Use a broker such as Mosquitto for anything that matters."
)
"""What whoever starts it logs."""

_QUIET = ("amqtt", "transitions")


class EmbeddedBroker:
    """An async context manager: a broker that lets everyone in, listens on a loopback address and publishes no `$SYS`.

    Port 0 takes a free one; `port` and `url` tell which. Another address than a loopback one is refused unless
    `allow_any`, for it asks nobody for a password.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 1883) -> None:
        if not _is_loopback(host):
            raise TransportError(
                f"the embedded broker listens on loopback addresses only, not on {host!r}: it lets everyone in"
            )
        self.host = host
        self.port = port
        self._broker: Any = None

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"mqtt://[{self.host}]:{self.port}" if ":" in self.host else f"mqtt://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        """Start it; raises TransportError when the address cannot be had."""
        from amqtt.errors import BrokerError  # noqa: PLC0415 - takes a fifth of a second, and transports are all imported

        from mqttjobs.transport.embedded.repairs import RepairedBroker  # noqa: PLC0415 - same

        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        broker = RepairedBroker(
            {
                "listeners": {"default": {"type": "tcp", "bind": _bind(self.host, self.port)}},
                "plugins": {"mqttjobs.transport.embedded.admission.LetEveryoneIn": {}},
            }
        )
        try:
            await broker.start()
        except BrokerError as error:
            raise TransportError(f"the embedded broker cannot listen on {self.host}:{self.port}: {error}") from None
        self._broker = broker
        server = broker._servers["default"].instance  # noqa: SLF001 - amqtt does not tell which port it was given
        self.port = server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it; connections are closed."""
        broker, self._broker = self._broker, None
        await asyncio.shield(asyncio.ensure_future(broker.shutdown()))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bind(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
