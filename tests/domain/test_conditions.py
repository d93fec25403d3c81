"""Conditions: trees over values and times, read as they are written and tested at a moment (behaviour 2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.config.conditions import read_conditions
from mqttjobs.config.yaml12 import Document
from mqttjobs.domain.conditions.base import condition_kinds
from mqttjobs.domain.starting import Condition, Daylight
from mqttjobs.domain.sun import Location, daylight

BERLIN = ZoneInfo("Europe/Berlin")
TROMSO = Location(69.65, 18.96)


@dataclass
class Stage:
    """See Scene."""

    now: datetime = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
    values: dict[tuple[str, str | None], str] = field(default_factory=dict)
    zone: tzinfo = BERLIN
    location: Location = Location(52.52, 13.40)

    def text(self, entity: str, attribute: str | None) -> str | None:
        return self.values.get((entity, attribute))

    def daylight(self, day: date) -> Daylight:
        return daylight(self.location, day, self.zone)


def read(written: Any) -> Condition:
    document = Document("test", written)
    made = read_conditions(written, document, ("conditions",))
    assert not document.problems, document.problems
    assert made is not None
    return made


def problems(written: Any) -> list[str]:
    document = Document("test", written)
    assert read_conditions(written, document, ("conditions",)) is None
    return [each.message for each in document.problems]


def at(text: str, **more: Any) -> Stage:
    """Return the stage at a time of Berlin's clocks; the second of a doubled hour with fold=1."""
    fold = more.pop("fold", 0)
    return Stage(now=datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC), **more)


def test_states_of_an_entity_and_of_an_attribute() -> None:
    stage = Stage(values={("self", None): "on", ("hall", "battery"): "20"})
    assert read({"states": "on"}).holds(stage)
    assert read({"states": ["off", "on"]}).holds(stage)
    assert not read({"states": ["off"]}).holds(stage)
    assert read({"entity": "hall", "attribute": "battery", "states": [20]}).holds(stage)
    assert not read({"entity": "hall", "states": ["20"]}).holds(stage)


@pytest.mark.parametrize(
    ("keys", "text", "holds"),
    [
        ({"above": 10}, "10.5", True), ({"above": 10}, "10", False), ({"below": 10}, "9", True),
        ({"below": 10}, "10", False), ({"above": 5, "below": 10}, "7", True), ({"above": 5, "below": 10}, "11", False),
        ({"above": 5}, "warm", False), ({"states": ["7"], "above": 5}, "7", True),
        ({"states": ["3"], "above": 5}, "3", False),
    ],
)  # fmt: skip
def test_numbers_beyond_thresholds(keys: dict[str, Any], text: str, holds: bool) -> None:
    assert read(keys).holds(Stage(values={("self", None): text})) is holds


def test_a_value_that_was_never_reported_satisfies_nothing_and_so_satisfies_not() -> None:
    assert not read({"states": ["on"]}).holds(Stage())
    assert read({"not": {"states": ["on"]}}).holds(Stage())


trees = st.recursive(
    st.sampled_from("abcd").map(lambda name: {"entity": name, "states": ["on"]}),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts})
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts})
        | inner.map(lambda part: {"not": part})
        | st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def truth(tree: Any, on: set[str]) -> bool:
    if isinstance(tree, list):
        return all(truth(part, on) for part in tree)
    if "all" in tree:
        return all(truth(part, on) for part in tree["all"])
    if "any" in tree:
        return any(truth(part, on) for part in tree["any"])
    return not truth(tree["not"], on) if "not" in tree else tree["entity"] in on


@given(trees, st.sets(st.sampled_from("abcd")))
def test_trees_of_all_any_and_not_mean_what_they_say(tree: Any, on: set[str]) -> None:
    stage = Stage(values={(name, None): "on" for name in on})
    condition = read(tree)
    assert condition.holds(stage) is truth(tree, on)
    assert condition.describe(stage)


def test_keys_of_several_kinds_in_one_mapping_must_all_agree() -> None:
    condition = read({"states": ["on"], "after": "08:00", "before": "20:00"})
    assert condition.holds(at("2026-03-04 12:00", values={("self", None): "on"}))
    assert not condition.holds(at("2026-03-04 21:00", values={("self", None): "on"}))
    assert not condition.holds(at("2026-03-04 12:00"))


@pytest.mark.parametrize(
    ("window", "moment", "holds"),
    [
        ({"after": "22:00"}, "2026-03-04 22:00", True),
        ({"after": "22:00"}, "2026-03-04 21:59:59", False),
        ({"before": "06:00"}, "2026-03-04 05:59:59", True),
        ({"before": "06:00"}, "2026-03-04 06:00", False),
        ({"after": "22:00", "before": "06:00"}, "2026-03-04 23:00", True),
        ({"after": "22:00", "before": "06:00"}, "2026-03-05 05:00", True),
        ({"after": "22:00", "before": "06:00"}, "2026-03-05 12:00", False),
        ({"after": "7:30", "before": "8:00:30"}, "2026-03-04 08:00:29", True),
        ({"weekdays": ["wed"]}, "2026-03-04 12:00", True),
        ({"weekdays": ["Thursday", "fri"]}, "2026-03-04 12:00", False),
        ({"after": "22:00", "before": "06:00", "weekdays": ["fri"]}, "2026-03-07 01:00", False),
    ],
)
def test_times_of_day_and_weekdays(window: dict[str, Any], moment: str, holds: bool) -> None:
    assert read(window).holds(at(moment)) is holds


@pytest.mark.parametrize(("zone", "holds"), [("Europe/Berlin", False), ("America/New_York", True)])
def test_times_are_those_of_the_configured_zone(zone: str, holds: bool) -> None:
    stage = Stage(now=datetime(2026, 3, 4, 20, 0, tzinfo=UTC), zone=ZoneInfo(zone))
    assert read({"after": "14:00", "before": "16:00"}).holds(stage) is holds


def test_on_the_day_that_has_twenty_five_hours_a_time_that_comes_twice_counts_both_times() -> None:
    window = read({"after": "02:00", "before": "03:00"})
    doubled = [at("2026-10-25 02:30", fold=0), at("2026-10-25 02:30", fold=1)]
    assert doubled[1].now - doubled[0].now == timedelta(hours=1)
    assert [window.holds(stage) for stage in doubled] == [True, True]
    assert not window.holds(at("2026-10-25 03:00"))


def test_on_the_day_that_has_twenty_three_hours_the_clocks_never_show_the_skipped_hour() -> None:
    night = datetime(2026, 3, 29, 0, 0, tzinfo=BERLIN).astimezone(UTC)
    window = read({"after": "02:00", "before": "03:00"})
    assert not any(window.holds(Stage(now=night + timedelta(minutes=minute))) for minute in range(0, 360, 5))
    after = read({"after": "02:30"})
    assert not after.holds(at("2026-03-29 01:59"))
    assert after.holds(at("2026-03-29 03:00"))


@given(st.integers(0, 525_600), st.times(), st.times())
def test_a_window_and_its_opposite_divide_every_moment_of_the_year(minute: int, first: time, last: time) -> None:
    begin, end = first.replace(microsecond=0), last.replace(microsecond=0)
    if begin == end:
        return
    stage = Stage(now=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute))
    one = read({"after": begin.isoformat()[:8], "before": end.isoformat()[:8]})
    other = read({"after": end.isoformat()[:8], "before": begin.isoformat()[:8]})
    assert one.holds(stage) is not other.holds(stage)


def test_dark_is_after_sunset_or_before_sunrise() -> None:
    dark = read({"after": "sunset", "before": "sunrise"})
    assert [dark.holds(at(f"2026-06-21 {clock}")) for clock in ("03:00", "12:00", "21:00", "22:30")] == [
        True, False, False, True,
    ]  # fmt: skip
    assert dark.needs_sun()
    assert not read({"after": "22:00"}).needs_sun()


@pytest.mark.parametrize(("day", "dark"), [("2026-06-21", False), ("2026-12-21", True)])
def test_where_the_sun_does_not_rise_or_set_it_is_day_or_night_all_day(day: str, dark: bool) -> None:
    night = read({"after": "sunset", "before": "sunrise"})
    light = read({"after": "sunrise", "before": "sunset"})
    for hour in range(24):
        stage = at(f"{day} {hour:02}:30", location=TROMSO, zone=ZoneInfo("Europe/Oslo"))
        assert night.holds(stage) is dark
        assert light.holds(stage) is not dark


def test_what_is_wrong_is_reported_in_words_with_its_place() -> None:
    assert problems({"entity": "hall"}) == ["conditions: say with states, above or below what the value must be"]
    assert problems({"stetes": ["on"]}) == ["conditions.stetes: unknown key; did you mean 'states'?"]
    assert problems({"after": "25:00"}) == ["conditions.after: must be a time such as 22:00, or sunrise, or sunset"]
    assert problems({"weekdays": ["someday"]})[0].startswith("conditions.weekdays: must be a list of mon")
    assert problems({"all": []}) == ["conditions.all: must not be empty"]
    assert problems("after sunset") == ["conditions: must be a condition, or a list of conditions"]
    assert problems({"any": [{"states": ["on"]}, {"above": 5, "below": 5}]})[0].startswith("conditions.any.1: ")
    assert problems({"after": "06:00", "before": "06:00"}) == ["conditions: after and before are the same moment"]


def test_a_key_belongs_to_one_kind() -> None:
    kinds = set(condition_kinds().values())
    assert sum(len(kind.model_fields) for kind in kinds) == len(condition_kinds())
