"""When a schedule is due: cron text in a time zone, or a fixed interval; computed from the stored last due time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

from mqttjobs.domain.model import Schedule

_WINDOWS = (timedelta(hours=1), timedelta(days=1), timedelta(days=31), timedelta(days=366))
"""How far back the latest due time is looked for, so that a long absence costs few steps."""


def check_cron(text: str) -> None:
    """Raise ValueError in words unless `text` is cron of five fields."""
    if len(text.split()) != 5:
        raise ValueError("a cron schedule has five fields: minute, hour, day of the month, month, day of the week")
    try:
        next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"not a cron schedule: {str(error).lower()}") from error
    except StopIteration:
        raise ValueError("this cron schedule never comes") from None


def next_due(schedule: Schedule, last: datetime, zone: tzinfo) -> datetime | None:
    """Return the first due time after `last`, in UTC; None for a schedule that never comes again.

    Cron text is read in `zone`; at a daylight-saving change a time that is skipped runs once right after it, and
    one that comes twice runs once.
    """
    if schedule.every is not None:
        return last + schedule.every
    if schedule.cron is None:
        return None
    for upcoming in CronSim(schedule.cron, last.astimezone(zone)):
        due = upcoming.astimezone(UTC)
        if due > last:  # in the second of a doubled hour the first one's times come up again
            return due
    return None


def latest_due(schedule: Schedule, last: datetime, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the latest due time after `last` and not after `now`, or None: what was missed counts once."""
    first = next_due(schedule, last, zone)
    if first is None or first > now:
        return None
    if schedule.every is not None:
        return first + (now - first) // schedule.every * schedule.every
    for window in _WINDOWS:  # backwards the zone's doubled hour is read wrongly, so each window is walked forwards
        if now - last <= window:
            break
        found = _last_within(schedule, now - window, now, zone)
        if found is not None:
            return found
    return _last_within(schedule, last, now, zone)


def _last_within(schedule: Schedule, after: datetime, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the last due time after `after` and not after `now`, or None."""
    found = None
    due = next_due(schedule, after, zone)
    while due is not None and due <= now:
        found, due = due, next_due(schedule, due, zone)
    return found
