"""Agents that do just what a test says: they say signed things, and what they were given lies open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from mqttjobs.domain.protocol import encode, milliseconds
from mqttjobs.domain.signatures import check_signature, signed
from tests.service.harness import ServiceHarness

KEY = "the secret of the fleet"
AGENTS = {"key": KEY}
HEARTBEAT_S = 10.0


class FakeAgent:
    """One agent. It begins with `await agent.status()`, and is alive until the test lets it be silent."""

    def __init__(self, harness: ServiceHarness, hostname: str, *, max_jobs: int = 4, **labels: str) -> None:
        self.harness = harness
        self.hostname = hostname
        self.max_jobs = max_jobs
        self.labels = labels
        self.state = "ready"
        self.silent = False
        self._told_ms = 0

    @property
    def _topic(self) -> str:
        return f"{self.harness.base}/agents/{self.hostname}"

    async def status(self, state: str | None = None, **changes: Any) -> bytes:
        """Publish how it is doing; return what was published."""
        self.state = state or self.state
        self._told_ms = max(milliseconds(self.harness.clock.now()), self._told_ms + 1)
        body: dict[str, Any] = {
            "hostname": self.hostname,
            "state": self.state,
            "labels": self.labels,
            "version": "1.0",
            "max_jobs": self.max_jobs,
            "running": 0,
            "facts": {"python": "3.11"},
            "timestamp": self._told_ms,
            "connection": "c1",
            **changes,
        }
        payload = encode(signed(body, KEY))
        await self.harness.report(f"{self._topic}/status", payload, retain=True)
        return payload

    def sent(self, what: str) -> list[dict[str, Any]]:
        """Return what it was sent, in order: every message is signed, and carries its name."""
        found = [json.loads(each.payload) for each in self.harness.sent(f"{self._topic}/{what}")]
        for body in found:
            check_signature(body, KEY)
            assert body["hostname"] == self.hostname
        return found

    @property
    def given(self) -> list[dict[str, Any]]:
        """What it was assigned."""
        return self.sent("assign")

    @property
    def orders(self) -> list[str]:
        """The commands that it got."""
        return [each["command"] for each in self.sent("control")]

    def report_body(self, event: str, assignment: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """Return what it would report about an assignment, its last one unless said otherwise; not yet signed."""
        about = assignment or self.given[-1]
        return {
            "hostname": self.hostname,
            **{name: about[name] for name in ("job_id", "attempt", "token")},
            "event": event,
            "timestamp": milliseconds(self.harness.clock.now()),
            "data": None,
            "error": "",
            "changed": None,
            "message": "",
            **changes,
        }

    async def report(self, *events: str, about: dict[str, Any] | None = None, **changes: Any) -> None:
        """Report events one after the other."""
        for event in events:
            await self.say(signed(self.report_body(event, about, **changes), KEY))

    async def say(self, body: dict[str, Any], **more: Any) -> None:
        """Publish a report as it is."""
        await self.harness.report(f"{self._topic}/report", body, **more)


async def ready(harness: ServiceHarness, *agents: FakeAgent) -> None:
    """Start the service if it does not run, and let the agents be ready."""
    if not harness.running:
        await harness.start()
    for agent in agents:
        await agent.status("ready")


async def live(harness: ServiceHarness, agents: Sequence[FakeAgent], seconds: float) -> None:
    """Let time pass while those that are not silent say every ten seconds that they are there."""
    until = harness.clock.now() + timedelta(seconds=seconds)
    while (left := (until - harness.clock.now()) / timedelta(seconds=1)) > 0:
        await harness.advance(min(left, HEARTBEAT_S))
        for agent in agents:
            if not agent.silent:
                await agent.status()
