"""One way to find leaves: the modules of a folder, then the entry points of installed packages."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from types import ModuleType


def leaf_modules(package: str) -> Iterator[ModuleType]:
    """Import and yield every module of `package`, then every entry point of the group of that name.

    A third party adds a leaf with `[project.entry-points."mqttjobs.executors"] http = "their.module"`.
    """
    parent = importlib.import_module(package)
    for info in sorted(pkgutil.iter_modules(parent.__path__), key=lambda i: i.name):
        yield importlib.import_module(f"{package}.{info.name}")
    for entry in sorted(entry_points(group=package), key=lambda e: e.name):
        yield importlib.import_module(entry.module)


def leaf_module(package: str, name: str) -> ModuleType | None:
    """Import the one leaf `name` of `package`, or return None where there is none of that name."""
    parent = importlib.import_module(package)
    if any(info.name == name for info in pkgutil.iter_modules(parent.__path__)):
        return importlib.import_module(f"{package}.{name}")
    for entry in entry_points(group=package, name=name):
        return importlib.import_module(entry.module)
    return None
