"""config/ as shipped: the access list separates users, and the examples and the systemd unit are valid."""

from __future__ import annotations

import configparser
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from typer.testing import CliRunner

from mqttjobs.cli.app import app
from tests.brokers import MosquittoBroker, StartMosquitto, free_port
from tests.clients import Client
from tests.running import RunningAgent, RunningService, StartService, mqttjobs

CONFIG = Path(__file__).parents[2] / "config"
USERS = ("mqttjobs", "zigbee2mqtt", "meter_1", "alice", "bob", "web1")
AGENT_KEY = "what the service and its agents know"
HALL: dict[str, Any] = {
    "mqtt": {"username": "mqttjobs", "password": "mqttjobs-password", "trust_user_lanes": True},
    "agents": {"key": AGENT_KEY},
    "users": {
        "alice": {"permissions": ["job:read", "operation:execute", "agent:read"]},
        "bob": {"permissions": ["job:read"]},
    },
    "objects": {
        "motion": {"state": {"topic": "zigbee2mqtt/motion", "value": "occupancy"}},
        "lamp": {"properties": {"command_topic": "zigbee2mqtt/lamp/set"}},
        "meter_1": {},
        "meter_2": {},
    },
    "links": {"lights": {"source": "motion", "target": "lamp"}},
    "operations": {
        "on": {
            "attach": {"link": "lights"},
            "type": "mqtt",
            "topic": "{{ target.properties.command_topic }}",
            "message": "ON",
            "trigger_states": ["true"],
        },
        "where": {"target": "web1", "type": "script", "text": 'echo "$MQTTJOBS_AGENT"'},
        "count": {"attach": [{"object": "meter_1"}, {"object": "meter_2"}], "type": "script", "text": "true",
                  "triggers": [{}]},
    },
}  # fmt: skip


class ShippedBroker(MosquittoBroker):
    """Mosquitto with config/mosquitto.conf and config/acl; only ports and folders differ."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.tls_port = free_port()

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(CONFIG / "acl", self.directory / "acl")
        (self.directory / "certs").mkdir()
        self._make_certificates()
        passwords = self.directory / "passwd"
        passwords.write_text("".join(f"{user}:{user}-password\n" for user in USERS))
        subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)
        super().start()

    def _make_certificates(self) -> None:
        certs = self.directory / "certs"
        subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        made = ["-keyout", str(certs / "server.key"), "-out", str(certs / "server.crt")]
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-x509"]
        subprocess.run(["openssl", "req", *kind, *subject, *made], check=True, capture_output=True)
        shutil.copy(certs / "server.crt", certs / "ca.crt")

    def _lines(self) -> list[str]:
        text = (CONFIG / "mosquitto.conf").read_text()
        for shipped, here in (
            ("listener 1883 ", f"listener {self.port} "),
            ("listener 8883", f"listener {self.tls_port} 127.0.0.1"),
            ("/etc/mosquitto", str(self.directory)),
            ("/var/lib/mosquitto", str(self.directory)),
        ):
            assert shipped in text, shipped
            text = text.replace(shipped, here)
        return [*text.splitlines(), "user root", "log_dest stderr"]


@pytest.fixture
def broker(tmp_path: Path, start_mosquitto: StartMosquitto) -> Iterator[ShippedBroker]:
    made = ShippedBroker(tmp_path / "shipped")
    made.start()
    yield made
    made.kill()


@pytest.fixture
def hall(broker: ShippedBroker, start_service: StartService) -> RunningService:
    return start_service(broker.port, HALL)


def log_in(service: RunningService, user: str) -> Client:
    return service.client(username=user, password=f"{user}-password")


def refuses(client: Client, topic: str, payload: str = "{}") -> bool:
    """Whether the broker refuses a publish, by the reason code of its PUBACK (MQTT 5)."""
    properties = Properties(PacketTypes.PUBLISH)
    reasons: list[int] = []
    client._client.on_publish = lambda _c, _d, _m, reason, _p: reasons.append(reason.value)  # type: ignore[method-assign]
    client.publish(topic, payload, properties=properties)
    return reasons[-1] == 0x87


@pytest.mark.mosquitto
def test_a_user_sends_requests_in_the_own_lane_only_and_without_a_key(hall: RunningService) -> None:
    with log_in(hall, "alice") as alice, log_in(hall, "bob") as bob:
        assert alice.data("jobs/list", lane="alice")["total_items"] == 0
        assert bob.ask("operations/execute", {"id": "on"}, lane="bob")["reason"] == "forbidden"
        assert refuses(bob, "mqttjobs/users/alice/request/operations/execute", '{"id": "on"}')
        assert refuses(bob, "mqttjobs/request/jobs/list")
        assert alice.data("jobs/list", lane="alice")["total_items"] == 0


@pytest.mark.mosquitto
def test_no_user_reads_the_responses_or_requests_of_another(hall: RunningService) -> None:
    with log_in(hall, "alice") as alice, log_in(hall, "bob") as bob:
        bob.subscribe("#", "mqttjobs/users/#", "mqttjobs/users/alice/response/#")
        bob.wait_topic("mqttjobs/status")
        answer = alice.data("operations/execute", {"id": "on"}, lane="alice")
        alice.until(lambda client: client.data("jobs/get", {"id": answer["id"]}, lane="alice")["status"] == "completed")
        bob.data("jobs/list", lane="bob")
        assert {each.topic for each in bob.messages if not each.topic.startswith("mqttjobs/users/bob/response/")} == {
            "mqttjobs/status"
        }


@pytest.mark.mosquitto
def test_devices_report_states_and_nothing_else(hall: RunningService) -> None:
    with log_in(hall, "zigbee2mqtt") as devices, log_in(hall, "meter_1") as meter, log_in(hall, "alice") as alice:
        devices.subscribe("zigbee2mqtt/+/set")
        devices.publish("zigbee2mqtt/motion", '{"occupancy": true}')
        assert devices.wait_topic("zigbee2mqtt/lamp/set").payload == b"ON"
        for topic in ("mqttjobs/request/jobs/list", "mqttjobs/users/zigbee2mqtt/request/jobs/list"):
            assert refuses(devices, topic)
        assert refuses(devices, "mqttjobs/state/objects/motion", "true")
        assert not refuses(meter, "mqttjobs/state/objects/meter_1", "17")
        assert refuses(meter, "mqttjobs/state/objects/meter_2", "17")
        assert refuses(meter, "zigbee2mqtt/motion", '{"occupancy": true}')
        jobs = alice.until(
            lambda client: [
                job for job in client.data("jobs/list", lane="alice")["items"] if job["operation_id"] == "count"
            ]
        )
        assert [job["owner_id"] for job in jobs] == ["meter_1"]


@pytest.mark.mosquitto
def test_an_agent_publishes_for_its_own_hostname_only(hall: RunningService) -> None:
    with log_in(hall, "web1") as agent, log_in(hall, "bob") as bob:
        assert not refuses(agent, "mqttjobs/agents/web1/report")
        assert not refuses(agent, "mqttjobs/agents/web1/status")
        for topic in (
            "mqttjobs/agents/web2/report",
            "mqttjobs/agents/web2/status",
            "mqttjobs/agents/web1/assign",
            "mqttjobs/users/web1/request/jobs/list",
        ):
            assert refuses(agent, topic), topic
        assert refuses(bob, "mqttjobs/agents/web1/assign")


@pytest.mark.mosquitto
def test_a_real_agent_works_with_the_shipped_access_list(hall: RunningService, tmp_path: Path) -> None:
    url = f"mqtt://web1:web1-password@127.0.0.1:{hall.port}"
    agent = RunningAgent(tmp_path / "agent", hall.port, "web1", AGENT_KEY, "--url", url)
    agent.start()
    try:
        with log_in(hall, "alice") as alice:
            alice.until(lambda client: client.data("agents/list", lane="alice")["items"])
            job = alice.data("operations/execute", {"id": "where", "wait": True}, lane="alice")
        assert (job["status"], job["hostname"], job["description"]["stdout"].strip()) == ("completed", "web1", "web1")
    finally:
        agent.kill()


@pytest.mark.mosquitto
def test_the_service_connects_by_tls_and_nobody_without_a_password(
    broker: ShippedBroker, start_service: StartService
) -> None:
    tls: dict[str, Any] = {
        "url": f"mqtts://127.0.0.1:{broker.tls_port}",
        "tls": {"ca_file": str(broker.directory / "certs/ca.crt")},
    }
    service = start_service(broker.port, {**HALL, "mqtt": {**HALL["mqtt"], **tls}})
    with log_in(service, "alice") as alice:
        assert alice.data("jobs/list", lane="alice")["total_items"] == 0
    with pytest.raises(AssertionError, match="Not authorized"):
        service.client()
    url = f"mqtts://alice:alice-password@127.0.0.1:{broker.tls_port}"
    ask = ("jobs", "list", "--json", "--user", "alice")
    done = mqttjobs(*ask, MQTTJOBS_URL=url, SSL_CERT_FILE=tls["tls"]["ca_file"])
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    done = mqttjobs(*ask, MQTTJOBS_URL=url)
    assert (done.returncode, "certificate" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("name", ["mqttjobs.yaml", "demo.yaml"])
def test_the_example_configurations_are_valid(name: str) -> None:
    done = mqttjobs("check", str(CONFIG / name))
    assert done.returncode == 0, done.stderr


def test_the_demo_in_config_is_the_one_in_the_package() -> None:
    assert (CONFIG / "demo.yaml").read_bytes() == (CONFIG.parent / "mqttjobs/cli/demo.yaml").read_bytes()


def test_the_demo_prints_commands_that_can_be_typed() -> None:
    arguments = ["demo", "--port", str(free_port()), "--duration", "1s", "--no-live"]
    assert "  mqttjobs jobs list" in mqttjobs(*arguments).stderr
    assert "  ./scripts/run jobs list" in mqttjobs(*arguments, MQTTJOBS_PROGRAM="./scripts/run").stderr


def unit() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(CONFIG / "mqttjobs.service")
    return parser["Service"]


def test_the_unit_starts_the_program_and_reloads_with_the_right_signal() -> None:
    program, *arguments = shlex.split(unit()["ExecStart"])
    assert Path(program).name == "mqttjobs"
    with_help = CliRunner().invoke(app, [*arguments, "--help"])
    assert (with_help.exit_code, arguments[0]) == (0, "run")
    assert shlex.split(unit()["ExecReload"])[1] == f"-{signal.SIGHUP.name.removeprefix('SIG')}"
    assert unit()["RestartPreventExitStatus"] == "2"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_accepts_the_unit_and_rates_it_as_hardened(tmp_path: Path) -> None:
    file = tmp_path / "mqttjobs.service"
    shipped = (CONFIG / "mqttjobs.service").read_text()
    file.write_text(shipped.replace(shlex.split(unit()["ExecStart"])[0], "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(file)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
