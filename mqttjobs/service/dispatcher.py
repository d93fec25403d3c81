"""Keeps looking after the jobs of agents: decides, records, sends, and sleeps until something is due."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from mqttjobs.errors import NotFound, StoreError
from mqttjobs.service.engine import Engine
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.store.base import RETRY_S

log = structlog.get_logger(__name__)


class Dispatcher:
    """The loop around Agents.

    Args:
        workshop: the shared parts.
        settled: whether what came while we were away has been taken in; silence means nothing before.
    """

    def __init__(self, engine: Engine, settled: Callable[[], bool]) -> None:
        self._engine = engine
        self._settled = settled

    async def run(self) -> None:
        """Look again and again until cancelled."""
        agents = self._engine.agent_scheduler
        while True:
            try:
                pause_s = await self._run_pass()
            except (StoreError, NotFound) as error:
                log.error("agents-not-looked-after", details=str(error))
                pause_s = RETRY_S
            await agents.wait(pause_s)

    async def _run_pass(self) -> float | None:
        engine = self._engine
        if not engine.agent_scheduler.enabled or not engine.publisher.connected:
            return None
        async with engine.write_lock:
            await engine.refresh()
            tx = Transaction()
            settled = self._settled() or engine.agent_registry.is_settled(engine.clock.now())
            outgoing, pause_s = await engine.agent_scheduler.run_pass(tx, settled=settled)
            if tx:
                await engine.commit(tx)
            for publication in outgoing:
                engine.publisher.publish(publication)
        return pause_s
