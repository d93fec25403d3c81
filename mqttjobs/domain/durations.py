"""Durations and sizes as people write them: `500ms`, `10s`, `5m`, `2h`, `30d`, `64KiB`."""

from __future__ import annotations

import re
from datetime import timedelta

DURATION = r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(ms|s|m|h|d)?\s*"
SIZE = r"\s*([0-9]{1,20})\s*(B|KB|KiB|MB|MiB)?\s*"
"""What a duration and a size look like as text; a part of the JSON Schema too."""
_DURATION = re.compile(rf"{DURATION}\Z")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE = re.compile(rf"{SIZE}\Z")
_UNITS_B = {"B": 1, "KB": 1000, "KiB": 1024, "MB": 1000**2, "MiB": 1024**2}
LONGEST = timedelta(days=36_500)


def parse_duration(value: float | str) -> timedelta:
    """Return a duration; a number, or a text without a unit, is seconds.

    Raises:
        ValueError: in words.
    """
    wrong = "a duration is a number of seconds, or 500ms, 10s, 5m, 2h, 30d"
    if isinstance(value, bool):
        raise ValueError(wrong)
    if isinstance(value, str):
        found = _DURATION.match(value)
        if found is None or not value.isascii():
            raise ValueError(wrong)
        seconds = float(found[1]) * _UNITS_S[found[2] or "s"]
    else:
        seconds = value
    if not seconds >= 0:  # NaN is not either
        raise ValueError(wrong)
    if seconds > LONGEST.total_seconds():
        raise ValueError("a duration is at most 100 years")
    return timedelta(milliseconds=round(seconds * 1000))


def parse_size(value: int | str) -> int:
    """Return a size in bytes; a number is bytes.

    Raises:
        ValueError: in words.
    """
    found = _SIZE.match(value) if isinstance(value, str) and value.isascii() else None
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if found is None or int(found[1]) == 0:
        raise ValueError("a size is a number of bytes, or 64KiB, 1MiB")
    return int(found[1]) * _UNITS_B[found[2] or "B"]


_DESCRIBED = (
    ("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("m", timedelta(minutes=1)), ("s", timedelta(seconds=1)),
)  # fmt: skip


def describe_duration(value: timedelta) -> str:
    """Return a duration in a few letters: `5m`, `1h30m`, `500ms`."""
    rest, message = value, ""
    for unit, length in _DESCRIBED:
        count, rest = divmod(rest, length)
        message += f"{count}{unit}" if count else ""
    milliseconds = rest // timedelta(milliseconds=1)
    return message + (f"{milliseconds}ms" if milliseconds or not message else "")
