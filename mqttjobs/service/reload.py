"""A new configuration while running: what did not change keeps its holds, queues and running jobs (behaviour 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from mqttjobs.domain.model import EntityKind, Json
from mqttjobs.errors import ConfigError, StoreError
from mqttjobs.service.engine import Engine
from mqttjobs.service.scheduler import Scheduler
from mqttjobs.service.session import Connection
from mqttjobs.service.settings import LoadSettings, Settings
from mqttjobs.service.state.transaction import Transaction

log = structlog.get_logger(__name__)


class Reload:
    """Reads the configuration anew and puts it in place of the old one, whole or not at all."""

    def __init__(self, engine: Engine, connection: Connection, scheduler: Scheduler, load: LoadSettings) -> None:
        self._engine = engine
        self._connection = connection
        self._scheduler = scheduler
        self._load = load

    async def __call__(self, by: str) -> dict[str, Json]:
        """Reload on behalf of `by`; return what was added, removed and changed.

        Raises:
            ConfigError: the file is bad; nothing was changed.
            StoreError: the store is unavailable; nothing was changed.
        """
        engine = self._engine
        try:
            new = await asyncio.to_thread(self._load)
        except ConfigError as error:
            log.error("reload-refused", problems=[str(each) for each in error.problems])
            raise
        old = engine.settings
        try:
            async with engine.transaction() as tx:
                differences = _differences(old, engine.with_members(new))
                engine.install(_keeping(old, new))
                engine.adopt(tx, engine.clock.now(), by)
                await self._connection.resubscribe(tx)
        except StoreError:
            engine.install(old)
            await self._connection.resubscribe(Transaction())
            raise
        self._scheduler.nudge()
        engine.runner.wake()
        engine.agent_scheduler.wake()
        log.info("reloaded", **differences)
        return differences


def _keeping(old: Settings, new: Settings) -> Settings:
    """Return the new settings with what only a restart can change left as it was."""
    return replace(new, connect=old.connect, base_topic=old.base_topic, store_url=old.store_url)


def _differences(old: Settings, new: Settings) -> dict[str, Json]:
    before, after = _named(old), _named(new)
    differences: dict[str, Json] = {"added": {}, "removed": {}, "changed": {}, "restart_needed": []}
    for noun in before:
        was, now = before[noun], after[noun]
        differences["added"][noun] = sorted(now.keys() - was.keys())
        differences["removed"][noun] = sorted(was.keys() - now.keys())
        differences["changed"][noun] = sorted(name for name in was.keys() & now.keys() if was[name] != now[name])
    for name in ("connect", "base_topic", "store_url"):
        if getattr(old, name) != getattr(new, name):
            differences["restart_needed"].append(
                {"connect": "mqtt", "base_topic": "mqtt.base_topic"}.get(name, "store.url")
            )
    return differences


def _named(settings: Settings) -> dict[str, Mapping[str, Any]]:
    entities = settings.installation.entities
    return {
        "objects": {key.id: each for key, each in entities.items() if key.kind is EntityKind.OBJECT},
        "links": {key.id: each for key, each in entities.items() if key.kind is EntityKind.LINK},
        "operations": {name: each.fingerprint for name, each in settings.installation.operations.items()},
        "users": settings.installation.users,
    }
