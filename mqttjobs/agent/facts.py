"""The facts in the status of an agent: its machine, processors, load and memory."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from mqttjobs.domain.model import Json

_MEMORY = Path("/proc/meminfo")


def facts() -> dict[str, Json]:
    """Return the machine's name, platform and Python, its processors and their load, and its memory in MiB.

    A fact that the system does not give is null or absent.
    """
    found: dict[str, Json] = {
        "hostname": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "pid": os.getpid(),
        "cpus": os.cpu_count(),
    }
    try:
        found["load"] = round(os.getloadavg()[0], 2)
    except OSError:
        found["load"] = None
    return found | _memory()


def _memory() -> dict[str, Json]:
    """Return the total and the available memory in MiB, or nothing without /proc/meminfo."""
    try:
        lines = _MEMORY.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    sizes = {name: int(rest.split()[0]) // 1024 for name, _, rest in (line.partition(":") for line in lines) if rest}
    return {"memory_mb": sizes.get("MemTotal"), "memory_available_mb": sizes.get("MemAvailable")}
