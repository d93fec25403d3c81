"""From a file to settings: everything is read, every problem is told, and only a whole configuration is used."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from mqttjobs.config.explain import did_you_mean, validate
from mqttjobs.config.installation import build_installation
from mqttjobs.config.operations import read_operation
from mqttjobs.config.secrets import Secrets
from mqttjobs.config.targets import check_targets
from mqttjobs.config.yaml12 import Document, read
from mqttjobs.domain.model import Json
from mqttjobs.domain.operations import Operation
from mqttjobs.errors import ConfigError, Problem
from mqttjobs.executors.base import Limits, executor_types
from mqttjobs.service.settings import AgentsSettings, MqttSettings, ServiceSettings, Settings, StoreSettings

SECTIONS = ("mqtt", "store", "service", "agents", "users", "classes", "objects", "links", "operations")
LONG_ENOUGH = 16
"""Characters of a secret that nobody guesses."""


def load(path: Path, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a configuration file.

    Raises:
        ConfigError: with every problem, each with its file and line.
    """
    document = read(path)
    content = {} if document.content is None else document.content
    if not isinstance(content, dict):
        raise ConfigError([Problem(str(path), 1, "a configuration is a mapping with sections such as objects")])
    for key in content:
        if key not in SECTIONS:
            document.wrong((key,), f"unknown section{did_you_mean(key, SECTIONS)}")
    folder = path.absolute().parent
    secrets = Secrets(folder, os.environ if environ is None else environ)
    secrets.check(content, document, ())
    settings = _settings(document, content, secrets, folder)
    if document.problems or settings is None:
        raise ConfigError(_in_order(document.problems, secrets))
    return replace(settings, warnings=tuple(_in_order(document.warnings, secrets)))


def _in_order(problems: Iterable[Problem], secrets: Secrets) -> list[Problem]:
    """Return them from top to bottom, each once, and none with a secret in it."""
    unique = {replace(each, message=secrets.kept_out(each.message)) for each in problems}
    return sorted(unique, key=lambda each: (each.line, each.message))


def _settings(document: Document, content: Mapping[str, Json], secrets: Secrets, folder: Path) -> Settings | None:
    mqtt = validate(MqttSettings, secrets.revealed(content.get("mqtt")), document, ("mqtt",))
    store = validate(StoreSettings, secrets.revealed(content.get("store")), document, ("store",))
    service = validate(ServiceSettings, secrets.revealed(content.get("service")), document, ("service",))
    agents = validate(AgentsSettings, secrets.revealed(content.get("agents")), document, ("agents",))
    if service is not None:
        for number, name in enumerate(service.inline_operations):
            if name not in executor_types():
                known = ", ".join(sorted(executor_types()))
                document.wrong(("service", "inline_operations", number), f"must be one of {known}")
    base_topic = mqtt.base_topic if mqtt else "mqttjobs"
    limits = Limits(
        tuple(str(folder / each) for each in service.program_dirs) if service else (), base_topic, str(folder)
    )
    installation = build_installation(
        document,
        content,
        secrets,
        limits,
        service.max_objects if service else 100_000,
        has_location=service is None or (service.latitude is not None and service.longitude is not None),
    )
    if mqtt is None or store is None or service is None or agents is None:
        return None
    if agents.key is not None and len(agents.key) < LONG_ENOUGH:
        message = f"has less than {LONG_ENOUGH} characters; whoever guesses it can run programs on every agent"
        document.warn(("agents", "key"), message)
    check_targets(document, installation, has_key=agents.key is not None)

    def build(definition: Mapping[str, Json], *, configured: bool = False) -> Operation:
        scratch = Document("operation", dict(definition))
        reveal = secrets.revealed if configured else _as_written
        made = read_operation("", dict(definition), scratch, (), limits, reveal)
        if made is None or scratch.problems:
            raise ConfigError(scratch.problems)
        return made

    return Settings(
        installation=installation,
        mqtt=mqtt,
        store=store.model_copy(update={"url": _store_url(store.url, folder)}),
        service=service.model_copy(update={"program_dirs": limits.program_dirs}),
        agents=agents,
        reveal=secrets.reveal,
        build=build,
        config_dir=str(folder),
    )


def _as_written(value: Json) -> Json:
    return value


def _store_url(url: str, folder: Path) -> str:
    """Return the URL with a path that starts at the configuration's folder."""
    prefix = "sqlite:///"
    return f"{prefix}{folder / url.removeprefix(prefix)}" if url.startswith(prefix) else url


def summary(settings: Settings) -> list[tuple[str, int | str]]:
    """Return what `check` shows of a good configuration."""
    installation = settings.installation
    kinds = [key.kind.value for key in installation.entities]
    return [
        ("objects", kinds.count("object")),
        ("links", kinds.count("link")),
        ("classes", len(installation.classes)),
        ("operations", len(installation.operations)),
        ("triggers", sum(len(each.triggers) for each in installation.operations.values())),
        ("schedules", len(installation.scheduled)),
        ("users", len(installation.users)),
        ("subscriptions", len(installation.filters())),
    ]
