"""Schedules: cron text across daylight-saving changes, intervals, and what was missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.domain.schedules import Interval, Schedule, check_cron, latest_due, next_due

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")


def dues(cron: str, zone: ZoneInfo, after: datetime, count: int) -> list[str]:
    """Return the next due times as that zone's clocks show them, with their offset."""
    made, at = [], after.replace(tzinfo=zone).astimezone(UTC)
    for _ in range(count):
        due = next_due(cron, at, zone)
        assert due is not None
        assert due.tzinfo is UTC
        made.append(due.astimezone(zone).strftime("%m-%d %H:%M %z"))
        at = due
    return made


def local(*parts: int) -> datetime:
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001 - a wall clock's reading; `dues` gives it its zone


def test_a_daily_time_stays_at_its_hour_across_both_changes() -> None:
    assert dues("0 7 * * *", BERLIN, local(2026, 3, 28, 6), 3) == [
        "03-28 07:00 +0100",
        "03-29 07:00 +0200",
        "03-30 07:00 +0200",
    ]
    assert dues("0 7 * * *", BERLIN, local(2026, 10, 24, 6), 3) == [
        "10-24 07:00 +0200",
        "10-25 07:00 +0100",
        "10-26 07:00 +0100",
    ]
    assert dues("0 7 * * *", NEW_YORK, local(2026, 3, 7, 8), 2) == ["03-08 07:00 -0400", "03-09 07:00 -0400"]
    assert dues("0 7 * * *", NEW_YORK, local(2026, 10, 31, 8), 2) == ["11-01 07:00 -0500", "11-02 07:00 -0500"]


def test_a_time_that_is_skipped_runs_once_right_after_the_change() -> None:
    assert dues("30 2 * * *", BERLIN, local(2026, 3, 28, 3), 2) == ["03-29 03:00 +0200", "03-30 02:30 +0200"]
    assert dues("30 2 * * *", NEW_YORK, local(2026, 3, 7, 3), 2) == ["03-08 03:00 -0400", "03-09 02:30 -0400"]


def test_a_time_that_comes_twice_runs_once() -> None:
    assert dues("30 2 * * *", BERLIN, local(2026, 10, 24, 3), 2) == ["10-25 02:30 +0200", "10-26 02:30 +0100"]
    assert dues("30 1 * * *", NEW_YORK, local(2026, 10, 31, 3), 2) == ["11-01 01:30 -0400", "11-02 01:30 -0500"]


def test_what_was_due_in_the_first_of_a_doubled_hour_is_not_due_again_in_the_second() -> None:
    second = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)
    assert next_due("30 2 * * *", second, BERLIN) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


CHANGES = [
    (BERLIN, (2026, 3, 29)),
    (BERLIN, (2026, 10, 25)),
    (NEW_YORK, (2026, 3, 8)),
    (NEW_YORK, (2026, 11, 1)),
]


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_what_runs_every_so_many_minutes_goes_on_through_a_change(zone: ZoneInfo, day: tuple[int, int, int]) -> None:
    at = datetime(*day, tzinfo=zone).astimezone(UTC)
    for _ in range(28):
        due = next_due("*/15 * * * *", at, zone)
        assert due is not None
        assert due - at == timedelta(minutes=15)
        at = due


def test_an_interval_counts_from_the_last_due_time_whatever_the_clocks_do() -> None:
    schedule = Interval(every=timedelta(hours=1))
    at = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
    assert next_due(schedule, at, BERLIN) == at + timedelta(hours=1)


@pytest.mark.parametrize(
    "cron", ["0 3 * * *", "*/5 8-17 * * 1-5", "0 0 1 1 *", "0 12 29 2 *", "0 0 * * SUN", "0 0 1 JAN *"]
)
def test_cron_text_of_five_fields_is_good(cron: str) -> None:
    check_cron(cron)


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "0 24 * * *",
        "0 0 30 2 *",
        "@daily",
        "a b c d e",
        "0 0 * * 9",
        "*/0 * * * *",
        "5-1 * * * *",
    ],
)
def test_what_is_no_cron_is_refused_in_words(cron: str) -> None:
    with pytest.raises(ValueError, match=r"cron"):
        check_cron(cron)


@given(st.text(alphabet="0123456789*/-,# LWSUNJA", max_size=25))
def test_any_text_is_cron_or_refused_with_a_value_error(text: str) -> None:
    try:
        check_cron(text)
    except ValueError:
        return
    assert next_due(text, datetime(2026, 1, 1, tzinfo=UTC), BERLIN) is not None


@pytest.mark.parametrize(
    "cron", ["*/5 * * * *", "0 * * * *", "15 1,2,3 * * *", "30 2 * * *", "59 2 * * *", "0 3 * * *"]
)
@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_the_latest_due_time_is_right_all_through_a_change(
    cron: str, zone: ZoneInfo, day: tuple[int, int, int]
) -> None:
    schedule, last = cron, datetime(*day, tzinfo=UTC) - timedelta(hours=3)
    wanted, due = None, next_due(schedule, last, zone)
    for minute in range(0, 15 * 60, 5):
        now = last + timedelta(minutes=minute)
        while due is not None and due <= now:
            wanted, due = due, next_due(schedule, due, zone)
        assert latest_due(schedule, last, now, zone) == wanted, now
        assert latest_due(schedule, last, now + timedelta(seconds=30), zone) == wanted, now


def test_a_schedule_that_was_missed_for_years_is_found_at_once() -> None:
    now = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
    for cron, wanted in (
        ("* * * * *", (2026, 5, 1, 12)),
        ("0 3 29 2 *", (2024, 2, 29, 3)),
        ("0 3 1 * *", (2026, 5, 1, 3)),
    ):
        found = latest_due(cron, datetime(1996, 5, 1, tzinfo=UTC), now, UTC)
        assert found == datetime(*wanted, tzinfo=UTC)  # type: ignore[misc]


schedules = st.one_of(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 * * * *", "15 1,2,3 * * *", "0 3 * * 0", "59 23 28-31 * *"]).map(
        lambda cron: cron
    ),
    st.integers(1, 100_000).map(lambda s: Interval(every=timedelta(seconds=s))),
)
moments = st.one_of(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),  # noqa: DTZ001 - made aware below
    st.integers(-300, 300).map(lambda minutes: datetime(2026, 3, 29, 1) + timedelta(minutes=minutes)),  # noqa: DTZ001
    st.integers(-300, 300).map(lambda minutes: datetime(2026, 10, 25, 1) + timedelta(minutes=minutes)),  # noqa: DTZ001
    st.integers(-300, 300).map(lambda minutes: datetime(2026, 11, 1, 6) + timedelta(minutes=minutes)),  # noqa: DTZ001
).map(lambda at: at.replace(tzinfo=UTC))


@given(schedules, moments, st.integers(0, 150), st.sampled_from([BERLIN, NEW_YORK, UTC]))
def test_what_was_missed_counts_once_as_the_last_time_that_it_was_due(
    schedule: Schedule, last: datetime, hours: int, zone: ZoneInfo
) -> None:
    now = last + timedelta(hours=hours, minutes=17)
    wanted = None
    due = next_due(schedule, last, zone)
    for _ in range(20_000):
        if due is None or due > now:
            break
        wanted, previous = due, due
        due = next_due(schedule, due, zone)
        assert due is None or due > previous
    found = latest_due(schedule, last, now, zone)
    if due is None or due > now:
        assert found == wanted
    if found is not None:
        assert last < found <= now
        following = next_due(schedule, found, zone)
        assert following is None or following > now
