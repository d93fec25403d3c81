"""Operations: the keys that all types share, the type's own, and the operation that is made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import orjson

from mqttjobs.config.conditions import read_conditions
from mqttjobs.config.explain import did_you_mean, validate
from mqttjobs.config.triggers import read_trigger
from mqttjobs.config.yaml12 import Document, KeyPath
from mqttjobs.domain.fields import kept_as_written
from mqttjobs.domain.model import Json
from mqttjobs.domain.operations import COMMON_KEYS, SHORT_KEYS, Operation, OperationKeys
from mqttjobs.domain.triggers.base import Trigger
from mqttjobs.executors.base import Executor, Limits, executor_types

KEPT_AS_WRITTEN = kept_as_written(OperationKeys)


def read_operation(
    operation_id: str,
    written: Json,
    document: Document,
    key_path: KeyPath,
    limits: Limits,
    reveal: Callable[[Json], Json],
) -> Operation | None:
    """Return the operation of what is written, or None with every problem noted.

    Args:
        operation_id: its id; empty for one that was sent in.
        written: the mapping, `${…}` kept.
        document: takes the problems.
        key_path: where it stands.
        limits: what the installation allows.
        reveal: returns a value with its `${…}` replaced, for the keys that all types share.
    """
    if not isinstance(written, dict):
        document.wrong(key_path, "must be a mapping")
        return None
    normal = _normal(written, document, key_path)
    own = {key: value for key, value in normal.items() if key not in COMMON_KEYS}
    common = {key: value for key, value in normal.items() if key in COMMON_KEYS}
    revealed = {key: value if key in KEPT_AS_WRITTEN else reveal(value) for key, value in common.items()}
    keys = validate(OperationKeys, revealed, document, key_path)
    triggers = _read_triggers(revealed.get("triggers"), document, key_path)
    written_conditions = revealed.get("conditions")
    where = (*key_path, "conditions")
    conditions = None if written_conditions is None else read_conditions(written_conditions, document, where)
    kinds = executor_types()
    kind = kinds.get(str(written.get("type")))
    if kind is None and isinstance(written.get("type"), str):
        message = f"must be one of {', '.join(sorted(kinds))}{did_you_mean(written['type'], kinds)}"
        document.wrong((*key_path, "type"), message)
    executor = _read_executor(kind, own, document, key_path, limits) if kind is not None else None
    if keys is None or triggers is None or kind is None or executor is None:
        return None
    if keys.confirm is not None and kind.kind != "mqtt":
        document.wrong((*key_path, "confirm"), "belongs to operations of the type mqtt")
        return None
    return keys.extended(
        Operation,
        id=operation_id,
        name=keys.name or operation_id,
        definition=normal,
        fingerprint=hashlib.sha256(orjson.dumps(normal, option=orjson.OPT_SORT_KEYS)).hexdigest(),
        triggers=triggers,
        conditions=conditions,
        delivery=keys.delivery or kind.delivery,
        uses_slot=kind.uses_slot,
        inputs=executor.inputs(),
    )


def _read_triggers(written: Json, document: Document, key_path: KeyPath) -> tuple[Trigger, ...] | None:
    """Return the triggers of a list, or None where one of them cannot be read."""
    if not isinstance(written, list):
        return ()
    found = [read_trigger(each, document, (*key_path, "triggers", number)) for number, each in enumerate(written)]
    triggers = tuple(each for each in found if each is not None)
    return triggers if len(triggers) == len(found) else None


def _normal(written: Mapping[str, Json], document: Document, key_path: KeyPath) -> dict[str, Json]:
    """Return the mapping with `trigger_states` as the trigger it is short for, and `attach` as a list."""
    normal = dict(written)
    for short in SHORT_KEYS:
        if short not in normal:
            continue
        states = normal.pop(short)
        existing = normal.setdefault("triggers", [])
        if not isinstance(states, list | str | int | float) or states in ([], ""):
            document.wrong((*key_path, short), "must be a list of states")
        elif isinstance(existing, list):
            normal["triggers"] = [*existing, {"states": states}]
            _is_short_for(document, key_path, short, len(existing))
    if isinstance(normal.get("attach"), Mapping):
        normal["attach"] = [normal["attach"]]
        document.moved[(*key_path, "attach", 0)] = (*key_path, "attach")
    return normal


def _is_short_for(document: Document, key_path: KeyPath, short: str, number: int) -> None:
    """Report problems of a trigger at its short form, where that is written."""
    triggers: KeyPath = (*key_path, "triggers")
    made = [(*triggers, number), (*triggers, number, "states")]
    if document.written(triggers) is None:
        made.append(triggers)
    document.moved |= dict.fromkeys(made, (*key_path, short))


def _read_executor(
    kind: type[Executor], own: Mapping[str, Json], document: Document, key_path: KeyPath, limits: Limits
) -> Executor | None:
    unknown = [key for key in own if key not in kind.model_fields]
    for key in unknown:
        message = f"unknown key{did_you_mean(key, [*kind.model_fields, *COMMON_KEYS])}"
        document.wrong((*key_path, key), message)
    executor = validate(kind, {key: value for key, value in own.items() if key not in unknown}, document, key_path)
    if executor is None:
        return None
    problems = executor.problems(limits)
    for key, message in problems.items():
        document.wrong((*key_path, key), message)
    return None if problems or unknown else executor
