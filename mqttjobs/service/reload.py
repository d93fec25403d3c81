"""A new configuration while running: what did not change keeps its holds, queues and running jobs (behaviour 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from mqttjobs.domain.model import EntityKind, Json
from mqttjobs.errors import ConfigError, StoreError
from mqttjobs.service.connection import Connection
from mqttjobs.service.draft import Draft
from mqttjobs.service.settings import LoadSettings, Settings
from mqttjobs.service.starting.timekeeper import Timekeeper
from mqttjobs.service.workshop import Workshop

log = structlog.get_logger(__name__)


class Reload:
    """Reads the configuration anew and puts it in place of the old one, whole or not at all."""

    def __init__(self, workshop: Workshop, connection: Connection, timekeeper: Timekeeper, load: LoadSettings) -> None:
        self._workshop = workshop
        self._connection = connection
        self._timekeeper = timekeeper
        self._load = load

    async def __call__(self, by: str) -> dict[str, Json]:
        """Reload on behalf of `by`; return what was added, removed and changed.

        Raises:
            ConfigError: the file is bad; nothing was changed.
            StoreError: the store is unavailable; nothing was changed.
        """
        workshop = self._workshop
        try:
            new = await asyncio.to_thread(self._load)
        except ConfigError as error:
            log.error("reload-refused", problems=[str(each) for each in error.problems])
            raise
        async with workshop.turn:
            await workshop.refresh()
            old = workshop.settings
            told = _differences(old, workshop.peopled(new))
            workshop.install(_keeping(old, new))
            draft = await workshop.adopt(workshop.clock.now(), by)
            await self._connection.resubscribe(draft)
            try:
                await workshop.commit(draft)
            except StoreError:
                workshop.install(old)
                workshop.mirror.stale = True
                await self._connection.resubscribe(Draft())
                raise
        self._timekeeper.nudge()
        workshop.runner.wake()
        workshop.agents.wake()
        log.info("reloaded", **told)
        return told


def _keeping(old: Settings, new: Settings) -> Settings:
    """Return the new settings with what only a restart can change left as it was."""
    return replace(new, connect=old.connect, base_topic=old.base_topic, store_url=old.store_url)


def _differences(old: Settings, new: Settings) -> dict[str, Json]:
    before, after = _named(old), _named(new)
    told: dict[str, Json] = {"added": {}, "removed": {}, "changed": {}, "restart_needed": []}
    for noun in before:
        was, now = before[noun], after[noun]
        told["added"][noun] = sorted(now.keys() - was.keys())
        told["removed"][noun] = sorted(was.keys() - now.keys())
        told["changed"][noun] = sorted(name for name in was.keys() & now.keys() if was[name] != now[name])
    for name in ("connect", "base_topic", "store_url"):
        if getattr(old, name) != getattr(new, name):
            told["restart_needed"].append({"connect": "mqtt", "base_topic": "mqtt.base_topic"}.get(name, "store.url"))
    return told


def _named(settings: Settings) -> dict[str, Mapping[str, Any]]:
    entities = settings.installation.entities
    return {
        "objects": {key.id: each for key, each in entities.items() if key.kind is EntityKind.OBJECT},
        "links": {key.id: each for key, each in entities.items() if key.kind is EntityKind.LINK},
        "operations": {name: each.fingerprint for name, each in settings.installation.operations.items()},
        "users": settings.installation.users,
    }
