"""Topics and filters (MQTT 5, 4.7) against an independent oracle, and brute force over a small world."""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mqttjobs.domain.topics import (
    TopicTrie,
    check_filter,
    check_topic,
    covers,
    matches,
    minimal_filters,
    overlaps,
    reply_topic_allowed,
)

LEVELS = ("a", "b", "", "$x")
levels = st.sampled_from([*LEVELS, "ä", "a b", "A"])
topics = st.lists(levels, min_size=1, max_size=5).map("/".join).filter(bool)
filters = (
    st.tuples(st.lists(levels | st.just("+"), max_size=5), st.booleans())
    .filter(lambda made: made[0] or made[1])
    .map(lambda made: "/".join([*made[0], "#"] if made[1] else made[0]))
    .filter(bool)
)
# Every topic and every filter of at most three levels over a small alphabet: enough to tell any two filters apart.
WORLD = ["/".join(each) for n in range(1, 5) for each in product(("a", "b", "", "$x"), repeat=n) if "/".join(each)]
SMALL = [
    "/".join([*each, *end])
    for n in range(4)
    for each in product(("a", "+", "$x"), repeat=n)
    for end in ((), ("#",))
    if each or end
]


def oracle(wanted: str, topic: str) -> bool:
    """Say by a regular expression whether a filter matches."""
    if topic.startswith("$") and wanted[0] in "+#":
        return False
    pattern = ""
    for place, level in enumerate(wanted.split("/")):
        if level == "#":
            pattern += "(/.*)?" if place else ".*"
        else:
            pattern += ("/" if place else "") + ("[^/]*" if level == "+" else re.escape(level))
    return re.fullmatch(pattern, topic, re.DOTALL) is not None


@given(filters, topics)
@example("#", "$SYS/broker")
@example("+/broker", "$SYS/broker")
@example("$SYS/#", "$SYS")
@example("a/#", "a")
@example("+/+", "/finance")
def test_matches_agrees_with_the_oracle(wanted: str, topic: str) -> None:
    check_filter(wanted)
    check_topic(topic)
    assert matches(wanted, topic) is oracle(wanted, topic)


@given(st.lists(filters, max_size=12), topics)
def test_the_trie_finds_exactly_the_filters_that_match(several: list[str], topic: str) -> None:
    trie: TopicTrie[int] = TopicTrie()
    for number, wanted in enumerate(several):
        trie.add(wanted, number)
    assert sorted(trie.find(topic)) == [number for number, each in enumerate(several) if matches(each, topic)]


def _matched(wanted: str) -> frozenset[str]:
    return frozenset(topic for topic in WORLD if oracle(wanted, topic))


SETS = {each: _matched(each) for each in SMALL}


@pytest.mark.parametrize("wide", SMALL)
def test_covers_and_overlaps_are_what_the_sets_of_topics_say(wide: str) -> None:
    for narrow in SMALL:
        assert covers(wide, narrow) is (SETS[narrow] <= SETS[wide]), (wide, narrow)
        assert overlaps(wide, narrow) is bool(SETS[narrow] & SETS[wide]), (wide, narrow)


@given(filters, filters)
def test_overlaps_is_symmetric_and_follows_from_covers(one: str, other: str) -> None:
    assert overlaps(one, other) is overlaps(other, one)
    if covers(one, other):
        assert overlaps(one, other)


@given(st.lists(filters | topics, max_size=10))
@example(["+/#", "#"])
@example(["#", "+/#", "$x/#"])
@example(["a", "a", "a/#"])
def test_the_fewest_filters_match_the_same_topics_and_none_is_covered_by_another(several: list[str]) -> None:
    kept = minimal_filters(several)
    assert set(kept) <= set(several)
    assert len(kept) == len(set(kept))
    for topic in WORLD:
        assert any(oracle(each, topic) for each in kept) is any(oracle(each, topic) for each in several)
    assert not [(one, two) for one in kept for two in kept if one != two and covers(one, two)]
    assert kept == sorted(kept, key=several.index)


def test_no_topic_is_too_deep() -> None:
    deep = "/".join("a" * 30_000)
    check_topic(deep)
    trie: TopicTrie[str] = TopicTrie()
    for wanted in ("#", "a/#", deep, f"{deep}/#", "/".join("+" * 30_000)):
        check_filter(wanted)
        trie.add(wanted, wanted)
        assert matches(wanted, deep)
        assert covers("#", wanted)
        assert overlaps(wanted, deep)
    assert len(trie.find(deep)) == 5
    assert not matches(deep, deep[:-2])


def test_finding_costs_the_levels_of_the_topic_and_not_the_number_of_filters() -> None:
    visited = 0

    class Counting(dict[str, object]):
        def __contains__(self, key: object) -> bool:
            nonlocal visited
            visited += 1
            return super().__contains__(key)

    trie: TopicTrie[int] = TopicTrie()
    for number in range(10_000):
        trie.add(f"plant/line_{number}/belt", number)
    for node in (trie._root, trie._root.children["plant"], trie._root.children["plant"].children["line_77"]):
        node.children = Counting(node.children)  # type: ignore[assignment]
    assert trie.find("plant/line_77/belt") == [77]
    assert visited <= 12


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0b", "\ud800", "ä" * 32_768, "a/b+c"])
def test_what_is_no_topic_is_refused_in_words(topic: str) -> None:
    with pytest.raises(ValueError, match=r"topic"):
        check_topic(topic)


@pytest.mark.parametrize(
    "wanted", ["", "a#", "#/a", "a/#/b", "a+/b", "a/+b", "a\0", "\udfff", "x" * 65_536, "$share/g/a"]
)
def test_what_is_no_filter_is_refused_in_words(wanted: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        check_filter(wanted)


@given(st.text(max_size=30))
def test_any_text_is_a_topic_a_filter_or_refused_with_a_value_error(text: str) -> None:
    for check in (check_topic, check_filter):
        with suppress(ValueError):
            check(text)


REPLY_FILTERS = ("mqttjobs/response/#", "answers/+/inbox")


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        ("mqttjobs/response/jobs/list", True),
        ("mqttjobs/response", True),
        ("answers/me/inbox", True),
        ("answers/me/you/inbox", False),
        ("zigbee2mqtt/hall_light/set", False),
        ("mqttjobs/responses", False),
        ("mqttjobs/response/#", False),
        ("mqttjobs/response/+", False),
        ("mqttjobs/response/\0", False),
        ("mqttjobs/response/\ud800", False),
        ("", False),
        ("$SYS/broker", False),
    ],
)
def test_answers_go_to_plain_topics_of_the_allow_list_alone(topic: str, allowed: bool) -> None:
    assert reply_topic_allowed(topic, REPLY_FILTERS) is allowed


@given(st.text(max_size=20), st.lists(filters, max_size=4))
def test_no_reply_topic_has_a_wildcard_is_the_brokers_or_is_matched_by_nothing(topic: str, several: list[str]) -> None:
    if reply_topic_allowed(topic, several):
        check_topic(topic)
        assert not topic.startswith("$")
        assert any(oracle(each, topic) for each in several)
