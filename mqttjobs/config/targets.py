"""Targets: operations that need agents, where there are none (contract 6)."""

from __future__ import annotations

from mqttjobs.config.yaml12 import Document
from mqttjobs.domain.installation import Installation
from mqttjobs.domain.status import LOCAL


def check_targets(document: Document, installation: Installation, *, has_key: bool) -> None:
    """Note every operation that needs an agent where there are none, or asks of one what only the service can do."""
    for operation in installation.operations.values():
        if operation.target == LOCAL:
            continue
        if operation.confirm is not None:
            message = f"only works where the service itself publishes, and target is {operation.target}"
            document.wrong(("operations", operation.id, "confirm"), message)
        if not has_key:
            message = "needs agents.key: without it only _local exists"
            document.wrong(("operations", operation.id, "target"), message)
