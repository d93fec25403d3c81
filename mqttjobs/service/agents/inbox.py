"""Takes in messages of agents: statuses, and reports about assignments (contract 6)."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from mqttjobs.domain.agent_messages import ReportMessage, StatusMessage, open_message
from mqttjobs.domain.agents import hear
from mqttjobs.domain.assignments import Assignment, Key, Rules, take_report
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.service_topics import agent_topic
from mqttjobs.errors import ConfigError, ReportError
from mqttjobs.service.agents.batch import AssignmentBatch
from mqttjobs.service.jobs.definitions import OperationResolver
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.agents import AgentRegistry
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.transport.base import Message
from mqttjobs.transport.rejections import Rejections

AT_ONCE = 50
"""Messages that are taken in before other tasks run."""


def agent_filters(base_topic: str) -> tuple[str, str]:
    """Return the filters of statuses and of reports."""
    return agent_topic(base_topic, "+", "status"), agent_topic(base_topic, "+", "report")


class AgentInbox:
    """Takes in messages of agents. One for each configuration; `counts` counts messages by result."""

    def __init__(
        self,
        settings: Settings,
        resolver: OperationResolver,
        agent_registry: AgentRegistry,
        rejections: Rejections,
        new_batch: Callable[[Transaction], AssignmentBatch],
        counts: Counter[str],
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._agent_registry = agent_registry
        self._rejections = rejections
        self._new_batch = new_batch
        self._counts = counts

    async def take(self, tx: Transaction, messages: Sequence[Message], at: datetime) -> None:
        """Add the effects of messages to a transaction; unusable ones are published on event/rejected."""
        batch = self._new_batch(tx)
        for number, message in enumerate(messages, 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            hostname, what = message.topic.rsplit("/", 2)[1:]
            try:
                if what == "status":
                    self._status(tx, message, hostname, at)
                else:
                    await self._report(batch, message, hostname, at)
            except ReportError as error:
                self._counts[error.reason] += 1
                self._rejections.publish(message.topic, error.reason, error.details)
            else:
                self._counts[what] += 1

    def _status(self, tx: Transaction, message: Message, hostname: str, at: datetime) -> None:
        status, _ = open_message(StatusMessage, message.payload, self._key, hostname, self._max_payload)
        agent = hear(self._agent_registry.agents.get(hostname), status, hostname, at, retained=message.retain)
        if agent is not None and self._agent_registry.hear(agent):
            tx.agents[hostname] = agent

    async def _report(self, batch: AssignmentBatch, message: Message, hostname: str, at: datetime) -> None:
        if message.retain:
            raise ReportError("reports are not to be published retained", reason="retained_report")
        report, _ = open_message(ReportMessage, message.payload, self._key, hostname, self._max_payload)
        job, row = await self._assigned(batch, report, hostname)
        try:
            resolved = self._resolver.resolve(job)
        except ConfigError:
            raise ReportError("the job's definition is no longer understood", reason="unassigned") from None
        executor = resolved.executor
        rules = Rules(resolved.operation, self._agent_registry.timing, executor.no_description, executor.changes)
        try:
            change = take_report(job, row, report, rules, at)
        except ReportError:
            if report.again:
                return
            raise
        batch.change(job, change)

    async def _assigned(self, batch: AssignmentBatch, report: ReportMessage, hostname: str) -> tuple[Job, Assignment]:
        """Return the job and the assignment that a report is about.

        Raises:
            ReportError: `unassigned`: this agent was not given this attempt with this token.
        """
        job = await batch.job(report.job_id)
        row = None if job is None else await self._row(batch, Key(job.uid, hostname, report.attempt))
        if job is None or row is None or not hmac.compare_digest(row.token.encode(), report.token.encode()):
            raise ReportError("this agent was not given this attempt of the job", reason="unassigned")
        return job, row

    async def _row(self, batch: AssignmentBatch, key: Key) -> Assignment | None:
        pending = batch.tx.assignments.get(key)
        if pending is not None:
            return pending
        row = self._agent_registry.find(key.uid, key.hostname)
        if row is not None and row.attempt == key.attempt:
            return row
        return next((each for each in await batch.rows(key.uid) if each.key == key), None)

    @property
    def _key(self) -> str:
        return self._settings.agents.key or ""

    @property
    def _max_payload(self) -> int:
        return self._settings.service.max_payload
