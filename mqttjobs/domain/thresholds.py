"""Numbers against thresholds: which side a number is on, and when it has come back for good."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?\Z", re.ASCII)


def number_of(text: str) -> float | None:
    """Return the number that a state is, or None; `NaN`, `Infinity` and `21 °C` are none."""
    if _NUMBER.match(text) is None:
        return None
    number = float(text)
    return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class Threshold:
    """The numbers beyond a threshold, or between two; at least one of `above` and `below` is given.

    Once inside, a number counts as inside until it has returned by `hysteresis`: one that trembles around the
    threshold crosses it once.
    """

    above: float | None = None
    below: float | None = None
    hysteresis: float = 0.0

    def contains(self, number: float) -> bool:
        """Whether a number is beyond the threshold, or in the band."""
        return (self.above is None or number > self.above) and (self.below is None or number < self.below)

    def left_by(self, number: float) -> bool:
        """Whether a number has returned far enough to be outside again."""
        return (self.above is not None and number <= self.above - self.hysteresis) or (
            self.below is not None and number >= self.below + self.hysteresis
        )

    def side(self, before: bool, number: float) -> bool:
        """Return whether it is beyond now, given whether it was."""
        return not self.left_by(number) if before else self.contains(number)
