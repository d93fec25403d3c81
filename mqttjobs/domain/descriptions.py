"""A trigger in words: what it watches, and what it waits for."""

from __future__ import annotations

from mqttjobs.domain.durations import describe_duration
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.schedules import Interval
from mqttjobs.domain.triggers.base import Trigger


def describe_watched(trigger: Trigger, entity_id: str) -> str:
    """Return what a trigger looks at: `the battery of hall_motion`."""
    found = (key.describe_watched(entity_id) for key in trigger.keys)
    return next((each for each in found if each is not None), f"the state of {entity_id}")


def describe_wanted(trigger: Trigger) -> str:
    """Return what a trigger wants to see, as a phrase that follows `it`: `is on for 5m`."""
    phrases = [phrase for key in trigger.keys if (phrase := key.describe())]
    return (" and ".join(phrases) or "changes") + "".join(key.describe_addition() for key in trigger.keys)


def describe_start(operation: Operation) -> str:
    """Return how an operation starts besides its triggers, or nothing."""
    schedule = operation.schedule
    if schedule is None:
        return ""
    if isinstance(schedule, Interval):
        return f"every {describe_duration(schedule.every)}"
    return f"by the schedule {schedule}"
