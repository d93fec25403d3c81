"""One process of the service, which can be killed at any moment; nothing that a dead one still does has an effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from handclock import CHILDREN

from mqttjobs.service.app import Service, will_of
from mqttjobs.store.memory import MemoryStore
from mqttjobs.transport.base import Session, Transport
from mqttjobs.transport.memory import MemoryTransport

if TYPE_CHECKING:
    from house import House

WRITES = frozenset({"record", "claim", "prune"})


class _Door:
    """The store as one process sees it: it takes time if the house says so, and is shut when the process is dead."""

    def __init__(self, life: Life, store: MemoryStore) -> None:
        self._life = life
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)

        async def call(*args: Any, **named: Any) -> Any:
            life = self._life
            life.moment(f"before {name}")
            if life.house.latency_s:
                await asyncio.sleep(life.house.latency_s)
                life.moment()
            found = await method(*args, **named)
            life.moment(f"after {name}")
            if life.house.latency_s and name in WRITES:
                await asyncio.sleep(life.house.latency_s)
                life.moment()
            return found

        return call


class _Line:
    """A session as one process sees it: cut when the process is dead."""

    def __init__(self, life: Life, session: Session) -> None:
        self._life = life
        self._session = session

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._session, name)
        if name not in ("publish", "acknowledge"):
            return found

        def call(*args: Any) -> Any:
            self._life.moment(f"before {name}")
            result = found(*args)
            self._life.moment(f"after {name}")
            return result

        return call


class _Wire:
    """The transport as one process sees it."""

    def __init__(self, life: Life, transport: Transport) -> None:
        self._life = life
        self._transport = transport

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        self._life.moment("before connect")
        async with self._transport.connect() as session:
            self._life.connections += 1
            yield _Line(self._life, session)  # type: ignore[misc]


class Life:
    """One process of the service, from its start to its end or death."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.dead = False
        self.connections = 0
        self.stop = asyncio.Event()
        self.reload = asyncio.Event()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._fate: str | None = None
        self._times = 0
        settings = house.settings
        options = replace(settings.connect, will=will_of(settings))
        self.service = Service(
            settings,
            _Door(self, house.store),  # type: ignore[arg-type]
            _Wire(self, MemoryTransport(house.broker, options)),
            clock=house.clock,
            new_id=house.new_id,
            load=lambda: house.settings,
            jitter=lambda: house.jitter,
        )
        context = copy_context()
        context.run(CHILDREN.set, self.tasks)
        run = self.service.run(self.stop, self.reload)
        self.main: asyncio.Task[None] = context.run(asyncio.get_running_loop().create_task, run)

    def die_at(self, moment: str, times: int) -> None:
        """Die at the given moment, when it comes for that many times from now on."""
        self._fate, self._times = moment, times

    def moment(self, name: str = "") -> None:
        """Pass a moment, or die in it; a dead process does nothing any more."""
        if not self.dead and name == self._fate:
            self._times -= 1
            if self._times <= 0:
                self.die()
        if self.dead:
            raise asyncio.CancelledError

    def die(self) -> None:
        """Be killed: from now on nothing that is still on its way arrives anywhere."""
        self.dead = True
        self.house.broker.drop(self.house.settings.connect.client_id)
