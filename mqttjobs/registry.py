"""One way to find plugins: the modules of a folder, then the entry points of installed packages."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from types import ModuleType


def plugin_modules(folder: str, group: str) -> Iterator[ModuleType]:
    """Import and yield every plugin of one family.

    Args:
        folder: the package whose modules are the plugins that come with mqttjobs.
        group: the entry point group in which installed packages name theirs, such as
            `[project.entry-points."mqttjobs.executors"] http = "their.module"`.

    Yields:
        the modules of the folder by name, then those of the entry points by name.
    """
    parent = importlib.import_module(folder)
    for info in sorted(pkgutil.iter_modules(parent.__path__), key=lambda i: i.name):
        yield importlib.import_module(f"{folder}.{info.name}")
    for entry in sorted(entry_points(group=group), key=lambda e: e.name):
        yield importlib.import_module(entry.module)


def plugin_module(folder: str, group: str, name: str) -> ModuleType | None:
    """Import the plugin called `name`, of the folder or else of an installed package; None where there is none."""
    parent = importlib.import_module(folder)
    if any(info.name == name for info in pkgutil.iter_modules(parent.__path__)):
        return importlib.import_module(f"{folder}.{name}")
    for entry in entry_points(group=group, name=name):
        return importlib.import_module(entry.module)
    return None
