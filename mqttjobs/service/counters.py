"""Counts of what came and what became of it; they always add up (behaviour 5)."""

from __future__ import annotations

from collections import Counter

from mqttjobs.domain.values import Verdict
from mqttjobs.service.draft import Draft


class Counters:
    """Counts since the start of the process.

    Each message on a state topic is counted once: received is the sum of the verdicts. Each match of a trigger is
    counted once: fired = jobs + skipped. Requests and what agents say are counted apart.
    """

    def __init__(self) -> None:
        self.reports: Counter[Verdict] = Counter()
        self.jobs = 0
        self.skipped: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.agents: Counter[str] = Counter()

    def add(self, draft: Draft) -> None:
        """Count what a recorded draft did."""
        self.reports += draft.reports
        self.skipped += draft.skipped
        self.jobs += draft.fired

    def document(self) -> dict[str, object]:
        """Return the `counters` of service/health."""
        skipped = sum(self.skipped.values())
        return {
            "received": sum(self.reports.values()),
            **{verdict.value: self.reports[verdict] for verdict in Verdict},
            "fired": self.jobs + skipped,
            "jobs": self.jobs,
            "skipped": skipped,
            "skipped_by_reason": dict(self.skipped),
            "requests": sum(self.requests.values()),
            "requests_by_result": dict(self.requests),
            "agent_messages": sum(self.agents.values()),
            "agent_messages_by_result": dict(self.agents),
        }
