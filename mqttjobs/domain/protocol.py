"""Bytes and what they mean: strict JSON, reports, requests, and how times are written (contract 3, behaviour 5)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from mqttjobs.domain.durations import parse_duration
from mqttjobs.domain.model import Json
from mqttjobs.domain.templates import list_index
from mqttjobs.errors import InvalidJson, InvalidRequest, ReportError, TooLarge

DEEPEST = 32
MOST_NODES = 10_000
TRANSACTION_BYTES = 256
_DEPTH, _ROOT = "mqttjobs-depth", "mqttjobs-root"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOM = b"\xef\xbb\xbf"
_LONG_INTEGER = re.compile(rb'"(?:[^"\\]|\\.)*"|(?<![\d.eE+-])(-?\d{19,}+)(?![.eE])', re.DOTALL)
_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"?|([\[\]{}])', re.DOTALL)
_KEY = re.compile(rb'"\s*:')


def encode(value: Json) -> bytes:
    """Return compact JSON."""
    return orjson.dumps(value, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"not JSON: {type(value).__name__}")


def decode_json(payload: bytes) -> Json:
    """Return what strict JSON says (behaviour 5): UTF-8 without BOM, finite numbers, 64 bits, bounded, no key twice.

    Raises:
        InvalidJson: in words, without repeating the input.
    """
    if payload.startswith(_BOM):
        raise InvalidJson("a byte order mark is not JSON")
    if _deeper_than(payload, DEEPEST):
        raise InvalidJson(f"nested deeper than {DEEPEST} levels")
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"not JSON at line {error.lineno} column {error.colno}") from None
    if len(payload) > 18:
        for found in _LONG_INTEGER.finditer(payload):
            if found[1] is not None and not -(2**63) <= int(found[1][:25]) < 2**64:
                raise InvalidJson("an integer is beyond 64 bits")
    keys, problem = _inspect(value)
    if problem:
        raise InvalidJson(problem)
    if len(_KEY.findall(payload)) != keys:
        _refuse_repeated_keys(payload)
    return value


def _deeper_than(payload: bytes, levels: int) -> bool:
    """Whether brackets outside of strings open deeper than `levels`; cheap for what is obviously shallow."""
    if payload.count(b"[") + payload.count(b"{") <= levels:
        return False
    depth = 0
    for found in _BRACKET.finditer(payload):
        opening = found[1]
        if opening is not None:
            depth += 1 if opening in b"[{" else -1
            if depth > levels:
                return True
    return False


def _inspect(value: Json) -> tuple[int, str | None]:
    """Return how many keys there are, and what is wrong: NUL in a text, or too many nodes."""
    keys = nodes = 0
    unseen: list[Any] = [value]
    while unseen:
        item = unseen.pop()
        nodes += 1
        if nodes > MOST_NODES:
            return keys, f"more than {MOST_NODES} values"
        if isinstance(item, str):
            if "\0" in item:
                return keys, "a text contains NUL"
        elif isinstance(item, dict):
            keys += len(item)
            unseen += item.values()
            if any("\0" in key for key in item):
                return keys, "a key contains NUL"
        elif isinstance(item, list):
            if len(item) > MOST_NODES:
                return keys, f"more than {MOST_NODES} values"
            unseen += item
    return keys, None


def _refuse_repeated_keys(payload: bytes) -> None:
    def once(pairs: list[tuple[str, Json]]) -> None:
        if len({key for key, _ in pairs}) != len(pairs):
            raise InvalidJson("a key stands twice in one object")

    json.loads(payload, object_pairs_hook=once)


@dataclass(frozen=True, slots=True)
class Report:
    """A decoded payload of a state topic: JSON, or a bare text."""

    content: Json
    is_json: bool


@dataclass(frozen=True, slots=True)
class ReportMeta:
    """What a report to an entity's own topic may say beside its state (contract 3).

    `reported_at` is the report's `timestamp`: when its sender says that the state began.
    """

    by: str | None = None
    reported_at: datetime | None = None
    event_id: str | None = None
    reason: str | None = None


NO_META = ReportMeta()


def decode_report(payload: bytes, max_payload: int) -> Report | None:
    """Return what a state topic's payload says, or None for an empty one.

    A payload that begins with `{`, `[` or `"` must be JSON; any other is its own UTF-8 text (contract 3).

    Raises:
        ReportError: with the reason `too_large`, `invalid_json`, `not_utf8` or `nul`.
    """
    if not payload:
        return None
    if len(payload) > max_payload:
        raise ReportError(f"the payload has {len(payload)} bytes, more than {max_payload}", reason="too_large")
    if payload[0] in b'{["':
        try:
            content = decode_json(payload)
        except InvalidJson as error:
            raise ReportError(error.details, reason="invalid_json") from None
        if isinstance(content, dict):
            content.pop("api_key", None)  # a request that was sent here by mistake: its key is not to be kept
        return Report(content, is_json=True)
    if payload.startswith(_BOM):
        raise ReportError("the payload begins with a byte order mark", reason="invalid_json")
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise ReportError("the payload is not UTF-8", reason="not_utf8") from None
    if "\0" in text:
        raise ReportError("the payload contains NUL", reason="nul")
    return Report(text, is_json=False)


def report_meta(report: Report) -> ReportMeta:
    """Return what a report to an entity's own topic says beside its state.

    Raises:
        ReportError: a key of the wrong type, named.
    """
    content = report.content
    if not isinstance(content, dict) or not content.keys() & {"by", "timestamp", "event_id", "reason"}:
        return NO_META
    for name in ("by", "event_id", "reason"):
        value = content.get(name)
        if value is not None and not (isinstance(value, str) and len(value) <= 1024):
            raise ReportError(f"{name} must be a text of at most 1024 characters", reason="invalid_report")
    reported_at = _reported_at(content.get("timestamp"))
    return ReportMeta(content.get("by"), reported_at, content.get("event_id"), content.get("reason"))


def _reported_at(timestamp: Json) -> datetime | None:
    if timestamp is None:
        return None
    if isinstance(timestamp, int) and not isinstance(timestamp, bool):
        with suppress(ValueError):
            return from_milliseconds(timestamp)
    raise ReportError("timestamp must be milliseconds since 1970", reason="invalid_report")


def read_state(report: Report, path: tuple[str, ...]) -> str | None:
    """Return the text of a value, or None where the report does not concern it (contract 3).

    Inside JSON, `true` is `true`, `5` is `5`, `"5"` is `5`; objects, arrays and null are not states. Without a
    path a JSON object is read at `state`. With a path a bare text does not concern the value.
    """
    value: Json = report.content
    if not report.is_json:
        return value if isinstance(value, str) and not path else None
    for part in path or (("state",) if isinstance(value, dict) else ()):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and (index := list_index(part)) is not None and index < len(value):
            value = value[index]
        else:
            return None
    return scalar_text(value)


def scalar_text(value: Json) -> str | None:
    """Return a JSON scalar as state text, or None for what is no state."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else None


def decode_request(payload: bytes, max_payload: int) -> dict[str, Json]:
    """Return the parameters of a request, reserved keys included; an empty payload is `{}`.

    Raises:
        TooLarge, InvalidJson: the payload; InvalidRequest: it is no object.
    """
    if not payload:
        return {}
    if len(payload) > max_payload:
        raise TooLarge(f"a request has at most {max_payload} bytes")
    value = decode_json(payload)
    if not isinstance(value, dict):
        raise InvalidRequest("a request is a JSON object")
    return value


def check_transaction(value: Json) -> None:
    """Raise InvalidRequest unless it is a scalar of at most 256 bytes (contract 4)."""
    text = value if isinstance(value, str) else scalar_text(value)
    if value is not None and (text is None or len(text.encode()) > TRANSACTION_BYTES):
        message = f"must be a scalar of at most {TRANSACTION_BYTES} bytes"
        raise InvalidRequest("wrong parameters: transaction", {"transaction": [message]})


def digest(topic: str, payload: bytes) -> bytes:
    """Return a digest of a message, to recognise it when it comes again."""
    made = hashlib.blake2b(topic.encode(errors="surrogatepass"), digest_size=16)
    made.update(b"\0")
    made.update(payload)
    return made.digest()


def trace_properties(depth: int, root_id: str) -> tuple[tuple[str, str], ...]:
    """Return the user properties by which a publish of ours is known when it comes back as a report (behaviour 4)."""
    return ((_ROOT, root_id), (_DEPTH, str(depth)))


def read_trace(user_properties: Iterable[tuple[str, str]]) -> tuple[int, str | None]:
    """Return the depth and the root of what `trace_properties` wrote; 0 and None for a message without them."""
    properties = dict(user_properties)
    depth = properties.get(_DEPTH, "")
    if not (depth.isascii() and depth.isdigit() and len(depth) < 4):
        return 0, None
    return int(depth), properties.get(_ROOT, "")[:64] or None


def iso(at: datetime) -> str:
    """Return `2026-11-22T08:00:00.123Z`."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    return at.isoformat(timespec="milliseconds")[:-6] + "Z"


def milliseconds(at: datetime) -> int:
    """Return a time as milliseconds since 1970."""
    return round(at.timestamp() * 1000)


def from_milliseconds(since_1970: int) -> datetime:
    """Return the time, in UTC, of milliseconds since 1970.

    Raises:
        ValueError: it is not within the years 1 to 9999.
    """
    try:
        return _EPOCH + timedelta(milliseconds=since_1970)
    except OverflowError:
        raise ValueError("must be milliseconds since 1970") from None


def parse_time(value: int | str, now: datetime) -> datetime:
    """Return a time given as ISO 8601, as milliseconds, or as `-24h` before now.

    Raises:
        ValueError: in words.
    """
    try:
        if isinstance(value, int):
            return from_milliseconds(value)
        if value.startswith("-"):
            return now - parse_duration(value[1:])
        if value.isascii() and value.isdigit():
            return from_milliseconds(int(value))
        at = datetime.fromisoformat(value)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be ISO 8601, milliseconds, or a time ago such as -24h") from None
