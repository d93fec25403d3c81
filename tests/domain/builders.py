"""Builders and strategies of the ground: a test says only what it cares about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from mqttjobs.domain.model import STATE, Change, EntityKey, EntityKind, ValueKey
from mqttjobs.domain.status import EventKind, JobEvent
from mqttjobs.domain.triggers.base import Trigger, TriggerKey, trigger_keys

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LAMP = EntityKey(EntityKind.OBJECT, "lamp")
LAMP_STATE = ValueKey(EntityKind.OBJECT, "lamp", STATE)


def later(seconds: float) -> datetime:
    """Return a time that many seconds after NOW."""
    return NOW + timedelta(seconds=seconds)


def an_event(kind: EventKind, hostname: str = "hub", seconds: float = 0, **changes: Any) -> JobEvent:
    """Return an event of a job."""
    return JobEvent(later(seconds), kind, hostname, **changes)


def a_change(text: str, seconds: float = 0, **changes: Any) -> Change:
    """Return a change of the lamp's state."""
    fields: dict[str, Any] = {"key": LAMP_STATE, "previous": None, "at": later(seconds), **changes}
    return Change(text=text, **fields)


def a_trigger(**written: Any) -> Trigger:
    """Return a trigger with keys as they are written in a configuration (`from_` is `from`); None: not written."""
    groups: dict[type[TriggerKey], dict[str, Any]] = {}
    for name, value in written.items():
        if value is not None:
            groups.setdefault(trigger_keys()[name.rstrip("_")], {})[name.rstrip("_")] = value
    return Trigger(tuple(key.model_validate(fields) for key, fields in groups.items()))


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
json_values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
"""Whatever strict JSON can hold."""
