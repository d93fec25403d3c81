"""Triggers as they are written: mappings whose keys are declared in domain/triggers, each read by its own class."""

from __future__ import annotations

from collections.abc import Mapping

from mqttjobs.config.conditions import read_conditions
from mqttjobs.config.explain import did_you_mean, validate
from mqttjobs.config.yaml12 import Document, KeyPath
from mqttjobs.domain.model import Json
from mqttjobs.domain.triggers.base import Trigger, TriggerKey, trigger_keys


def read_trigger(written: Json, document: Document, key_path: KeyPath) -> Trigger | None:
    """Return the trigger of a mapping, or None with every problem noted."""
    if not isinstance(written, Mapping):
        document.wrong(key_path, "must be a mapping")
        return None
    known = trigger_keys()
    groups: dict[type[TriggerKey], dict[str, Json]] = {}
    for name, value in written.items():
        if name not in known:
            document.wrong((*key_path, name), f"unknown key{did_you_mean(str(name), known)}")
            continue
        key, field = known[name], known[name].spellings()[name]
        if key.holds_conditions and value is not None:
            value = read_conditions(value, document, (*key_path, name))  # noqa: PLW2901 - the rest is about the result
        if value is not None or not (field.is_required() or field.default is None):
            groups.setdefault(key, {})[name] = value
    read = [validate(key, fields, document, key_path) for key, fields in groups.items()]
    keys = tuple(each for each in read if each is not None)
    if len(keys) < len(groups) or not all(name in known for name in written):
        return None
    trigger = Trigger(keys)
    problem = trigger.conflict()
    if problem is not None:
        document.wrong(key_path, problem)
        return None
    return trigger
