"""Durations and sizes as people write them."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mqttjobs.domain.durations import LONGEST, parse_duration, parse_size
from mqttjobs.domain.jobs import duration_text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (60, 60),
        (0.25, 0.25),
        ("500ms", 0.5),
        ("10s", 10),
        ("5m", 300),
        ("2h", 7200),
        ("30d", 2_592_000),
        ("90", 90),
        ("1.5h", 5400),
        (" 10 s ", 10),
        ("0s", 0),
    ],
)
def test_a_duration(value: float | str, seconds: float) -> None:
    assert parse_duration(value) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    [
        -1,
        True,
        "",
        "s",
        "10 minutes",
        "-5m",
        "5M",
        "1h30m",
        "1e3",
        "٣s",
        float("nan"),
        float("inf"),
        "9" * 400,
        "9" * 5000,
        10**400,
        -(10**400),
        "200y",
        1e300,
        "36501d",
    ],
)
def test_what_is_no_duration_is_refused_in_words(value: float | str) -> None:
    with pytest.raises(ValueError, match="a duration is"):
        parse_duration(value)


@given(st.text(max_size=12) | st.integers() | st.floats() | st.booleans())
@example(10**400)
def test_any_duration_is_bounded_or_refused_with_a_value_error(value: float | str) -> None:
    with suppress(ValueError):
        assert timedelta(0) <= parse_duration(value) <= LONGEST


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1, 1),
        (65536, 65536),
        ("64KiB", 65536),
        ("1MiB", 1_048_576),
        ("1 MB", 1_000_000),
        ("10KB", 10_000),
        ("10B", 10),
        ("10", 10),
    ],
)
def test_a_size(value: int | str, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize(
    "value", [0, -1, True, "", "0", "0KiB", "1.5KiB", "64kib", "64 K", "-1KiB", "٣KiB", "9" * 5000]
)
def test_what_is_no_size_is_refused_in_words(value: int | str) -> None:
    with pytest.raises(ValueError, match="a size is"):
        parse_size(value)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0ms"),
        (6, "6ms"),
        (45, "45ms"),
        (999, "999ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (59_999, "59.999s"),
        (60_000, "1m0s"),
        (61_999, "1m1s"),
        (3_600_000, "1h0m0s"),
        (90_061_000, "25h1m1s"),
    ],
)
def test_a_duration_in_documents(milliseconds: int, text: str) -> None:
    assert duration_text(timedelta(milliseconds=milliseconds)) == text
