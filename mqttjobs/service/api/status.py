"""What the service reports about itself: info, health, and whether it is online."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

import mqttjobs
from mqttjobs.clock import Clock
from mqttjobs.domain.model import EntityKind, Json
from mqttjobs.domain.protocol import encode, iso
from mqttjobs.domain.service_topics import OFFLINE, ONLINE, status_topic
from mqttjobs.errors import StoreError
from mqttjobs.service.api.request import methods
from mqttjobs.service.engine import Engine
from mqttjobs.service.guards.breakers import Breakers
from mqttjobs.service.state.agents import AgentRegistry
from mqttjobs.service.state.counters import Counters
from mqttjobs.store.base import Store
from mqttjobs.transport.base import Publication
from mqttjobs.transport.publisher import Publisher
from mqttjobs.transport.rejections import Rejections


def offline(base_topic: str) -> Publication:
    """Return the last will, which is published before a clean stop too: `offline`, retained, on <base>/status."""
    return Publication(status_topic(base_topic), OFFLINE.encode(), qos=1, retain=True)


@dataclass(eq=False, slots=True)
class ServiceStatus:
    """Info and health.

    Attributes:
        notices: what makes health degraded, by name; empty when all is well.
        protocol: of the last session.
    """

    engine: Engine
    store: Store
    agent_registry: AgentRegistry
    breakers: Breakers
    counters: Counters
    publisher: Publisher
    rejections: Rejections
    clock: Clock
    started_at: datetime
    notices: dict[str, str] = field(default_factory=dict)
    protocol: str | None = None

    @property
    def uptime_s(self) -> float:
        """How long the service has been running, in seconds."""
        return (self.clock.now() - self.started_at).total_seconds()

    def info(self) -> dict[str, Json]:
        """Return what is published, retained, on <base>/info."""
        settings = self.engine.configuration.settings
        kinds = Counter(key.kind for key in settings.installation.entities)
        return {
            "name": "mqttjobs",
            "version": mqttjobs.__version__,
            "started_at": iso(self.started_at),
            "limits": {
                "max_payload": settings.service.max_payload,
                "max_objects": settings.service.max_objects,
                "concurrency": settings.service.concurrency,
                "poll_window": settings.service.poll_window.total_seconds(),
                "timeout": settings.service.timeout.total_seconds(),
                "list_limit": 100,
            },
            "methods": list(methods()),
            "objects": kinds[EntityKind.OBJECT],
            "links": kinds[EntityKind.LINK],
            "operations": len(settings.installation.operations),
            "agents": len(self.agent_registry.agents),
        }

    async def health(self) -> dict[str, Json]:
        """Return `service/health`: degraded as long as there is a reason, each reason a sentence."""
        reasons = [*self.notices.values(), *self.breakers.reasons(), *self.engine.runner.shared.reasons()]
        try:
            store: dict[str, Json] = {"status": "ok", **await self.store.health()}
        except StoreError as error:
            store = {"status": "unavailable", "details": str(error)}
            reasons.append(f"store: {error}")
        if self.engine.runner.completer.failing and store["status"] == "ok":
            reasons.append("store: outcomes of jobs cannot be written at the moment")
        return {
            "status": "degraded" if reasons else "ok",
            "reasons": reasons,
            "counters": self.counters.document(),
            "store": store,
            "broker": {
                "connected": self.publisher.connected,
                "protocol": self.protocol,
                "outgoing_waiting": self.publisher.backlog,
            },
            "queue": {"running": self.engine.runner.running, "rejected": self.rejections.total},
            "agents": self.agent_registry.document(self.clock.now()),
        }

    def announce(self) -> None:
        """Publish info, and that the service is online; without a session the next one does."""
        if self.publisher.connected:
            base = self.engine.configuration.settings.base_topic
            info = Publication(f"{base}/info", encode(self.info()), qos=1, retain=True, content_type="application/json")
            self.publisher.publish(info)
            self.publisher.publish(Publication(status_topic(base), ONLINE.encode(), qos=1, retain=True))
