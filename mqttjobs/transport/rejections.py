"""Messages that could not be used, published on event/rejected for their senders; rate limited (behaviour 5)."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from mqttjobs.clock import Clock
from mqttjobs.domain.protocol import encode, milliseconds
from mqttjobs.transport.base import Publication

RATE_PER_S = 20.0
BURST = 50.0

log = structlog.get_logger(__name__)


class Rejections:
    """Publishes `{topic, reason, details, timestamp}`; `total` also counts the rejections beyond the rate."""

    def __init__(self, base_topic: str, clock: Clock, publish: Callable[[Publication], object]) -> None:
        self._topic = f"{base_topic}/event/rejected"
        self._clock = clock
        self._publish = publish
        self._allowance = BURST
        self._checked_s = clock.monotonic()
        self.total = 0

    def publish(self, topic: str, reason: str, details: str) -> None:
        """Publish that a message on `topic` was not used, and why; `details` must not repeat the payload."""
        self.total += 1
        now_s = self._clock.monotonic()
        self._allowance = min(BURST, self._allowance + (now_s - self._checked_s) * RATE_PER_S)
        self._checked_s = now_s
        if self._allowance < 1:
            return
        self._allowance -= 1
        log.info("rejected", topic=topic[:256], reason=reason, details=details)
        body = {
            "topic": topic[:1024],
            "reason": reason,
            "details": details,
            "timestamp": milliseconds(self._clock.now()),
        }
        self._publish(Publication(self._topic, encode(body), content_type="application/json"))
