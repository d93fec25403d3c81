"""Ways to add a plugin: as a file in the folder of its family, and as a package that seems to be installed."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from mqttjobs.config.plugins import FAMILIES

Drop = Callable[[str, str, str], None]
Install = Callable[..., None]


@pytest.fixture
def _as_before() -> Iterator[None]:
    """Forget what a test has added, modules too, and what `app.serve` has set."""
    modules = set(sys.modules)
    switch_s, thresholds = sys.getswitchinterval(), gc.get_threshold()
    yield
    sys.setswitchinterval(switch_s)
    gc.set_threshold(*thresholds)
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    forget()


def forget() -> None:
    """Have every family look for its plugins again."""
    importlib.invalidate_caches()
    for family in FAMILIES:
        family.forget()


@pytest.fixture
def drop(tmp_path: Path, _as_before: None) -> Iterator[Drop]:
    """Put a file into the folder of a family, as far as imports can tell: `drop(package, module, source)`."""
    dropped: list[tuple[str, str]] = []

    def put(package: str, module: str, source: str) -> None:
        folder = tmp_path / "dropped" / package
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{module}.py").write_text(source)
        importlib.import_module(package).__path__.append(str(folder))
        dropped.append((package, str(folder)))
        forget()

    yield put
    for package, folder in dropped:
        importlib.import_module(package).__path__.remove(folder)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _as_before: None) -> Install:
    """Let a package be found as if pip had installed it: `install(name, {group: {entry: value}}, module=source, …)`."""

    def put(name: str, groups: Mapping[str, Mapping[str, str]], **modules: str) -> None:
        site = tmp_path / f"site-{name}"
        information = site / f"{name.replace('-', '_')}-1.0.dist-info"
        information.mkdir(parents=True)
        lines = [
            line
            for group, entries in groups.items()
            for line in (f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items()))
        ]
        (information / "entry_points.txt").write_text("\n".join([*lines, ""]))
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        for module, source in modules.items():
            (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        forget()

    return put
