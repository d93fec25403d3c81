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

from mqttjobs.domain.model import EMPTY, Change, EntityKey, Json, Trigger
from mqttjobs.domain.starting import OnRestart
from mqttjobs.domain.thresholds import Threshold, number_of


@dataclass(frozen=True, slots=True)
class TriggerState:
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
    state: TriggerState | None


NOTHING = Step(fires=False, state=None)


def trigger_state_name(trigger_id: str, entity: EntityKey) -> str:
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
        trigger.is_timed
        and trigger.states is None
        and trigger.from_states is not None
        and change.text in trigger.from_states
    )


def receive(trigger: Trigger, entity: EntityKey, name: str, state: TriggerState | None, change: Change) -> Step:
    """Return what a change of the watched value does.

    Without `duration` and `debounce` every change that satisfies fires, also from one listed state to another, and a
    threshold only when it is crossed; a silent change only arms. With `duration` the first satisfying change starts
    the clock and a later one does not restart it.
    """
    if trigger.threshold is not None:
        return _receive_number(trigger, trigger.threshold, state or TriggerState(name, entity), change)
    if not lasts(trigger, change.text) or _came_back(trigger, change):
        return NOTHING if state is None else Step(fires=False, state=_kept(trigger, _released(state), change.at))
    if not begins(trigger, change):
        return Step(fires=False, state=state)
    if state is None and not trigger.is_timed and trigger.debounce is None:
        return Step(fires=not change.silent, state=None)
    return _begin(trigger, state or TriggerState(name, entity), change)


def _receive_number(trigger: Trigger, threshold: Threshold, state: TriggerState, change: Change) -> Step:
    """Return what a change does to a trigger with thresholds; what is no number interrupts, and crosses nothing."""
    before = state.beyond or _was_beyond(threshold, change)
    number = number_of(change.text)
    if number is None:
        held = replace(state, since_at=None, changed_at=None, meta=EMPTY, beyond=before)
        return Step(fires=False, state=_kept(trigger, held, change.at))
    beyond = threshold.side(before, number)
    if not beyond or not lasts(trigger, change.text):
        return Step(fires=False, state=_kept(trigger, replace(_released(state), beyond=beyond), change.at))
    crossed = not before and begins(trigger, change)
    waits = trigger.duration is not None or trigger.debounce is not None
    resumed = before and waits and state.since_at is None and state.fired_at is None
    state = state if state.beyond else replace(state, beyond=True)
    if not crossed and not resumed:
        back = trigger.periodicity is not None and state.since_at is None and state.fired_at is not None
        return Step(fires=False, state=replace(state, since_at=change.at) if back else state)
    return _begin(trigger, state, change)


def _was_beyond(threshold: Threshold, change: Change) -> bool:
    """Whether the number before this change was beyond, when no hold says so: a trigger may be newer than its value."""
    previous = None if change.previous is None else number_of(change.previous)
    return previous is not None and threshold.contains(previous)


def _begin(trigger: Trigger, state: TriggerState, change: Change) -> Step:
    """Return what a change does that satisfies every key."""
    at = change.at
    if trigger.duration is not None:
        held = state if state.since_at is not None else replace(state, since_at=at, fired_at=None)
        if trigger.debounce is not None and held.fired_at is None:
            held = replace(held, changed_at=at)
        return Step(fires=False, state=held)
    if trigger.debounce is not None:
        if change.silent:
            return Step(fires=False, state=_kept(trigger, state, at))
        return Step(fires=False, state=replace(state, since_at=at, fired_at=None, changed_at=at))
    if trigger.periodicity is not None:
        state = replace(state, since_at=state.since_at or at, fired_at=at)
    return Step(fires=not change.silent, state=_kept(trigger, state, at))


def _released(state: TriggerState) -> TriggerState:
    """Return a hold that is satisfied no longer: only what outlasts that is left."""
    return replace(state, since_at=None, fired_at=None, changed_at=None, meta=EMPTY)


def _kept(trigger: Trigger, state: TriggerState, at: datetime) -> TriggerState | None:
    """Return a hold, or None when it has nothing more to say."""
    throttles = trigger.throttle is not None and state.ran_at is not None and at - state.ran_at < trigger.throttle
    worth = state.since_at is not None or state.fired_at is not None or state.beyond or throttles
    return state if worth else None


def deadline(trigger: Trigger, state: TriggerState) -> datetime | None:
    """Return when the trigger fires next if nothing changes, or None."""
    if state.since_at is None:
        return None
    if state.fired_at is not None:
        return None if trigger.periodicity is None else state.fired_at + trigger.periodicity
    dues = []
    if trigger.duration is not None:
        dues.append(state.since_at + trigger.duration)
    if trigger.debounce is not None and state.changed_at is not None:
        dues.append(state.changed_at + trigger.debounce)
    return max(dues, default=None)


def tick(trigger: Trigger, state: TriggerState, now: datetime) -> Step:
    """Return what the passing of time does: at most one firing, however many deadlines have passed."""
    due = deadline(trigger, state)
    if due is None or now < due:
        return Step(fires=False, state=state)
    if trigger.periodicity:
        due += (now - due) // trigger.periodicity * trigger.periodicity
    fired = replace(state, fired_at=due)
    if trigger.duration is None and trigger.periodicity is None and trigger.threshold is None:
        return Step(fires=True, state=_kept(trigger, _released(fired), now))
    return Step(fires=True, state=fired)


def silence_deadline(trigger: Trigger, state: TriggerState | None, heard_at: datetime) -> datetime | None:
    """Return when a silence fires next: `heard_at` is the later of the last live report and our connection.

    It fires once for each silence, a new connection in the middle of it makes no second one; with `periodicity` it
    fires again while it lasts.
    """
    if trigger.silence is None:
        return None
    if state is None or state.fired_at is None:
        return heard_at + trigger.silence
    return None if trigger.periodicity is None else state.fired_at + trigger.periodicity


def fall_silent(trigger: Trigger, state: TriggerState, due: datetime, now: datetime) -> TriggerState:
    """Return the hold of a silence that fires now and was due then."""
    if trigger.periodicity:
        due += (now - due) // trigger.periodicity * trigger.periodicity
    return replace(state, fired_at=due)


def throttled(trigger: Trigger, state: TriggerState | None, at: datetime) -> bool:
    """Whether the operation was started by this trigger less than `throttle` ago."""
    if trigger.throttle is None or state is None or state.ran_at is None:
        return False
    return timedelta(0) <= at - state.ran_at < trigger.throttle


def after_restart(trigger: Trigger, state: TriggerState, now: datetime) -> TriggerState | None:
    """Return what a start of the service makes of a hold that has not fired, as `on_restart` says."""
    pending = state.since_at is not None and state.fired_at is None
    if not pending or trigger.on_restart is OnRestart.RESUME:
        return state
    if trigger.on_restart is OnRestart.DROP:
        return _kept(trigger, _released(state), now)
    return replace(state, since_at=now, changed_at=None if state.changed_at is None else now)


def shift(state: TriggerState, step: timedelta) -> TriggerState:
    """Return the hold after the wall clock was set by that much, so that its remaining time stays the same."""

    def moved(at: datetime | None) -> datetime | None:
        return None if at is None else at + step

    return replace(
        state,
        since_at=moved(state.since_at),
        fired_at=moved(state.fired_at),
        changed_at=moved(state.changed_at),
        ran_at=moved(state.ran_at),
    )
