"""Counts of messages and of what became of them; they always add up (behaviour 5)."""

from __future__ import annotations

from collections import Counter

from mqttjobs.domain.values import ReportResult
from mqttjobs.service.state.transaction import Transaction


class Counters:
    """Counts since the start of the process.

    Each message on a state topic is counted once: received is the sum of the results. Each match of a trigger is
    counted once: fired = jobs + skipped. Requests and messages of agents are counted apart.
    """

    def __init__(self) -> None:
        self.reports: Counter[ReportResult] = Counter()
        self.jobs = 0
        self.skipped: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.agents: Counter[str] = Counter()

    def add(self, tx: Transaction) -> None:
        """Count what a recorded transaction did."""
        self.reports += tx.reports
        self.skipped += tx.skipped
        self.jobs += tx.fired

    def document(self) -> dict[str, object]:
        """Return the `counters` of service/health."""
        skipped = sum(self.skipped.values())
        return {
            "received": sum(self.reports.values()),
            **{report_result.value: self.reports[report_result] for report_result in ReportResult},
            "fired": self.jobs + skipped,
            "jobs": self.jobs,
            "skipped": skipped,
            "skipped_by_reason": dict(self.skipped),
            "requests": sum(self.requests.values()),
            "requests_by_result": dict(self.requests),
            "agent_messages": sum(self.agents.values()),
            "agent_messages_by_result": dict(self.agents),
        }
