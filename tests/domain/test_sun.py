"""Sunrise and sunset: instants that are right in every zone, at every daylight-saving change and beyond the circles."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.domain.starting import At, Moment
from mqttjobs.domain.sun import Location, daylight, default_location, latest_moment, next_moment

BERLIN = Location(52.52, 13.40)
SUNSET, SUNRISE = At(Moment.SUNSET), At(Moment.SUNRISE)
ZONES = [ZoneInfo(name) for name in ("Europe/Berlin", "UTC", "Asia/Tokyo", "Pacific/Honolulu", "Pacific/Kiritimati")]


@pytest.mark.parametrize(
    ("day", "rises", "sets"),
    [("2026-06-21", "02:43", "19:33"), ("2026-12-21", "07:15", "14:54"), ("2026-03-29", "04:48", "17:33")],
)
def test_berlin_in_almanacs(day: str, rises: str, sets: str) -> None:
    light = daylight(BERLIN, date.fromisoformat(day), ZoneInfo("Europe/Berlin"))
    for found, wanted in ((light.sunrise, rises), (light.sunset, sets)):
        assert found is not None
        assert abs(found - datetime.fromisoformat(f"{day} {wanted}:00+00:00")) < timedelta(minutes=3)


moments = st.integers(0, 1_576_800).map(lambda each: datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=each))


@given(moments, st.sampled_from([SUNSET, SUNRISE]), st.integers(-36, 36), st.integers(-180, 180))
def test_the_next_one_comes_within_about_a_day_wherever_that_is(
    now: datetime, plain: At, hours: int, longitude: int
) -> None:
    found = next_moment(At(plain.moment, timedelta(hours=hours)), now, Location(52.52, longitude))
    assert found is not None
    assert timedelta(0) < found - now < timedelta(hours=24, minutes=10)


@given(moments, st.sampled_from(ZONES))
def test_a_day_that_has_no_sunset_in_a_zone_far_away_still_has_its_sunrise(now: datetime, zone: ZoneInfo) -> None:
    light = daylight(BERLIN, now.date(), zone)
    found = [moment for moment in light[:2] if moment is not None]
    assert found
    assert all(moment.astimezone(zone).date() == now.date() for moment in found)


@given(moments, st.integers(0, 200))
def test_one_after_the_other_none_is_left_out_and_the_latest_missed_one_is_the_last_of_them(
    now: datetime, hours: int
) -> None:
    end = now + timedelta(hours=hours)
    each, last = next_moment(SUNSET, now, BERLIN), None
    while each is not None and each <= end:
        following = next_moment(SUNSET, each, BERLIN)
        assert following is not None
        assert timedelta(hours=23, minutes=50) < following - each < timedelta(hours=24, minutes=10)
        last, each = each, following
    assert latest_moment(SUNSET, now, end, BERLIN) == last


def test_beyond_the_circle_the_next_sunset_is_the_first_after_the_midnight_sun() -> None:
    tromso, zone = Location(69.65, 18.96), ZoneInfo("Europe/Oslo")
    june = datetime(2026, 6, 21, tzinfo=UTC)
    found = next_moment(SUNSET, june, tromso)
    assert found is not None
    assert timedelta(days=20) < found - june < timedelta(days=60)
    assert daylight(tromso, june.date(), zone).up
    assert not daylight(tromso, date(2026, 12, 21), zone).up


def test_an_absence_of_years_is_looked_through_in_bounded_time() -> None:
    end = datetime(2026, 6, 1, 12, tzinfo=UTC)
    found = latest_moment(SUNRISE, datetime(1990, 1, 1, tzinfo=UTC), end, BERLIN)
    assert found is not None
    assert found.date() == end.date()


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/New_York", "Australia/Sydney", "Pacific/Kiritimati"])
@pytest.mark.parametrize("month", range(1, 13))
def test_at_the_usual_place_the_sun_rises_about_six_and_sets_about_eighteen_o_clock(name: str, month: int) -> None:
    zone = ZoneInfo(name)
    light = daylight(default_location(zone), date(2026, month, 15), zone)
    for moment, hour in ((light.sunrise, 6), (light.sunset, 18)):
        assert moment is not None
        local = moment.astimezone(zone)
        standard = local.replace(tzinfo=None) - (local.dst() or timedelta())
        assert abs(standard - datetime(2026, month, 15, hour)) < timedelta(minutes=25)  # noqa: DTZ001 - as clocks show it
