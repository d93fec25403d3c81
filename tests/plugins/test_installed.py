"""Plugins of an installed package, in an environment where mqttjobs is installed too: the real program uses them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import MosquittoBroker
from tests.clients import Client
from tests.installed import Environment, build_wheel
from tests.plugins.examples import GROUPS, project, source
from tests.running import RunningAgent, RunningService

KEY = "a secret that both have"
WAIT_S = 20.0


def package(folder: Path, name: str, modules: dict[str, str], sources: Mapping[str, str]) -> Path:
    """Build the wheel of a package of plugins: its modules, and the entry point group of each."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(project(name, modules))
    for module, text in sources.items():
        (folder / f"{module}.py").write_text(text)
    return build_wheel(folder)


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """mqttjobs, a package with a plugin of each family, and one with a plugin that cannot be imported."""
    folder = tmp_path_factory.mktemp("packages")
    examples = package(folder / "examples", "mqttjobs-examples", GROUPS, {name: source(name) for name in GROUPS})
    broken = package(
        folder / "broken",
        "mqttjobs-broken",
        {"mqttjobs_broken": "mqttjobs.executors"},
        {"mqttjobs_broken": "import a_library_that_is_missing\n"},
    )
    return Environment(tmp_path_factory.mktemp("elsewhere"), wheel, examples, broken)


@pytest.fixture
def machine() -> Iterator[socket.socket]:
    """What is to be woken: a port on which packets arrive."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(WAIT_S)
        yield bound


def config(broker: MosquittoBroker, machine: socket.socket, **operation: Any) -> dict[str, Any]:
    """Return a configuration in which every plugin is used."""
    wake = {
        "attach": {"object": "lamp"},
        "type": "wake",
        "mac": "{{ properties.mac }}",
        "broadcast": "127.0.0.1",
        "port": machine.getsockname()[1],
        "triggers": [{"states": ["on"]}],
        "conditions": {"months": list(range(1, 13))},
    }
    return {
        "mqtt": {"url": f"failover:mqtt://127.0.0.1:{broker.port}"},
        "store": {"url": "audit:audit.log,sqlite:///mqttjobs.db"},
        "objects": {"lamp": {"state": {"topic": "home/lamp"}, "properties": {"mac": "00:11:22:aa:bb:cc"}}},
        "operations": {
            "wake_up": wake | operation,
            "count": {
                "attach": {"object": "lamp"},
                "type": "mqtt",
                "topic": "out/count",
                "triggers": [{"states": ["off"], "every": 2}],
            },
        },
    }


@pytest.fixture
def service(
    elsewhere: Environment, mosquitto: MosquittoBroker, machine: socket.socket, tmp_path: Path
) -> Iterator[RunningService]:
    """The program of that environment, not started yet."""
    made = RunningService(tmp_path / "service", mosquitto.port, config(mosquitto, machine), python=elsewhere.python)
    yield made
    made.kill()


def test_check_knows_the_plugins_and_names_the_broken_one(elsewhere: Environment, service: RunningService) -> None:
    checked = elsewhere.run("mqttjobs", "check", str(service.file))
    assert checked.returncode == 0, checked.stderr
    assert f"{service.file} is good." in checked.stdout
    (warning,) = checked.stderr.splitlines()
    assert warning.startswith(
        f"{service.file}:0: warning: the plugin 'broken' of mqttjobs-broken 1.0 (mqttjobs.executors) is not used: "
        "it cannot be imported: ModuleNotFoundError: No module named 'a_library_that_is_missing'"
    )
    bad = elsewhere.home / "bad.yaml"
    bad.write_text(service.file.read_text().replace("audit:audit.log", "audi:audit.log"))
    checked = elsewhere.run("mqttjobs", "check", str(bad))
    assert checked.returncode == 2
    assert (
        "store.url: must be like sqlite:///mqttjobs.db; the known schemes are audit, memory, sqlite" in checked.stderr
    )


def test_the_service_runs_with_a_plugin_of_every_family(service: RunningService, machine: socket.socket) -> None:
    service.run()
    assert "mqttjobs-broken 1.0" in service.log
    assert "Traceback" not in service.log
    with service.client() as client:
        client.publish("home/lamp", "on", qos=1)
        job = client.until(lambda each: each.data("jobs/list", {"status": "completed"})["items"])[0]
        assert (job["result"], job["description"]) == ({"bytes": 102}, {"mac": "00:11:22:aa:bb:cc"})
        assert client.data("operations/last", {"id": "wake_up"}) == {"uid": job["uid"], "status": "completed"}
        client.publish("home/lamp", "off", qos=1)
        client.until(lambda each: waiting_for(each) == "change 2 of 2")
    assert len(machine.recv(200)) == 102
    assert service.stop() == 0
    assert (service.directory / "audit.log").read_text().split()[1:] == [str(job["uid"]), "wake_up", "system"]
    service.run()
    with service.client() as client:
        assert client.data("jobs/get", {"id": job["uid"]})["result"] == {"bytes": 102}
        client.subscribe("out/count")
        for state in ("on", "off"):
            client.publish("home/lamp", state, qos=1)
        client.wait_topic("out/count")


def waiting_for(client: Client) -> str:
    """Return what the trigger of `count` waits for."""
    [trigger] = client.data("operations/explain", {"id": "count"})["triggers"]
    return str(trigger["waiting_for"])


def test_an_agent_runs_a_type_of_an_installed_package(
    elsewhere: Environment, service: RunningService, mosquitto: MosquittoBroker, machine: socket.socket, tmp_path: Path
) -> None:
    whole = config(mosquitto, machine, target="bench", params={}, mac="66:55:44:33:22:11")
    service.write_config(whole | {"agents": {"key": KEY}})
    service.run()
    agent = RunningAgent(tmp_path / "agent", mosquitto.port, "bench", KEY, python=elsewhere.python)
    agent.start()
    try:
        with service.client() as client:
            client.until(lambda each: [item["state"] for item in each.data("agents/list")["items"]] == ["ready"])
            job = client.data("operations/execute", {"id": "wake_up", "wait": True})
            assert (job["status"], job["result"], job["hostname"]) == ("completed", {"bytes": 102}, "bench")
            assert job["changed"] is True
        assert machine.recv(200)[6:12] == bytes.fromhex("665544332211")
        assert agent.stop() == 0
    finally:
        agent.kill()
    logged = [json.loads(line) for line in agent.log.splitlines()]
    (broken,) = [each for each in logged if each["event"] == "plugin"]
    assert broken["details"].startswith("the plugin 'broken' of mqttjobs-broken 1.0 (mqttjobs.executors) is not used")
