"""A log has no keys, no passwords, and no user names of URLs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.cli import logs
from mqttjobs.cli.logs import mask, mask_secrets

SECRET = "hunter2"  # noqa: S105 - a test's


@pytest.mark.parametrize("password", [SECRET, f"{SECRET}@home", f"@{SECRET}", f"a:{SECRET}", f"{SECRET}?x#y"])
@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss", "MQTT"])
def test_a_user_and_a_password_in_a_url_are_masked(scheme: str, password: str) -> None:
    for text in (f"{scheme}://ada:{password}@hub:1883", f"no way to {scheme}://ada:{password}@hub:1883/x, again"):
        masked = mask(text)
        assert SECRET not in masked
        assert "ada" not in masked
        assert "hub:1883" in masked


def test_a_url_without_a_user_stays() -> None:
    assert mask("mqtt://127.0.0.1:1883 and a@b") == "mqtt://127.0.0.1:1883 and a@b"


@pytest.mark.parametrize(
    "key", ["password", "api_key", "apikey", "API_KEY", "token", "client_secret", "signature", "Authorization"]
)
def test_a_value_under_the_name_of_a_secret_is_masked_at_any_depth(key: str) -> None:
    event = {"event": "x", key: SECRET, "deep": [{"er": {key: [SECRET]}}], "plain": 1}
    masked = mask_secrets(None, "", dict(event))
    assert SECRET not in json.dumps(masked)
    assert masked["plain"] == 1
    assert key in masked


@given(
    st.recursive(
        st.text(max_size=5) | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    )
)
def test_masking_takes_any_value_and_leaves_what_is_no_secret(value: Any) -> None:
    masked = mask(value)
    if "://" not in json.dumps(value) and not any(
        word in json.dumps(value).lower() for word in ("secret", "token", "key", "pass")
    ):
        assert masked == value


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Restore the logging configuration after the test."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    configuration = structlog.get_config()
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.configure(**configuration)


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("as_json", [True, False])
def test_no_format_of_the_log_has_a_secret_whether_ours_or_a_librarys(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    logs.configure(as_json=as_json, level="info")
    url = f"mqtt://ada:{SECRET}@hub"
    structlog.get_logger("x").info("starting", broker=url, password=SECRET, settings={"api_key": SECRET})
    logging.getLogger("library").warning("cannot reach %s", url)
    structlog.get_logger("x").error("failed", exc_info=ValueError(url))
    text = capsys.readouterr().err
    assert text.count("starting") == 1
    assert "cannot reach" in text
    assert "failed" in text
    assert SECRET not in text
    assert text.count("\n") == (3 if as_json else 4)
    if as_json:
        assert all(json.loads(line)["event"] for line in text.splitlines())
