"""Sunrise and sunset of a place, as instants: right in every time zone and on both sides of the polar circles."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache

from astral import Observer
from astral.sun import elevation, sunrise, sunset

from mqttjobs.domain.starting import At, Daylight, Moment

LOOK_AHEAD_DAYS = 400
"""The longest polar night is shorter than this."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A place on earth, in degrees."""

    latitude: float
    longitude: float


@lru_cache(maxsize=1024)
def daylight(spot: Spot, day: date, zone: tzinfo) -> Daylight:
    """Return when the sun rises and sets on a day of `zone`."""
    observer = Observer(spot.latitude, spot.longitude, 0)
    try:
        rises = sunrise(observer, day, tzinfo=zone)
        sets = sunset(observer, day, tzinfo=zone)
    except ValueError:
        noon = datetime.combine(day, time(12), zone)
        return Daylight(None, None, up=elevation(observer, noon) > 0)
    return Daylight(_whole(rises), _whole(sets))


def _whole(moment: datetime) -> datetime:
    """Cut to whole milliseconds, as everything that is stored."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


def next_moment(at: At, after: datetime, spot: Spot, zone: tzinfo) -> datetime | None:
    """Return the first sunrise or sunset, moved by the offset, later than `after`; None if none ever comes."""
    if at.moment is Moment.START:
        return None
    first = (after - at.offset).astimezone(zone).date() - timedelta(days=1)
    for days in range(LOOK_AHEAD_DAYS):
        light = daylight(spot, first + timedelta(days=days), zone)
        plain = light.sunrise if at.moment is Moment.SUNRISE else light.sunset
        if plain is not None and plain + at.offset > after:
            return plain + at.offset
    return None


def latest_moment(at: At, after: datetime, now: datetime, spot: Spot, zone: tzinfo) -> datetime | None:
    """Return the latest such moment later than `after` and not after `now`, or None: what was missed counts once."""
    found: datetime | None = None
    start = max(after, now - timedelta(days=LOOK_AHEAD_DAYS))
    while (due := next_moment(at, found or start, spot, zone)) is not None and due <= now:
        found = due
    return found
