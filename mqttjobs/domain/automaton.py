"""The trigger automaton: what a change and the passing of time do to one trigger of one entity (behaviour 2).

Pure and total: `receive(change)`, `tick(now)` and `deadline()` are functions of the trigger, the stored TriggerState
and their argument. A deadline is always computed from the stored facts, so a restart at any moment changes nothing.

::

               begins to be satisfied          now >= since + duration, and quiet for debounce
    (not held) ───────────────────────▶ pending ──────────────────────────────────────────────▶ fired
        ▲                                  │ still satisfied: the clock goes on                   │ every periodicity:
        │                                  │ (debounce: quiet is counted anew)                    │ fires again
        └──────────────────────────────────┴─────────────── satisfied no longer ──────────────────┘

Two questions are asked of a change. Does it *begin*: every `beginning` test agrees with where it came from, and a
threshold is crossed. Does it *last*: every `lasting` test agrees with the new state, and it is beyond the threshold.
The keys of a trigger answer them; see domain/triggers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from mqttjobs.domain.model import EMPTY, Change, EntityKey
from mqttjobs.domain.starting import SkipReason
from mqttjobs.domain.triggers.base import Trigger, TriggerKey, TriggerState, Waiting


class Step(NamedTuple):
    """What one input does: whether the trigger fires, and the state that is to be stored (None: none)."""

    fires: bool
    state: TriggerState | None


NOTHING = Step(fires=False, state=None)
FIRES = Step(fires=True, state=None)


def trigger_state_name(trigger_id: str, entity: EntityKey) -> str:
    """Return the name under which the state of a trigger of an entity is stored."""
    return f"{trigger_id}|{entity.kind}|{entity.id}"


def receive(trigger: Trigger, entity: EntityKey, name: str, state: TriggerState | None, change: Change) -> Step:
    """Return what a change of the watched value does.

    Without `duration` and `debounce` every change that satisfies fires, also from one listed state to another, and a
    threshold only when it is crossed; a silent change only arms. With `duration` the first satisfying change starts
    the clock and a later one does not restart it.
    """
    if trigger.level is not None:
        return _receive_level(trigger, trigger.level, state or TriggerState(name, entity), change)
    text = change.text
    for test in trigger.lasting:
        if not test(text):
            if state is None:
                return NOTHING
            return Step(fires=False, state=kept(trigger, released(trigger, state), change.at))
    for begins in trigger.beginning:
        if not begins(change):
            return Step(fires=False, state=state)
    if state is None and trigger.is_plain:
        return NOTHING if change.silent else FIRES
    return _begin(trigger, state or TriggerState(name, entity), change)


def lasts(trigger: Trigger, text: str) -> bool:
    """Whether a state is one that the trigger waits for, thresholds apart."""
    for test in trigger.lasting:  # noqa: SIM110 - a generator costs more than the tests
        if not test(text):
            return False
    return True


def may_satisfy(trigger: Trigger, text: str) -> bool:
    """Whether some change to this state can satisfy the trigger."""
    return lasts(trigger, text) and (trigger.level is None or trigger.level.side(text, was_beyond=False) is True)


def is_satisfied(trigger: Trigger, state: TriggerState | None, text: str) -> bool:
    """Whether the trigger is satisfied by a value with this state, given its stored state."""
    beyond = trigger.level is None or (state is not None and trigger.level.name in state.memory)
    return beyond and lasts(trigger, text)


def _receive_level(trigger: Trigger, level: TriggerKey, state: TriggerState, change: Change) -> Step:
    """Return what a change does to a trigger with thresholds; what is no number interrupts, and crosses nothing."""
    remembered = level.name in state.memory
    before = remembered or _was_beyond(level, change)
    beyond = level.side(change.text, was_beyond=before)
    if beyond is None:
        held = _on_side(level, replace(released(trigger, state), fired_at=state.fired_at), beyond=before)
        return Step(fires=False, state=kept(trigger, held, change.at))
    if not beyond or (trigger.lasting and not lasts(trigger, change.text)):
        held = _on_side(level, released(trigger, state), beyond=beyond)
        return Step(fires=False, state=kept(trigger, held, change.at))
    if not remembered:
        state = remembering(state, level, remembered=True)
    if before:
        begins = bool(trigger.waiting) and state.since_at is None and state.fired_at is None
    else:
        begins = not trigger.beginning or all(test(change) for test in trigger.beginning)
    if begins:
        return _begin(trigger, state, change)
    back = trigger.repeats is not None and state.since_at is None and state.fired_at is not None
    return Step(fires=False, state=replace(state, since_at=change.at) if back else state)


def _was_beyond(level: TriggerKey, change: Change) -> bool:
    """Whether the number before this change was beyond, where no state says so: the value may be older."""
    return change.previous is not None and level.side(change.previous, was_beyond=False) is True


def _on_side(level: TriggerKey, state: TriggerState, *, beyond: bool) -> TriggerState:
    return state if (level.name in state.memory) is beyond else remembering(state, level, beyond or None)


def _begin(trigger: Trigger, state: TriggerState, change: Change) -> Step:
    """Return what a change does that satisfies every key."""
    at = change.at
    if trigger.keeps_clock:
        if state.since_at is None:
            return Step(fires=False, state=_pending(trigger, state, at, at))
        if state.fired_at is not None or not trigger.marking:
            return Step(fires=False, state=state)
        return Step(fires=False, state=_pending(trigger, state, state.since_at, at))
    if trigger.waiting:
        return Step(fires=False, state=kept(trigger, state, at) if change.silent else _pending(trigger, state, at, at))
    fires = not change.silent
    if fires:
        for key in trigger.counting:
            count = key.counted(state.memory.get(key.name), at)
            fires = fires and count is None
            state = remembering(state, key, count)
    if trigger.repeats is not None and (fires or not trigger.counting):
        state = replace(state, since_at=state.since_at or at, fired_at=at)
    return Step(fires=fires, state=kept(trigger, state, at))


def _pending(trigger: Trigger, state: TriggerState, since_at: datetime, at: datetime) -> TriggerState:
    """Return a state that waits for its deadline, in which the keys remember that a change now began to satisfy it."""
    memory = state.memory
    if trigger.marking:
        memory = {**memory, **{key.name: key.begun(at) for key in trigger.marking}}
    return TriggerState(state.name, state.entity, since_at, None, state.meta, memory)


def remembering(state: TriggerState, key: TriggerKey, remembered: Any) -> TriggerState:
    """Return a state in which a key remembers something; None: nothing."""
    if remembered is not None:
        memory: Mapping[str, Any] = {**state.memory, key.name: remembered}
    else:
        memory = {name: each for name, each in state.memory.items() if name != key.name} or EMPTY
    return TriggerState(state.name, state.entity, state.since_at, state.fired_at, state.meta, memory)


def released(trigger: Trigger, state: TriggerState) -> TriggerState:
    """Return a state that is satisfied no longer: only what outlasts that is left."""
    memory = state.memory
    if memory and trigger.marking:
        marks = [key.name for key in trigger.marking]
        memory = {name: each for name, each in memory.items() if name not in marks} or EMPTY
    return TriggerState(state.name, state.entity, memory=memory)


def kept(trigger: Trigger, state: TriggerState, at: datetime) -> TriggerState | None:
    """Return a state, or None when it has nothing more to say."""
    if state.since_at is not None or state.fired_at is not None:
        return state
    memory = state.memory
    for key in trigger.keys if memory else ():
        if key.name in memory and key.matters(memory[key.name], at):
            return state
    return None


def deadline(trigger: Trigger, state: TriggerState) -> datetime | None:
    """Return when the trigger fires next if nothing changes, or None."""
    since_at = state.since_at
    if since_at is None:
        return None
    if state.fired_at is not None:
        return None if trigger.repeats is None else state.fired_at + trigger.repeats
    latest: datetime | None = None
    for key in trigger.waiting:
        due = key.due(since_at, state.memory.get(key.name))
        if due is not None and (latest is None or due > latest):
            latest = due
    return latest


def tick(trigger: Trigger, state: TriggerState, now: datetime) -> Step:
    """Return what the passing of time does: at most one firing, however many deadlines have passed."""
    due = deadline(trigger, state)
    if due is None or now < due:
        return Step(fires=False, state=state)
    fired = replace(state, fired_at=_on_grid(trigger, due, now))
    if not trigger.is_timed and trigger.level is None:
        return Step(fires=True, state=kept(trigger, released(trigger, fired), now))
    return Step(fires=True, state=fired)


def _on_grid(trigger: Trigger, due: datetime, now: datetime) -> datetime:
    """Return the last time at which a trigger that was due then should have fired by now."""
    return due if trigger.repeats is None else due + (now - due) // trigger.repeats * trigger.repeats


def silence_deadline(trigger: Trigger, state: TriggerState | None, heard_at: datetime) -> datetime | None:
    """Return when a silence fires next: `heard_at` is the later of the last live report and our connection.

    It fires once for each silence, a new connection in the middle of it makes no second one; with `periodicity` it
    fires again while it lasts.
    """
    if trigger.silence is None:
        return None
    if state is None or state.fired_at is None:
        return trigger.silence.due_unheard(heard_at)
    return None if trigger.repeats is None else state.fired_at + trigger.repeats


def fall_silent(trigger: Trigger, state: TriggerState, due: datetime, now: datetime) -> TriggerState:
    """Return the state of a silence that fires now and was due then."""
    return replace(state, fired_at=_on_grid(trigger, due, now))


def heard_again(state: TriggerState) -> TriggerState | None:
    """Return what is left of the state of a silence that is over, or None."""
    return replace(state, fired_at=None) if state.memory else None


def skip_reason(trigger: Trigger, state: TriggerState | None, at: datetime) -> SkipReason | None:
    """Return why a trigger that fires may not start its operation because of what it remembers, or None."""
    for key in trigger.skipping:
        reason = key.skip_reason(None if state is None else state.memory.get(key.name), at)
        if reason is not None:
            return reason
    return None


def ran(trigger: Trigger, state: TriggerState, at: datetime) -> TriggerState:
    """Return the state of a trigger that has started its operation."""
    for key in trigger.running:
        state = remembering(state, key, key.ran(at))
    return state


def waiting(trigger: Trigger, state: TriggerState | None, now: datetime) -> Waiting | None:
    """Return what the trigger waits for because of what a key remembers, or None."""
    return None if state is None else _waiting(trigger.keys, state, now)


def counting(trigger: Trigger, state: TriggerState, now: datetime) -> Waiting | None:
    """Return how many changes the trigger has counted and waits for, or None."""
    return _waiting(trigger.counting, state, now)


def _waiting(keys: Iterable[TriggerKey], state: TriggerState, now: datetime) -> Waiting | None:
    found = (key.waiting(state.memory.get(key.name), now) for key in keys)
    return next((each for each in found if each is not None), None)


def after_restart(trigger: Trigger, state: TriggerState, now: datetime) -> TriggerState | None:
    """Return what a start of the service makes of a stored state, as `on_restart` says."""
    after: TriggerState | None = state
    for key in trigger.restarting:
        after = None if after is None else key.after_restart(trigger, after, now)
    return after


def shift(state: TriggerState, step: timedelta) -> TriggerState:
    """Return the state after the wall clock was set by that much, so that its remaining time stays the same."""
    return replace(
        state,
        since_at=_moved(state.since_at, step),
        fired_at=_moved(state.fired_at, step),
        memory=_moved(state.memory, step) if state.memory else EMPTY,
    )


def _moved(remembered: Any, step: timedelta) -> Any:
    """Return what is remembered with every time in it moved."""
    if isinstance(remembered, datetime):
        return remembered + step
    if isinstance(remembered, tuple | list):
        return tuple(_moved(each, step) for each in remembered)
    if isinstance(remembered, Mapping):
        return {name: _moved(each, step) for name, each in remembered.items()}
    return remembered
