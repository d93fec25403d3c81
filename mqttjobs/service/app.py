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

import structlog
import uuid_utils

from mqttjobs.clock import Clock, SystemClock
from mqttjobs.domain.service_topics import OFFLINE
from mqttjobs.errors import ConfigError, StoreError
from mqttjobs.service.api.router import RequestRouter
from mqttjobs.service.api.status import status_publication
from mqttjobs.service.dispatcher import Dispatcher
from mqttjobs.service.engine import Engine
from mqttjobs.service.recovery import recover
from mqttjobs.service.reload import Reload
from mqttjobs.service.scheduler import Scheduler
from mqttjobs.service.session import Connection
from mqttjobs.service.settings import LoadSettings, Settings
from mqttjobs.service.state.transaction import Transaction
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
        self.engine = Engine(settings, store, clock, new_id, new_token)
        self._transport = transport
        self._clock = clock
        self._jitter = jitter
        self._scheduler = Scheduler(self.engine)
        self._dispatcher = Dispatcher(self.engine, lambda: self._scheduler.settled)
        self._router = RequestRouter(self.engine)
        self._connection = Connection(self.engine, self._scheduler, self._router)
        self._reload = Reload(self.engine, self._connection, self._scheduler, load) if load else None
        if self._reload is not None:
            self.engine.reloading = self._reload

    async def run(self, stop: asyncio.Event, reload: asyncio.Event | None = None) -> None:
        """Serve until `stop` is set, then finish cleanly.

        Raises:
            ClientIdTaken: another client uses our client id.
            StoreError: the store could not be read at start.
        """
        await self._start()
        loops = [
            self.engine.runner.completer.run(),
            self.engine.runner.run(),
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
        engine = self.engine
        await engine.load()
        now = self._clock.now()
        tx = await engine.adopt(now, engine.settings.service.system_user)
        engine.deadlines.begin(tx, now)
        if tx:
            await engine.commit(tx)
        if not engine.settings.installation.users:
            log.warning(
                "open-to-everyone",
                details="no users are configured: whoever can publish to the broker may read and run; see `users`",
            )
        await recover(engine, now)

    async def _finish(self, tasks: list[asyncio.Task[None]]) -> None:
        completer, *others = tasks
        await self._router.close()
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.engine.runner.close()
        completer.cancel()
        await asyncio.gather(completer, return_exceptions=True)
        heard = Transaction(
            heard=list(self.engine.cache.heard.items()), announced=self.engine.job_events.take_published()
        )
        if heard and not self.engine.runner.completer.failing:
            try:
                await self.engine.commit(heard)
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
                    await self._reload(self.engine.settings.service.system_user)
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
    store = create_store(settings.store_url)
    await store.open()
    try:
        transport = create_transport(replace(settings.connect, will=status_publication(settings, OFFLINE)))
        service = Service(settings, store, transport, clock=SystemClock(), new_id=new_uuid, load=load)
        await service.run(stop, reload)
    finally:
        await store.close()
