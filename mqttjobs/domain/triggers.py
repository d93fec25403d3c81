"""The trigger automaton: what a change and the passing of time do to one trigger of one entity.

Pure and total: `receive(change)`, `tick(now)` and `deadline()` are functions of the trigger, the stored Hold and
their argument. A deadline is always computed from the stored facts, so a restart at any moment changes nothing.

::

                     satisfied                          now >= since + duration
    (no hold) ────────────────────▶ armed ───────────────────────────────────────▶ fired
        ▲                             │ another satisfying state: stays as it is      │ every periodicity:
        └─────────────────────────────┴──────────── not satisfied ────────────────────┘ fires again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from mqttjobs.domain.model import EMPTY, Change, EntityKey, Json, Trigger


@dataclass(frozen=True, slots=True)
class Hold:
    """The stored facts of one trigger of one entity while it is satisfied.

    `name` is hold_name(…). `since_at` is when it began to be satisfied; `fired_at` the last firing since then,
    on the grid of the periodicity. `meta` is what a job that it starts will say of its cause.
    """

    name: str
    entity: EntityKey
    since_at: datetime
    fired_at: datetime | None = None
    meta: Mapping[str, Json] = EMPTY


class Step(NamedTuple):
    """What one input does: whether the trigger fires, and the hold that is to be stored (None: none)."""

    fires: bool
    hold: Hold | None


def hold_name(trigger_id: str, entity: EntityKey) -> str:
    """Return the name under which the hold of a trigger of an entity is stored."""
    return f"{trigger_id}|{entity.kind}|{entity.id}"


def satisfies(trigger: Trigger, change: Change) -> bool:
    """Whether the new state is one that the trigger waits for."""
    return trigger.states is None or change.text in trigger.states


def receive(trigger: Trigger, entity: EntityKey, name: str, hold: Hold | None, change: Change) -> Step:
    """Return what a change of the watched value does.

    Without `duration` every satisfying change fires, also from one listed state to another; a silent one only
    arms. With it, the first satisfying change starts the clock and a later one does not restart it.
    """
    if not satisfies(trigger, change):
        return Step(fires=False, hold=None)
    if trigger.duration is not None:
        return Step(fires=False, hold=hold or Hold(name, entity, change.at))
    if trigger.periodicity is None:
        return Step(fires=not change.silent, hold=None)
    since = hold.since_at if hold else change.at
    return Step(fires=not change.silent, hold=Hold(name, entity, since, change.at))


def deadline(trigger: Trigger, hold: Hold) -> datetime | None:
    """Return when the trigger fires next if nothing changes, or None."""
    if hold.fired_at is None:
        return None if trigger.duration is None else hold.since_at + trigger.duration
    return None if trigger.periodicity is None else hold.fired_at + trigger.periodicity


def tick(trigger: Trigger, hold: Hold, now: datetime) -> Step:
    """Return what the passing of time does: at most one firing, however many deadlines have passed."""
    due = deadline(trigger, hold)
    if due is None or now < due:
        return Step(fires=False, hold=hold)
    if trigger.periodicity:
        due += (now - due) // trigger.periodicity * trigger.periodicity
    return Step(fires=True, hold=replace(hold, fired_at=due))


def shift(hold: Hold, step: timedelta) -> Hold:
    """Return the hold after the wall clock was set by that much, so that its remaining time stays the same."""
    return replace(hold, since_at=hold.since_at + step, fired_at=hold.fired_at + step if hold.fired_at else None)
