"""The composition root: makes the parts, stays connected for ever, and takes everything down in order."""

from __future__ import annotations

import asyncio
import gc
import random
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import structlog
import uuid_utils

from mqttjobs.clock import Clock, SystemClock
from mqttjobs.errors import ConfigError, StoreError
from mqttjobs.service.api.request import RequestContext
from mqttjobs.service.api.router import RequestRouter
from mqttjobs.service.api.status import ServiceStatus, offline
from mqttjobs.service.dispatcher import Dispatcher
from mqttjobs.service.engine import Engine
from mqttjobs.service.explaining import Explainer
from mqttjobs.service.intake import Intake
from mqttjobs.service.parts import Parts
from mqttjobs.service.recovery import recover
from mqttjobs.service.reload import Reload
from mqttjobs.service.scheduler import Scheduler
from mqttjobs.service.session import Connection
from mqttjobs.service.settings import LoadSettings, Settings
from mqttjobs.service.subscriptions import Subscriptions
from mqttjobs.store.base import RETRY_S, Store, create_store
from mqttjobs.transport.base import Transport, create_transport
from mqttjobs.transport.reconnect import stay_connected

SWITCH_S = 0.0005
"""How long one thread may keep the interpreter: the store's thread asks for it at every row, and would otherwise wait
five milliseconds each time while this loop is busy (measured: a fifth more state changes per second)."""

COLLECT_AFTER = (2_000, 20, 1_000)
"""When Python looks for cycles among its objects: rarely among those that have lived long. Most of these belong to the
installation and its values and form no cycles; a look through 100,000 of them held the loop up for 450 ms, again and
again."""

log = structlog.get_logger(__name__)


class Service:
    """One run of the service over a given store and transport.

    Args:
        settings: the configuration.
        store: opened by the caller, and closed by it.
        transport: where to connect.
        clock: time.
        new_id: gives time-ordered uuids.
        new_token: gives texts that nobody can guess.
        load: reads the configuration anew, for reloads.
        jitter: draws a number from 0 to 1.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        transport: Transport,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        new_token: Callable[[], str] = secrets.token_hex,
        load: LoadSettings | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        parts = self._parts = Parts(settings, store, clock, new_id, new_token)
        engine = self._engine = Engine(settings, parts)
        cache, agents, base = parts.cache, parts.agent_registry, settings.base_topic
        publisher, rejections = parts.publisher, parts.rejections
        self._transport = transport
        self._clock = clock
        self._jitter = jitter
        self._scheduler = Scheduler(engine, store, cache, agents, parts.deadlines, parts.job_events, clock)
        self._dispatcher = Dispatcher(engine, parts.agent_scheduler, publisher, self._scheduler.is_settled)
        status = ServiceStatus(
            engine, store, agents, parts.breakers, parts.counters, publisher, rejections, clock, clock.now()
        )
        subscriptions = Subscriptions(engine.configuration.settings, cache, status.notices)
        self._reload = Reload(engine, parts.configure, subscriptions, status, load) if load else None
        new_context = partial(
            RequestContext,
            engine=engine,
            store=store,
            cache=cache,
            agent_registry=agents,
            agent_scheduler=parts.agent_scheduler,
            clock=clock,
            status=status,
            explainer=Explainer(
                engine, store, cache, agents, parts.deadlines, parts.breakers, parts.skipped_matches, clock, new_id
            ),
            reload=self._reload,
        )
        self._router = RequestRouter(engine, store, publisher, rejections, parts.counters.requests, clock, new_context)
        intake = Intake(
            engine, cache, self._scheduler, self._router, subscriptions, rejections, status.notices, base, clock
        )
        self._connection = Connection(
            subscriptions,
            intake,
            self._router,
            publisher,
            status,
            parts.job_events,
            self._scheduler,
            engine.runner,
            parts.agent_scheduler,
            base,
        )

    @property
    def connected(self) -> bool:
        """Whether there is a session with the broker."""
        return self._parts.publisher.connected

    async def run(self, stop: asyncio.Event, reload: asyncio.Event | None = None) -> None:
        """Serve until `stop` is set, then finish cleanly.

        Raises:
            ClientIdTaken: another client uses our client id.
            StoreError: the store could not be read at start.
        """
        await self._start()
        loops = [
            self._engine.runner.completer.run(),
            self._engine.runner.run(),
            self._scheduler.run(),
            self._dispatcher.run(),
        ]
        if reload is not None:
            loops.append(self._follow(reload))
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            await stay_connected(
                self._transport,
                lambda session: self._connection.serve(session, stop, tasks),
                stop,
                clock=self._clock,
                jitter=self._jitter,
            )
        finally:
            await self._finish(tasks)

    async def _start(self) -> None:
        """Take up where the last run ended: read what is stored, give back what a crash interrupted."""
        engine, parts, now = self._engine, self._parts, self._clock.now()
        settings = engine.configuration.settings
        async with engine.transaction() as tx:
            engine.adopt(tx, engine.configuration, settings.service.system_user)
            parts.deadlines.begin(tx, now)
        if not settings.installation.users:
            log.warning(
                "open-to-everyone",
                details="no users are configured: whoever can publish to the broker may read and run; see `users`",
            )
        await recover(engine, parts.store, parts.cache, now)

    async def _finish(self, tasks: list[asyncio.Task[None]]) -> None:
        completer, *others = tasks
        await self._router.close()
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._engine.runner.close()
        completer.cancel()
        await asyncio.gather(completer, return_exceptions=True)
        if not self._engine.runner.completer.failing:
            try:
                async with self._engine.transaction() as tx:
                    tx.heard |= self._parts.cache.heard
                    tx.announced += self._parts.job_events.published
            except StoreError as error:
                log.error("store-unavailable", details=str(error))

    async def _follow(self, reload: asyncio.Event) -> None:
        """Reload whenever the event is set (SIGHUP), once the store is available; a bad file changes nothing."""
        while True:
            await reload.wait()
            reload.clear()
            if self._reload is None:
                continue
            try:
                with suppress(ConfigError):
                    await self._reload(self._engine.configuration.settings.service.system_user)
            except StoreError as error:
                log.error("reload-waits", details=str(error))
                await self._clock.wait(asyncio.Event(), RETRY_S)
                reload.set()


def new_uuid() -> str:
    """Return a time-ordered uuid (RFC 9562, version 7)."""
    return str(uuid_utils.uuid7())


async def serve(settings: Settings, load: LoadSettings, *, stop: asyncio.Event, reload: asyncio.Event) -> None:
    """Run the service that `settings` describe until `stop` is set.

    Raises:
        StoreRefused: the store will not open; the text says what to do.
        ClientIdTaken: another client uses our client id.
    """
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(*COLLECT_AFTER)
    store = create_store(settings.store.url)
    await store.open()
    try:
        transport = create_transport(replace(settings.connect, will=offline(settings.base_topic)))
        service = Service(settings, store, transport, clock=SystemClock(), new_id=new_uuid, load=load)
        await service.run(stop, reload)
    finally:
        await store.close()
