"""Keeps looking after the jobs of agents: decides, records, sends, and sleeps until something is due."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from mqttjobs.clock import Clock
from mqttjobs.errors import NotFound, StoreError
from mqttjobs.service.agents.scheduler import STORE_RETRY_S, AgentScheduler
from mqttjobs.service.engine import Engine
from mqttjobs.service.state.agents import AgentRegistry
from mqttjobs.transport.publisher import Publisher

log = structlog.get_logger(__name__)


class Dispatcher:
    """The loop around AgentScheduler.

    Args:
        engine: transactions.
        agent_scheduler: decides.
        agent_registry: since when there is a connection.
        publisher: sends.
        clock: time.
        settled: whether what came while we were away has been taken in; silence means nothing before.
    """

    def __init__(
        self,
        engine: Engine,
        agent_scheduler: AgentScheduler,
        agent_registry: AgentRegistry,
        publisher: Publisher,
        clock: Clock,
        settled: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._agent_scheduler = agent_scheduler
        self._agent_registry = agent_registry
        self._publisher = publisher
        self._clock = clock
        self._settled = settled

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            try:
                pause_s = await self._run_pass()
            except (StoreError, NotFound) as error:
                log.error("agents-not-looked-after", details=str(error))
                pause_s = STORE_RETRY_S
            await self._agent_scheduler.wait(pause_s)

    async def _run_pass(self) -> float | None:
        if not self._agent_scheduler.enabled or not self._publisher.connected:
            return None
        async with self._engine.transaction() as tx:
            settled = self._settled() or self._agent_registry.is_settled(self._clock.now())
            outgoing, pause_s = await self._agent_scheduler.run_pass(tx, settled=settled)
        for publication in outgoing:
            self._publisher.publish(publication)
        return pause_s
