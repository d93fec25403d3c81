"""Keeps looking after the jobs of agents: decides, records, sends, and sleeps until something is due."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from mqttjobs.errors import NotFound, StoreError
from mqttjobs.service.agents.assigning import STORE_RETRY_S
from mqttjobs.service.draft import Draft
from mqttjobs.service.workshop import Workshop

log = structlog.get_logger(__name__)


class Dispatcher:
    """The loop around Agents.

    Args:
        workshop: the shared parts.
        settled: whether what came while we were away has been taken in; silence means nothing before.
    """

    def __init__(self, workshop: Workshop, settled: Callable[[], bool]) -> None:
        self._workshop = workshop
        self._settled = settled

    async def run(self) -> None:
        """Look again and again until cancelled."""
        agents = self._workshop.agents
        while True:
            try:
                pause_s = await self._look()
            except (StoreError, NotFound) as error:
                log.error("agents-not-looked-after", details=str(error))
                pause_s = STORE_RETRY_S
            await agents.wait(pause_s)

    async def _look(self) -> float | None:
        workshop = self._workshop
        if not workshop.agents.enabled or not workshop.publisher.connected:
            return None
        async with workshop.turn:
            await workshop.refresh()
            draft = Draft()
            settled = self._settled() or workshop.roster.is_settled(workshop.clock.now())
            outgoing, pause_s = await workshop.agents.look(draft, settled=settled)
            if draft:
                await workshop.commit(draft)
            for publication in outgoing:
                workshop.publisher.publish(publication)
        return pause_s
