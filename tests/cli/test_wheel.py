"""The wheel has everything that the program needs, and runs without a checkout."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.brokers import MosquittoBroker
from tests.installed import ROOT, Environment
from tests.running import RunningAgent, StartService


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel installed."""
    return Environment(tmp_path_factory.mktemp("elsewhere"), wheel)


def test_the_wheel_has_the_package_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    written = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "mqttjobs").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert written <= names
    assert {
        "mqttjobs/py.typed",
        "mqttjobs/cli/demo.yaml",
        "mqttjobs/store/backends/sqlite/schema/0001_initial.sql",
    } <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"mqttjobs"}


def test_the_program_runs_without_a_checkout(elsewhere: Environment) -> None:
    where = elsewhere.run("python", "-c", "import mqttjobs; print(mqttjobs.__file__)")
    assert where.stdout.startswith(str(elsewhere.home / "env"))
    assert re.fullmatch(r"mqttjobs \d+\.\d+\.\d+\n", elsewhere.run("mqttjobs", "--version").stdout)
    shutil.copy(ROOT / "config/mqttjobs.yaml", elsewhere.home / "home.yaml")
    for command in (["mqttjobs"], ["python", "-m", "mqttjobs"]):
        checked = elsewhere.run(*command, "check", "home.yaml")
        assert (checked.returncode, checked.stderr) == (0, "")
    demo = elsewhere.run("mqttjobs", "demo", "--duration", "3s")
    assert demo.returncode == 0, demo.stderr
    assert "#1  completed" in demo.stdout


def test_an_agent_needs_the_wheel_alone_and_runs_what_is_on_its_machine(
    elsewhere: Environment, mosquitto: MosquittoBroker, start_service: StartService
) -> None:
    program = elsewhere.home / "only-here"
    program.write_text('#!/bin/sh\nprintf \'{"folder": "%s", "agent": "%s"}\' "$PWD" "$MQTTJOBS_AGENT"\n')
    program.chmod(0o755)
    key = "a secret that both have"
    operation = {"type": "program", "path": str(program), "target": "bench"}
    service = start_service(mosquitto.port, {"agents": {"key": key}, "operations": {"own": operation}})
    agent = RunningAgent(
        elsewhere.home / "agent", mosquitto.port, "bench", key, cwd=elsewhere.home, python=elsewhere.python
    )
    agent.start()
    try:
        with service.client() as client:
            client.until(lambda each: [item["state"] for item in each.data("agents/list")["items"]] == ["ready"])
            job = client.data("operations/execute", {"id": "own", "wait": True})
            assert (job["status"], job["result"]) == ("completed", {"folder": str(elsewhere.home), "agent": "bench"})
        assert agent.stop() == 0
    finally:
        agent.kill()
