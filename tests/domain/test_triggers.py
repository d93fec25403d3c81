"""The trigger automaton (behaviour 2) against a model that knows the whole past, and its rules one by one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.domain.automaton import deadline, receive, shift, tick, trigger_state_name
from mqttjobs.domain.model import Change
from mqttjobs.domain.triggers.base import Trigger, TriggerState
from tests.domain.builders import LAMP, NOW, a_change, a_trigger, later

NAME = trigger_state_name("op/abc/0", LAMP)


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def watching(*states: str, duration: float | None = None, periodicity: float | None = None) -> Trigger:
    return a_trigger(states=list(states) or None, duration=duration, periodicity=periodicity)


@dataclass
class Run:
    """One trigger of one entity, driven by hand; everything but `state` may be lost at any time."""

    trigger: Trigger
    state: TriggerState | None = None

    def report(self, text: str, at: float, *, silent: bool = False) -> bool:
        step = receive(self.trigger, LAMP, NAME, self.state, a_change(text, at, silent=silent))
        self.state = step.state
        return step.fires

    def pass_to(self, at: float) -> list[datetime]:
        """Tick at each deadline up to a time; return when it fired."""
        fired = []
        while self.state is not None and (due := deadline(self.trigger, self.state)) is not None and due <= later(at):
            step = tick(self.trigger, self.state, due)
            assert step.fires
            fired.append(due)
            self.state = step.state
        return fired


def test_without_a_duration_every_satisfying_change_fires_also_from_one_listed_state_to_another() -> None:
    run = Run(watching("on", "bright"))
    assert [run.report(text, at) for at, text in enumerate(["on", "bright", "off", "on"])] == [True, True, False, True]
    assert run.state is None


def test_an_empty_trigger_fires_at_any_change() -> None:
    assert Run(watching()).report("anything", 0)


def test_a_silent_change_fires_nothing_at_once_and_arms_the_hold() -> None:
    assert not Run(watching("on")).report("on", 0, silent=True)
    run = Run(watching("on", duration=10))
    assert not run.report("on", 0, silent=True)
    assert run.pass_to(60) == [later(10)]


def test_a_duration_fires_once_when_it_was_satisfied_that_long() -> None:
    run = Run(watching("clear", duration=300))
    assert not run.report("clear", 0)
    assert run.pass_to(299) == []
    assert run.pass_to(100_000) == [later(300)]


def test_another_satisfying_state_does_not_restart_the_clock() -> None:
    run = Run(watching("clear", "quiet", duration=300))
    run.report("clear", 0)
    run.report("quiet", 200)
    assert run.pass_to(1000) == [later(300)]


def test_a_break_disarms_it_and_a_new_state_starts_the_clock_anew() -> None:
    run = Run(watching("clear", duration=300))
    run.report("clear", 0)
    run.report("occupied", 299)
    assert run.state is None
    run.report("clear", 310)
    assert run.pass_to(1000) == [later(610)]


def test_it_fires_again_at_each_interval_on_a_grid_while_it_stays_satisfied() -> None:
    run = Run(watching("open", duration=10, periodicity=5))
    run.report("open", 0)
    assert run.pass_to(27) == [later(10), later(15), later(20), later(25)]
    run.report("closed", 27)
    assert run.pass_to(1000) == []


def test_periodicity_alone_fires_at_the_change_and_then_at_each_interval() -> None:
    run = Run(watching("open", periodicity=60))
    assert run.report("open", 0)
    assert run.pass_to(150) == [later(60), later(120)]


def test_many_missed_repeats_fire_once_and_the_grid_stays() -> None:
    run = Run(watching("open", periodicity=60))
    run.report("open", 0)
    assert run.state is not None
    step = tick(run.trigger, run.state, later(605))
    assert step.fires
    assert step.state is not None
    assert deadline(run.trigger, step.state) == later(660)
    assert not tick(run.trigger, step.state, later(605)).fires


def test_a_wall_clock_that_is_set_leaves_what_remains_as_it_was() -> None:
    run = Run(watching("clear", duration=300))
    run.report("clear", 0)
    assert run.state is not None
    for step_s in (86_400, -86_400):
        moved = shift(run.state, seconds(step_s))
        due = deadline(run.trigger, moved)
        assert due is not None
        assert due - (NOW + seconds(step_s)) == seconds(300)


def test_the_hold_of_an_entity_has_a_name_of_its_own() -> None:
    names = {trigger_state_name(f"op/{n}", LAMP._replace(id=entity)) for n in range(3) for entity in ("a", "b")}
    assert len(names) == 6


triggers = st.builds(
    watching,
    st.sampled_from("ab"),
    duration=st.none() | st.integers(1, 6),
    periodicity=st.none() | st.integers(1, 5),
) | st.builds(watching, st.just("a"), st.just("b"), duration=st.none() | st.integers(1, 6))
timelines = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), max_size=12)


@dataclass
class Oracle:
    """What behaviour 2 says, second by second, by somebody who forgets nothing."""

    trigger: Trigger
    since: int | None = None
    last: int | None = None

    def key(self, name: str) -> Any:
        """Return what a key of the trigger says, or None."""
        return next((getattr(key, name) for key in self.trigger.keys if key.name == name), None)

    def change(self, text: str, at: int) -> list[int]:
        states = self.key("states")
        if states is not None and text not in states:
            self.since = self.last = None
            return []
        if self.since is None:
            self.since = at
        if self.key("duration") is not None:
            return []
        self.last = at
        return [at]

    def second(self, now: int) -> list[int]:
        if self.since is None:
            return []
        wait, every = self.key("duration"), self.key("periodicity")
        first = wait is not None and self.last is None and now - self.since >= wait.total_seconds()
        again = every is not None and self.last is not None and now - self.last >= every.total_seconds()
        if first or again:
            self.last = now
            return [now]
        return []


@given(triggers, timelines, st.sets(st.integers(0, 50)))
def test_it_fires_exactly_when_the_rules_say_and_losing_everything_but_the_hold_changes_nothing(
    trigger: Trigger, timeline: list[tuple[int, str]], restarts: set[int]
) -> None:
    oracle, run = Oracle(trigger), Run(trigger)
    wanted: list[int] = []
    fired: list[datetime] = []
    now = 0
    for pause, text in [*timeline, (20, "c")]:
        for moment in range(now + 1, now + pause + 1):
            wanted += oracle.second(moment)
            fired += run.pass_to(moment)
            if moment in restarts:
                run = Run(trigger, run.state)
        now += pause
        wanted += oracle.change(text, now)
        if run.report(text, now):
            fired.append(later(now))
    assert fired == [later(at) for at in wanted]


@given(triggers, timelines, st.integers(0, 10_000))
def test_one_look_after_any_absence_fires_at_most_once_and_moves_the_deadline_past_it(
    trigger: Trigger, timeline: list[tuple[int, str]], absence: int
) -> None:
    run = Run(trigger)
    now = 0
    for pause, text in timeline:
        now += pause
        run.pass_to(now)
        run.report(text, now)
    if run.state is None:
        return
    step = tick(trigger, run.state, later(now + absence))
    assert step.state is not None
    due = deadline(trigger, step.state)
    assert due is None or due > later(now + absence)
    assert not tick(trigger, step.state, later(now + absence)).fires


@pytest.mark.parametrize("trigger", [watching("a", duration=5), watching("a", duration=5, periodicity=2)])
def test_nothing_fires_before_its_deadline(trigger: Trigger) -> None:
    state = receive(trigger, LAMP, NAME, None, Change(a_change("a").key, "a", None, NOW)).state
    assert state is not None
    assert not tick(trigger, state, later(4.999)).fires
