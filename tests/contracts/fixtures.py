"""The transports under test with their brokers: a bench for each pair, and the abilities of each."""

from __future__ import annotations

import asyncio
import gc
import json
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from mqttjobs.transport.backends import memory
from mqttjobs.transport.base import ConnectOptions, Message, Publication, Session, Subscription, create_transport
from mqttjobs.transport.embedded import EmbeddedBroker
from tests.brokers import MosquittoBroker, free_port

WAIT_S = 20.0
FORBIDDEN = "forbidden/#"
"""The topics to which a bench with an ACL allows neither publications nor subscriptions."""
PLUGINS = tuple(
    folder / "mosquitto_dynamic_security.so"
    for folder in (Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib/aarch64-linux-gnu"), Path("/usr/lib"))
)


def within(seconds: float = WAIT_S) -> asyncio.Timeout:
    """Return the time limit of everything that should happen soon."""
    return asyncio.timeout(seconds)


@dataclass(frozen=True)
class Abilities:
    """What a broker and its protocol can do.

    Attributes:
        exact: follows the standard in small things: QoS 0 stays QoS 0, retained messages come only at SUBSCRIBE, and a
            client id has one connection.
        tells_takeover: sends DISCONNECT 0x8E when a client id is taken over, as Mosquitto 2.0.11 does not.
        flows: can have many unacknowledged messages.
    """

    five: bool
    exact: bool = True
    tells_takeover: bool = False
    redelivers: bool = True
    refuses: bool = True
    freezes: bool = True
    flows: bool = True
    passwords: bool = True


class Bench(Protocol):
    """A broker, and the options to connect to it with the transport under test."""

    can: Abilities

    async def open(self) -> None: ...
    def options(self, **changes: Any) -> ConnectOptions: ...
    def kill(self) -> Any: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def ask_for_passwords(self) -> None: ...
    def unread(self, session: Any) -> int: ...
    async def close(self) -> None: ...


class MemoryBench:
    can = Abilities(five=True, tells_takeover=True)

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex
        self._broker = memory.broker(self._name)
        self._broker.refuse(FORBIDDEN)

    async def open(self) -> None:
        """There is nothing to start."""

    def options(self, **changes: Any) -> ConnectOptions:
        return ConnectOptions(**{"url": f"memory://{self._name}", "client_id": "subject", **changes})

    async def kill(self) -> None:
        self._broker.down()

    def freeze(self) -> None:
        self._broker.freeze()

    def thaw(self) -> None:
        self._broker.thaw()

    def ask_for_passwords(self) -> None:
        self._broker.passwords = {"alice": "right"}

    def unread(self, session: Any) -> int:
        return len(session._unread)

    async def close(self) -> None:
        self._broker.down()


class MosquittoBench:
    """Mosquitto; only its dynamic security plugin can refuse a subscription."""

    def __init__(self, start: Callable[..., MosquittoBroker], directory: Path, protocol: str) -> None:
        self._start = start
        self._protocol = protocol
        plugin = next((each for each in PLUGINS if each.exists()), None)
        self.can = Abilities(five=protocol == "5", refuses=plugin is not None)
        lines = ["max_inflight_messages 0"]
        if plugin is not None:
            rules = directory / "rules.json"
            rules.write_text(json.dumps(_RULES))
            lines += [f"plugin {plugin}", f"plugin_opt_config_file {rules}"]
        self._broker = start(*lines, autosave=False)
        self._frozen = False

    async def open(self) -> None:
        """It runs already."""

    def options(self, **changes: Any) -> ConnectOptions:
        made = {"url": self._broker.url, "client_id": "subject", "protocol": self._protocol, **changes}
        return ConnectOptions(**made)

    async def kill(self) -> None:
        await asyncio.to_thread(self._broker.kill)

    def freeze(self) -> None:
        self._broker.freeze()

    def thaw(self) -> None:
        self._broker.thaw()

    def ask_for_passwords(self) -> None:
        self._broker = self._start(anonymous=False, autosave=False)

    def unread(self, session: Any) -> int:
        return len(session._inbox.unread)

    async def close(self) -> None:
        await self.kill()


_RULES = {
    "defaultACLAccess": {
        "publishClientSend": True,
        "publishClientReceive": True,
        "subscribe": True,
        "unsubscribe": True,
    },
    "anonymousGroup": "anyone",
    "groups": [{"groupname": "anyone", "roles": [{"rolename": "most"}]}],
    "roles": [
        {
            "rolename": "most",
            "acls": [
                {"acltype": "publishClientSend", "topic": FORBIDDEN, "allow": False},
                {"acltype": "subscribePattern", "topic": FORBIDDEN, "allow": False},
            ],
        }
    ],
    "clients": [],
}


class EmbeddedBench:
    can = Abilities(
        five=False, exact=False, redelivers=False, refuses=False, freezes=False, flows=False, passwords=False
    )

    def __init__(self) -> None:
        self._broker: EmbeddedBroker | None = None

    async def open(self) -> None:
        broker = EmbeddedBroker(port=free_port())
        await broker.__aenter__()
        self._broker = broker
        self._url = broker.url

    def options(self, **changes: Any) -> ConnectOptions:
        return ConnectOptions(**{"url": self._url, "client_id": "subject", "protocol": "3.1.1", **changes})

    async def kill(self) -> None:
        broker, self._broker = self._broker, None
        if broker is not None:
            await broker.__aexit__(None, None, None)

    def freeze(self) -> None:
        raise NotImplementedError

    thaw = ask_for_passwords = freeze

    def unread(self, session: Any) -> int:
        return len(session._inbox.unread)

    async def close(self) -> None:
        """Stop the broker, and collect the sockets that amqtt leaves open, so that no later test is blamed for them."""
        await self.kill()
        await asyncio.sleep(0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def connect(options: ConnectOptions) -> AbstractAsyncContextManager[Session]:
    """Return a connection with its own transport."""
    return create_transport(options).connect()


class Cut(Exception):
    """Ends the body of a connection, and so cuts the connection."""


@asynccontextmanager
async def cut_connection(options: ConnectOptions) -> AsyncIterator[Session]:
    """Connect, and cut the connection at the end without DISCONNECT."""
    with suppress(Cut):
        async with connect(options) as session:
            yield session
            raise Cut


async def collect(session: Session, count: int, *, acknowledge: bool = True) -> list[Message]:
    """Receive exactly `count` messages."""
    messages: list[Message] = []
    async with within():
        while len(messages) < count:
            new = await session.receive(min(500, count - len(messages)))
            messages += new
            if acknowledge:
                session.acknowledge(new)
    return messages


async def send(options: ConnectOptions, *publications: Publication) -> list[int]:
    """Publish as another client, and return the reason codes."""
    other = {"client_id": f"other-{uuid.uuid4().hex[:8]}", "clean": True, "will": None}
    fields = {name: getattr(options, name) for name in options.__slots__} | other
    async with connect(ConnectOptions(**fields)) as session, within():
        return [await future for future in [session.publish(each) for each in publications]]


async def subscribe(session: Session, *filters: str | Subscription) -> Sequence[int]:
    """Subscribe and return the reason codes."""
    async with within():
        return await session.subscribe(
            [each if isinstance(each, Subscription) else Subscription(each) for each in filters]
        )


class FakeServer:
    """A TCP server that answers CONNECT with any bytes, and closes at DISCONNECT, as brokers do.

    `answer` is called with the protocol level (5, or 4 for 3.1.1) and returns the bytes to send; None closes at once,
    and b"" keeps the connection open.

    Attributes:
        levels: the protocol level of each connection.
        connects: the CONNECT packets without their fixed headers.
        afterwards: bytes to send after the answer.
        received: the bytes received after CONNECT.
    """

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self.levels: list[int] = []
        self.connects: list[bytes] = []
        self.afterwards = b""
        self.received = bytearray()
        self.changed = asyncio.Condition()
        self._answer = answer
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(not task.done() for task in self._serving)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task: asyncio.Task[None] | None = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await reader.readexactly(1)
            size = shift = 0
            more = True
            while more:
                byte = (await reader.readexactly(1))[0]
                size |= (byte & 127) << shift
                shift += 7
                more = byte > 127
            body = await reader.readexactly(size)
            level = body[6]
            self.levels.append(level)
            self.connects.append(body)
            answer = self._answer(level)
            if answer is None:
                return
            writer.write(answer + (self.afterwards if answer else b""))
            await writer.drain()
            while data := await reader.read(65_536):
                async with self.changed:
                    self.received += data
                    self.changed.notify_all()
                if self.received.endswith(DISCONNECT):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def send(self, data: bytes) -> None:
        """Send to every connected client."""
        for writer in self._writers:
            writer.write(data)

    async def wait_for(self, wanted: bytes) -> None:
        """Wait until these bytes have been received."""
        async with within(), self.changed:
            await self.changed.wait_for(lambda: wanted in self.received)


DISCONNECT = bytes([0xE0, 0])
CONNACK_5 = bytes([0x20, 3, 0, 0, 0])
CONNACK_311 = bytes([0x20, 2, 0, 0])
