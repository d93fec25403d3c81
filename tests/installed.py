"""Environments in which mqttjobs and plugins are installed as wheels, as a user has them; no network is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def build_wheel(source: Path) -> Path:
    """Build the wheel of a project, in its `dist`."""
    build = [*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", source / "dist", source]
    built = subprocess.run(build, check=False, capture_output=True, text=True, cwd=source, timeout=100)
    assert built.returncode == 0, built.stderr
    (found,) = (source / "dist").glob("*.whl")
    return found


def build_mqttjobs(source: Path) -> Path:
    """Build the wheel of mqttjobs of a copy, so that nothing is left in the checkout."""
    shutil.copytree(ROOT / "mqttjobs", source / "mqttjobs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return build_wheel(source)


class Environment:
    """An environment in `home/env` with wheels installed; what they depend on is borrowed from this one."""

    def __init__(self, home: Path, *wheels: Path) -> None:
        self.home = home
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "env"], check=True, timeout=60)
        self.python = home / "env/bin/python"
        self._pip("install", *wheels)
        (packages,) = (home / "env/lib").glob("python*/site-packages")
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def _pip(self, *arguments: str | Path) -> None:
        command = [*PIP, "--python", self.python, *arguments, "--quiet", "--no-deps", "--no-index"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment to its end, in its home."""
        program, *arguments = command
        return subprocess.run(
            [self.home / "env/bin" / program, *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.home,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.home), "COLUMNS": "200"},
            timeout=60,
        )
