"""Every key of a trigger (behaviour 2) on the pure automaton, against an oracle that reads the whole past at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.domain.automaton import (
    after_restart,
    deadline,
    fall_silent,
    ran,
    receive,
    shift,
    silence_deadline,
    skip_reason,
    tick,
    trigger_state_name,
)
from mqttjobs.domain.starting import OnRestart
from mqttjobs.domain.thresholds import Threshold, number_of
from mqttjobs.domain.triggers.base import Trigger, TriggerState, trigger_keys
from tests.domain import builders
from tests.domain.builders import LAMP, NOW, a_change, later

NAME = trigger_state_name("op/abc/0", LAMP)


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


@dataclass(frozen=True)
class Keys:
    """The keys of a trigger as the oracle sees them; durations are seconds, states are texts of one letter each."""

    states: Iterable[str] | None = None
    from_states: Iterable[str] | None = None
    not_from: Iterable[str] = ()
    not_states: Iterable[str] = ()
    threshold: Threshold | None = None
    duration: float | None = None
    periodicity: float | None = None
    debounce: float | None = None
    throttle: float | None = None
    silence: float | None = None
    on_restart: OnRestart = OnRestart.RESUME
    enabled: bool = True

    @property
    def is_timed(self) -> bool:
        return self.duration is not None or self.periodicity is not None

    @property
    def trigger(self) -> Trigger:
        states = {
            "states": self.states,
            "from": self.from_states,
            "not_from": self.not_from or None,
            "not_states": self.not_states or None,
        }
        times = ("duration", "periodicity", "debounce", "throttle", "silence")
        threshold = self.threshold or Threshold()
        return builders.a_trigger(
            **{name: None if each is None else sorted(each) for name, each in states.items()},
            **{name: getattr(self, name) for name in times},
            above=threshold.above,
            below=threshold.below,
            hysteresis=threshold.hysteresis or None,
            on_restart=self.on_restart,
            enabled=self.enabled,
        )


def a_trigger(**keys: Any) -> Trigger:
    return Keys(**keys).trigger


class Run:
    """One trigger of one value, driven by hand; everything but `state` may be lost at any time."""

    def __init__(self, trigger: Trigger, previous: str | None = None) -> None:
        self.trigger = trigger
        self.state: TriggerState | None = None
        self.previous = previous

    def report(self, text: str, at: float, *, silent: bool = False) -> bool:
        step = receive(self.trigger, LAMP, NAME, self.state, a_change(text, at, previous=self.previous, silent=silent))
        self.state, self.previous = step.state, text
        return step.fires

    def pass_to(self, at: float) -> list[datetime]:
        fired = []
        while self.state is not None and (due := deadline(self.trigger, self.state)) is not None and due <= later(at):
            step = tick(self.trigger, self.state, due)
            assert step.fires
            fired.append(due)
            self.state = step.state
        return fired

    def play(self, timeline: Sequence[tuple[float, str]], end: float) -> list[float]:
        """Report and let time pass; return when it fired, in seconds."""
        fired = []
        for at, text in timeline:
            fired += self.pass_to(at)
            if self.report(text, at):
                fired.append(later(at))
        return [(each - NOW).total_seconds() for each in [*fired, *self.pass_to(end)]]


def expected(keys: Keys, timeline: Sequence[tuple[int, str]], end: int) -> list[float]:
    """Return when the rules say that it fires: stretches in which it lasts, and in them the changes that begin."""
    stretches: list[tuple[list[int], int]] = []
    begun: list[int] | None = None
    beyond = False
    previous: str | None = None
    for at, text in timeline:
        was = beyond
        if keys.threshold is not None:
            beyond = keys.threshold.side(beyond, float(text))
        lasts = _lasts(keys, text) and (keys.threshold is None or beyond)
        begins = lasts and _from_agrees(keys, previous) and (keys.threshold is None or not was)
        if not lasts:
            if begun:
                stretches.append((begun, at))
            begun = None
        else:
            begun = [] if begun is None else begun
            if begins:
                begun.append(at)
        previous = text
    if begun:
        stretches.append((begun, end))
    return [at for begun, until in stretches for at in _firings(keys, begun, until)]


def _lasts(keys: Keys, text: str) -> bool:
    if keys.states is None and keys.from_states is not None and keys.is_timed and text in keys.from_states:
        return False
    return (keys.states is None or text in keys.states) and text not in keys.not_states


def _from_agrees(keys: Keys, previous: str | None) -> bool:
    return (keys.from_states is None or previous in keys.from_states) and previous not in keys.not_from


def _firings(keys: Keys, begun: list[int], until: int) -> list[float]:
    nexts = [*begun[1:], until]
    wait = None if keys.duration is None else keys.duration
    quiet = None if keys.debounce is None else keys.debounce
    fired: list[float] = []
    for at, following in zip(begun, nexts, strict=True):
        if wait is not None and fired:
            continue
        first = at if wait is None else begun[0] + wait
        if quiet is not None:
            first = max(first, at + quiet)
        bound = following if quiet is not None or wait is None else until
        if first <= bound:
            fired += _repeats(keys, first, until if wait is not None else following)
    return fired


def _repeats(keys: Keys, first: float, until: float) -> list[float]:
    if keys.periodicity is None:
        return [first]
    every = keys.periodicity
    return [first + n * every for n in range(int((until - first) // every) + 1)]


def _changes(steps: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return a timeline in which every report is a change."""
    made: list[tuple[int, str]] = []
    now = 0
    for pause, text in steps:
        now += pause
        if not made or made[-1][1] != text:
            made.append((now, text))
    return made


waits = st.none() | st.integers(1, 6)
some = st.none() | st.sets(st.sampled_from("abc"), min_size=1, max_size=2)
of_states = st.builds(
    Keys,
    states=some,
    from_states=some,
    not_from=st.sets(st.sampled_from("abc"), max_size=1),
    not_states=st.sets(st.sampled_from("abc"), max_size=1),
    duration=waits,
    debounce=waits,
    periodicity=st.none() | st.integers(1, 5),
)
of_numbers = st.builds(
    Keys,
    threshold=st.sampled_from(
        [
            Threshold(2),
            Threshold(2, None, 2),
            Threshold(None, 2),
            Threshold(1, 4),
            Threshold(1, 4, 1),
            Threshold(None, 3, 1),
        ]
    ),
    duration=waits,
    debounce=waits,
    periodicity=st.none() | st.integers(1, 5),
)


def steps(texts: str) -> st.SearchStrategy[list[tuple[int, str]]]:
    return st.lists(st.tuples(st.integers(0, 4), st.sampled_from(texts)), max_size=14)


@given(of_states, steps("abc"))
def test_states_from_duration_debounce_and_periodicity_fire_exactly_when_the_rules_say(
    keys: Keys, written: list[tuple[int, str]]
) -> None:
    timeline = _changes(written)
    end = (timeline[-1][0] if timeline else 0) + 20
    assert Run(keys.trigger).play(timeline, end) == expected(keys, timeline, end)


@given(of_numbers, steps("012345"))
def test_thresholds_and_bands_fire_exactly_when_the_rules_say(keys: Keys, written: list[tuple[int, str]]) -> None:
    timeline = _changes(written)
    end = (timeline[-1][0] if timeline else 0) + 20
    assert Run(keys.trigger).play(timeline, end) == expected(keys, timeline, end)


@given(of_states | of_numbers, steps("012345") | steps("abc"), st.integers(-100_000, 100_000))
def test_a_wall_clock_that_was_set_moves_every_firing_by_as_much(
    keys: Keys, written: list[tuple[int, str]], step: int
) -> None:
    trigger = keys.trigger
    run = Run(trigger)
    for at, text in _changes(written):
        run.pass_to(at)
        run.report(text, at)
    if run.state is None:
        return
    before, after = deadline(trigger, run.state), deadline(trigger, shift(run.state, seconds(step)))
    assert after == (None if before is None else before + seconds(step))


# -- one by one ----------------------------------------------------------------------------------------------------


def test_a_first_number_beyond_fires_and_the_next_ones_do_not_until_it_has_come_back() -> None:
    timeline = [(0, "95"), (1, "96"), (2, "90"), (3, "91")]
    assert Run(a_trigger(threshold=Threshold(above=90))).play(timeline, 9) == [0, 3]


def test_the_threshold_itself_is_not_beyond() -> None:
    assert Run(a_trigger(threshold=Threshold(above=90))).play([(0, "90"), (1, "90.0"), (2, "90.1")], 9) == [2]


def test_a_threshold_crossed_before_the_trigger_was_there_is_not_crossed_again() -> None:
    assert not Run(a_trigger(threshold=Threshold(above=90)), previous="95").report("96", 0)


def test_hysteresis_wants_a_return_by_as_much_before_it_fires_again() -> None:
    timeline = [(0, "91"), (1, "88"), (2, "92"), (3, "85"), (4, "88"), (5, "91")]
    assert Run(a_trigger(threshold=Threshold(above=90, hysteresis=5))).play(timeline, 9) == [0, 5]


def test_a_band_fires_when_it_is_entered_from_either_side() -> None:
    timeline = [(0, "10"), (1, "20"), (2, "25"), (3, "31"), (4, "29")]
    assert Run(a_trigger(threshold=Threshold(above=15, below=30))).play(timeline, 9) == [1, 4]


def test_text_that_is_no_number_crosses_nothing_and_is_no_return() -> None:
    trigger = a_trigger(threshold=Threshold(below=5))
    assert Run(trigger).play([(0, "3"), (1, "error"), (2, "4"), (3, "6"), (4, "4")], 9) == [0, 4]


def test_text_that_is_no_number_breaks_a_duration_which_then_begins_anew() -> None:
    trigger = a_trigger(threshold=Threshold(below=5), duration=10)
    assert Run(trigger).play([(0, "3"), (8, "error"), (9, "4")], 60) == [19]


def test_a_duration_that_has_fired_is_not_counted_again_after_text_that_is_no_number() -> None:
    trigger = a_trigger(threshold=Threshold(below=5), duration=10)
    assert Run(trigger).play([(0, "3"), (20, "error"), (21, "4")], 99) == [10]


def test_a_retained_first_number_beyond_fires_nothing_and_counts_as_crossed() -> None:
    run = Run(a_trigger(threshold=Threshold(above=90)))
    assert not run.report("95", 0, silent=True)
    assert not run.report("96", 1)


@pytest.mark.parametrize(
    ("text", "number"),
    [("5", 5.0), ("-0.5", -0.5), ("+3", 3.0), ("1e3", 1000.0), (".5", 0.5), ("5.", 5.0)],
)
def test_numbers_are_read_as_they_are_written(text: str, number: float) -> None:
    assert number_of(text) == number


@pytest.mark.parametrize("text", ["", "NaN", "Infinity", "1e999", "0x10", "21 °C", "1_000", " 5", "٣", "1,5", "true"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert number_of(text) is None


def test_from_says_how_it_begins_and_states_say_how_long_it_lasts() -> None:
    trigger = a_trigger(states="bc", from_states="a", duration=10)
    assert Run(trigger).play([(0, "a"), (1, "b"), (5, "c")], 60) == [11]
    assert Run(trigger).play([(0, "c"), (1, "b")], 60) == []


def test_from_alone_lasts_until_it_is_back() -> None:
    trigger = a_trigger(from_states="a", duration=10)
    assert Run(trigger).play([(0, "a"), (1, "b"), (5, "c")], 60) == [11]
    assert Run(trigger).play([(0, "a"), (1, "b"), (5, "a")], 60) == []


def test_debounce_fires_once_when_it_has_been_quiet() -> None:
    trigger = a_trigger(states="ab", debounce=5)
    assert Run(trigger).play([(0, "a"), (3, "b"), (6, "a")], 60) == [11]


def test_debounce_fires_nothing_on_what_is_no_longer_so() -> None:
    assert Run(a_trigger(states="a", debounce=5)).play([(0, "a"), (3, "c")], 60) == []


def test_debounce_fires_again_for_what_comes_later() -> None:
    assert Run(a_trigger(debounce=5)).play([(0, "a"), (20, "b")], 60) == [5, 25]


def test_debounce_does_not_fire_for_a_retained_first_report() -> None:
    run = Run(a_trigger(debounce=5))
    run.report("a", 0, silent=True)
    assert run.pass_to(60) == []


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(1, 20))
def test_throttle_lets_one_through_in_any_stretch_of_its_length(pauses: list[int], length: int) -> None:
    trigger = a_trigger(throttle=length)
    run = Run(trigger)
    runs: list[int] = []
    now = 0
    for number, pause in enumerate(pauses):
        now += pause
        assert run.report(f"state {number}", now)
        throttled = skip_reason(trigger, run.state, later(now)) is not None
        assert throttled is (bool(runs) and now - runs[-1] < length)
        if not throttled:
            run.state = ran(trigger, run.state or TriggerState(NAME, LAMP), later(now))
            runs.append(now)
    assert runs[0] == pauses[0]
    assert all(second - first >= length for first, second in pairwise(runs))


def test_what_a_throttle_remembers_outlasts_the_state_and_is_forgotten_when_it_is_of_no_use() -> None:
    trigger = a_trigger(states="a", throttle=60)
    run = Run(trigger)
    run.report("a", 0)
    run.state = ran(trigger, TriggerState(NAME, LAMP), later(0))
    run.report("b", 1)
    assert run.state is not None
    run.report("c", 61)
    assert run.state is None


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=30), st.none() | st.integers(1, 9))
def test_a_silence_fires_once_for_each_and_again_only_by_its_periodicity(
    written: list[tuple[int, bool]], every: int | None
) -> None:
    """Reports (True) and reconnections (False) at random: what fires is what somebody with a stopwatch would call."""
    trigger = a_trigger(silence=10, periodicity=every)
    state: TriggerState | None = None
    heard = last = 0
    called: list[int] = []
    fired: list[int] = []
    now, done = 0, False
    for pause, reported in [*written, (40, True)]:
        for moment in range(now + 1, now + pause + 1):
            due = silence_deadline(trigger, state, later(heard))
            if due is not None and due <= later(moment):
                state = fall_silent(trigger, state or TriggerState(NAME, LAMP), due, later(moment))
                fired.append(moment)
            if (not done and moment - heard >= 10) or (done and every and moment - last >= every):
                called.append(moment)
                done, last = True, moment
        now += pause
        heard = now
        if reported:
            state, done = None, False
    assert fired == called


def test_on_restart_says_what_becomes_of_a_hold_that_has_not_fired() -> None:
    def restarted(how: OnRestart, state: TriggerState, **keys: Any) -> TriggerState | None:
        return after_restart(a_trigger(duration=60, **keys, on_restart=how), state, later(30))

    pending = TriggerState(NAME, LAMP, later(0))
    assert restarted(OnRestart.RESUME, pending) == pending
    assert restarted(OnRestart.RESTART, pending) == replace(pending, since_at=later(30))
    assert restarted(OnRestart.DROP, pending) is None
    fired = replace(pending, fired_at=later(20))
    assert all(restarted(how, fired) == fired for how in OnRestart)
    crossed = replace(pending, memory={"above": True})
    assert restarted(OnRestart.DROP, crossed, threshold=Threshold(above=5)) == replace(crossed, since_at=None)


def test_a_trigger_that_is_not_enabled_watches_nothing() -> None:
    assert not a_trigger(states="a", enabled=False).watches_changes


def test_every_key_says_what_it_does_and_remembers_under_a_name_of_its_own() -> None:
    keys = trigger_keys()
    assert len(keys) > 20
    assert [name for name, key in keys.items() if not key.spellings()[name].description] == []
    classes = set(keys.values())
    assert len({key.name for key in classes}) == len(classes)
