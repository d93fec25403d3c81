"""What an executor is run with in tests: a test says only what it cares about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from mqttjobs.executors.base import Limits, RunContext
from mqttjobs.transport.base import Publication

WAIT_S = 20.0
SECRET = "s3cr3t-tøken"  # noqa: S105 - a made-up one
JOB_ID = "0190a1b2-0000-7000-8000-000000000001"
VARIABLES: Mapping[str, Any] = {
    "id": "lamp",
    "name": "Lamp",
    "state": "on",
    "properties": {"room": "Küche", "level": 3, "topic": "home/lamp", "key": "${ENV:TOKEN}"},
    "args": {"text": "a b", "path": "x/y", "wild": "#"},
    "payload": {"n": [1, {"m": 2}]},
}


def reveal(name: str) -> str:
    return {"ENV:TOKEN": SECRET}.get(name, "${" + name + "}")


async def nobody(publication: Publication) -> int:
    raise AssertionError(f"a program publishes nothing: {publication}")


def a_context(**changes: Any) -> RunContext:
    fields: dict[str, Any] = {
        "job_id": JOB_ID,
        "hostname": "hub",
        "variables": VARIABLES,
        "secret_templates": {},
        "reveal": reveal,
        "params": {"n": 1},
        "events": ("press",),
        "preferences": {"color": "red"},
        "timeout": timedelta(seconds=WAIT_S),
        "grace": timedelta(seconds=5),
        "publish": nobody,
        "progress": lambda _: None,
        "limits": Limits(),
        **changes,
    }
    return RunContext(**fields)
