"""PUBLISH packets and their properties as bytes: read leniently, so that one odd message never costs the connection."""

from __future__ import annotations

from typing import Any

from mqttjobs.transport.base import Message, Publication

MOST_PROPERTIES = 1000
"""A packet with more is read without any: a megabyte of them would stop everything for a quarter of a second."""

_PUBLISH = 0x30
_LARGEST_NUMBER = 268_435_455
_PAYLOAD_FORMAT, _EXPIRY, _CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION = 0x01, 0x02, 0x03, 0x08, 0x09
_SUBSCRIPTION, _TOPIC_ALIAS, _USER = 0x0B, 0x23, 0x26


class PacketError(ValueError):
    """Bytes that are no PUBLISH packet."""


def decode_publish(command: int, packet: bytes | bytearray, *, five: bool) -> Message:
    """Return the message of a PUBLISH packet (MQTT 5, 3.3), of which `packet` is what follows the length.

    A topic that is not UTF-8 has replacement characters; properties that cannot be read, or are too many, are left
    out all together. Raises PacketError where even the parts cannot be told apart.
    """
    data = bytes(packet)
    topic, place = _read_binary(data, 0)
    qos = command >> 1 & 3
    packet_id = 0
    if qos:
        packet_id = int.from_bytes(data[place : place + 2])
        place += 2
    more: dict[str, Any] = {}
    if five:
        size, place = _read_number(data, place)
        if size:
            more = _read_properties(data[place : place + size])
            place += size
    if place > len(data):
        raise PacketError("the packet is cut short")
    return Message(
        topic.decode(errors="replace"),
        data[place:],
        qos,
        retain=bool(command & 1),
        duplicate=bool(command & 8),
        packet_id=packet_id,
        **more,
    )


def _read_properties(data: bytes) -> dict[str, Any]:
    """Return the fields of Message that are properties, or none of them when one cannot be read."""
    found: dict[str, Any] = {}
    users: list[tuple[str, str]] = []
    place = count = 0
    try:
        while place < len(data):
            count += 1
            if count > MOST_PROPERTIES:
                return {}
            kind = data[place]
            if kind == _USER:
                key, place = _read_binary(data, place + 1)
                value, place = _read_binary(data, place)
                users.append((key.decode(), value.decode()))
            else:
                place = _read_property(kind, data, place + 1, found)
    except (PacketError, UnicodeDecodeError):
        return {}
    if users:
        found["user_properties"] = tuple(users)
    return found


def _read_property(kind: int, data: bytes, place: int, found: dict[str, Any]) -> int:
    """Put one property into `found` if it is wanted, and return where the next begins (MQTT 5, 2.2.2.2)."""
    if kind == _RESPONSE_TOPIC:
        text, place = _read_binary(data, place)
        found["response_topic"] = text.decode()
    elif kind == _CORRELATION:
        found["correlation_data"], place = _read_binary(data, place)
    elif kind == _CONTENT_TYPE:
        _, place = _read_binary(data, place)
    elif kind == _EXPIRY:
        found["expiry_s"] = int.from_bytes(data[place : place + 4])
        place += 4
    elif kind == _PAYLOAD_FORMAT:
        place += 1
    elif kind == _TOPIC_ALIAS:
        place += 2
    elif kind == _SUBSCRIPTION:
        _, place = _read_number(data, place)
    else:
        raise PacketError(f"a PUBLISH has no property {kind}")
    if place > len(data):
        raise PacketError("a property is cut short")
    return place


def _read_binary(data: bytes, place: int) -> tuple[bytes, int]:
    """Return what follows its own two bytes of length, and where it ends."""
    start = place + 2
    end = start + int.from_bytes(data[place:start])
    if start > len(data) or end > len(data):
        raise PacketError("the packet is cut short")
    return data[start:end], end


def _read_number(data: bytes, place: int) -> tuple[int, int]:
    """Return a Variable Byte Integer and where it ends (MQTT 5, 1.5.5)."""
    number = 0
    for shift in (0, 7, 14, 21):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise PacketError("a length cannot be read")


def encode_publish(publication: Publication, packet_id: int, *, five: bool) -> bytes:
    """Return the PUBLISH packet of a publication; on MQTT 3.1.1 its properties are left out.

    Raises ValueError when a part is longer than the protocol can say.
    """
    body = _binary(publication.topic.encode())
    if publication.qos:
        body += packet_id.to_bytes(2)
    if five:
        body += _encode_properties(publication)
    command = _PUBLISH | publication.qos << 1 | publication.retain
    return bytes([command]) + _number(len(body) + len(publication.payload)) + body + publication.payload


def decode_puback(packet: bytes | bytearray) -> tuple[int, int]:
    """Return packet identifier and reason code of a PUBACK; without a reason it is 0 (MQTT 5, 3.4.2.1)."""
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
    if number > _LARGEST_NUMBER:
        raise ValueError("a packet has at most 268435455 bytes")
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)
