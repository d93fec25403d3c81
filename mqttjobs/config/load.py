"""From a file to settings: every problem is reported at once, and only a configuration without errors is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mqttjobs.config.explain import did_you_mean, validate
from mqttjobs.config.installation import build_installation
from mqttjobs.config.operations import read_operation
from mqttjobs.config.plugins import plugin_problems
from mqttjobs.config.secrets import Secrets
from mqttjobs.config.targets import check_targets
from mqttjobs.config.yaml12 import Document, KeyPath, read
from mqttjobs.domain.fields import Record
from mqttjobs.domain.model import Json
from mqttjobs.domain.operations import Operation
from mqttjobs.errors import ConfigError, Problem
from mqttjobs.executors.base import Limits, executor_types
from mqttjobs.service.settings import AgentsSettings, MqttSettings, ServiceSettings, Settings, StoreSettings
from mqttjobs.store.base import resolve_store_url
from mqttjobs.transport.base import resolve_broker_url, unused_options

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
    plugins = plugin_problems()
    if document.problems or settings is None:
        unused = [Problem(str(path), 0, str(each)) for each in plugins]
        raise ConfigError(_in_order([*unused, *document.problems], secrets))
    unused = [Problem(str(path), 0, f"warning: {each}") for each in plugins]
    return replace(settings, warnings=tuple(_in_order([*unused, *document.warnings], secrets)))


def _in_order(problems: Iterable[Problem], secrets: Secrets) -> list[Problem]:
    """Return them from top to bottom, each once, and none with a secret in it."""
    unique = {replace(each, message=secrets.kept_out(each.message)) for each in problems}
    return sorted(unique, key=lambda each: (each.line, each.message))


def _settings(document: Document, content: Mapping[str, Json], secrets: Secrets, folder: Path) -> Settings | None:
    written = {name: secrets.revealed(content.get(name)) for name in ("mqtt", "store", "service", "agents")}
    mqtt = validate(MqttSettings, written["mqtt"], document, ("mqtt",))
    store = validate(StoreSettings, written["store"], document, ("store",))
    service = validate(ServiceSettings, written["service"], document, ("service",))
    agents = validate(AgentsSettings, written["agents"], document, ("agents",))
    broker_url = _url(
        MqttSettings, written["mqtt"], document, ("mqtt", "url"), lambda url: resolve_broker_url(url, folder)
    )
    store_url = _url(
        StoreSettings, written["store"], document, ("store", "url"), lambda url: resolve_store_url(url, folder)
    )
    if service is not None:
        _check_types(service.inline_operations, document, ("service", "inline_operations"))
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
    if mqtt is None or store is None or service is None or agents is None or broker_url is None or store_url is None:
        return None
    for name in unused_options(broker_url, mqtt.model_fields_set):
        document.wrong(("mqtt", name), f"has no use with {broker_url.partition(':')[0]}: URLs; leave it out")
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
        mqtt=mqtt.model_copy(update={"url": broker_url}),
        store=store.model_copy(update={"url": store_url}),
        service=service.model_copy(update={"program_dirs": limits.program_dirs}),
        agents=agents,
        reveal=secrets.reveal,
        build=build,
        config_dir=str(folder),
    )


def _check_types(names: Sequence[str], document: Document, key_path: KeyPath) -> None:
    """Note names that are no operation type."""
    for number, name in enumerate(names):
        if name not in executor_types():
            document.wrong((*key_path, number), f"must be one of {', '.join(executor_types())}")


def _as_written(value: Json) -> Json:
    return value


def _url(
    section: type[Record], written: Json, document: Document, key_path: KeyPath, resolve: Callable[[str], str]
) -> str | None:
    """Return the URL of a section as its plugin takes it, or None with the problem noted; the section may be wrong."""
    keys = written if isinstance(written, Mapping) else {}
    url = keys.get("url", section.model_fields["url"].default)
    if not isinstance(url, str):
        return None
    try:
        return resolve(url)
    except ValueError as error:
        document.wrong(key_path, str(error))
        return None


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
