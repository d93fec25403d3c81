"""Keeps looking after the jobs of agents: decides, records, sends, and sleeps until something is due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from mqttjobs.errors import NotFound, StoreError
from mqttjobs.service.agents.scheduler import AgentScheduler
from mqttjobs.service.engine import Engine
from mqttjobs.store.base import RETRY_S
from mqttjobs.transport.publisher import Publisher

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Dispatcher:
    """The loop around AgentScheduler.

    `is_settled` says whether what came while we were away has been taken in; silence means nothing before.
    """

    engine: Engine
    agent_scheduler: AgentScheduler
    publisher: Publisher
    is_settled: Callable[[], bool]

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            try:
                pause_s = await self._run_pass()
            except (StoreError, NotFound) as error:
                log.error("agents-not-looked-after", details=str(error))
                pause_s = RETRY_S
            await self.agent_scheduler.wait(pause_s)

    async def _run_pass(self) -> float | None:
        if not self.agent_scheduler.enabled or not self.publisher.connected:
            return None
        async with self.engine.transaction() as tx:
            outgoing, pause_s = await self.agent_scheduler.run_pass(tx, settled=self.is_settled())
        for publication in outgoing:
            self.publisher.publish(publication)
        return pause_s
