"""The status rule (behaviour 3.3): a pure function of the set of events."""

from __future__ import annotations

from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.domain.status import (
    ALL,
    ANY,
    LOCAL,
    RANK,
    TERMINAL_STATUSES,
    EventKind,
    JobEvent,
    Status,
    agent_states,
    chronological,
    status_of,
)
from tests.domain.builders import an_event, later

SUBMITTED, ACKNOWLEDGED, STARTED = EventKind.SUBMITTED, EventKind.ACKNOWLEDGED, EventKind.STARTED
COMPLETED, FAILED = EventKind.COMPLETED, EventKind.FAILED
BOTH = ("a", "b")

# The table of behaviour 3.3, written out for two agents: what they have come to, and what the job then is.
TABLE = {
    (SUBMITTED, SUBMITTED): Status.SUBMITTED,
    (SUBMITTED, ACKNOWLEDGED): Status.PROCESSING,
    (SUBMITTED, STARTED): Status.PROCESSING,
    (SUBMITTED, FAILED): Status.PROCESSING,
    (SUBMITTED, COMPLETED): Status.PROCESSING,
    (ACKNOWLEDGED, ACKNOWLEDGED): Status.PROCESSING,
    (ACKNOWLEDGED, STARTED): Status.PROCESSING,
    (ACKNOWLEDGED, FAILED): Status.PROCESSING,
    (ACKNOWLEDGED, COMPLETED): Status.PROCESSING,
    (STARTED, STARTED): Status.PROCESSING,
    (STARTED, FAILED): Status.PROCESSING,
    (STARTED, COMPLETED): Status.PROCESSING,
    (FAILED, FAILED): Status.FAILED,
    (FAILED, COMPLETED): Status.PARTIAL_FAILURE,
    (COMPLETED, COMPLETED): Status.COMPLETED,
}
LADDER = (ACKNOWLEDGED, STARTED, FAILED, COMPLETED)


def way_to(kind: EventKind, hostname: str) -> list[JobEvent]:
    """Return every event that an agent can have told on its way to a state, a time-out before a completion too."""
    return [an_event(step, hostname, number) for number, step in enumerate(LADDER) if RANK[step] <= RANK[kind]]


@pytest.mark.proves("listing", "partial_failure")
@pytest.mark.parametrize(("one", "other"), list(product(RANK, RANK)))
def test_two_agents_make_the_status_of_the_table_in_every_order_of_their_events(
    one: EventKind, other: EventKind
) -> None:
    expected = TABLE.get((one, other)) or TABLE[other, one]
    shortest = [[each for each in way_to(kind, host) if each.kind is kind] for kind, host in ((one, "a"), (other, "b"))]
    for events in (way_to(one, "a") + way_to(other, "b"), shortest[0] + shortest[1]):
        orders = permutations(events) if len(events) < 7 else _interleavings(events)
        assert {status_of(order, BOTH, ALL) for order in orders} == {expected}


def _interleavings(events: list[JobEvent]) -> list[list[JobEvent]]:
    """Return every way in which two agents' own orders can mix, forwards and backwards."""
    made: list[list[JobEvent]] = []
    left = [each for each in events if each.hostname == "a"]
    right = [each for each in events if each.hostname == "b"]
    for places in product((True, False), repeat=len(events)):
        if sum(places) == len(left):
            a, b = iter(left), iter(right)
            mixed = [next(a) if place else next(b) for place in places]
            made += [mixed, mixed[::-1]]
    return made


events_of_jobs = st.lists(
    st.builds(
        JobEvent,
        st.integers(0, 5).map(later),
        st.sampled_from(EventKind),
        st.sampled_from(["a", "b", "c"]),
        st.just("told"),
        st.sampled_from(["", "first error", "other error"]),
        st.none() | st.builds(lambda result: {"result": result}, st.integers(0, 1)),
    ),
    max_size=12,
)


@given(
    events_of_jobs, st.sampled_from([LOCAL, ANY, ALL, "a"]), st.lists(st.sampled_from("abcd"), unique=True), st.data()
)
def test_any_order_and_any_repetition_give_the_same_status_and_the_same_agents(
    events: list[JobEvent], target: str, expected: list[str], data: st.DataObject
) -> None:
    repeated = events + (data.draw(st.lists(st.sampled_from(events))) if events else [])
    mixed = data.draw(st.permutations(repeated))
    assert status_of(mixed, expected, target) is status_of(events, expected, target)
    assert agent_states(mixed, expected, target) == agent_states(events, expected, target)


@given(events_of_jobs, events_of_jobs, st.sampled_from([LOCAL, ANY, ALL]))
def test_a_stop_wins_whatever_else_arrives(before: list[JobEvent], after: list[JobEvent], target: str) -> None:
    assert status_of([*before, an_event(EventKind.STOPPED), *after], BOTH, target) is Status.STOPPED


@given(events_of_jobs, events_of_jobs)
def test_an_agent_never_falls_back_to_a_lower_state(before: list[JobEvent], after: list[JobEvent]) -> None:
    early, late = agent_states(before, (), ALL), agent_states(before + after, (), ALL)
    assert early.keys() <= late.keys()
    assert all(RANK[late[host].kind] >= RANK[state.kind] for host, state in early.items())


@given(events_of_jobs, st.sampled_from([EventKind.RETRIED, EventKind.PROGRESS]), st.sampled_from(["a", "z"]))
def test_progress_and_attempts_to_be_repeated_do_not_rank(events: list[JobEvent], kind: EventKind, host: str) -> None:
    assert status_of([*events, an_event(kind, host, 9)], BOTH, ALL) is status_of(events, BOTH, ALL)
    assert agent_states([*events, an_event(kind, host, 9)], BOTH, ALL) == agent_states(events, BOTH, ALL)


def test_an_equal_event_does_not_replace_the_first() -> None:
    first, second = an_event(FAILED, "a", 1, error="first"), an_event(FAILED, "a", 2, error="second")
    for order in permutations([first, second]):
        assert agent_states(order)["a"].event == first


def test_a_late_completion_outranks_the_time_out_of_its_agent() -> None:
    timed_out = [an_event(STARTED, "a"), an_event(FAILED, "a", 30, error="timeout: agent did not respond")]
    assert status_of([*timed_out, an_event(COMPLETED, "b")], BOTH, ALL) is Status.PARTIAL_FAILURE
    assert (
        status_of([*timed_out, an_event(COMPLETED, "b"), an_event(COMPLETED, "a", 60)], BOTH, ALL) is Status.COMPLETED
    )


def test_a_late_failure_does_not_undo_a_completion() -> None:
    assert status_of([an_event(COMPLETED, "a"), an_event(FAILED, "a", 60)]) is Status.COMPLETED


def test_expected_agents_that_are_silent_keep_a_broadcast_processing() -> None:
    assert status_of([], BOTH, ALL) is Status.SUBMITTED
    assert status_of([an_event(COMPLETED, "a")], BOTH, ALL) is Status.PROCESSING
    assert agent_states([an_event(COMPLETED, "a")], BOTH, ALL)["b"].kind is SUBMITTED


def test_the_submission_by_the_service_is_no_agent_of_a_broadcast() -> None:
    reported = [an_event(SUBMITTED, "hub"), an_event(COMPLETED, "a")]
    assert status_of(reported, ("a",), ALL) is Status.COMPLETED
    assert agent_states(reported, ("a",), ALL).keys() == {"a"}


@given(st.permutations([an_event(FAILED, "a", 1), an_event(STARTED, "b", 2), an_event(COMPLETED, "b", 3)]))
def test_under_any_only_the_last_agent_counts(events: list[JobEvent]) -> None:
    assert status_of(events, (), ANY) is Status.COMPLETED
    assert agent_states(events, (), ANY).keys() == {"b"}


def test_under_any_the_greater_hostname_is_the_later_one_at_the_same_time() -> None:
    assert agent_states([an_event(FAILED, "b", 1), an_event(COMPLETED, "a", 1)], (), ANY).keys() == {"b"}


def test_a_duration_is_from_the_first_start_to_the_last_end_and_absent_before() -> None:
    running = [an_event(STARTED, "a", 5), an_event(EventKind.RETRIED, "a", 6), an_event(STARTED, "a", 9)]
    assert agent_states(running)["a"].duration is None
    ended = agent_states([*running, an_event(COMPLETED, "a", 12)])["a"]
    assert ended.duration is not None
    assert ended.duration.total_seconds() == 7
    assert agent_states([an_event(COMPLETED, "a", 12)])["a"].duration is None


def test_clocks_that_disagree_make_no_negative_duration() -> None:
    state = agent_states([an_event(STARTED, "a", 10), an_event(COMPLETED, "a", 3)])["a"]
    assert state.duration is not None
    assert state.duration.total_seconds() == 0


def test_the_terminal_statuses_are_those_that_no_event_of_work_can_follow() -> None:
    assert set(Status) - TERMINAL_STATUSES == {Status.SUBMITTED, Status.PROCESSING}


def test_a_timeline_is_in_the_order_of_time_whoever_reported_first() -> None:
    reported = [
        an_event(SUBMITTED, "hub", 5),
        an_event(ACKNOWLEDGED, "a", 6),
        an_event(STARTED, "a", 8),
        an_event(ACKNOWLEDGED, "slow", 1),
        an_event(STARTED, "slow", 7),
        an_event(COMPLETED, "slow", 3),  # its clock was set back meanwhile
    ]
    seen = [(each.hostname, each.kind) for each in chronological(reported)]
    assert seen == [
        ("hub", SUBMITTED),
        ("slow", ACKNOWLEDGED),
        ("a", ACKNOWLEDGED),
        ("slow", STARTED),
        ("slow", COMPLETED),
        ("a", STARTED),
    ]


@given(st.lists(st.builds(an_event, st.sampled_from(EventKind), st.sampled_from(BOTH), st.integers(0, 9))))
def test_a_timeline_keeps_every_event_and_the_order_of_each_host_but_for_the_submission(events: list[JobEvent]) -> None:
    seen = chronological(events)
    for host in BOTH:
        for first in (True, False):
            own = [each for each in events if each.hostname == host and (each.kind is SUBMITTED) is first]
            assert [each for each in seen if each.hostname == host and (each.kind is SUBMITTED) is first] == own
    assert len(seen) == len(events)
