"""Reads conditions: a mapping of one kind, a mapping of several kinds that must all hold, or a list of these."""

from __future__ import annotations

from collections.abc import Mapping

from mqttjobs.config.explain import did_you_mean, validate
from mqttjobs.config.yaml12 import Document, KeyPath
from mqttjobs.domain.conditions.base import ConditionKind, condition_kinds
from mqttjobs.domain.conditions.tree import All
from mqttjobs.domain.model import Json
from mqttjobs.domain.starting import Condition


def read_conditions(written: Json, document: Document, key_path: KeyPath) -> Condition | None:
    """Return the condition that is written, or None after adding every problem to the document."""
    if isinstance(written, list) and written:
        return _all([read_conditions(each, document, (*key_path, number)) for number, each in enumerate(written)])
    if not isinstance(written, Mapping) or not written:
        document.wrong(key_path, "must be a condition, or a list of conditions")
        return None
    kinds = condition_kinds()
    groups: dict[type[ConditionKind], dict[str, Json]] = {}
    known = True
    for key, value in written.items():
        if key in kinds:
            groups.setdefault(kinds[key], {})[key] = value
        else:
            known = False
            document.wrong((*key_path, key), f"unknown key{did_you_mean(str(key), kinds)}")
    made = [_read(kind, keys, document, key_path) for kind, keys in groups.items()]
    return _all(made) if known else None


def _read(
    kind: type[ConditionKind], keys: Mapping[str, Json], document: Document, key_path: KeyPath
) -> Condition | None:
    """Return the condition of one kind, or None after adding every problem."""
    if kind.inner is None:
        return validate(kind, dict(keys), document, key_path)
    inner = keys[kind.inner]
    where = (*key_path, kind.inner)
    if isinstance(inner, list) and kind.inner != "not":
        if not inner:
            document.wrong(where, "must not be empty")
            return None
        parts = [read_conditions(each, document, (*where, number)) for number, each in enumerate(inner)]
        return None if None in parts else validate(kind, {kind.inner: parts}, document, key_path)
    part = read_conditions(inner, document, where)
    if part is None:
        return None
    return validate(kind, {kind.inner: part if kind.inner == "not" else [part]}, document, key_path)


def _all(parts: list[Condition | None]) -> Condition | None:
    """Return a condition that holds when all parts hold, or None where a part could not be read."""
    good = [part for part in parts if part is not None]
    if len(good) < len(parts) or not good:
        return None
    return good[0] if len(good) == 1 else All.model_validate({"all": good})
