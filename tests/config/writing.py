"""Configurations for tests: written, loaded, and their problems as `line: message`."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

from mqttjobs.config import load
from mqttjobs.domain.model import Entity, EntityKey, EntityKind
from mqttjobs.domain.operations import Operation
from mqttjobs.errors import ConfigError
from mqttjobs.service.settings import Settings

_FOLDER = tempfile.TemporaryDirectory(prefix="mqttjobs-config-")
atexit.register(_FOLDER.cleanup)


def write(text: str | bytes, files: Mapping[str, str] | None = None) -> Path:
    """Return the path of a configuration in a folder of its own, with other files beside it."""
    folder = Path(tempfile.mkdtemp(dir=_FOLDER.name))
    path = folder / "home.yaml"
    path.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
    for name, content in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return path


def good(text: str, environ: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a configuration that is good."""
    return load(write(text, files), environ=environ or {})


def problems(
    text: str | bytes, environ: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None
) -> list[str]:
    """Return every problem as `line: message`; none for a good configuration."""
    path = write(text, files)
    try:
        load(path, environ=environ or {})
    except ConfigError as error:
        assert {each.file for each in error.problems} == {str(path)}  # noqa: PT017 - a good one raises nothing
        return [f"{each.line}: {each.message}" for each in error.problems]
    return []


def an_object(settings: Settings, name: str) -> Entity:
    """Return a configured object."""
    return settings.installation.entities[EntityKey(EntityKind.OBJECT, name)]


def a_link(settings: Settings, name: str) -> Entity:
    """Return a configured link."""
    return settings.installation.entities[EntityKey(EntityKind.LINK, name)]


def an_operation(settings: Settings, name: str) -> Operation:
    """Return a configured operation."""
    return settings.installation.operations[name]
