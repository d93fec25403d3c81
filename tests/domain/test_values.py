"""What a report does to a value (behaviour 1.1 to 1.5)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.domain.model import Retained, Value, ValueSource
from mqttjobs.domain.values import ORDER, Reading, ReportResult, Result, apply_reading
from tests.domain.builders import LAMP_STATE, later

INIT, FIRE, IGNORE = Retained.INIT, Retained.FIRE, Retained.IGNORE


def a_source(**changes: Any) -> ValueSource:
    return ValueSource("home/lamp", **changes)


class Watched:
    """One value, reported to by hand; remembers what a store and a connection remember."""

    def __init__(self, source: ValueSource) -> None:
        self.source = source
        self.value: Value | None = None
        self.live = False
        self.clock = 0
        self.result: Result | None = None

    def report(self, text: str, *, retained: bool = False, payload: Any = None) -> tuple[ReportResult, bool]:
        """Return the verdict, and whether triggers run at once."""
        self.clock += 1
        seen = Reading(text, later(self.clock), payload, retained=retained, live_before=self.live)
        result = apply_reading(LAMP_STATE, self.source, self.value, seen)
        self.result = result
        if result.value is not None:
            self.value = result.value
        self.live |= not retained and result.report_result is not ReportResult.IGNORED
        return result.report_result, result.report_result is ReportResult.CHANGED and not result.silent

    def replay(self, text: str) -> tuple[ReportResult, bool]:
        """Report as the broker does after a connect: retained."""
        return self.report(text, retained=True)

    def reconnect(self) -> None:
        self.live = False


def a_watched(*past: str, **source: Any) -> Watched:
    watched = Watched(a_source(**source))
    for text in past:
        watched.report(text)
    return watched


def test_the_first_live_report_is_a_change_from_nothing() -> None:
    watched = a_watched()
    assert watched.report("on", payload={"state": "on"}) == (ReportResult.CHANGED, True)
    assert watched.value == Value(LAMP_STATE, "on", None, later(1), later(1), {"state": "on"})


def test_the_time_that_a_report_gives_is_kept_with_its_change_and_decides_nothing() -> None:
    source, long_ago, ahead = a_source(), later(-9_000), later(9_000)
    first = apply_reading(LAMP_STATE, source, None, Reading("on", later(1), reported_at=ahead)).value
    assert first == Value(LAMP_STATE, "on", None, later(1), later(1), None, reported_at=ahead)
    repeated = apply_reading(LAMP_STATE, source, first, Reading("on", later(2), reported_at=long_ago))
    assert repeated.report_result is ReportResult.UNCHANGED
    assert repeated.value == Value(LAMP_STATE, "on", None, later(1), later(2), None, reported_at=ahead)
    older = apply_reading(LAMP_STATE, source, repeated.value, Reading("off", later(3), reported_at=long_ago))
    assert older.report_result is ReportResult.CHANGED
    assert older.value == Value(LAMP_STATE, "off", "on", later(3), later(3), None, reported_at=long_ago)
    silent = apply_reading(LAMP_STATE, source, older.value, Reading("on", later(4)))
    assert silent.value == Value(LAMP_STATE, "on", "off", later(4), later(4), None, reported_at=None)


def test_a_change_remembers_what_was_and_since_when() -> None:
    watched = a_watched("on", "on", "off")
    assert watched.value == Value(LAMP_STATE, "off", "on", later(3), later(3), None)


def test_a_repeated_report_is_no_change_and_moves_nothing_but_the_time_it_was_heard() -> None:
    watched = a_watched("off", "on")
    before = watched.value
    assert watched.report("on", payload={"state": "on", "more": 1}) == (ReportResult.UNCHANGED, False)
    assert before is not None
    assert watched.value == Value(before.key, "on", "off", before.since_at, later(3), before.payload)


def test_every_live_report_of_an_event_is_a_change() -> None:
    watched = a_watched(event=True)
    assert [watched.report("single") for _ in range(3)] == [(ReportResult.CHANGED, True)] * 3
    assert watched.value is not None
    assert (watched.value.text, watched.value.previous, watched.value.since_at) == ("single", "single", later(3))


@pytest.mark.parametrize("retained", Retained)
def test_a_retained_event_is_never_one(retained: Retained) -> None:
    watched = a_watched(event=True, retained=retained)
    assert watched.replay("single") == (ReportResult.RETAINED_SKIPPED, False)
    assert watched.value is None
    watched.report("single")
    watched.reconnect()
    assert watched.replay("double") == (ReportResult.RETAINED_SKIPPED, False)


# -- retained: init ---------------------------------------------------------------------------------------------------


def test_a_replay_with_nothing_stored_sets_the_value_silently() -> None:
    watched = a_watched()
    assert watched.replay("on") == (ReportResult.CHANGED, False)
    assert watched.value is not None
    assert (watched.value.text, watched.value.previous, watched.value.heard_at) == ("on", None, None)
    assert watched.report("on") == (ReportResult.UNCHANGED, False)


def test_a_replay_that_says_the_same_does_nothing() -> None:
    watched = a_watched("on")
    watched.reconnect()
    before = watched.value
    assert watched.replay("on") == (ReportResult.UNCHANGED, False)
    assert watched.value == before


def test_a_replay_that_says_something_else_is_a_change_that_happened_while_we_were_away() -> None:
    watched = a_watched("on")
    watched.reconnect()
    assert watched.replay("off") == (ReportResult.CHANGED, True)
    assert watched.value is not None
    assert (watched.value.previous, watched.value.heard_at) == ("on", later(1))


def test_a_replay_is_dropped_once_a_live_report_came_over_this_connection() -> None:
    watched = a_watched("on")
    assert watched.replay("off") == (ReportResult.RETAINED_SKIPPED, False)
    watched.reconnect()
    watched.report("on")
    assert watched.replay("off") == (ReportResult.RETAINED_SKIPPED, False)


def test_a_live_report_that_is_no_state_does_not_make_a_replay_stale() -> None:
    watched = a_watched("on")
    watched.reconnect()
    watched.report("unavailable")
    assert watched.replay("off") == (ReportResult.CHANGED, True)


# -- retained: fire and ignore ----------------------------------------------------------------------------------------


def test_under_fire_a_replay_is_like_a_live_report() -> None:
    watched = a_watched(retained=FIRE)
    assert watched.replay("on") == (ReportResult.CHANGED, True)
    assert watched.replay("on") == (ReportResult.UNCHANGED, False)
    watched.report("on")
    assert watched.replay("off") == (ReportResult.CHANGED, True)


def test_under_ignore_a_replay_is_dropped() -> None:
    watched = a_watched(retained=IGNORE)
    assert watched.replay("on") == (ReportResult.RETAINED_SKIPPED, False)
    assert watched.value is None
    watched.report("on")
    watched.reconnect()
    assert watched.replay("off") == (ReportResult.RETAINED_SKIPPED, False)


@given(st.sampled_from(Retained), st.lists(st.sampled_from(["on", "off", "unavailable"]), max_size=5))
def test_no_replay_ever_says_that_the_value_was_heard(retained: Retained, texts: list[str]) -> None:
    watched = a_watched("on", retained=retained)
    watched.reconnect()
    for text in texts:
        report_result, _ = watched.replay(text)
        assert watched.value is not None
        if report_result is ReportResult.UNCHANGED:
            assert watched.result is not None
            assert watched.result.value is None
        assert watched.value.heard_at == later(1)


# -- ignore and map ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "unavailable", "unknown"])
def test_what_is_no_state_changes_nothing(text: str) -> None:
    for retained in (False, True):
        for source in ({}, {"event": True}, {"retained": FIRE}):
            watched = a_watched("on", **source)
            before = watched.value
            watched.reconnect()
            assert watched.report(text, retained=retained) == (ReportResult.IGNORED, False)
            assert watched.value == before


def test_a_break_by_something_that_is_no_state_is_no_change_afterwards() -> None:
    watched = a_watched("on", "unavailable")
    assert watched.report("on") == (ReportResult.UNCHANGED, False)


def test_the_map_gives_other_words_and_leaves_the_rest() -> None:
    watched = a_watched("true", map={"true": "occupied", "false": "clear"})
    assert watched.value is not None
    assert watched.value.text == "occupied"
    assert watched.report("occupied") == (ReportResult.UNCHANGED, False)
    assert watched.report("odd") == (ReportResult.CHANGED, True)


def test_ignore_is_tested_before_the_map_and_after_it() -> None:
    source = {"map": {"unknown": "on", "x": "unavailable", "": "on"}}
    assert a_watched("off", **source).report("unknown")[0] is ReportResult.IGNORED
    assert a_watched("off", **source).report("")[0] is ReportResult.IGNORED
    assert a_watched("off", **source).report("x")[0] is ReportResult.IGNORED


def test_an_own_list_replaces_the_default() -> None:
    watched = a_watched("on", ignore=frozenset({"n/a"}))
    assert watched.report("unavailable") == (ReportResult.CHANGED, True)
    assert watched.report("n/a") == (ReportResult.IGNORED, False)


# -- always -----------------------------------------------------------------------------------------------------------

sources = st.builds(
    ValueSource,
    st.just("t"),
    st.just(()),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from("abcd"), max_size=3),
    st.sampled_from(Retained),
    st.frozensets(st.sampled_from("abd"), max_size=2),
    st.booleans(),
)
reports = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans()), max_size=15)


@given(sources, reports)
def test_the_chain_of_previous_texts_never_breaks_and_a_value_is_never_what_is_ignored(
    source: ValueSource, reported: list[tuple[str, bool, bool]]
) -> None:
    watched = Watched(source)
    for text, retained, reconnect in reported:
        if reconnect:
            watched.reconnect()
        before = watched.value
        report_result, fires = watched.report(text, retained=retained)
        after = watched.value
        if after is not None:
            assert after.text not in source.ignore
        if report_result is ReportResult.CHANGED:
            assert after is not None
            assert after.previous == (before.text if before else None)
            assert after.since_at == later(watched.clock)
            assert source.event or after.text != after.previous
        elif before is not None:
            assert after is not None
            assert (after.text, after.previous, after.since_at) == (before.text, before.previous, before.since_at)
        else:
            assert after is None
        if retained and source.event:
            assert not fires
        if not retained and report_result is not ReportResult.IGNORED:
            assert fires is (before is None or source.event or (after is not None and after.text != before.text))


def test_the_order_of_verdicts_is_the_order_in_which_a_message_is_counted() -> None:
    assert [report_result.value for report_result in sorted(ReportResult, key=ORDER.__getitem__)] == [
        "changed",
        "duplicate",
        "unchanged",
        "retained_skipped",
        "ignored",
        "invalid",
        "unmatched",
    ]
