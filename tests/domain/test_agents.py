"""Which agents a target means, which one gets a job, and when an agent is there (contract 6)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.domain.agent_messages import Readiness, StatusMessage
from mqttjobs.domain.agents import (
    Agent,
    Aim,
    Timing,
    agent_document,
    expected_set,
    hear,
    least_busy,
    parse_target,
    ready_for,
)
from mqttjobs.errors import ReportError
from tests.domain.builders import NOW, later

LEASE = Timing().lease
message = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True)
dotted = st.lists(message, min_size=1, max_size=4).map(".".join)


def an_agent(hostname: str = "web1", **changes: Any) -> Agent:
    return Agent(**{"hostname": hostname, "state": Readiness.READY, "heard_at": NOW, "max_jobs": 4, **changes})


def a_status(seconds: float = 0, state: str = "ready", **changes: Any) -> StatusMessage:
    return StatusMessage(**{"state": state, "timestamp": later(seconds), "connection": "first", **changes})


def heard(known: Agent | None, status: StatusMessage, seconds: float, *, retained: bool = False) -> Agent:
    agent = hear(known, status, "web1", later(seconds), retained=retained)
    assert agent is not None
    return agent


def skip_reason(known: Agent | None, status: StatusMessage, seconds: float, *, retained: bool = False) -> str:
    with pytest.raises(ReportError) as caught:
        hear(known, status, "web1", later(seconds), retained=retained)
    return caught.value.reason


# -- targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "aim", "broadcast"),
    [
        ("_local", Aim.LOCAL, False),
        ("_any", Aim.ANY, False),
        ("_all", Aim.ALL, True),
        ("web1.example.org", Aim.HOST, False),
        ("group:web.dev", Aim.LABEL, True),
    ],
)
def test_a_target_is_one_of_five_kinds(text: str, aim: Aim, broadcast: bool) -> None:
    target = parse_target(text)
    assert (target.aim, target.broadcast) == (aim, broadcast)


@pytest.mark.parametrize("text", ["", "_some", "a b", "group:", ":web", "a:b:c", "web/1", "#", "é", "a" * 65, "x\n"])
def test_any_other_text_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match="label:value"):
        parse_target(text)


@given(dotted, dotted)
def test_a_label_matches_by_whole_segments(wanted: str, have: str) -> None:
    oracle = have.split(".")[: len(wanted.split("."))] == wanted.split(".")
    assert parse_target(f"group:{wanted}").means(an_agent(labels={"group": have})) is oracle


def test_a_label_that_an_agent_does_not_have_matches_nothing() -> None:
    assert not parse_target("group:web").means(an_agent(labels={"site": "web"}))


def test_the_service_itself_is_no_agent() -> None:
    assert not parse_target("_local").means(an_agent())


def test_only_ready_agents_are_meant_and_a_broadcast_expects_each_of_them() -> None:
    agents = [
        an_agent("b"),
        an_agent("a"),
        an_agent("draining", state=Readiness.DRAINING),
        an_agent("cordoned", state=Readiness.CORDONED),
        an_agent("offline", state=Readiness.OFFLINE),
        an_agent("silent", heard_at=later(-31)),
        an_agent("unheard", heard_at=None),
        an_agent("drained", drained=True),
    ]
    ready = ready_for(parse_target("_all"), agents, NOW, LEASE)
    assert [agent.hostname for agent in ready] == ["a", "b"]
    assert expected_set(parse_target("_all"), ready) == ("a", "b")
    assert expected_set(parse_target("_any"), ready) == ()
    assert expected_set(parse_target("a"), ready_for(parse_target("a"), agents, NOW, LEASE)) == ("a",)


def test_an_agent_is_silent_after_exactly_its_lease() -> None:
    assert an_agent(heard_at=later(-30)).is_ready(NOW, LEASE)
    assert not an_agent(heard_at=later(-30.001)).is_ready(NOW, LEASE)


# -- the least busy --------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6), st.integers(0, 6)), max_size=6), st.booleans())
def test_the_least_busy_agent_has_room_and_nobody_with_room_has_less_to_do(
    sizes: list[tuple[int, int, int]], uses_slot: bool
) -> None:
    agents = [an_agent(f"h{n}", max_jobs=size, running=running) for n, (size, _, running) in enumerate(sizes)]
    busy = {f"h{n}": ours for n, (_, ours, _) in enumerate(sizes)}
    chosen = least_busy(agents, busy, uses_slot=uses_slot)
    roomy = [each for each in agents if not uses_slot or busy[each.hostname] < each.max_jobs]
    if chosen is None:
        assert not roomy
        return
    assert chosen in roomy
    load = max(busy[chosen.hostname], chosen.running) / chosen.max_jobs
    assert all(load <= max(busy[each.hostname], each.running) / each.max_jobs for each in roomy)


def test_of_equally_busy_agents_always_the_same_is_chosen() -> None:
    agents = [an_agent("b"), an_agent("a")]
    assert least_busy(agents, {}, uses_slot=True) == agents[1]


# -- statuses --------------------------------------------------------------------------------------------------------


def test_a_first_status_makes_an_agent_known() -> None:
    agent = heard(None, a_status(labels={"group": "web"}, max_jobs=7), 1)
    assert (agent.hostname, agent.labels, agent.max_jobs) == ("web1", {"group": "web"}, 7)
    assert agent.is_ready(later(31), LEASE)
    assert not agent.is_ready(later(31.001), LEASE)


def test_a_status_counts_once_and_in_order() -> None:
    agent = heard(heard(None, a_status(0), 0), a_status(10), 10)
    assert skip_reason(agent, a_status(10), 11) == "replayed"
    assert skip_reason(agent, a_status(5), 11) == "replayed"
    assert skip_reason(agent, a_status(5, state="offline", connection="earlier"), 11) == "replayed"


def test_a_retained_status_that_is_known_is_no_news_and_no_offence() -> None:
    agent = heard(None, a_status(0), 0)
    assert hear(agent, a_status(0), "web1", later(100), retained=True) is None


def test_an_old_retained_status_tells_who_was_there_and_is_no_sign_of_life() -> None:
    agent = heard(None, a_status(-3600), 0, retained=True)
    assert agent.readiness(NOW, LEASE) is Readiness.OFFLINE


def test_a_fresh_retained_status_is_a_sign_of_life_as_old_as_it_is() -> None:
    agent = heard(None, a_status(-10), 0, retained=True)
    assert agent.is_ready(later(20), LEASE)
    assert not agent.is_ready(later(20.001), LEASE)


@pytest.mark.parametrize(("seconds", "retained"), [(-31, False), (31, False), (31, True)])
def test_a_status_of_another_time_is_stale(seconds: float, retained: bool) -> None:
    assert skip_reason(None, a_status(seconds), 0, retained=retained) == "stale"


def test_the_last_will_of_the_present_connection_counts_though_it_was_signed_before() -> None:
    agent = heard(heard(None, a_status(0), 0), a_status(500), 500)
    gone = heard(agent, a_status(0, state="offline"), 501)
    assert gone.readiness(later(501), LEASE) is Readiness.OFFLINE
    assert gone.heard_at == later(500)
    assert skip_reason(gone, a_status(0, state="offline"), 502) == "replayed"


def test_the_last_will_of_an_earlier_connection_counts_no_more() -> None:
    agent = heard(heard(None, a_status(0), 0), a_status(500, connection="second"), 500)
    assert skip_reason(agent, a_status(0, state="offline"), 501) == "replayed"


def test_a_drained_agent_stays_so_until_it_is_undrained() -> None:
    agent = heard(replace(heard(None, a_status(0), 0), drained=True), a_status(10), 10)
    assert agent.readiness(later(10), LEASE) is Readiness.DRAINING
    assert replace(agent, drained=False).is_ready(later(10), LEASE)


def test_heartbeats_alone_are_not_worth_writing_down() -> None:
    agent = heard(None, a_status(0), 0)
    assert agent.says_more_than(None)
    assert not heard(agent, a_status(10, running=3, facts={"load": 1}), 10).says_more_than(agent)
    assert heard(agent, a_status(10, state="draining"), 10).says_more_than(agent)
    assert heard(agent, a_status(10, connection="second"), 10).says_more_than(agent)


def test_the_document_has_the_fields_of_the_contract() -> None:
    agent = an_agent(labels={"group": "web"}, version="1", running=2, facts={"load": 0.5})
    assert agent_document(agent, NOW + timedelta(seconds=3), LEASE) == {
        "hostname": "web1",
        "state": "ready",
        "labels": {"group": "web"},
        "version": "1",
        "running": 2,
        "max_jobs": 4,
        "facts": {"load": 0.5},
        "last_seen": "2026-03-01T12:00:00.000Z",
    }
