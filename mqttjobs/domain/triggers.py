"""The trigger automaton: what a change and the passing of time do to one trigger of one entity.

Pure and total: `receive(change)`, `tick(now)` and `deadline()` are functions of the trigger, the stored Hold and
their argument. A deadline is always computed from the stored facts, so a restart at any moment changes nothing.

::

               begins to be satisfied          now >= since + duration, and quiet for debounce
    (not held) ───────────────────────▶ pending ──────────────────────────────────────────────▶ fired
        ▲                                  │ still satisfied: the clock goes on                   │ every periodicity:
        │                                  │ (debounce: quiet is counted anew)                    │ fires again
        └──────────────────────────────────┴─────────────── satisfied no longer ──────────────────┘

Two questions are asked of a change. Does it *begin*: `from` and `not_from` agree with where it came from, and a
threshold is crossed. Does it *last*: the new state is one of `states`, none of `not_states`, and beyond the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from mqttjobs.domain.crossing import Band, number_of
from mqttjobs.domain.model import EMPTY, Change, EntityKey, Json, Trigger
from mqttjobs.domain.starting import OnRestart


@dataclass(frozen=True, slots=True)
class Hold:
    """The stored facts of one trigger of one entity.

    Attributes:
        name: hold_name(…).
        entity: whom the operation runs for.
        since_at: when it began to be satisfied; None when it is not.
        fired_at: the last firing since then, on the grid of the periodicity; of a silence, the firing of this one.
        meta: what a job that it starts will say of its cause.
        beyond: the last number was beyond the threshold, and has not returned by the hysteresis.
        changed_at: the last change that began to satisfy it, from which quiet is counted (debounce).
        ran_at: when it last started the operation (throttle).
    """

    name: str
    entity: EntityKey
    since_at: datetime | None = None
    fired_at: datetime | None = None
    meta: Mapping[str, Json] = EMPTY
    beyond: bool = False
    changed_at: datetime | None = None
    ran_at: datetime | None = None


class Step(NamedTuple):
    """What one input does: whether the trigger fires, and the hold that is to be stored (None: none)."""

    fires: bool
    hold: Hold | None


NOTHING = Step(fires=False, hold=None)


def hold_name(trigger_id: str, entity: EntityKey) -> str:
    """Return the name under which the hold of a trigger of an entity is stored."""
    return f"{trigger_id}|{entity.kind}|{entity.id}"


def lasts(trigger: Trigger, text: str) -> bool:
    """Whether a state is one that the trigger waits for, thresholds apart."""
    return (trigger.states is None or text in trigger.states) and text not in trigger.not_states


def begins(trigger: Trigger, change: Change) -> bool:
    """Whether a change comes from where the trigger wants it to come from."""
    if trigger.from_states is not None and change.previous not in trigger.from_states:
        return False
    return change.previous not in trigger.not_from


def _came_back(trigger: Trigger, change: Change) -> bool:
    """Whether what is watched is that it left some states (`from` alone), and it is in one of them again."""
    return (
        trigger.holds
        and trigger.states is None
        and trigger.from_states is not None
        and change.text in trigger.from_states
    )


def receive(trigger: Trigger, entity: EntityKey, name: str, hold: Hold | None, change: Change) -> Step:
    """Return what a change of the watched value does.

    Without `duration` and `debounce` every change that satisfies fires, also from one listed state to another, and a
    threshold only when it is crossed; a silent change only arms. With `duration` the first satisfying change starts
    the clock and a later one does not restart it.
    """
    if trigger.band is not None:
        return _receive_number(trigger, trigger.band, hold or Hold(name, entity), change)
    if not lasts(trigger, change.text) or _came_back(trigger, change):
        return NOTHING if hold is None else Step(fires=False, hold=_kept(trigger, _released(hold), change.at))
    if not begins(trigger, change):
        return Step(fires=False, hold=hold)
    if hold is None and not trigger.holds and trigger.debounce is None:
        return Step(fires=not change.silent, hold=None)
    return _begin(trigger, hold or Hold(name, entity), change)


def _receive_number(trigger: Trigger, band: Band, hold: Hold, change: Change) -> Step:
    """Return what a change does to a trigger with thresholds; what is no number interrupts, and crosses nothing."""
    before = hold.beyond or _was_beyond(band, change)
    number = number_of(change.text)
    if number is None:
        held = replace(hold, since_at=None, changed_at=None, meta=EMPTY, beyond=before)
        return Step(fires=False, hold=_kept(trigger, held, change.at))
    beyond = band.side(before, number)
    if not beyond or not lasts(trigger, change.text):
        return Step(fires=False, hold=_kept(trigger, replace(_released(hold), beyond=beyond), change.at))
    crossed = not before and begins(trigger, change)
    waits = trigger.duration is not None or trigger.debounce is not None
    resumed = before and waits and hold.since_at is None and hold.fired_at is None
    hold = hold if hold.beyond else replace(hold, beyond=True)
    if not crossed and not resumed:
        back = trigger.periodicity is not None and hold.since_at is None and hold.fired_at is not None
        return Step(fires=False, hold=replace(hold, since_at=change.at) if back else hold)
    return _begin(trigger, hold, change)


def _was_beyond(band: Band, change: Change) -> bool:
    """Whether the number before this change was beyond, when no hold says so: a trigger may be newer than its value."""
    previous = None if change.previous is None else number_of(change.previous)
    return previous is not None and band.contains(previous)


def _begin(trigger: Trigger, hold: Hold, change: Change) -> Step:
    """Return what a change does that satisfies every key."""
    at = change.at
    if trigger.duration is not None:
        held = hold if hold.since_at is not None else replace(hold, since_at=at, fired_at=None)
        if trigger.debounce is not None and held.fired_at is None:
            held = replace(held, changed_at=at)
        return Step(fires=False, hold=held)
    if trigger.debounce is not None:
        if change.silent:
            return Step(fires=False, hold=_kept(trigger, hold, at))
        return Step(fires=False, hold=replace(hold, since_at=at, fired_at=None, changed_at=at))
    if trigger.periodicity is not None:
        hold = replace(hold, since_at=hold.since_at or at, fired_at=at)
    return Step(fires=not change.silent, hold=_kept(trigger, hold, at))


def _released(hold: Hold) -> Hold:
    """Return a hold that is satisfied no longer: only what outlasts that is left."""
    return replace(hold, since_at=None, fired_at=None, changed_at=None, meta=EMPTY)


def _kept(trigger: Trigger, hold: Hold, at: datetime) -> Hold | None:
    """Return a hold, or None when it has nothing more to say."""
    throttles = trigger.throttle is not None and hold.ran_at is not None and at - hold.ran_at < trigger.throttle
    worth = hold.since_at is not None or hold.fired_at is not None or hold.beyond or throttles
    return hold if worth else None


def deadline(trigger: Trigger, hold: Hold) -> datetime | None:
    """Return when the trigger fires next if nothing changes, or None."""
    if hold.since_at is None:
        return None
    if hold.fired_at is not None:
        return None if trigger.periodicity is None else hold.fired_at + trigger.periodicity
    dues = []
    if trigger.duration is not None:
        dues.append(hold.since_at + trigger.duration)
    if trigger.debounce is not None and hold.changed_at is not None:
        dues.append(hold.changed_at + trigger.debounce)
    return max(dues, default=None)


def tick(trigger: Trigger, hold: Hold, now: datetime) -> Step:
    """Return what the passing of time does: at most one firing, however many deadlines have passed."""
    due = deadline(trigger, hold)
    if due is None or now < due:
        return Step(fires=False, hold=hold)
    if trigger.periodicity:
        due += (now - due) // trigger.periodicity * trigger.periodicity
    fired = replace(hold, fired_at=due)
    if trigger.duration is None and trigger.periodicity is None and trigger.band is None:
        return Step(fires=True, hold=_kept(trigger, _released(fired), now))
    return Step(fires=True, hold=fired)


def silence_deadline(trigger: Trigger, hold: Hold | None, heard_at: datetime) -> datetime | None:
    """Return when a silence fires next: `heard_at` is the later of the last live report and our connection.

    It fires once for each silence, a new connection in the middle of it makes no second one; with `periodicity` it
    fires again while it lasts.
    """
    if trigger.silence is None:
        return None
    if hold is None or hold.fired_at is None:
        return heard_at + trigger.silence
    return None if trigger.periodicity is None else hold.fired_at + trigger.periodicity


def fall_silent(trigger: Trigger, hold: Hold, due: datetime, now: datetime) -> Hold:
    """Return the hold of a silence that fires now and was due then."""
    if trigger.periodicity:
        due += (now - due) // trigger.periodicity * trigger.periodicity
    return replace(hold, fired_at=due)


def throttled(trigger: Trigger, hold: Hold | None, at: datetime) -> bool:
    """Whether the operation was started by this trigger less than `throttle` ago."""
    if trigger.throttle is None or hold is None or hold.ran_at is None:
        return False
    return timedelta(0) <= at - hold.ran_at < trigger.throttle


def after_restart(trigger: Trigger, hold: Hold, now: datetime) -> Hold | None:
    """Return what a start of the service makes of a hold that has not fired, as `on_restart` says."""
    pending = hold.since_at is not None and hold.fired_at is None
    if not pending or trigger.on_restart is OnRestart.RESUME:
        return hold
    if trigger.on_restart is OnRestart.DROP:
        return _kept(trigger, _released(hold), now)
    return replace(hold, since_at=now, changed_at=None if hold.changed_at is None else now)


def shift(hold: Hold, step: timedelta) -> Hold:
    """Return the hold after the wall clock was set by that much, so that its remaining time stays the same."""

    def moved(at: datetime | None) -> datetime | None:
        return None if at is None else at + step

    return replace(
        hold,
        since_at=moved(hold.since_at),
        fired_at=moved(hold.fired_at),
        changed_at=moved(hold.changed_at),
        ran_at=moved(hold.ran_at),
    )
