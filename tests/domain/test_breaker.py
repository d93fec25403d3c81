"""The circuit breaker: closed below its limit, open for its pause beyond it."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.domain.breaker import Breaker, BreakerRule


@given(
    st.lists(st.integers(0, 8), max_size=60),
    st.integers(1, 5),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_no_stretch_of_its_length_has_more_than_its_firings_and_it_opens_only_then(
    pauses: list[int], firings: int, within: int, pause: int
) -> None:
    breaker = Breaker(BreakerRule(firings=firings, within=timedelta(seconds=within), pause=timedelta(seconds=pause)))
    ran: list[int] = []
    opened: list[int] = []
    now = 0
    for wait in pauses:
        now += wait
        open_before = bool(opened) and now < opened[-1] + pause
        assert breaker.is_open(now) is open_before
        recent = [at for at in ran if at > now - within and (not opened or at > opened[-1])]
        if breaker.fire(now):
            assert not open_before
            assert len(recent) < firings
            ran.append(now)
        elif not open_before:
            assert len(recent) == firings
            opened.append(now)
    if breaker.idle(now + within + pause):
        assert breaker.fire(now + within + pause)


def test_the_default_lets_a_thousand_in_ten_seconds_through() -> None:
    breaker = Breaker(BreakerRule())
    assert all(breaker.fire(n / 1000) for n in range(1000))
    assert not breaker.fire(1.0)
    assert breaker.is_open(60.9)
    assert breaker.fire(61.0)
