"""What the service tells about itself: info and health."""

from __future__ import annotations

from collections import Counter

import mqttjobs
from mqttjobs.domain.model import EntityKind, Json
from mqttjobs.domain.protocol import iso
from mqttjobs.errors import StoreError
from mqttjobs.service.requests.asking import methods
from mqttjobs.service.workshop import Workshop


def info_document(workshop: Workshop) -> dict[str, Json]:
    """Return what is published, retained, on <base>/info."""
    settings = workshop.settings
    kinds = Counter(key.kind for key in settings.installation.entities)
    return {
        "name": "mqttjobs",
        "version": mqttjobs.__version__,
        "started_at": iso(workshop.started_at),
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
        "agents": len(workshop.roster.agents),
    }


async def health_document(workshop: Workshop) -> dict[str, Json]:
    """Return `service/health`: degraded as long as there is a reason, each told in words."""
    reasons = [*workshop.notices.values(), *workshop.breakers.reasons()]
    try:
        store: dict[str, Json] = {"status": "ok", **await workshop.store.health()}
    except StoreError as error:
        store = {"status": "unavailable", "details": str(error)}
        reasons.append(f"store: {error}")
    if workshop.runner.clerk.failing and store["status"] == "ok":
        reasons.append("store: outcomes of jobs cannot be written at the moment")
    return {
        "status": "degraded" if reasons else "ok",
        "reasons": reasons,
        "counters": workshop.counters.document(),
        "store": store,
        "broker": {
            "connected": workshop.publisher.connected,
            "protocol": workshop.protocol,
            "outgoing_waiting": workshop.publisher.backlog,
        },
        "queue": {"running": workshop.runner.running, "rejected": workshop.rejections.total},
        "agents": workshop.roster.document(workshop.clock.now()),
    }
