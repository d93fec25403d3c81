"""A new configuration while running: what did not change keeps its holds, queues and running jobs (behaviour 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from mqttjobs.domain.model import EntityKind, Json
from mqttjobs.errors import ConfigError, StoreError
from mqttjobs.service.api.status import ServiceStatus
from mqttjobs.service.engine import Engine
from mqttjobs.service.parts import Configuration
from mqttjobs.service.settings import LoadSettings, Settings
from mqttjobs.service.subscriptions import Subscriptions

log = structlog.get_logger(__name__)

LIVE_MQTT_KEYS = ("reply_topics", "trust_user_lanes")
"""The keys of `mqtt` that a reload changes; the others need a restart."""


@dataclass(eq=False, slots=True)
class Reload:
    """Reads the configuration anew and puts it in place of the old one, whole or not at all."""

    engine: Engine
    configure: Callable[[Settings], Configuration]
    subscriptions: Subscriptions
    status: ServiceStatus
    load: LoadSettings
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def __call__(self, by: str) -> dict[str, Json]:
        """Reload on behalf of `by`; return what was added, removed and changed.

        Raises:
            ConfigError: the file is bad; nothing was changed.
            StoreError: the store is unavailable; nothing was changed.
        """
        async with self._lock:
            try:
                new = await asyncio.to_thread(self.load)
            except ConfigError as error:
                log.error("reload-refused", problems=[str(each) for each in error.problems])
                raise
            old = self.engine.configuration.settings
            try:
                async with self.engine.transaction() as tx:
                    configuration = self.configure(_keeping(old, new))
                    self.engine.adopt(tx, configuration, by)
                    await self.subscriptions.follow(configuration.settings)
                    tx.metadata |= self.subscriptions.unrecorded()
            except StoreError:
                await self.subscriptions.follow(old)
                raise
            self.engine.use(configuration)
        self.status.announce()
        differences = _differences(old, replace(new, installation=configuration.settings.installation))
        log.info("reloaded", **differences)
        return differences


def _keeping(old: Settings, new: Settings) -> Settings:
    """Return the new settings with what only a restart can change left as it was."""
    live = {name: getattr(new.mqtt, name) for name in LIVE_MQTT_KEYS}
    mqtt = old.mqtt.model_copy(update=live)
    store = new.store.model_copy(update={"url": old.store.url})
    return replace(new, mqtt=mqtt, store=store)


def _differences(old: Settings, new: Settings) -> dict[str, Json]:
    before, after = _named(old), _named(new)
    differences: dict[str, Json] = {"added": {}, "removed": {}, "changed": {}, "restart_needed": []}
    for noun in before:
        was, now = before[noun], after[noun]
        differences["added"][noun] = sorted(now.keys() - was.keys())
        differences["removed"][noun] = sorted(was.keys() - now.keys())
        differences["changed"][noun] = sorted(name for name in was.keys() & now.keys() if was[name] != now[name])
    needed = {
        "mqtt": old.connect != new.connect,
        "mqtt.base_topic": old.base_topic != new.base_topic,
        "store.url": old.store.url != new.store.url,
    }
    differences["restart_needed"] = [name for name, is_needed in needed.items() if is_needed]
    return differences


def _named(settings: Settings) -> dict[str, Mapping[str, Any]]:
    entities = settings.installation.entities
    return {
        "objects": {key.id: each for key, each in entities.items() if key.kind is EntityKind.OBJECT},
        "links": {key.id: each for key, each in entities.items() if key.kind is EntityKind.LINK},
        "operations": {name: each.fingerprint for name, each in settings.installation.operations.items()},
        "users": settings.installation.users,
    }
