"""One process of the service, which can be killed at any moment; nothing that a dead one still does has an effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mqttjobs.domain.service_topics import OFFLINE
from mqttjobs.service.api.status import status_publication
from mqttjobs.service.app import Service
from mqttjobs.store.backends.memory import MemoryStore
from mqttjobs.transport.backends.memory import MemoryTransport
from mqttjobs.transport.base import Session, Transport
from tests.service.hand_clock import CHILDREN

if TYPE_CHECKING:
    from tests.service.harness import ServiceHarness

WRITES = frozenset({"record", "claim", "prune"})


class _StoreProxy:
    """The store as one process sees it: it takes time if the house says so, and is shut when the process is dead."""

    def __init__(self, process: ServiceProcess, store: MemoryStore) -> None:
        self._process = process
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)

        async def call(*args: Any, **named: Any) -> Any:
            process = self._process
            process.moment(f"before {name}")
            if process.harness.latency_s:
                await asyncio.sleep(process.harness.latency_s)
                process.moment()
            found = await method(*args, **named)
            process.moment(f"after {name}")
            if process.harness.latency_s and name in WRITES:
                await asyncio.sleep(process.harness.latency_s)
                process.moment()
            return found

        return call


class _Line:
    """A session as one process sees it: cut when the process is dead."""

    def __init__(self, process: ServiceProcess, session: Session) -> None:
        self._process = process
        self._session = session

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._session, name)
        if name not in ("publish", "acknowledge"):
            return found

        def call(*args: Any) -> Any:
            self._process.moment(f"before {name}")
            result = found(*args)
            self._process.moment(f"after {name}")
            return result

        return call


class _TransportProxy:
    """The transport as one process sees it."""

    def __init__(self, process: ServiceProcess, transport: Transport) -> None:
        self._process = process
        self._transport = transport

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        self._process.moment("before connect")
        async with self._transport.connect() as session:
            self._process.connections += 1
            yield _Line(self._process, session)  # type: ignore[misc]


class ServiceProcess:
    """One process of the service, from its start to its end or death."""

    def __init__(self, harness: ServiceHarness) -> None:
        self.harness = harness
        self.dead = False
        self.connections = 0
        self.stop = asyncio.Event()
        self.reload = asyncio.Event()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._fate: str | None = None
        self._times = 0
        settings = harness.settings
        options = replace(settings.connect, will=status_publication(settings, OFFLINE))
        self.service = Service(
            settings,
            _StoreProxy(self, harness.store),  # type: ignore[arg-type]
            _TransportProxy(self, MemoryTransport(harness.broker, options)),
            clock=harness.clock,
            new_id=harness.new_id,
            load=lambda: harness.settings,
            jitter=lambda: harness.jitter,
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
        self.harness.broker.drop(self.harness.settings.connect.client_id)
