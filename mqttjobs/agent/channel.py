"""The connection of an agent: signed messages in order, and how long the agent was without a connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from mqttjobs.agent.settings import AgentSettings
from mqttjobs.clock import Clock
from mqttjobs.domain.model import Json
from mqttjobs.domain.protocol import encode, milliseconds
from mqttjobs.domain.signatures import signed
from mqttjobs.transport.base import Publication, Session
from mqttjobs.transport.publisher import Publisher

OUTAGES_KEPT = 100
"""The latest times without a connection that are remembered."""
CUT = "\n[… cut to fit into a report …]\n"


class AgentChannel:
    """Publishes signed messages of one agent; messages that could not be sent are sent after the next connect."""

    def __init__(self, settings: AgentSettings, clock: Clock) -> None:
        self.publisher = Publisher()
        self._settings = settings
        self._clock = clock
        self._outages: deque[tuple[float, float]] = deque(maxlen=OUTAGES_KEPT)
        self._away_since_s: float | None = clock.monotonic()
        self._stamped_ms = 0

    def attach(self, session: Session) -> None:
        """Publish over `session` from now on."""
        self.publisher.attach(session)
        if self._away_since_s is not None:
            self._outages.append((self._away_since_s, self._clock.monotonic()))
            self._away_since_s = None

    def detach(self) -> None:
        """Keep messages back until the next `attach`: the session is gone."""
        self.publisher.detach()
        if self._away_since_s is None:
            self._away_since_s = self._clock.monotonic()

    def longest_away_s(self, since_s: float) -> float:
        """Return the longest time without a connection since `since_s`, both in seconds of the monotonic clock."""
        now_s = self._clock.monotonic()
        outages = [*self._outages, *([(self._away_since_s, now_s)] if self._away_since_s is not None else [])]
        return max((end - max(begin, since_s) for begin, end in outages if end > since_s), default=0.0)

    def stamp(self) -> int:
        """Return the time in milliseconds since 1970, always greater than the last: no two messages share a time."""
        self._stamped_ms = max(self._stamped_ms + 1, milliseconds(self._clock.now()))
        return self._stamped_ms

    def status(self, body: Mapping[str, Json], *, qos: int) -> Publication:
        """Return `body` as the signed and retained status message of this agent."""
        whole = {"hostname": self._settings.hostname, **body, "timestamp": self.stamp()}
        return self._publication("status", whole, qos=qos, retain=True)

    def report(self, body: Mapping[str, Json]) -> asyncio.Future[int]:
        """Publish an agent report, signed; the future gives the PUBACK reason code."""
        return self.publisher.publish(self._publication("report", body, qos=1))

    def _publication(self, name: str, body: Mapping[str, Json], *, qos: int, retain: bool = False) -> Publication:
        payload = encode(signed(body, self._settings.key))
        return Publication(self._settings.topic(name), payload, qos, retain, content_type="application/json")


def fitted(body: dict[str, Json], key: str, max_bytes: int) -> dict[str, Json]:
    """Return a report that has at most `max_bytes` bytes when signed; long texts keep their head and their tail."""
    room = max_bytes // 3
    while len(encode(signed(body, key))) > max_bytes and room:
        output = body.get("description") or body.get("data")
        if isinstance(output, Mapping):
            cut = {name: _cut(item, room) if isinstance(item, str) else item for name, item in output.items()}
            body = {**body, "data": cut, "description": None}
        else:
            body = {**body, "data": None, "message": "the result is too large for a report"}
        body |= {name: _cut(str(body.get(name) or ""), room) for name in ("stderr", "error", "message")}
        room //= 2
    return body


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room // 2]}{CUT}{text[len(text) - room // 2 :]}"
