"""When a schedule is due: cron text in a time zone, or a fixed interval; computed from the stored last due time."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from cronsim import CronSim, CronSimError

from mqttjobs.domain.model import Schedule


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
    upcoming = next(CronSim(schedule.cron, last.astimezone(zone)), None)
    return None if upcoming is None else upcoming.astimezone(UTC)


def latest_due(schedule: Schedule, last: datetime, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the latest due time after `last` and not after `now`, or None: what was missed counts once."""
    first = next_due(schedule, last, zone)
    if first is None or first > now:
        return None
    if schedule.every is not None:
        return first + (now - first) // schedule.every * schedule.every
    if schedule.cron is None:
        return None
    moment = now.astimezone(zone)
    for due in CronSim(schedule.cron, moment, reverse=True):
        passed = due.astimezone(UTC)
        return max(first, passed) if passed <= now else first
    return first
