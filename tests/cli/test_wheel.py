"""The wheel has everything that the program needs, and runs without a checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.brokers import MosquittoBroker
from tests.running import RunningAgent, StartService

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "mqttjobs", source / "mqttjobs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", source / "dist", source]
    built = subprocess.run(build, check=False, capture_output=True, text=True, cwd=source, timeout=100)
    assert built.returncode == 0, built.stderr
    (found,) = (source / "dist").glob("mqttjobs-*.whl")
    return found


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment that has the wheel, and borrows its dependencies from this environment."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True, timeout=60)
    python = folder / "env/bin/python"
    install = [*PIP, "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True, timeout=60)
    (packages,) = (folder / "env/lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(elsewhere: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(elsewhere)}
    program, *arguments = command
    return subprocess.run(
        [elsewhere / "env/bin" / program, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=elsewhere,
        env=environment,
        timeout=60,
    )


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


def test_the_program_runs_without_a_checkout(elsewhere: Path) -> None:
    where = run(elsewhere, "python", "-c", "import mqttjobs; print(mqttjobs.__file__)")
    assert where.stdout.startswith(str(elsewhere / "env"))
    assert re.fullmatch(r"mqttjobs \d+\.\d+\.\d+\n", run(elsewhere, "mqttjobs", "--version").stdout)
    shutil.copy(ROOT / "config/mqttjobs.yaml", elsewhere / "home.yaml")
    for command in (["mqttjobs"], ["python", "-m", "mqttjobs"]):
        checked = run(elsewhere, *command, "check", "home.yaml")
        assert (checked.returncode, checked.stderr) == (0, "")
    demo = run(elsewhere, "mqttjobs", "demo", "--duration", "3s")
    assert demo.returncode == 0, demo.stderr
    assert "#1  completed" in demo.stdout


def test_an_agent_needs_the_wheel_alone_and_runs_what_is_on_its_machine(
    elsewhere: Path, mosquitto: MosquittoBroker, start_service: StartService
) -> None:
    program = elsewhere / "only-here"
    program.write_text('#!/bin/sh\nprintf \'{"folder": "%s", "agent": "%s"}\' "$PWD" "$MQTTJOBS_AGENT"\n')
    program.chmod(0o755)
    key = "a secret that both have"
    operation = {"type": "program", "path": str(program), "target": "bench"}
    service = start_service(mosquitto.port, {"agents": {"key": key}, "operations": {"own": operation}})
    python = elsewhere / "env/bin/python"
    agent = RunningAgent(elsewhere / "agent", mosquitto.port, "bench", key, cwd=elsewhere, python=python)
    agent.start()
    try:
        with service.client() as client:
            client.until(lambda each: [item["state"] for item in each.data("agents/list")["items"]] == ["ready"])
            job = client.data("operations/execute", {"id": "own", "wait": True})
            assert (job["status"], job["result"]) == ("completed", {"folder": str(elsewhere), "agent": "bench"})
        assert agent.stop() == 0
    finally:
        agent.kill()
