"""Where an operation runs: the keys `target` and `rollout` (contract 6)."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from mqttjobs.config.sections import Duration, Section
from mqttjobs.config.yaml12 import Document
from mqttjobs.domain.agents import parse_target
from mqttjobs.domain.installation import Installation
from mqttjobs.domain.model import Rollout
from mqttjobs.domain.status import LOCAL


def _target(value: str) -> str:
    parse_target(value)
    return value


class RolloutSection(Section):
    """How a job reaches many agents: in waves."""

    batch: Annotated[int, Field(ge=1)]
    interval: Duration = timedelta(0)
    abort_failures: Annotated[int, Field(ge=1)] | None = None

    def rollout(self) -> Rollout:
        """Return the roll-out."""
        return Rollout(self.batch, self.interval, self.abort_failures)


def _of_many(value: RolloutSection | None, info: ValidationInfo) -> RolloutSection | None:
    target = info.data.get("target")
    if value is not None and target is not None and not parse_target(target).broadcast:
        raise ValueError("needs a target of many agents: _all, or label:value")
    return value


TargetText = Annotated[str, AfterValidator(_target)]
RolloutOfMany = Annotated[RolloutSection | None, AfterValidator(_of_many)]
"""For a field that follows `target`."""


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
