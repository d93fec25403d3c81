"""What the service is subscribed to: every new session, and every configuration, is followed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from mqttjobs.domain.model import Json
from mqttjobs.domain.service_topics import report_filter
from mqttjobs.domain.topics import minimal_filters
from mqttjobs.errors import TransportError
from mqttjobs.service.agents.inbox import agent_filters
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.cache import StateCache
from mqttjobs.transport.base import REFUSED, Session, Subscription, describe_refusal

FILTERS_KEY = "filters"
"""The name under which the store keeps what the broker's session is subscribed to."""

log = structlog.get_logger(__name__)


class Subscriptions:
    """Subscribes to what a configuration wants, and unsubscribes what it wants no longer.

    Args:
        settings: what is wanted at first.
        cache: what was subscribed to in an earlier process.
        notices: a refused subscription is noted here.
    """

    def __init__(self, settings: Settings, cache: StateCache, notices: dict[str, str]) -> None:
        self._settings = settings
        self._cache = cache
        self._notices = notices
        self._lock = asyncio.Lock()
        self._session: Session | None = None
        self._filters: list[str] | None = None

    async def attach(self, session: Session) -> None:
        """Subscribe on a new session."""
        async with self._lock:
            self._session = session
            await self._subscribe(session)

    def detach(self) -> None:
        """The session is gone."""
        self._session = None

    async def follow(self, settings: Settings) -> None:
        """Subscribe as other settings want it, on this session if there is one and it lasts, else on the next."""
        async with self._lock:
            self._settings = settings
            if self._session is not None:
                with suppress(TransportError):
                    await self._subscribe(self._session, frozenset(self._filters or ()))

    def unrecorded(self) -> dict[str, Json]:
        """Return what the store does not know yet of what is subscribed to, as metadata."""
        stored = self._cache.metadata.get(FILTERS_KEY)
        return {} if self._filters in (None, stored) else {FILTERS_KEY: self._filters}

    async def _subscribe(self, session: Session, known: frozenset[str] = frozenset()) -> None:
        wanted = self._wanted()
        filters = [each.filter for each in wanted]
        before = self._cache.metadata.get(FILTERS_KEY) if self._filters is None else self._filters
        gone = sorted(set(before or ()) - set(filters))
        if gone:
            await session.unsubscribe(gone)
        fresh = [each for each in wanted if each.filter not in known]
        codes = await session.subscribe(fresh) if fresh else []
        for name in gone + filters:
            self._notices.pop(f"subscription {name}", None)
        for each, code in zip(fresh, codes, strict=True):
            if code >= REFUSED:
                message = f"the broker refused the subscription {each.filter}: {describe_refusal(code)}"
                self._notices[f"subscription {each.filter}"] = message
                log.error("subscription-refused", filter=each.filter, code=code)
        self._filters = filters

    def _wanted(self) -> list[Subscription]:
        """Return what to subscribe to: states and statuses of agents with their retained messages, the rest without."""
        settings, base = self._settings, self._settings.base_topic
        replayed = minimal_filters([*settings.installation.filters(), report_filter(base)])
        live = [f"{base}/request/+/+", f"{base}/users/+/request/+/+"]
        if settings.agents.key is not None:
            status, report = agent_filters(base)
            replayed.insert(0, status)
            live.append(report)
        return [
            *(Subscription(each) for each in replayed),
            *(Subscription(each, replay=False) for each in live),
        ]
