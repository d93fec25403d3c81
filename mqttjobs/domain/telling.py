"""A trigger in words: what it watches, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from mqttjobs.domain.model import Operation, Trigger
from mqttjobs.domain.starting import Moment

_UNITS = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("m", timedelta(minutes=1)), ("s", timedelta(seconds=1)))


def duration_words(value: timedelta) -> str:
    """Return a duration in a few letters: `5m`, `1h30m`, `500ms`."""
    rest, words = value, ""
    for unit, length in _UNITS:
        count, rest = divmod(rest, length)
        words += f"{count}{unit}" if count else ""
    milliseconds = rest // timedelta(milliseconds=1)
    return words + (f"{milliseconds}ms" if milliseconds or not words else "")


def watched_words(trigger: Trigger, entity_id: str) -> str:
    """Return what a trigger looks at: `the battery of hall_motion`."""
    if trigger.silence is not None:
        return f"whether {entity_id} is heard"
    if trigger.availability:
        return f"the availability of {entity_id}"
    return f"the {trigger.attribute or 'state'} of {entity_id}"


def wanted_words(trigger: Trigger) -> str:
    """Return what a trigger wants to see, in words that follow `it`: `is on for 5m`."""
    if trigger.silence is not None:
        return f"is not heard for {duration_words(trigger.silence)}{_again(trigger)}"
    if trigger.at is not None:
        return _moment_words(trigger)
    words = " and ".join(_change_words(trigger)) or "changes"
    if trigger.duration is not None:
        words += f" and stays so for {duration_words(trigger.duration)}"
    if trigger.debounce is not None:
        words += f", once it has been quiet for {duration_words(trigger.debounce)}"
    words += _again(trigger)
    if trigger.throttle is not None:
        words += f", at most once in {duration_words(trigger.throttle)}"
    return words


def _change_words(trigger: Trigger) -> list[str]:
    parts = []
    if trigger.states is not None:
        parts.append(f"becomes {_either(trigger.states_in_order or sorted(trigger.states))}")
    if trigger.band is not None:
        parts.append(_band_words(trigger))
    if trigger.not_states:
        parts.append(f"becomes anything but {_either(sorted(trigger.not_states))}")
    if trigger.from_states is not None:
        parts.append(f"was {_either(sorted(trigger.from_states))} before")
    if trigger.not_from:
        parts.append(f"was not {_either(sorted(trigger.not_from))} before")
    return parts


def start_words(operation: Operation) -> str:
    """Return how an operation starts besides its triggers, or nothing."""
    schedule = operation.schedule
    if schedule is None:
        return ""
    if schedule.every is not None:
        return f"every {duration_words(schedule.every)}"
    return f"by the schedule {schedule.cron}"


def _again(trigger: Trigger) -> str:
    return "" if trigger.periodicity is None else f", and again every {duration_words(trigger.periodicity)}"


def _band_words(trigger: Trigger) -> str:
    band = trigger.band
    if band is None:
        return ""
    if band.above is not None and band.below is not None:
        words = f"comes between {band.above:g} and {band.below:g}"
    elif band.above is not None:
        words = f"rises above {band.above:g}"
    else:
        words = f"falls below {band.below:g}"
    return words + (f" (and back by {band.hysteresis:g} before it counts again)" if band.hysteresis else "")


def _moment_words(trigger: Trigger) -> str:
    at = trigger.at
    if at is None:
        return ""
    if at.moment is Moment.START:
        return "the service starts"
    plain = "the sun rises" if at.moment is Moment.SUNRISE else "the sun sets"
    if not at.offset:
        return plain
    return f"{duration_words(abs(at.offset))} {'before' if at.offset < timedelta(0) else 'after'} {plain}"


def _either(states: Iterable[str]) -> str:
    return " or ".join(states)
