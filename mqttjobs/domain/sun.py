"""Sunrise and sunset at a location, as instants, in every time zone and on both sides of the polar circles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache

from astral import Observer
from astral.sun import elevation, sunrise, sunset

from mqttjobs.domain.starting import At, Daylight, Moment

LOOK_AHEAD_DAYS = 400
"""Longer than any polar night."""


@dataclass(frozen=True, slots=True)
class Location:
    """A location on earth: latitude and longitude in degrees."""

    latitude: float
    longitude: float


def default_location(zone: tzinfo) -> Location:
    """Return a location where the sun rises about 06:00 and sets about 18:00 all year, by standard time of `zone`."""
    january = datetime(2026, 1, 1, tzinfo=zone)
    standard = (january.utcoffset() or timedelta()) - (january.dst() or timedelta())
    return Location(0.0, (standard / timedelta(hours=1) * 15 + 180) % 360 - 180)


@lru_cache(maxsize=1024)
def daylight(location: Location, day: date, zone: tzinfo) -> Daylight:
    """Return when the sun rises and sets on a day of `zone`."""
    observer = Observer(location.latitude, location.longitude, 0)
    rises, sets = _on(sunrise, observer, day, zone), _on(sunset, observer, day, zone)
    noon = datetime.combine(day, time(12), zone)
    up = rises is None and sets is None and elevation(observer, noon) > 0
    return Daylight(rises, sets, up=up)


def _on(moment: Callable[..., datetime], observer: Observer, day: date, zone: tzinfo) -> datetime | None:
    """Return a sunrise or sunset on a day of `zone`, or None where that day has none."""
    try:
        return _whole(moment(observer, day, tzinfo=zone))
    except ValueError:
        return None


def _whole(moment: datetime) -> datetime:
    """Return an instant cut to whole milliseconds, as all stored times are."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


def next_moment(at: At, after: datetime, location: Location) -> datetime | None:
    """Return the first sunrise or sunset, moved by the offset, later than `after`; None if there is none.

    The search goes by solar days at the location. In a time zone far from the location the sun may set about midnight,
    so that a calendar day has two sunsets or none.
    """
    if at.moment is Moment.START:
        return None
    zone = timezone(timedelta(hours=round(location.longitude / 15)))
    first = (after - at.offset).astimezone(zone).date() - timedelta(days=1)
    for days in range(LOOK_AHEAD_DAYS):
        light = daylight(location, first + timedelta(days=days), zone)
        plain = light.sunrise if at.moment is Moment.SUNRISE else light.sunset
        if plain is not None and plain + at.offset > after:
            return plain + at.offset
    return None


def latest_moment(at: At, after: datetime, now: datetime, location: Location) -> datetime | None:
    """Return the latest such instant in (`after`, `now`], or None: several missed ones count as one."""
    found: datetime | None = None
    start = max(after, now - timedelta(days=LOOK_AHEAD_DAYS))
    while (due := next_moment(at, found or start, location)) is not None and due <= now:
        found = due
    return found
