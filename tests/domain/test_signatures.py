"""Agent messages are signed; nothing but what the key's owner wrote passes (contract 6)."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mqttjobs.domain.agent_messages import ControlMessage, StatusMessage, open_message
from mqttjobs.domain.protocol import decode_json, encode, milliseconds
from mqttjobs.domain.signatures import canonical, check_signature, signature_of, signed
from mqttjobs.errors import ReportError
from tests.domain.builders import NOW, json_values, texts

KEY = "a shared secret of the agents"
bodies = st.dictionaries(texts.filter(lambda name: name != "signature"), json_values, max_size=6)


def refused(payload: bytes, *, key: str = KEY, hostname: str = "web1", model: Any = StatusMessage) -> str:
    with pytest.raises(ReportError) as caught:
        open_message(model, payload, key, hostname, 64 * 1024)
    return caught.value.reason


def a_status(**changes: Any) -> dict[str, Any]:
    return {"state": "ready", "labels": {"group": "web.dev"}, "timestamp": milliseconds(NOW), **changes}


@given(bodies)
def test_what_is_signed_passes_after_its_way_over_the_wire(body: dict[str, Any]) -> None:
    check_signature(decode_json(encode(signed(body, KEY))), KEY)


@given(bodies, bodies)
def test_a_signature_belongs_to_one_content_alone(body: dict[str, Any], other: dict[str, Any]) -> None:
    assume(canonical(body) != canonical(other))
    with pytest.raises(ReportError):
        check_signature({**other, "signature": signature_of(body, KEY)}, KEY)


@given(bodies, texts)
def test_another_key_signs_nothing(body: dict[str, Any], key: str) -> None:
    assume(key != KEY)
    with pytest.raises(ReportError):
        check_signature(signed(body, key), KEY)


@given(bodies)
def test_the_order_of_keys_does_not_matter(body: dict[str, Any]) -> None:
    assert canonical(dict(reversed(body.items()))) == canonical(body)


def test_a_signature_is_what_anyone_can_compute_from_the_contract() -> None:
    rest = {"state": "ready", "timestamp": 1, "labels": {"é": "a/b"}, "facts": {"load": 0.25}}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert signature_of(rest, KEY) == hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()


def test_a_good_message_is_opened_with_times_in_either_form() -> None:
    for timestamp in (milliseconds(NOW), NOW.isoformat(), "2026-03-01T12:00:00.000Z"):
        message, _ = open_message(StatusMessage, encode(signed(a_status(timestamp=timestamp), KEY)), KEY, "web1", 9999)
        assert message.timestamp == NOW
        assert message.labels == {"group": "web.dev"}


def test_keys_of_a_newer_version_are_let_through() -> None:
    message, _ = open_message(StatusMessage, encode(signed(a_status(mood="good"), KEY)), KEY, "web1", 9999)
    assert message.max_jobs == 1


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"a": NaN}', "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b"[" * 40 + b"]" * 40, "invalid_json"),
        (b"[]", "invalid_message"),
        (b'"ready"', "invalid_message"),
        (encode(a_status()), "unsigned"),
        (encode(a_status(signature=None)), "unsigned"),
        (encode(a_status(signature=7)), "unsigned"),
        (encode(a_status(signature="0" * 64)), "forged"),
        (encode(signed(a_status(), "another key altogether")), "forged"),
        (encode({**signed(a_status(), KEY), "state": "offline"}), "forged"),
        (encode(signed(a_status(hostname="web2"), KEY)), "forged"),
        (encode(signed(a_status(state="sleepy"), KEY)), "invalid_message"),
        (encode(signed(a_status(max_jobs=0), KEY)), "invalid_message"),
        (encode(signed(a_status(timestamp=True), KEY)), "invalid_message"),
        (encode(signed(a_status(timestamp="soon"), KEY)), "invalid_message"),
        (encode(signed(a_status(timestamp=10**18), KEY)), "invalid_message"),
        (encode(signed(a_status(labels={"a b": "c"}), KEY)), "invalid_message"),
        (b" " * (64 * 1024 + 1), "too_large"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(payload: bytes, reason: str) -> None:
    assert refused(payload) == reason


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    payload = encode(signed({"command": "explode-now", "expires_at": milliseconds(NOW)}, KEY))
    with pytest.raises(ReportError) as caught:
        open_message(ControlMessage, payload, KEY, "web1", 9999)
    assert "explode" not in caught.value.details
    assert "command" in caught.value.details
