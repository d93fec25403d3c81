"""A trigger in words: what it watches, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from mqttjobs.domain.model import Trigger
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.schedules import Interval
from mqttjobs.domain.starting import Moment

_UNITS = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("m", timedelta(minutes=1)), ("s", timedelta(seconds=1)))


def describe_duration(value: timedelta) -> str:
    """Return a duration in a few letters: `5m`, `1h30m`, `500ms`."""
    rest, message = value, ""
    for unit, length in _UNITS:
        count, rest = divmod(rest, length)
        message += f"{count}{unit}" if count else ""
    milliseconds = rest // timedelta(milliseconds=1)
    return message + (f"{milliseconds}ms" if milliseconds or not message else "")


def describe_watched(trigger: Trigger, entity_id: str) -> str:
    """Return what a trigger looks at: `the battery of hall_motion`."""
    if trigger.silence is not None:
        return f"whether {entity_id} is heard"
    if trigger.availability:
        return f"the availability of {entity_id}"
    return f"the {trigger.attribute or 'state'} of {entity_id}"


def describe_wanted(trigger: Trigger) -> str:
    """Return what a trigger wants to see, in words that follow `it`: `is on for 5m`."""
    if trigger.silence is not None:
        return f"is not heard for {describe_duration(trigger.silence)}{_again(trigger)}"
    if trigger.at is not None:
        return _describe_moment(trigger)
    message = " and ".join(_describe_change(trigger)) or "changes"
    if trigger.duration is not None:
        message += f" and stays so for {describe_duration(trigger.duration)}"
    if trigger.debounce is not None:
        message += f", once it has been quiet for {describe_duration(trigger.debounce)}"
    message += _again(trigger)
    if trigger.throttle is not None:
        message += f", at most once in {describe_duration(trigger.throttle)}"
    return message


def _describe_change(trigger: Trigger) -> list[str]:
    parts = []
    if trigger.states is not None:
        parts.append(f"becomes {_either(trigger.states_in_order or sorted(trigger.states))}")
    if trigger.threshold is not None:
        parts.append(_describe_threshold(trigger))
    if trigger.not_states:
        parts.append(f"becomes anything but {_either(sorted(trigger.not_states))}")
    if trigger.from_states is not None:
        parts.append(f"was {_either(sorted(trigger.from_states))} before")
    if trigger.not_from:
        parts.append(f"was not {_either(sorted(trigger.not_from))} before")
    return parts


def describe_start(operation: Operation) -> str:
    """Return how an operation starts besides its triggers, or nothing."""
    schedule = operation.schedule
    if schedule is None:
        return ""
    if isinstance(schedule, Interval):
        return f"every {describe_duration(schedule.every)}"
    return f"by the schedule {schedule}"


def _again(trigger: Trigger) -> str:
    return "" if trigger.periodicity is None else f", and again every {describe_duration(trigger.periodicity)}"


def _describe_threshold(trigger: Trigger) -> str:
    threshold = trigger.threshold
    if threshold is None:
        return ""
    if threshold.above is not None and threshold.below is not None:
        message = f"comes between {threshold.above:g} and {threshold.below:g}"
    elif threshold.above is not None:
        message = f"rises above {threshold.above:g}"
    else:
        message = f"falls below {threshold.below:g}"
    return message + (f" (and back by {threshold.hysteresis:g} before it counts again)" if threshold.hysteresis else "")


def _describe_moment(trigger: Trigger) -> str:
    at = trigger.at
    if at is None:
        return ""
    if at.moment is Moment.START:
        return "the service starts"
    plain = "the sun rises" if at.moment is Moment.SUNRISE else "the sun sets"
    if not at.offset:
        return plain
    return f"{describe_duration(abs(at.offset))} {'before' if at.offset < timedelta(0) else 'after'} {plain}"


def _either(states: Iterable[str]) -> str:
    return " or ".join(states)
