"""What the service tells about itself: info and health."""

from __future__ import annotations

from collections import Counter

import mqttjobs
from mqttjobs.domain.model import EntityKind, Json
from mqttjobs.domain.protocol import iso
from mqttjobs.domain.service_topics import status_topic
from mqttjobs.errors import StoreError
from mqttjobs.service.api.request import methods
from mqttjobs.service.engine import Engine
from mqttjobs.service.settings import Settings
from mqttjobs.transport.base import Publication


def info_document(engine: Engine) -> dict[str, Json]:
    """Return what is published, retained, on <base>/info."""
    settings = engine.settings
    kinds = Counter(key.kind for key in settings.installation.entities)
    return {
        "name": "mqttjobs",
        "version": mqttjobs.__version__,
        "started_at": iso(engine.started_at),
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
        "agents": len(engine.agent_registry.agents),
    }


def status_publication(settings: Settings, status: str) -> Publication:
    """Return the retained status of the service as it is published; OFFLINE is its last will too."""
    return Publication(status_topic(settings.base_topic), status.encode(), qos=1, retain=True)


async def health_document(engine: Engine) -> dict[str, Json]:
    """Return `service/health`: degraded as long as there is a reason, each told in words."""
    reasons = [*engine.notices.values(), *engine.breakers.reasons()]
    try:
        store: dict[str, Json] = {"status": "ok", **await engine.store.health()}
    except StoreError as error:
        store = {"status": "unavailable", "details": str(error)}
        reasons.append(f"store: {error}")
    if engine.runner.completer.failing and store["status"] == "ok":
        reasons.append("store: outcomes of jobs cannot be written at the moment")
    return {
        "status": "degraded" if reasons else "ok",
        "reasons": reasons,
        "counters": engine.counters.document(),
        "store": store,
        "broker": {
            "connected": engine.publisher.connected,
            "protocol": engine.protocol,
            "outgoing_waiting": engine.publisher.backlog,
        },
        "queue": {"running": engine.runner.running, "rejected": engine.rejections.total},
        "agents": engine.agent_registry.document(engine.clock.now()),
    }
