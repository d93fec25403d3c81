"""Bytes and what they mean: strict JSON, reports, requests and times (contract 3, behaviour 5)."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mqttjobs.domain.model import Json
from mqttjobs.domain.protocol import (
    DEEPEST,
    MOST_NODES,
    NO_META,
    Report,
    ReportMeta,
    check_transaction,
    decode_json,
    decode_report,
    decode_request,
    digest,
    encode,
    iso,
    milliseconds,
    parse_time,
    read_state,
    read_trace,
    report_meta,
    trace_properties,
)
from mqttjobs.errors import InvalidJson, InvalidRequest, ReportError, RequestError, TooLarge
from tests.domain.builders import NOW, json_values

KIB64 = 64 * 1024


# -- strict JSON ------------------------------------------------------------------------------------------------------

HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "NaN": b'{"state": NaN}',
    "Infinity": b"[Infinity]",
    "minus Infinity": b"[-Infinity]",
    "1e999": b'{"state": 1e999}',
    "lone surrogate": rb'{"state": "\ud800"}',
    "lone low surrogate": rb'"\udc00"',
    "reversed pair": rb'"\udc00\ud800"',
    "surrogate in a key": rb'{"\ud800": 1}',
    "byte order mark": b'\xef\xbb\xbf{"state": "on"}',
    "UTF-16": '{"state": "on"}'.encode("utf-16"),
    "4,000 digits": b'{"state": ' + b"9" * 4000 + b"}",
    "2**64": b"[18446744073709551616]",
    "below -2**63": b"[-9223372036854775809]",
    "NUL in a text": rb'{"state": "a\u0000b"}',
    "NUL in a key": rb'{"a\u0000b": 1}',
    "raw NUL": b'{"state": "a\0b"}',
    "the same key twice": b'{"state": "on", "state": "off"}',
    "the same key twice, once escaped": rb'{"state": "on", "st\u0061te": "off"}',
    "the same key twice, deep": b'[{"a": {"b": 1, "c": 2, "b": 3}}]',
    "33 levels": b"[" * 33 + b"]" * 33,
    "33 levels of objects": b'{"a":' * 33 + b"1" + b"}" * 33,
    "5,000 levels": b"[" * 5000 + b"]" * 5000,
    "10,001 values": encode([[1] * 100 for _ in range(100)]),
    "10,001 values in an object": encode({str(number): number for number in range(10_000)}),
    "truncated": b'{"state": "on"',
    "truncated text": b'"on',
    "truncated escape": b'"\\',
    "truncated character": b'"\xc3',
    "two values": b"{} {}",
    "trailing comma": b"[1,]",
    "single quotes": b"{'state': 1}",
    "comment": b"[1] // one",
    "not UTF-8": b'"\xff\xfe"',
    "overlong": b'"\xc0\xaf"',
    "UTF-8 surrogate": b'"\xed\xa0\x80"',
    "leading zero": b"[01]",
    "hexadecimal": b"[0x10]",
    "control character": b'"a\nb"',
}
"""What is no JSON here, whatever other readers make of it."""


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_not_strict_json_is_refused_in_words_that_do_not_repeat_it(payload: bytes) -> None:
    with pytest.raises(InvalidJson) as caught:
        decode_json(payload)
    assert caught.value.details
    assert len(caught.value.details) < 100
    assert "state" not in caught.value.details


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"18446744073709551615", 2**64 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"0.99999999999999999999999999", 1.0),
        (b"[0.12345678901234567890123]", [0.12345678901234568]),
        (b"123456789012345678901234567890.5", 1.2345678901234568e29),
        (b"1e0000000000000000000000001", 10.0),
        (b"1.5e-0000000000000000000000001", 0.15),
        (b'"99999999999999999999999999"', "99999999999999999999999999"),
        (rb'"\ud83d\ude00"', "😀"),
        (rb'{"a\":": 1, "b": "\":"}', {'a":': 1, "b": '":'}),
        (b"[" * DEEPEST + b"]" * DEEPEST, None),
        (b'["' + b"[{" * 1000 + b'"]', ["[{" * 1000]),
        (encode([1] * (MOST_NODES - 1)), [1] * (MOST_NODES - 1)),
        (b" \t\r\n null \n", None),
    ],
)
def test_what_is_strict_json_is_read_exactly(payload: bytes, value: Json) -> None:
    decoded = decode_json(payload)
    if value is not None:
        assert decoded == value
        assert type(decoded) is type(value)


@given(json_values)
def test_what_we_write_we_read_as_the_same(value: Json) -> None:
    assert decode_json(encode(value)) == value
    assert decode_json(json.dumps(value, indent=1).encode()) == value


@given(st.binary(max_size=60) | st.text(alphabet='[]{}:,"\\ue10.-+ \t', max_size=60).map(str.encode))
@example(b'{"a":1,"a":1}')
def test_no_payload_does_anything_but_decode_or_be_refused(payload: bytes) -> None:
    with suppress(InvalidJson):
        _assert_strict(decode_json(payload))
    with suppress(ReportError):
        decode_report(payload, KIB64)
    with suppress(RequestError):
        decode_request(payload, KIB64)


def _assert_strict(value: Any) -> None:
    if isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        assert -(2**63) <= value < 2**64
    elif isinstance(value, str):
        assert "\0" not in value
        value.encode()
    elif isinstance(value, list):
        for item in value:
            _assert_strict(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _assert_strict(key)
            _assert_strict(item)


SLOW_TO_CARELESS_READERS: dict[str, bytes] = {
    "a fraction of 60,000 digits": b"[0." + b"1" * 60_000 + b"e5]",
    "brackets in a text": b'["' + b"[" * 65_000 + b'"]',
    "empty lists": b"[" + b",".join([b"[]"] * 21_000) + b"]",
    "the same key 10,000 times": b"{" + b",".join([b'"a":1'] * 10_000) + b"}",
    "colons in a text": b'{"' + b'\\":' * 20_000 + b'": 1}',
    "quotes": b'"' * 65_000,
    "backslashes": b'"' + b"\\" * 65_000,
    "open brackets": b"[" * 65_000,
}


@pytest.mark.parametrize("payload", SLOW_TO_CARELESS_READERS.values(), ids=SLOW_TO_CARELESS_READERS.keys())
def test_no_payload_of_the_allowed_size_holds_everything_up(payload: bytes) -> None:
    assert len(payload) <= KIB64
    began = time.thread_time()
    with suppress(InvalidJson):
        decode_json(payload)
    assert time.thread_time() - began < 0.5  # takes some milliseconds; what is quadratic takes seconds


# -- reports ----------------------------------------------------------------------------------------------------------


def text_of(payload: bytes, *path: str) -> str | None:
    report = decode_report(payload, KIB64)
    assert report is not None
    return read_state(report, path)


@pytest.mark.parametrize(
    "text", ["5.0", "123E4", "on", "true", "NaN", "1e999", " {", "0x1F", "-", "ä", "'a'", "a\nb", "]"]
)
def test_a_bare_payload_is_its_own_text(text: str) -> None:
    assert text_of(text.encode()) == text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30))
def test_any_bare_text_comes_through_unchanged(text: str) -> None:
    if text[0] not in '{["\ufeff':
        assert text_of(text.encode()) == text


@pytest.mark.parametrize(
    ("payload", "path", "text"),
    [
        (b'"5"', "", "5"),
        (b'"on"', "", "on"),
        (b'{"state": "on"}', "", "on"),
        (b'{"state": true}', "", "true"),
        (b'{"state": false}', "", "false"),
        (b'{"state": 5}', "", "5"),
        (b'{"state": "5"}', "", "5"),
        (b'{"state": 5.0}', "", "5.0"),
        (b'{"state": -0.5}', "", "-0.5"),
        (b'{"state": 18446744073709551615}', "", "18446744073709551615"),
        (b'{"state": null}', "", None),
        (b'{"state": {}}', "", None),
        (b'{"state": ["on"]}', "", None),
        (b'{"value": "on"}', "", None),
        (b"{}", "", None),
        (b'["on"]', "", None),
        (b'{"occupancy": true, "battery": 87}', "occupancy", "true"),
        (b'{"occupancy": true}', "battery", None),
        (b'{"data": [{"power": 3}, {"power": 4}]}', "data.1.power", "4"),
        (b'{"data": [{"power": 3}]}', "data.1.power", None),
        (b'{"data": [{"power": 3}]}', "data.-1.power", None),
        (b'{"data": [1, 2]}', "data.\N{SUPERSCRIPT TWO}", None),
        (b'{"data": [1, 2]}', "data." + "9" * 5000, None),
        (b'{"data": {"0": "zero"}}', "data.0", "zero"),
        (b'["a", "b"]', "1", "b"),
        (b'{"state": "on"}', "state.deeper", None),
        (b'"on"', "state", None),
        (b"on", "state", None),
        (b"5", "value", None),
    ],
)
def test_where_a_value_is_read_and_how_it_becomes_text(payload: bytes, path: str, text: str | None) -> None:
    assert text_of(payload, *path.split(".") if path else ()) == text


def test_an_empty_payload_is_no_report() -> None:
    assert decode_report(b"", KIB64) is None


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"x" * (KIB64 + 1), "too_large"),
        (b"{" + b" " * KIB64 + b"}", "too_large"),
        (b"{", "invalid_json"),
        (b'{"state": NaN}', "invalid_json"),
        (b'\xef\xbb\xbf{"state": "on"}', "invalid_json"),
        (b"\xff\xfeo\x00n\x00", "not_utf8"),
        (b"o\x00n", "nul"),
        (b"\xed\xa0\x80", "not_utf8"),
    ],
)
def test_a_report_that_cannot_be_used_says_why(payload: bytes, reason: str) -> None:
    with pytest.raises(ReportError) as caught:
        decode_report(payload, KIB64)
    assert caught.value.reason == reason


def test_the_largest_report_is_taken() -> None:
    assert decode_report(b"x" * KIB64, KIB64) == Report("x" * KIB64, is_json=False)


def test_what_a_report_says_beside_its_state() -> None:
    report = decode_report(b'{"state": "on", "by": "ada", "timestamp": 5, "event_id": "e1", "reason": "test"}', KIB64)
    assert report is not None
    at = datetime(1970, 1, 1, 0, 0, 0, 5000, tzinfo=UTC)
    assert report_meta(report) == ReportMeta("ada", at, "e1", "test")
    for plain in (b"on", b'"on"', b'{"state": "on"}', b'{"state": "on", "more": 1}', b"[1]"):
        report = decode_report(plain, KIB64)
        assert report is not None
        assert report_meta(report) is NO_META


@pytest.mark.parametrize("key", ["by", "event_id", "reason", "timestamp"])
@pytest.mark.parametrize("value", [5.5, True, [], {}, "x" * 1025])
def test_a_wrong_type_beside_a_state_is_named(key: str, value: Json) -> None:
    with pytest.raises(ReportError, match=key):
        report_meta(Report({"state": "on", key: value}, is_json=True))


FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The first and the last millisecond of the years 1 to 9999."""


@pytest.mark.parametrize("timestamp", [FIRST_MS - 1, LAST_MS + 1, 2**63 - 1, 2**64 - 1, -(2**63)])
def test_a_timestamp_that_is_no_time_is_named(timestamp: int) -> None:
    with pytest.raises(ReportError, match="timestamp must be milliseconds since 1970") as caught:
        report_meta(Report({"state": "on", "timestamp": timestamp}, is_json=True))
    assert caught.value.reason == "invalid_report"


@given(st.integers(FIRST_MS, LAST_MS))
@example(FIRST_MS)
@example(LAST_MS)
@example(-1)
def test_a_timestamp_is_kept_to_the_millisecond(timestamp: int) -> None:
    at = report_meta(Report({"state": "on", "timestamp": timestamp}, is_json=True)).reported_at
    assert at is not None
    assert milliseconds(at) == timestamp
    assert milliseconds(datetime.fromisoformat(iso(at))) == timestamp


@given(st.sampled_from(["by", "event_id", "reason", "timestamp", "state"]), json_values)
def test_nothing_beside_a_state_does_anything_but_be_taken_or_refused(key: str, value: Json) -> None:
    with suppress(ReportError):
        report_meta(Report({"state": "on", key: value}, is_json=True))


# -- requests ---------------------------------------------------------------------------------------------------------


def test_an_empty_request_is_an_empty_object() -> None:
    assert decode_request(b"", KIB64) == {}


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"[]", InvalidRequest),
        (b'"jobs"', InvalidRequest),
        (b"5", InvalidRequest),
        (b"null", InvalidRequest),
        (b"jobs", InvalidJson),
        (b"{'id': 1}", InvalidJson),
        (b"{" + b" " * KIB64 + b"}", TooLarge),
    ],
)
def test_a_request_is_a_json_object(payload: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        decode_request(payload, KIB64)


@pytest.mark.parametrize("value", [None, "", "a1", 5, -1.5, True, "x" * 256, "ä" * 128])
def test_a_transaction_is_a_scalar(value: Json) -> None:
    check_transaction(value)


@pytest.mark.parametrize("value", [[], {}, ["a"], "x" * 257, "ä" * 129])
def test_no_other_transaction_is_taken(value: Json) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_transaction(value)
    assert list(caught.value.invalid_fields) == ["transaction"]


@given(st.tuples(st.text(max_size=5), st.binary(max_size=5)), st.tuples(st.text(max_size=5), st.binary(max_size=5)))
def test_a_digest_is_the_same_for_the_same_message_alone(one: tuple[str, bytes], other: tuple[str, bytes]) -> None:
    if "\0" not in one[0] + other[0]:
        assert (digest(*one) == digest(*other)) is (one == other)


# -- times ------------------------------------------------------------------------------------------------------------


def test_times_are_utc_with_milliseconds() -> None:
    at = datetime(2026, 11, 22, 10, 0, 0, 123_999, tzinfo=timezone(timedelta(hours=2)))
    assert iso(at) == "2026-11-22T08:00:00.123Z"
    assert iso(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"
    assert milliseconds(datetime(2026, 11, 22, 8, 0, 0, 125_000, tzinfo=UTC)) == 1795334400125


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("2026-03-01T10:00:00Z", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01T10:00:00.250+02:00", datetime(2026, 3, 1, 8, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        (1795334400125, datetime(2026, 11, 22, 8, 0, 0, 125_000, tzinfo=UTC)),
        ("1795334400125", datetime(2026, 11, 22, 8, 0, 0, 125_000, tzinfo=UTC)),
        ("-24h", NOW - timedelta(days=1)),
        ("-90", NOW - timedelta(seconds=90)),
    ],
)
def test_a_time_is_iso_8601_milliseconds_or_ago(value: int | str, at: datetime) -> None:
    assert parse_time(value, NOW) == at


@given(st.text(max_size=30) | st.integers() | st.integers().map(str) | st.datetimes().map(str))
@example("0001-01-01T00:00:00+14:00")
@example("9999-12-31T23:59:59-14:00")
@example("9" * 5000)
@example(10**400)
@example("-99999d")
@example("")
def test_any_other_time_is_refused_with_a_value_error_in_words(value: int | str) -> None:
    try:
        at = parse_time(value, NOW)
    except ValueError as error:
        assert "ISO 8601" in str(error)  # noqa: PT017 - most values are no time, and some are
    else:
        assert at.utcoffset() == timedelta(0)
        iso(at)


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1)))  # noqa: DTZ001
def test_a_time_survives_the_wire(at: datetime) -> None:
    assert abs(parse_time(iso(at), NOW) - at) < timedelta(milliseconds=1)
    assert abs(parse_time(milliseconds(at), NOW) - at) <= timedelta(milliseconds=1)


# -- the way of a publish of ours (behaviour 4) -----------------------------------------------------------------------


@given(st.integers(0, 999), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64))
def test_what_a_publish_says_of_its_origin_is_read_again(depth: int, root_id: str) -> None:
    others = (("more", "1"),)
    assert read_trace(trace_properties(depth, root_id) + others) == (depth, root_id)


@pytest.mark.parametrize("depth", ["", "-1", "+1", " 1", "1.0", "1000", "٣", "1e2"])
def test_a_depth_that_is_no_small_number_is_as_good_as_none(depth: str) -> None:
    properties = [(name, depth if text == "5" else text) for name, text in trace_properties(5, "root")]
    assert read_trace(properties) == read_trace(()) == (0, None)
