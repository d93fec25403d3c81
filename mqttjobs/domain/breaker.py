"""The circuit breaker of one operation and entity: too many firings in a short time pause it (behaviour 4).

Pure: seconds on a clock that only goes forward are an argument.
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta

from pydantic import Field

from mqttjobs.domain.fields import PositiveDuration, Record

_SECOND = timedelta(seconds=1)


class BreakerRule(Record):
    """More than so many firings within that time pause an operation for one entity (behaviour 4)."""

    firings: int = Field(default=1000, ge=1, le=1_000_000, description="How many firings are allowed.")
    within: PositiveDuration = Field(default=timedelta(seconds=10), description="The time in which they are counted.")
    pause: PositiveDuration = Field(default=timedelta(seconds=60), description="How long the pause is.")


class Breaker:
    """Counts firings; closed until there are too many, then open for the pause."""

    __slots__ = ("_times", "open_until_s", "rule")

    def __init__(self, rule: BreakerRule) -> None:
        self.rule = rule
        self.open_until_s: float | None = None
        self._times: deque[float] = deque(maxlen=rule.firings)

    def is_open(self, now_s: float) -> bool:
        """Whether it is open now."""
        return self.open_until_s is not None and now_s < self.open_until_s

    def fire(self, now_s: float) -> bool:
        """Count a firing; whether it may run. The one beyond the limit opens the breaker and may not."""
        if self.is_open(now_s):
            return False
        self.open_until_s = None
        within_s = self.rule.within / _SECOND
        while self._times and now_s - self._times[0] >= within_s:
            self._times.popleft()
        if len(self._times) >= self.rule.firings:
            self._times.clear()
            self.open_until_s = now_s + self.rule.pause / _SECOND
            return False
        self._times.append(now_s)
        return True

    def idle(self, now_s: float) -> bool:
        """Whether it has nothing to remember: closed, and its last firing is longer ago than what it counts."""
        if self.is_open(now_s):
            return False
        return not self._times or now_s - self._times[-1] >= self.rule.within / _SECOND
