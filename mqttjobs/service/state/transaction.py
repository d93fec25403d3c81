"""What is recorded together: collected while it is decided, and written whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from mqttjobs.domain.jobs import Job
from mqttjobs.domain.values import ReportResult
from mqttjobs.store.base import STORED, Changes

NOT_DECIDED_BY = frozenset({"heard", "history", "updates", "results", "answers", "announced", "operation_states"})
"""Fields by which nobody decides, unless other fields come with them; see Transaction.exclusive."""


@dataclass(slots=True)
class Transaction(Changes):
    """What the store writes, and what the service itself counts and starts once it is written.

    Attributes:
        runs: ids of the `operation_states` in which runs alone are noted: when they began and ended.
        stopped: jobs as an update of this transaction leaves them; what runs of them is ended.
        changed: jobs of agents whose status changes, by uid.
        ended: jobs that end with this transaction, by uid; what follows a failure is recorded with it.
        reports: messages on state topics, by result.
        skipped: matches that did not run, by reason.
        fired: how many matches became jobs.
    """

    runs: set[str] = field(default_factory=set)
    stopped: list[Job] = field(default_factory=list)
    changed: dict[int, Job] = field(default_factory=dict)
    ended: dict[int, Job] = field(default_factory=dict)
    reports: Counter[ReportResult] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    fired: int = 0

    @property
    def exclusive(self) -> bool:
        """Whether others decide by what this changes, so that nobody may decide until it is stored.

        False for outcomes, progress, results and answers alone: only the runner of a job decides by its outcome, and
        an outcome whose record fails is recorded later, with the run noted again.
        """
        return (
            any(getattr(self, name) for name in _DECIDED_BY)
            or bool(self.stopped or self.changed)
            or not self.operation_states.keys() <= self.runs
        )


_DECIDED_BY = tuple(name for name in STORED if name not in NOT_DECIDED_BY)

OpenTransaction = Callable[[], AbstractAsyncContextManager[Transaction]]
"""See Engine.transaction."""
