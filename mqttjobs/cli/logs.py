"""Logs on standard error: readable for people or JSON lines for machines, and without secrets either way."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from mqttjobs.cli.terminal import plain

MASK = "***"
_SECRET_KEY = re.compile(r"password|passwd|secret|token|api_?key|signature|authorization|credential", re.IGNORECASE)
_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s]+@", re.IGNORECASE)
_NOISY = ("amqtt", "transitions", "aiomqtt", "aiosqlite", "paho", "mqtt")
_DEEPEST = 6


def mask(value: Any, depth: int = 0) -> Any:
    """Return a value with what stands under a secret's name, and users and passwords in URLs, replaced."""
    if isinstance(value, str):
        return _USERINFO.sub(rf"\1{MASK}@", value) if "://" in value else value
    if depth > _DEEPEST:
        return value
    if isinstance(value, Mapping):
        return {
            key: MASK if item and _SECRET_KEY.search(str(key)) else mask(item, depth + 1) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask(item, depth + 1) for item in value]
    return value


def mask_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask a log event."""
    for key, item in event.items():
        event[key] = MASK if item and _SECRET_KEY.search(key) else mask(item)
    return event


def tame(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write out control characters, so that a topic or payload in a log cannot steer the terminal."""
    for key, item in event.items():
        if isinstance(item, str):
            lines = item.split("\n") if key == "exception" else [item]
            event[key] = "\n".join(map(plain, lines))
    return event


class _StandardError:
    """Standard error as it is at each write: a live view puts itself in its place."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(*, as_json: bool, level: str) -> None:
    """Send every log of this process, structlog's and the standard library's, to standard error."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending: list[Any]
    if as_json:
        json_lines = structlog.processors.JSONRenderer(sort_keys=False)
        ending = [structlog.processors.format_exc_info, mask_secrets, json_lines]
    else:
        # Plain tracebacks: rich ones show local variables, and those hold secrets.
        traceback = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=traceback, pad_event_to=24
        )
        ending = [structlog.processors.format_exc_info, mask_secrets, tame, renderer]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(_StandardError())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
