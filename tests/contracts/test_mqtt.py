"""The transport to a real broker: TLS, websockets, passwords, limits, huge packets, silence, a kill."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mqttjobs.errors import ConnectionLost, ConnectionRefused, TransportError
from mqttjobs.transport.backends.mqtt import session as mqtt_session
from mqttjobs.transport.backends.mqtt.connect import make_frame
from mqttjobs.transport.base import ConnectOptions, Publication, Session, Tls, create_transport
from tests.brokers import MosquittoBroker, free_port, password_file, wait_until_listening
from tests.certificates import MISSING, OPENSSL, Certificates
from tests.contracts.fixtures import CONNACK_5, CONNACK_311, FakeServer, collect, connect, send, subscribe, within

StartMosquitto = Callable[..., MosquittoBroker]
BOTH = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if OPENSSL is None:
        if os.environ.get("MQTTJOBS_REQUIRE_MOSQUITTO") == "1":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def for_the_broker(certificates: Certificates) -> tuple[str, str]:
    return certificates.issue("broker", "IP:127.0.0.1", "DNS:localhost")


def tls_lines(files: tuple[str, str]) -> list[str]:
    return [f"certfile {files[0]}", f"keyfile {files[1]}"]


async def echoes(options: ConnectOptions, largest: int = 300_000) -> None:
    """Assert that small, large and many messages come back whole and in order."""
    sizes = [0, 1, 125, 126, largest]
    async with connect(options) as session, within():
        await subscribe(session, "t/#")
        large = [session.publish(Publication("t/a", os.urandom(1) * size, 1)) for size in sizes]
        many = [session.publish(Publication("t/a", str(n).encode(), 1)) for n in range(1000)]
        codes = await asyncio.gather(*large, *many)
        messages = await collect(session, len(codes))
    assert set(codes) == {0}
    assert [len(message.payload) for message in messages[: len(sizes)]] == sizes
    assert [message.payload for message in messages[len(sizes) :]] == [str(n).encode() for n in range(1000)]


# -- TLS -------------------------------------------------------------------------------------------------------------


@BOTH
async def test_a_broker_with_a_certificate_of_our_authority_is_reached_over_tls(
    start_mosquitto: StartMosquitto, certificates: Certificates, for_the_broker: tuple[str, str], protocol: str
) -> None:
    broker = start_mosquitto(*tls_lines(for_the_broker), autosave=False)
    url = f"mqtts://localhost:{broker.port}"
    await echoes(ConnectOptions(url, protocol=protocol, tls=Tls(ca_file=certificates.ca)))


async def test_a_broker_with_an_untrusted_certificate_gets_no_password(
    start_mosquitto: StartMosquitto, for_the_broker: tuple[str, str]
) -> None:
    broker = start_mosquitto(*tls_lines(for_the_broker), autosave=False)
    with pytest.raises(ConnectionLost, match="certificate verify failed"):
        async with within(), connect(ConnectOptions(f"mqtts://127.0.0.1:{broker.port}", password="x", username="y")):  # noqa: S106
            pytest.fail("the certificate is not trusted")


async def test_a_certificate_of_another_host_is_refused_unless_insecure(
    start_mosquitto: StartMosquitto, certificates: Certificates
) -> None:
    broker = start_mosquitto(*tls_lines(certificates.issue("elsewhere", "DNS:elsewhere.example")), autosave=False)
    options = ConnectOptions(f"mqtts://127.0.0.1:{broker.port}", tls=Tls(ca_file=certificates.ca))
    with pytest.raises(ConnectionLost, match="certificate"):
        async with within(), connect(options):
            pytest.fail("it is another host's")
    for tls in (Tls(ca_file=certificates.ca, insecure=True), Tls(insecure=True)):
        async with within(), connect(replace(options, tls=tls)) as session:
            await session.publish(Publication("t/a", b"", 1))


async def test_a_broker_that_asks_for_a_client_certificate_gets_it(
    start_mosquitto: StartMosquitto, certificates: Certificates, for_the_broker: tuple[str, str]
) -> None:
    broker = start_mosquitto(
        *tls_lines(for_the_broker), f"cafile {certificates.ca}", "require_certificate true", autosave=False
    )
    certificate, key = certificates.issue("client")
    without = ConnectOptions(f"mqtts://127.0.0.1:{broker.port}", tls=Tls(ca_file=certificates.ca))
    with pytest.raises(ConnectionLost):
        async with within(), connect(without):
            pytest.fail("it wants a certificate")
    with_one = Tls(ca_file=certificates.ca, cert_file=certificate, key_file=key)
    async with within(), connect(replace(without, tls=with_one)) as session:
        await session.publish(Publication("t/a", b"", 1))


async def test_a_broker_without_tls_is_not_taken_for_one_without_mqtt_5(mosquitto: MosquittoBroker) -> None:
    transport: Any = create_transport(ConnectOptions(f"mqtts://127.0.0.1:{mosquitto.port}"))
    for _ in range(3):
        with pytest.raises(ConnectionLost):
            async with within(), transport.connect():
                pytest.fail("it does not speak TLS")
    assert transport._worked is None


@pytest.mark.parametrize("tls", [Tls(ca_file="/nowhere/ca.crt"), Tls(cert_file="/nowhere/client.crt")])
async def test_a_missing_tls_file_is_reported(tls: Tls) -> None:
    with pytest.raises(TransportError, match=r"mqtt\.tls"):
        async with within(), connect(ConnectOptions("mqtts://127.0.0.1:1", tls=tls)):
            pytest.fail("there is no such file")


# -- websockets ------------------------------------------------------------------------------------------------------


def websockets(start_mosquitto: StartMosquitto, *lines: str) -> int:
    """Start a broker and return its port for websockets; Mosquitto also needs one for TCP."""
    port = free_port()
    start_mosquitto(
        f"listener {port} 127.0.0.1", "protocol websockets", "max_inflight_messages 0", *lines, autosave=False
    )
    wait_until_listening(port)
    return port


@BOTH
async def test_websockets_carry_what_tcp_does(start_mosquitto: StartMosquitto, protocol: str) -> None:
    port = websockets(start_mosquitto)
    await echoes(ConnectOptions(f"ws://127.0.0.1:{port}/mqtt", protocol=protocol), largest=66_000)


async def test_websockets_work_over_tls(
    start_mosquitto: StartMosquitto, certificates: Certificates, for_the_broker: tuple[str, str]
) -> None:
    port = websockets(start_mosquitto, *tls_lines(for_the_broker))
    await echoes(ConnectOptions(f"wss://localhost:{port}", tls=Tls(ca_file=certificates.ca)), largest=20_000)


async def test_the_will_is_kept_or_published_over_websockets_as_over_tcp(start_mosquitto: StartMosquitto) -> None:
    options = ConnectOptions(f"ws://127.0.0.1:{websockets(start_mosquitto)}", will=Publication("t/will", b"gone", 1))
    async with connect(replace(options, client_id="reader", will=None)) as reader:
        await subscribe(reader, "t/#")
        async with connect(options):
            pass
        await send(options, Publication("t/a", b"marker", 1))
        with pytest.raises(LookupError):
            async with connect(options):
                raise LookupError
        messages = await collect(reader, 2)
    assert [message.payload for message in messages] == [b"marker", b"gone"]


async def test_a_server_without_websockets_is_a_lost_connection(mosquitto: MosquittoBroker) -> None:
    with pytest.raises(ConnectionLost):
        async with within(), connect(ConnectOptions(f"ws://127.0.0.1:{mosquitto.port}")):
            pytest.fail("it is no websocket")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_001])
def test_a_websocket_frame_has_its_length_and_is_masked(size: int) -> None:
    data = os.urandom(size)
    frame = make_frame(2, bytearray(data))
    extra = {126: 2, 127: 8}.get(frame[1] & 0x7F, 0)
    length = int.from_bytes(frame[2 : 2 + extra]) if extra else frame[1] & 0x7F
    key, body = frame[2 + extra : 6 + extra], frame[6 + extra :]
    assert (frame[0], frame[1] & 0x80, length) == (0x82, 0x80, size)
    assert bytes(byte ^ key[place % 4] for place, byte in enumerate(body)) == data


# -- users and passwords ---------------------------------------------------------------------------------------------


@BOTH
async def test_user_and_password_come_from_the_options_or_from_the_url(
    start_mosquitto: StartMosquitto, tmp_path: Path, protocol: str
) -> None:
    word = "p@ss:wörd/1"
    users = password_file(tmp_path / "users", alice=word)
    broker = start_mosquitto(f"password_file {users}", anonymous=False, autosave=False)
    in_url = f"mqtt://alice:p%40ss%3Aw%C3%B6rd%2F1@127.0.0.1:{broker.port}"
    for options in (ConnectOptions(broker.url, username="alice", password=word), ConnectOptions(in_url)):
        async with within(), connect(replace(options, protocol=protocol)) as session:
            await session.publish(Publication("t/a", b"", 1))
    for wrong in (
        ConnectOptions(broker.url, username="alice", password="other"),  # noqa: S106
        ConnectOptions(broker.url),
        ConnectOptions(f"mqtt://bob:{broker.port}@127.0.0.1:{broker.port}"),
    ):
        with pytest.raises(ConnectionRefused) as refused:
            async with within(), connect(replace(wrong, protocol=protocol)):
                pytest.fail("nobody of that name and password")
        assert word not in str(refused.value)
        assert "bob" not in str(refused.value)


# -- CONNECT and CONNACK ---------------------------------------------------------------------------------------------


async def test_connect_asks_for_the_session_and_the_limits_of_the_options() -> None:
    async with FakeServer(lambda _: CONNACK_5) as server:
        options = ConnectOptions(
            server.url, "hub", protocol="5", session_expiry=timedelta(days=2), receive_maximum=123,
            maximum_packet_size=65_536, keepalive=timedelta(seconds=77),
        )  # fmt: skip
        async with connect(options):
            pass
        async with connect(replace(options, clean=True)):
            pass
    kept, clean = server.connects
    assert (kept[7] & 0b10, clean[7] & 0b10) == (0, 0b10), "Clean Start"
    assert int.from_bytes(kept[8:10]) == 77
    properties = kept[11 : 11 + kept[10]]
    assert b"\x11" + (2 * 86_400).to_bytes(4) in properties, "Session Expiry Interval"
    assert b"\x21" + (123).to_bytes(2) in properties, "Receive Maximum"
    assert b"\x27" + (65_536).to_bytes(4) in properties, "Maximum Packet Size"
    assert b"\x11" not in clean[11 : 11 + clean[10]][:1]
    assert kept.endswith(b"\x00\x03hub")


async def test_connect_asks_for_a_persistent_session_on_3_1_1_too() -> None:
    async with FakeServer(lambda _: CONNACK_311) as server:
        async with connect(ConnectOptions(server.url, "hub", protocol="3.1.1")):
            pass
        async with connect(ConnectOptions(server.url, "hub", protocol="3.1.1", clean=True)):
            pass
    assert [connect_packet[7] & 0b10 for connect_packet in server.connects] == [0, 0b10]


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2)


async def test_no_more_publications_are_in_flight_than_the_broker_takes() -> None:
    connack = bytes([0x20, 6, 0, 0, 3, 0x21, 0, 2])
    async with FakeServer(lambda _: connack) as server, connect(ConnectOptions(server.url, protocol="5")) as session:
        futures = [session.publish(Publication("t", f"<{n}>".encode(), 1)) for n in range(5)]
        await server.wait_for(b"<1>")
        server.send(puback(1))
        await server.wait_for(b"<2>")
        assert b"<3>" not in server.received
        async with within():
            assert await futures[0] == 0
        assert not any(future.done() for future in futures[1:])
        server.send(puback(2) + puback(3))
        await server.wait_for(b"<4>")
        server.send(puback(4) + puback(5))
        async with within():
            assert await asyncio.gather(*futures) == [0] * 5


async def test_publications_of_qos_0_wait_behind_earlier_ones_that_wait() -> None:
    connack = bytes([0x20, 6, 0, 0, 3, 0x21, 0, 1])
    async with FakeServer(lambda _: connack) as server, connect(ConnectOptions(server.url, protocol="5")) as session:
        for n in range(4):
            session.publish(Publication("t", f"<{n}>".encode(), int(n < 2)))
        await server.wait_for(b"<0>")
        server.send(puback(1))
        await server.wait_for(b"<3>")
        assert server.received.index(b"<1>") < server.received.index(b"<2>") < server.received.index(b"<3>")
        server.send(puback(2))


@BOTH
async def test_a_packet_over_our_limit_neither_ends_the_connection_nor_comes_again(
    mosquitto: MosquittoBroker, protocol: str
) -> None:
    options = ConnectOptions(mosquitto.url, "hub", protocol=protocol, maximum_packet_size=100_000)
    for _ in range(2):
        async with connect(options) as session:
            await subscribe(session, "t/#")
            await send(
                replace(options, maximum_packet_size=10_000_000),
                Publication("t/a", b"x" * 5_000_000, 1),
                Publication("t/a", b"small", 1),
            )
            messages = await collect(session, 1 if protocol == "5" else 2)
        assert messages[-1].payload == b"small"
        assert all(70_000 < len(message.payload) < 300_000 for message in messages[:-1])


async def test_a_huge_packet_does_not_grow_memory(mosquitto: MosquittoBroker) -> None:
    script = Path(__file__).with_name("big_sender.py")
    options = ConnectOptions(mosquitto.url, "hub", protocol="3.1.1")
    async with connect(options) as session:
        await subscribe(session, "t/#")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sender = await asyncio.create_subprocess_exec(sys.executable, str(script), str(mosquitto.port), "150000000")
        messages = await collect(session, 1)
        assert await sender.wait() == 0
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(messages[0].payload) < 2_000_000
    assert grown < 40_000, f"{grown} KiB"


async def test_unread_large_messages_are_bounded_by_their_bytes(mosquitto: MosquittoBroker) -> None:
    options = ConnectOptions(mosquitto.url, "hub", receive_maximum=65_535)
    large = [Publication("t/a", b"%d " % n + b"x" * 400_000, n % 2) for n in range(120)]
    async with connect(options) as session:
        inside: Any = session
        await subscribe(session, "t/#")
        for start in range(0, 120, 20):
            await send(options, *large[start : start + 20])
            assert sum(len(message.payload) for message in inside._inbox.unread) < 20_000_000
        messages = await collect(session, 120)
        await send(options, Publication("t/a", b"last", 1))
        assert [message.payload for message in await collect(session, 1)] == [b"last"]
    assert sorted(int(message.payload.split()[0]) for message in messages) == list(range(120))


# -- silence ---------------------------------------------------------------------------------------------------------


async def test_a_reset_that_comes_together_with_data_is_noticed_at_once() -> None:
    """A broker that refuses a packet closes with bytes unread; uvloop reports only the data."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)

        async def answer() -> socket.socket:
            connection, _ = await loop.sock_accept(server)
            await loop.sock_recv(connection, 1000)
            await loop.sock_sendall(connection, CONNACK_5)
            return connection

        answering = asyncio.create_task(answer())
        async with connect(ConnectOptions(f"mqtt://127.0.0.1:{server.getsockname()[1]}", protocol="5")) as session:
            connection = await answering
            await asyncio.sleep(0.05)
            connection.send(bytes([0x32, 6]) + b"\x00\x01t" + b"\x00\x07" + b"\x00")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            with pytest.raises(ConnectionLost):
                async with asyncio.timeout(10):
                    while True:
                        await session.receive()


@BOTH
async def test_a_broker_that_hangs_is_noticed_by_the_keepalive(mosquitto: MosquittoBroker, protocol: str) -> None:
    options = ConnectOptions(mosquitto.url, protocol=protocol, keepalive=timedelta(seconds=1))
    with pytest.raises(ConnectionLost):
        async with within(), connect(options) as session:
            await subscribe(session, "t/#")
            mosquitto.freeze()
            await session.receive()
    mosquitto.thaw()


async def test_a_connection_that_is_not_read_for_a_while_is_kept_alive(mosquitto: MosquittoBroker) -> None:
    """The pause is longer than the broker accepts silence, which is one and a half times the keepalive."""
    options = ConnectOptions(mosquitto.url, keepalive=timedelta(seconds=1), receive_maximum=65_535)
    crowd = [Publication("t/a", str(n).encode(), 1) for n in range(5000)]
    async with connect(options) as session:
        inside: Any = session
        await subscribe(session, "t/#")
        await send(options, *crowd)
        assert inside._inbox.paused
        async with connect(replace(options, client_id="clock", keepalive=timedelta(seconds=60))) as clock:
            for _ in range(3):
                await clock_tick(clock)
        messages = await collect(session, 5000)
    assert [message.payload for message in messages] == [publication.payload for publication in crowd]


async def clock_tick(session: Session) -> None:
    await asyncio.sleep(1)
    async with within():
        await session.publish(Publication("clock", b"", 1))


async def test_a_clean_exit_from_a_broker_that_hangs_takes_a_bounded_time(
    mosquitto: MosquittoBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mqtt_session.SETTLE_S + mqtt_session.DISCONNECT_S <= 5
    monkeypatch.setattr(mqtt_session, "SETTLE_S", 0.3)
    monkeypatch.setattr(mqtt_session, "DISCONNECT_S", 0.1)
    async with asyncio.timeout(4):
        async with connect(ConnectOptions(mosquitto.url)) as session:
            await subscribe(session, "t/#")
            mosquitto.freeze()
            future = session.publish(Publication("t/a", b"", 1))
        assert isinstance(future.exception(), ConnectionLost)
    mosquitto.thaw()


async def test_a_clean_exit_while_reading_has_paused_confirms_what_was_published(mosquitto: MosquittoBroker) -> None:
    options = ConnectOptions(mosquitto.url, receive_maximum=65_535)
    async with connect(options) as session:
        await subscribe(session, "t/#")
        await send(options, *(Publication("t/a", b"x", 1) for _ in range(5000)))
        future = session.publish(Publication("u", b"", 1))
    assert future.result() < 0x80


async def test_a_cancelled_exit_cuts_the_connection(mosquitto: MosquittoBroker) -> None:
    async def connect_and_exit() -> None:
        async with connect(ConnectOptions(mosquitto.url)) as session:
            mosquitto.freeze()
            session.publish(Publication("t/a", b"", 1))

    before = set(asyncio.all_tasks())
    task = asyncio.create_task(connect_and_exit())
    while not task.done() and not frozen(mosquitto.pid):
        await asyncio.sleep(0.01)
    task.cancel()
    async with within():
        with pytest.raises(asyncio.CancelledError):
            await task
        while set(asyncio.all_tasks()) - before:
            await asyncio.sleep(0.01)
    mosquitto.thaw()


def frozen(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


# -- a kill ----------------------------------------------------------------------------------------------------------

KILLED = """
import asyncio, sys
from mqttjobs.transport.base import ConnectOptions, Subscription, create_transport
async def main():
    async with create_transport(ConnectOptions(sys.argv[1], "hub", protocol=sys.argv[2])).connect() as session:
        await session.subscribe([Subscription("t/#")])
        print("subscribed", flush=True)
        while True:
            messages = await session.receive(10)
            for message in messages:
                print(message.payload.decode(), flush=True)
            session.acknowledge(messages)
asyncio.run(main())
"""


@BOTH
async def test_a_killed_client_loses_no_unacknowledged_message(start_mosquitto: StartMosquitto, protocol: str) -> None:
    broker = start_mosquitto(autosave=False)
    options = ConnectOptions(broker.url, "hub", protocol=protocol)
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, broker.url, protocol, stdout=asyncio.subprocess.PIPE
    )
    assert client.stdout is not None
    read: Callable[[], Awaitable[bytes]] = client.stdout.readline
    async with within():
        assert await read() == b"subscribed\n"
        sending = asyncio.create_task(send(options, *(Publication("t/a", str(n).encode(), 1) for n in range(2000))))
        done = {int(await read()) for _ in range(200)}
        client.send_signal(signal.SIGKILL)
        done |= set(map(int, (await client.stdout.read()).split()))
        await client.wait()
        await sending
    async with connect(options) as session:
        assert session.resumed
        await send(options, Publication("t/a", b"-1", 1))
        left: set[int] = set()
        while -1 not in left:
            left |= {int(message.payload) for message in await collect(session, 1)}
    assert done | left == set(range(-1, 2000))
