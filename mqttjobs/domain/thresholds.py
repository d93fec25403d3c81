"""Thresholds: whether a number is beyond one, and when a number has returned by the hysteresis."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?\Z", re.ASCII)


def number_of(text: str) -> float | None:
    """Return the number that a state is written as, or None; `NaN`, `Infinity` and `21 °C` are no numbers."""
    if _NUMBER.match(text) is None:
        return None
    number = float(text)
    return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class Threshold:
    """The numbers beyond a threshold, or between two thresholds; at least one of `above` and `below` is given.

    A value that has crossed counts as beyond until it has returned by `hysteresis`, so that a number that fluctuates
    around the threshold crosses once.
    """

    above: float | None = None
    below: float | None = None
    hysteresis: float = 0.0

    def contains(self, number: float) -> bool:
        """Whether a number is beyond the threshold, or between the two."""
        return (self.above is None or number > self.above) and (self.below is None or number < self.below)

    def left_by(self, number: float) -> bool:
        """Whether a number has returned by the hysteresis."""
        return (self.above is not None and number <= self.above - self.hysteresis) or (
            self.below is not None and number >= self.below + self.hysteresis
        )

    def side(self, before: bool, number: float) -> bool:
        """Return whether the value is beyond now, given whether it was before."""
        return not self.left_by(number) if before else self.contains(number)
