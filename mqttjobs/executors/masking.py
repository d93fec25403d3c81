"""Masking of secrets in captured output, in every form that programs write, and also of secrets cut in half."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

DEEPEST_JSON = 2
"""JSON as a text inside JSON is escaped twice."""

_HTML = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&'="})


class Masking:
    """Replaces secrets by their names; `secrets` are pairs of a secret and its name, such as `${ENV:KEY}`."""

    def __init__(self, secrets: Sequence[tuple[str, str]] = ()) -> None:
        forms = {form: name for secret, name in secrets if secret for form in _forms(secret)}
        self._forms = sorted(forms.items(), key=lambda each: -len(each[0]))

    def __call__(self, text: str) -> str:
        """Return a text with every secret replaced by its name, the longest first."""
        for form, name in self._forms:
            text = text.replace(form, name)
        return text

    def head(self, text: str) -> str:
        """Return the beginning of a longer text, masked, without a secret that is cut off at its end."""
        text = self(text)
        half = max((_overlap(text, form, len(form) - 1) for form, _ in self._forms), default=0)
        return text[: len(text) - half]

    def tail(self, text: str) -> str:
        """Return the end of a longer text, masked, without the rest of a secret that was cut off before it."""
        half = -1
        while half:
            half = max((_overlap(form, text, len(form) - 1) for form, _ in self._forms), default=0)
            text = text[half:]
        return self(text)


def _overlap(left: str, right: str, most: int) -> int:
    """Return the length, at most `most`, of the longest end of `left` that `right` begins with."""
    end = left[max(0, len(left) - most) :] if most else ""
    at = end.find(right[:1])
    while 0 <= at < len(end):
        if right.startswith(end[at:]):
            return len(end) - at
        at = end.find(right[:1], at + 1)
    return 0


@lru_cache(maxsize=256)
def _forms(secret: str) -> frozenset[str]:
    """Return a secret in every form that is masked: plain, and escaped as in the JSON of many languages."""
    forms = {secret}
    for _ in range(DEEPEST_JSON):
        forms |= {written for form in forms for written in _as_json(form)}
    return frozenset(forms)


def _as_json(text: str) -> Iterator[str]:
    for ascii_alone in (False, True):
        plain = json.dumps(text, ensure_ascii=ascii_alone)[1:-1]
        yield plain
        yield plain.replace("/", "\\/")
        yield plain.translate(_HTML)
        yield re.sub(r"\\u[0-9a-f]{4}", _upper, plain)
        yield re.sub(
            r"\\u[0-9a-f]{4}", _upper, plain.replace('\\"', "\\u0022").replace("+", "\\u002b").translate(_HTML)
        )


def _upper(escape: re.Match[str]) -> str:
    return "\\u" + escape[0][2:].upper()
