"""The aiomqtt client of one connection, made from ConnectOptions."""

from __future__ import annotations

import logging
import ssl
from functools import partial
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from mqttjobs.errors import TransportError
from mqttjobs.transport.backends.mqtt.connect import Address, open_socket
from mqttjobs.transport.base import ConnectOptions

PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
CONNECT_S = 10.0

_quiet = logging.getLogger("mqttjobs.mqtt")
_quiet.setLevel(logging.CRITICAL)


def display_url(url: str) -> str:
    """Return the scheme, host and port of a URL, which have no secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or PORTS[parts.scheme]}"


def make_client(options: ConnectOptions, protocol: str) -> aiomqtt.Client:
    """Return a client for one connection; a client used twice would resend publications already reported as failed."""
    parts = urlsplit(options.url)
    five = protocol == "5"
    more: dict[str, Any] = {"clean_session": options.clean}
    if five:
        more = {"clean_start": options.clean, "properties": _connect_properties(options)}
    address = _address(options)
    client = aiomqtt.Client(
        address.host,
        address.port,
        identifier=options.client_id,
        username=options.username or (unquote(parts.username) if parts.username else None),
        password=options.password or (unquote(parts.password) if parts.password else None),
        protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311,
        keepalive=min(max(1, round(options.keepalive.total_seconds())), 0xFFFF),
        timeout=CONNECT_S,
        max_inflight_messages=0,
        will=_will(options),
        logger=_quiet,
        **more,
    )
    client.pending_calls_threshold = 100_000
    raw: Any = client._client
    raw._create_socket = partial(open_socket, address)
    return client


def _address(options: ConnectOptions) -> Address:
    parts = urlsplit(options.url)
    return Address(
        parts.hostname or "127.0.0.1",
        parts.port or PORTS[parts.scheme],
        _tls_context(options, parts) if parts.scheme in ("mqtts", "wss") else None,
        parts.path or "/mqtt" if parts.scheme in ("ws", "wss") else None,
    )


def _will(options: ConnectOptions) -> aiomqtt.Will | None:
    will = options.last_will()
    return None if will is None else aiomqtt.Will(will.topic, will.payload, will.qos, will.retain)


def _connect_properties(options: ConnectOptions) -> Properties:
    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types for it
    if not options.clean:
        properties.SessionExpiryInterval = min(int(options.session_expiry.total_seconds()), 0xFFFFFFFF)
    properties.ReceiveMaximum = options.receive_maximum
    properties.MaximumPacketSize = options.maximum_packet_size
    made: Properties = properties
    return made


def _tls_context(options: ConnectOptions, parts: SplitResult) -> ssl.SSLContext:
    tls = options.tls
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ssl.SSLError) as error:
        raise TransportError(f"mqtt.tls for {parts.hostname}: {error}") from None
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
