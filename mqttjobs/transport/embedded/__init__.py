"""A broker inside the process, for demos and tests on this machine only."""

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
"""The warning that is logged when an embedded broker starts."""

_QUIET = ("amqtt", "transitions")


class EmbeddedBroker:
    """A broker as an async context manager; accepts every client and publishes no `$SYS`.

    With port 0 the broker listens on a free port, which `port` and `url` then have. There are no passwords, so any
    address but a loopback one raises TransportError.
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
        """The URL for clients."""
        return f"mqtt://[{self.host}]:{self.port}" if ":" in self.host else f"mqtt://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        """Start the broker; raises TransportError if the address is not available."""
        from amqtt.errors import BrokerError  # noqa: PLC0415 - importing takes a fifth of a second, and most commands need no broker

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
        server = broker._servers["default"].instance  # noqa: SLF001 - amqtt has no public name for its port
        self.port = server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the broker and close its connections."""
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
