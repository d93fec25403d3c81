"""An author runs the contract suites over a plugin of their own, as docs/extending.md says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.installed import ROOT
from tests.plugins.conftest import Install
from tests.plugins.examples import BLOCKS, GROUPS, source

Suite = Callable[..., tuple[int, str]]


@pytest.fixture
def suite(install: Install, tmp_path: Path) -> Suite:
    """Run suites in a process of their own, where the examples are installed: its exit code and what it prints."""
    modules = {module: source(module) for module in GROUPS}
    groups = {group: {module: module} for module, group in GROUPS.items()}
    install("mqttjobs-examples", groups, bench=BLOCKS["bench.py"], **modules)

    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-rs", *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site-mqttjobs-examples")},
            timeout=110,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def passed(printed: str) -> int:
    found = re.search(r"(\d+) passed", printed)
    return int(found[1]) if found else 0


WAKE = '{"type": "wake", "mac": "00:11:22:aa:bb:cc", "broadcast": "127.0.0.1"}'


@pytest.mark.parametrize(
    ("arguments", "least"),
    [
        (["tests/contracts/test_operation_types.py", "--operation", WAKE], 12),
        (["tests/contracts/test_store_agents.py", "--store", "audit:{folder}/audit.log,memory:"], 9),
        (["tests/contracts/test_store.py", "--store", "audit:audit.log,memory:"], 50),
        (["tests/contracts/test_transport.py", "-k", "FailoverBench", "--bench", "bench:FailoverBench"], 40),
    ],
)
def test_a_suite_runs_over_the_plugin_that_is_named(suite: Suite, arguments: list[str], least: int) -> None:
    code, printed = suite("-vv", *arguments)
    assert code == 0, printed
    assert passed(printed) >= least, printed
    assert "[sqlite" not in printed
    assert "[mqtt" not in printed


def test_a_plugin_that_breaks_the_contract_fails_its_suite(suite: Suite, tmp_path: Path) -> None:
    forgetful = source("mqttjobs_audit").replace("await self._inner.record(changes)", "pass")
    (tmp_path / "site-mqttjobs-examples/mqttjobs_audit.py").write_text(forgetful)
    code, printed = suite("tests/contracts/test_store_agents.py", "--store", "audit:audit.log,memory:")
    assert code == 1, printed
    assert "failed" in printed
