"""times and within on the pure automaton, against an oracle that counts in the whole past (behaviour 2)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.domain.automaton import after_restart, ran, shift, skip_reason, waiting
from mqttjobs.domain.descriptions import describe_wanted
from mqttjobs.domain.starting import OnRestart
from mqttjobs.domain.thresholds import Threshold
from mqttjobs.domain.triggers.base import Trigger, TriggerState
from mqttjobs.store.rows import trigger_state_of, trigger_state_row
from tests.domain.builders import LAMP, NOW, a_trigger, later
from tests.domain.test_trigger_keys import NAME, Keys, Run, expected, some, steps


def counting(trigger: Trigger, times: int, within: float) -> Trigger:
    """Return the trigger with the two keys beside its own."""
    return Trigger((*trigger.keys, *a_trigger(times=times, within=within).keys))


def fired(satisfied: list[float], times: int, within: float) -> list[float]:
    """Return when it fires: if the change `times - 1` before is near, and both came after the last firing."""
    found: list[float] = []
    first = 0
    for number, at in enumerate(satisfied):
        if number - first + 1 >= times and at - satisfied[number - times + 1] <= within:
            found.append(at)
            first = number + 1
    return found


def played(run: Run, timeline: list[tuple[int, str]], jumps: dict[int, int]) -> list[float]:
    """Report a timeline; return when it fired. Between reports all is lost but what is stored, and clocks are set."""
    found: list[float] = []
    set_by = 0
    for number, (at, text) in enumerate(timeline):
        if run.state is not None:
            run.state = trigger_state_of(trigger_state_row(run.state))
            if number in jumps:
                run.state = shift(run.state, timedelta(seconds=jumps[number]))
        set_by += jumps.get(number, 0)
        if run.report(text, at + set_by):
            found.append(at)
    return found


def times_of(written: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return reports with their times in place of the pauses before them."""
    now, made = 0, []
    for pause, text in written:
        now += pause
        made.append((now, text))
    return made


of_states = st.builds(
    Keys,
    states=some,
    from_states=some,
    not_from=st.sets(st.sampled_from("abc"), max_size=1),
    not_states=st.sets(st.sampled_from("abc"), max_size=1),
)
of_numbers = st.builds(
    Keys, threshold=st.sampled_from([Threshold(2), Threshold(2, None, 2), Threshold(None, 2), Threshold(1, 4, 1)])
)
jumps = st.dictionaries(st.integers(0, 14), st.integers(-100_000, 100_000), max_size=2)


@given(
    st.tuples(of_states, steps("abc")) | st.tuples(of_numbers, steps("012345")),
    st.integers(2, 4),
    st.integers(1, 9),
    jumps,
)
def test_it_fires_at_the_last_of_the_times_within_the_window_and_then_counts_anew(
    case: tuple[Keys, list[tuple[int, str]]], times: int, within: int, clock: dict[int, int]
) -> None:
    keys, written = case
    timeline = times_of(written)
    satisfied = expected(keys, timeline, timeline[-1][0] if timeline else 0)
    run = Run(counting(keys.trigger, times, within))
    assert played(run, timeline, clock) == fired(satisfied, times, within)


def at_seconds(trigger: Trigger, *timeline: tuple[float, str]) -> list[float]:
    return Run(trigger).play(timeline, 1000)


def test_three_presses_in_ten_seconds_and_then_three_more() -> None:
    trigger = counting(a_trigger(states=["pressed"]), 3, 10)
    presses = [(at, "pressed") for at in (0, 4, 8, 9, 10, 11, 12)]
    assert at_seconds(trigger, *presses) == [8, 11]


def test_what_lies_between_the_counted_changes_does_not_matter() -> None:
    trigger = counting(a_trigger(states=["on"]), 2, 10)
    assert at_seconds(trigger, (0, "on"), (1, "off"), (2, "broken"), (3, "on")) == [3]


def test_the_window_slides_and_its_end_belongs_to_it() -> None:
    trigger = counting(a_trigger(), 3, 10)
    assert at_seconds(trigger, (0, "a"), (5, "b"), (10, "c")) == [10]
    assert at_seconds(trigger, (0, "a"), (5, "b"), (10.001, "c"), (15, "d")) == [15]


def test_changes_of_one_moment_count_each() -> None:
    trigger = counting(a_trigger(), 3, 1)
    assert at_seconds(trigger, (5, "a"), (5, "b"), (5, "c"), (5, "d")) == [5]


def test_a_silent_change_is_not_counted() -> None:
    run = Run(counting(a_trigger(states=["on"]), 2, 10))
    assert not run.report("on", 0, silent=True)
    assert run.state is None
    assert [run.report(text, at) for at, text in enumerate(["off", "on", "off", "on"])] == [False, False, False, True]


def test_with_a_threshold_the_crossings_are_counted() -> None:
    trigger = counting(a_trigger(above=20, hysteresis=5), 2, 60)
    assert at_seconds(trigger, (0, "21"), (1, "25"), (2, "18"), (3, "21"), (4, "10"), (5, "22")) == [5]
    run = Run(trigger)
    run.report("21", 0)
    assert run.state is not None
    assert dict(run.state.memory) == {"above": True, "times": (NOW,)}


def test_a_firing_that_a_throttle_holds_back_is_counted_anew_too() -> None:
    run = Run(counting(a_trigger(throttle=60), 2, 10))
    assert [run.report(text, at) for at, text in enumerate("ab")] == [False, True]
    run.state = ran(run.trigger, run.state or TriggerState(NAME, LAMP), later(1))
    assert [run.report(text, at) for at, text in enumerate("cd", 2)] == [False, True]
    assert skip_reason(run.trigger, run.state, later(3)) is not None
    assert run.state is not None
    assert dict(run.state.memory) == {"throttle": later(1)}


def test_what_is_too_old_is_forgotten_with_the_state() -> None:
    run = Run(counting(a_trigger(states=["on"]), 3, 10))
    run.report("on", 0)
    run.report("off", 10)
    assert run.state is not None
    run.report("other", 11)
    assert run.state is None


def test_a_count_from_before_the_clock_was_set_back_holds_nothing_up() -> None:
    """As after a start with a clock that is a day behind: no step was seen that would have moved the count along."""
    run = Run(counting(a_trigger(), 3, 10))
    run.report("a", 86_400)
    assert [run.report(text, at) for at, text in enumerate("bcd")] == [False, False, True]


@pytest.mark.parametrize(
    ("how", "memory"),
    [
        (OnRestart.RESUME, {"times": (NOW,), "throttle": NOW}),
        (OnRestart.RESTART, {"throttle": NOW}),
        (OnRestart.DROP, {"throttle": NOW}),
    ],
)
def test_on_restart_says_whether_a_count_goes_on(how: OnRestart, memory: dict[str, object]) -> None:
    trigger = counting(a_trigger(throttle=60, on_restart=how), 3, 10)
    state = TriggerState(NAME, LAMP, memory={"times": (NOW,), "throttle": NOW})
    assert after_restart(trigger, state, later(1)) == replace(state, memory=memory)
    alone = replace(state, memory={"times": (NOW,)})
    kept = after_restart(counting(a_trigger(on_restart=how), 3, 10), alone, later(1))
    assert kept == (alone if how is OnRestart.RESUME else None)


def test_it_says_what_it_wants_and_how_far_it_is() -> None:
    trigger = counting(a_trigger(states=["pressed"], throttle=60), 3, 10)
    assert describe_wanted(trigger) == "becomes pressed, 3 times within 10s, at most once in 1m"
    state = TriggerState(NAME, LAMP, memory={"times": (later(0), later(4))})
    assert waiting(trigger, state, later(5)) == ("2 of 3 within 10s, 1 more to come", later(10))
    assert waiting(trigger, state, later(12)) == ("1 of 3 within 10s, 2 more to come", later(14))
    assert waiting(trigger, state, later(15)) is None
