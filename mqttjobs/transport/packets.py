"""Decoding and encoding of PUBLISH packets; lenient, so that one invalid message does not end the connection."""

from __future__ import annotations

from typing import Any

from mqttjobs.transport.base import LARGEST_PACKET, Message, Publication

MOST_PROPERTIES = 1000
"""A packet with more is read without properties: a megabyte of them would block everything for 0.25 s."""

_PUBLISH = 0x30
_PAYLOAD_FORMAT, _EXPIRY, _CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION = 0x01, 0x02, 0x03, 0x08, 0x09
_SUBSCRIPTION, _TOPIC_ALIAS, _USER = 0x0B, 0x23, 0x26


class PacketError(ValueError):
    """Bytes that are not a PUBLISH packet."""


def decode_publish(command: int, packet: bytes | bytearray, *, five: bool) -> Message:
    """Return the message of a PUBLISH packet (MQTT 5, 3.3); `packet` is the part after the remaining length.

    A topic that is not UTF-8 gets replacement characters. Properties that cannot be read, or are too many, are left
    out, all of them. Raises PacketError if topic, properties and payload cannot be separated.
    """
    data = bytes(packet)
    topic, offset = _read_binary(data, 0)
    qos = command >> 1 & 3
    packet_id = 0
    if qos:
        packet_id = int.from_bytes(data[offset : offset + 2])
        offset += 2
    more: dict[str, Any] = {}
    if five:
        size, offset = _read_number(data, offset)
        if size:
            more = _read_properties(data[offset : offset + size])
            offset += size
    if offset > len(data):
        raise PacketError("the packet is cut short")
    return Message(
        topic.decode(errors="replace"),
        data[offset:],
        qos,
        retain=bool(command & 1),
        duplicate=bool(command & 8),
        packet_id=packet_id,
        **more,
    )


def _read_properties(data: bytes) -> dict[str, Any]:
    """Return the fields of Message that are properties; none of them if one cannot be read."""
    found: dict[str, Any] = {}
    users: list[tuple[str, str]] = []
    offset = count = 0
    try:
        while offset < len(data):
            count += 1
            if count > MOST_PROPERTIES:
                return {}
            kind = data[offset]
            if kind == _USER:
                key, offset = _read_binary(data, offset + 1)
                value, offset = _read_binary(data, offset)
                users.append((key.decode(), value.decode()))
            else:
                offset = _read_property(kind, data, offset + 1, found)
    except (PacketError, UnicodeDecodeError):
        return {}
    if users:
        found["user_properties"] = tuple(users)
    return found


def _read_property(kind: int, data: bytes, offset: int, found: dict[str, Any]) -> int:
    """Put one property into `found` if Message has it, and return the offset of the next (MQTT 5, 2.2.2.2)."""
    if kind == _RESPONSE_TOPIC:
        text, offset = _read_binary(data, offset)
        found["response_topic"] = text.decode()
    elif kind == _CORRELATION:
        found["correlation_data"], offset = _read_binary(data, offset)
    elif kind == _CONTENT_TYPE:
        _, offset = _read_binary(data, offset)
    elif kind == _EXPIRY:
        found["expiry_s"] = int.from_bytes(data[offset : offset + 4])
        offset += 4
    elif kind == _PAYLOAD_FORMAT:
        offset += 1
    elif kind == _TOPIC_ALIAS:
        offset += 2
    elif kind == _SUBSCRIPTION:
        _, offset = _read_number(data, offset)
    else:
        raise PacketError(f"a PUBLISH has no property {kind}")
    if offset > len(data):
        raise PacketError("a property is cut short")
    return offset


def _read_binary(data: bytes, offset: int) -> tuple[bytes, int]:
    """Return binary data with a two-byte length before it, and the offset of its end (MQTT 5, 1.5.6)."""
    start = offset + 2
    end = start + int.from_bytes(data[offset:start])
    if start > len(data) or end > len(data):
        raise PacketError("the packet is cut short")
    return data[start:end], end


def _read_number(data: bytes, offset: int) -> tuple[int, int]:
    """Return a Variable Byte Integer and the offset of its end (MQTT 5, 1.5.5)."""
    number = 0
    for shift in (0, 7, 14, 21):
        if offset >= len(data):
            break
        byte = data[offset]
        offset += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, offset
    raise PacketError("a length cannot be read")


def encode_publish(publication: Publication, packet_id: int, *, five: bool) -> bytes:
    """Return the PUBLISH packet of a publication; MQTT 3.1.1 has no properties.

    Raises ValueError if a part is longer than the protocol allows.
    """
    body = _binary(publication.topic.encode())
    if publication.qos:
        body += packet_id.to_bytes(2)
    if five:
        body += _encode_properties(publication)
    command = _PUBLISH | publication.qos << 1 | publication.retain
    return bytes([command]) + _number(len(body) + len(publication.payload)) + body + publication.payload


def decode_puback(packet: bytes | bytearray) -> tuple[int, int]:
    """Return packet identifier and reason code of a PUBACK; a missing reason code is 0 (MQTT 5, 3.4.2.1)."""
    if len(packet) < 2:
        raise PacketError("the packet is cut short")
    return packet[0] << 8 | packet[1], packet[2] if len(packet) > 2 else 0


def _encode_properties(publication: Publication) -> bytes:
    """Return the properties with their length before them."""
    data = b""
    if publication.expiry_s is not None:
        data += bytes([_EXPIRY]) + min(max(publication.expiry_s, 0), 0xFFFFFFFF).to_bytes(4)
    if publication.content_type:
        data += bytes([_CONTENT_TYPE]) + _binary(publication.content_type.encode())
    if publication.response_topic is not None:
        data += bytes([_RESPONSE_TOPIC]) + _binary(publication.response_topic.encode())
    if publication.correlation_data is not None:
        data += bytes([_CORRELATION]) + _binary(publication.correlation_data)
    for key, value in publication.user_properties:
        data += bytes([_USER]) + _binary(key.encode()) + _binary(value.encode())
    return _number(len(data)) + data


def _binary(data: bytes) -> bytes:
    if len(data) > 0xFFFF:
        raise ValueError("a topic or a property has at most 65535 bytes")
    return len(data).to_bytes(2) + data


def _number(number: int) -> bytes:
    if number < 128:
        return bytes([number])
    if number > LARGEST_PACKET:
        raise ValueError(f"a packet has at most {LARGEST_PACKET} bytes")
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)
