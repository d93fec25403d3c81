"""The plugins that docs/extending.md shows: their source, and the folder and entry point group that each belongs to."""

from __future__ import annotations

from pathlib import Path

from mqttjobs.config.plugins import FAMILIES
from tests.transcripts import blocks

PAGE = Path(__file__).parents[2] / "docs/extending.md"
BLOCKS = {block.file_name: block.text for block in blocks(PAGE) if block.file_name is not None}
GROUPS = {
    "mqttjobs_wake": "mqttjobs.executors",
    "mqttjobs_audit": "mqttjobs.store",
    "mqttjobs_failover": "mqttjobs.transport",
    "mqttjobs_last": "mqttjobs.service.methods",
    "mqttjobs_months": "mqttjobs.domain.conditions",
    "mqttjobs_every": "mqttjobs.triggers",
}
"""The modules, and the entry point group of each."""
FOLDERS = {family.group: family.folder for family in FAMILIES}


def source(module: str) -> str:
    """Return the source of a module."""
    return BLOCKS[f"{module}.py"]


def project(name: str, modules: dict[str, str]) -> str:
    """Return the pyproject.toml of a package that names modules in entry point groups."""
    lines = ["[project]", f'name = "{name}"', 'version = "1.0"']
    for module, group in modules.items():
        lines += [f'[project.entry-points."{group}"]', f'{module.removeprefix("mqttjobs_")} = "{module}"']
    return "\n".join([*lines, "[tool.setuptools]", f"py-modules = {sorted(modules)}", ""])
