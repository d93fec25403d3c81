"""The transport to a real broker: the only package that uses aiomqtt and paho."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from mqttjobs.errors import TransportError
from mqttjobs.transport.backends.mqtt.client import PORTS
from mqttjobs.transport.backends.mqtt.session import ClosedBeforeConnack, MqttSession, UnsupportedVersion
from mqttjobs.transport.base import CONFIGURABLE, EXAMPLE, ConnectOptions, Session

SCHEMES = frozenset(PORTS)
OPTIONS = CONFIGURABLE
_HOST = re.compile(r"[^\s/?#@\x00-\x1f]+\Z")


def resolve_url(url: str, folder: Path) -> str:
    """Return the URL, which has a host, and a port or none."""
    del folder
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(f"must be like {EXAMPLE}") from None
    if not port_is_fine or not _HOST.match(parts.hostname or ""):
        raise ValueError(f"must be like {EXAMPLE}")
    return url


def create(options: ConnectOptions) -> MqttTransport:
    """Return the transport of an mqtt, mqtts, ws or wss URL."""
    return MqttTransport(options)


class MqttTransport:
    """See Transport. With `auto`, a version that worked is used again; after MQTT 5 only 0x84 leads to 3.1.1."""

    def __init__(self, options: ConnectOptions) -> None:
        self._options = options
        self._worked: str | None = None if options.protocol == "auto" else options.protocol
        self._closed_early = 0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """See Transport. An exception in the body cuts the connection, so that the broker publishes the will."""
        session = await self._open()
        try:
            yield session
            await session.close()
        finally:
            session.cut()

    async def _open(self) -> MqttSession:
        if self._worked == "3.1.1":
            return await self._attempt("3.1.1")
        try:
            return await self._attempt("5")
        except UnsupportedVersion:
            if self._options.protocol != "auto":
                raise
        except ClosedBeforeConnack:
            self._closed_early += 1
            if self._worked == "5" or self._closed_early < 2:
                raise
        except TransportError:
            self._closed_early = 0
            raise
        self._closed_early = 0
        return await self._attempt("3.1.1")

    async def _attempt(self, protocol: str) -> MqttSession:
        session = MqttSession(self._options, protocol)
        await session.open()
        self._worked = protocol
        self._closed_early = 0
        return session
