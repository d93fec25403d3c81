"""Topics and filters by the rules of MQTT 5, section 4.7; without recursion, so that a topic may have any depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

LONGEST_BYTES = 65_535


def check_topic(topic: str) -> None:
    """Raise ValueError, saying why, unless `topic` may be published to (MQTT 5, 4.7.1 and 4.7.3)."""
    _check_text(topic, "topic")
    if "+" in topic or "#" in topic:
        raise ValueError("a topic has no wildcards; + and # belong into filters")


def check_filter(filter: str) -> None:  # noqa: A002 - MQTT's own word
    """Raise ValueError, saying why, unless `filter` may be subscribed to; shared subscriptions are refused."""
    _check_text(filter, "filter")
    if filter.startswith("$share/"):
        raise ValueError("shared subscriptions do not fail over and are not used here")
    levels = filter.split("/")
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):
            raise ValueError("# stands alone and last: a/b/#")
        if "+" in level and level != "+":
            raise ValueError("+ stands for one whole level: a/+/b")


def _check_text(text: str, noun: str) -> None:
    if not text:
        raise ValueError(f"a {noun} must not be empty")
    if "\0" in text:
        raise ValueError(f"a {noun} must not contain NUL")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"a {noun} must be valid UTF-8") from None
    if size > LONGEST_BYTES:
        raise ValueError(f"a {noun} has at most {LONGEST_BYTES} bytes")


def matches(filter: str, topic: str) -> bool:  # noqa: A002 - MQTT's own word
    """Whether a valid filter matches a valid topic; wildcards at the first level do not match `$…` (4.7.2)."""
    if topic.startswith("$") and filter[:1] in ("+", "#"):
        return False
    wanted, levels = filter.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)


def covers(wide: str, narrow: str) -> bool:
    """Whether `wide` matches every topic that `narrow` matches."""
    if narrow.startswith("$") and wide[:1] in ("+", "#"):
        return False
    outer, inner = wide.split("/"), ["+", "#"] if narrow == "#" else narrow.split("/")  # a topic has a first level
    for index, level in enumerate(outer):
        if level == "#":
            return True
        if index >= len(inner) or inner[index] == "#" or level not in ("+", inner[index]):
            return False
    return len(outer) == len(inner)


def overlaps(one: str, other: str) -> bool:
    """Whether there is a topic that both filters match."""
    if (one.startswith("$") and other[:1] in ("+", "#")) or (other.startswith("$") and one[:1] in ("+", "#")):
        return False
    left, right = one.split("/"), other.split("/")
    for index in range(max(len(left), len(right))):
        a = left[index] if index < len(left) else None
        b = right[index] if index < len(right) else None
        if a == "#" or b == "#":
            return True
        if a is None or b is None or (a != b and "+" not in (a, b)):
            return False
    return True


class _Node(Generic[T]):
    __slots__ = ("children", "items")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.items: list[T] = []


class TopicTrie(Generic[T]):
    """Finds the items of every filter that matches a topic. The cost depends on the topic's levels alone."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, filter: str, item: T) -> None:  # noqa: A002 - MQTT's own word
        """Add an item under a valid filter."""
        node = self._root
        for level in filter.split("/"):
            node = node.children.setdefault(level, _Node())
        node.items.append(item)

    def find(self, topic: str) -> list[T]:
        """Return the items whose filter matches `topic`, in no particular order."""
        found: list[T] = []
        nodes = [self._root]
        for index, level in enumerate(topic.split("/")):
            wild = index > 0 or not topic.startswith("$")
            reached: list[_Node[T]] = []
            for node in nodes:
                if wild and "#" in node.children:
                    found += node.children["#"].items
                if wild and "+" in node.children:
                    reached.append(node.children["+"])
                if level in node.children and level not in ("+", "#"):
                    reached.append(node.children[level])
            nodes = reached
            if not nodes:
                return found
        for node in nodes:
            found += node.items
            if "#" in node.children:
                found += node.children["#"].items
        return found


def minimal_filters(filters: Iterable[str]) -> list[str]:
    """Return the filters in their order, each once, without those that another filter covers."""
    unique = list(dict.fromkeys(filters))
    wild = [each for each in unique if "+" in each or "#" in each]
    if not wild:
        return unique
    trie: TopicTrie[str] = TopicTrie()
    for each in wild:
        trie.add(each, each)
    kept: list[str] = []
    for each in unique:
        if "+" in each or "#" in each:
            covered = any(covers(other, each) and not covers(each, other) for other in wild)
            alike = any(covers(other, each) and covers(each, other) for other in kept)
        else:
            covered, alike = bool(trie.find(each)), False
        if not covered and not alike:
            kept.append(each)
    return kept


def reply_topic_allowed(topic: str, filters: Sequence[str]) -> bool:
    """Whether a response may go to `topic`: a valid topic, none of the broker's own (`$…`), that a filter matches."""
    try:
        check_topic(topic)
    except ValueError:
        return False
    return not topic.startswith("$") and any(matches(each, topic) for each in filters)
