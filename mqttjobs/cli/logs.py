"""Logs on standard error, for people or as JSON lines for machines, without secrets."""

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
_SILENCED = ("amqtt", "transitions", "aiomqtt", "aiosqlite", "paho", "mqtt")
_MAX_DEPTH = 6


def mask(value: Any, depth: int = 0) -> Any:
    """Return a value with secrets masked: values under the name of a secret, and users and passwords in URLs."""
    if isinstance(value, str):
        return _USERINFO.sub(rf"\1{MASK}@", value) if "://" in value else value
    if depth > _MAX_DEPTH:
        return value
    if isinstance(value, Mapping):
        return {
            key: MASK if item and _SECRET_KEY.search(str(key)) else mask(item, depth + 1) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask(item, depth + 1) for item in value]
    return value


def mask_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask the secrets of a log event; a structlog processor."""
    for key, item in event.items():
        event[key] = MASK if item and _SECRET_KEY.search(key) else mask(item)
    return event


def escape_control_characters(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters, so that a topic in the log cannot steer the terminal; a structlog processor."""
    for key, item in event.items():
        if isinstance(item, str):
            lines = item.split("\n") if key == "exception" else [item]
            event[key] = "\n".join(map(plain, lines))
    return event


class _StandardError:
    """Writes to the sys.stderr of the moment, which a live view replaces."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(*, as_json: bool, level: str) -> None:
    """Send all logs of this process, structlog's and the standard library's, from `level` up to standard error."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[Any]
    if as_json:
        json_lines = structlog.processors.JSONRenderer(sort_keys=False)
        rendering = [structlog.processors.format_exc_info, mask_secrets, json_lines]
    else:
        # Plain tracebacks: rich ones show local variables, and those hold secrets.
        traceback = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=traceback, pad_event_to=24
        )
        rendering = [structlog.processors.format_exc_info, mask_secrets, escape_control_characters, renderer]
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
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in _SILENCED:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
