"""Runs the assignments of an agent: within its limit, each reported, none lost and none run twice."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import structlog

from mqttjobs.agent.channel import AgentChannel, fitted
from mqttjobs.agent.journal import Entry, Journal, Step
from mqttjobs.agent.settings import AgentSettings
from mqttjobs.clock import Clock
from mqttjobs.domain.agent_messages import AssignMessage
from mqttjobs.domain.jobs import INTERRUPTED, Outcome, result_of_output
from mqttjobs.domain.model import Delivery, Json
from mqttjobs.domain.templates import secret_reference
from mqttjobs.errors import StoreError, TemplateError
from mqttjobs.executors.attempt import attempt
from mqttjobs.executors.base import PROGRESS_KEPT, Executor, Limits, RunContext, make_executor
from mqttjobs.executors.orphans import end_orphans
from mqttjobs.executors.shared import SharedResources
from mqttjobs.transport.base import REFUSED

STOPPED = "stopped"
JOURNAL_RETRY_S = 1.0
"""How long a journal that could not be written is left alone."""

log = structlog.get_logger(__name__)


class _RunningJob:
    """An assignment in this process: its message, and the task that runs it."""

    def __init__(self, entry: Entry, message: AssignMessage, received_s: float) -> None:
        self.entry = entry
        self.message = message
        self.received_s = received_s
        self.task: asyncio.Task[None] | None = None
        self.running = False
        self.recovered = False
        self.cancel_reason: str | None = None
        self.progress_count = 0


class Worker:
    """Runs assignments. Each step is in the journal before it is taken, each last report until it is delivered.

    `changed` is called when the number of running jobs changes.
    """

    def __init__(
        self,
        settings: AgentSettings,
        journal: Journal,
        channel: AgentChannel,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._channel = channel
        self._clock = clock
        self._changed = changed
        self._running: dict[str, _RunningJob] = {}
        self._deliveries: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(settings.max_jobs)
        self._shared = SharedResources()

    @property
    def running(self) -> int:
        """How many assignments are waiting or running here."""
        return len(self._running)

    # -- recovery ------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Resume, give back or fail what a crash or a shutdown interrupted, by each job's delivery (behaviour 3.9)."""
        entries = list(self._journal.entries.values())
        unfinished = [entry for entry in entries if entry.step in (Step.TAKEN, Step.STARTED)]
        ended = end_orphans({str(entry.message["job_id"]) for entry in unfinished})
        if unfinished:
            log.info("recovered", unfinished=len(unfinished), orphaned_groups=ended)
        for entry in entries:
            if entry.step is Step.ENDED:
                self._start_delivery(entry, again=True)
            elif entry.step is not Step.DELIVERED:
                self._resume(entry)

    def _resume(self, entry: Entry) -> None:
        message = AssignMessage.model_validate(entry.message)
        running_job = _RunningJob(entry, message, self._clock.monotonic())
        overdue = message.expires_at + message.timeout + self._settings.timing.slack
        if entry.step is Step.STARTED and message.delivery != Delivery.AT_LEAST_ONCE.value:
            self._end(running_job, Outcome(ok=False, error=INTERRUPTED))
        elif entry.step is Step.TAKEN and message.lease is not None:
            self._end(running_job, Outcome(ok=False, error="the agent was restarted before it began"), given_back=True)
        elif self._clock.now() > overdue:
            self._end(running_job, Outcome(ok=False, error=INTERRUPTED))
        else:
            running_job.recovered = True
            self._begin(running_job)

    # -- from an assignment to its end ---------------------------------------------------------------------------

    def take(self, message: AssignMessage, raw: Mapping[str, Json]) -> None:
        """Record an assignment and start its task, which reports `acknowledged` once the journal is on disk."""
        self._begin(_RunningJob(self._journal.take(message.token, raw), message, self._clock.monotonic()))

    def repeat(self, token: str) -> bool:
        """Report again how far a known assignment is; return False for an unknown token.

        The service repeats an assignment while it has no report of it, or of its end.
        """
        entry = self._journal.entries.get(token)
        if entry is None:
            return False
        if entry.report is not None:
            self._start_delivery(entry, again=True)
        elif token in self._running:
            self._report_progress_again(self._running[token])
        return True

    def report_all_again(self) -> None:
        """Report again how far every assignment is: the broker has lost the session of this agent."""
        for running_job in self._running.values():
            self._report_progress_again(running_job)

    def _report_progress_again(self, running_job: _RunningJob) -> None:
        self._report(running_job, "acknowledged", again=True)
        if running_job.entry.step is Step.STARTED:
            self._report(running_job, "started", again=True)

    def give_back(self, message: AssignMessage, raw: Mapping[str, Json], details: str) -> None:
        """Refuse an assignment, so that another agent may run it."""
        running_job = _RunningJob(self._journal.take(message.token, raw), message, self._clock.monotonic())
        self._end(running_job, Outcome(ok=False, error=details), given_back=True)

    def _begin(self, running_job: _RunningJob) -> None:
        self._running[running_job.message.token] = running_job
        running_job.task = asyncio.create_task(self._run(running_job), name=f"job-{running_job.message.job_id}")
        self._changed()

    async def _run(self, running_job: _RunningJob) -> None:
        try:
            await self.durable()
            if not running_job.recovered:
                self._report(running_job, "acknowledged")
            outcome = await self._run_in_slot(running_job)
        except asyncio.CancelledError:
            outcome = Outcome(
                ok=False,
                error=running_job.cancel_reason or INTERRUPTED,
                repeatable=running_job.cancel_reason != STOPPED,
            )
        given_back = outcome is not None and self._is_given_back(running_job)
        self._running.pop(running_job.message.token, None)
        self._end(
            running_job, outcome or Outcome(ok=False, error="out of touch before it began"), given_back=given_back
        )
        self._changed()

    def _is_given_back(self, running_job: _RunningJob) -> bool:
        """Whether another attempt may run the job: a shutdown cancelled it before its start, or it may run again."""
        may_run_again = not running_job.running or running_job.message.delivery == Delivery.AT_LEAST_ONCE.value
        return running_job.cancel_reason == INTERRUPTED and may_run_again

    async def _run_in_slot(self, running_job: _RunningJob) -> Outcome | None:
        """Wait for a slot, run the job, and return its outcome; None if it may no longer start."""
        try:
            executor = make_executor(running_job.message.operation)
        except (KeyError, ValueError):
            kind = str(running_job.message.operation.get("type"))[:64]
            return Outcome(ok=False, error=f"this agent cannot run the operation of type {kind}", repeatable=False)
        if not executor.uses_slot:
            return await self._attempt(running_job, executor)
        async with self._slots:
            return await self._attempt(running_job, executor)

    async def _attempt(self, running_job: _RunningJob, executor: Executor) -> Outcome | None:
        if running_job.entry.step is Step.TAKEN:
            self._journal.start(running_job.entry)
            confirmed = self._report(running_job, "started")
            await self.durable()
            once = running_job.message.delivery != Delivery.AT_LEAST_ONCE.value
            if once and running_job.message.lease is not None and not await self._may_start(running_job, confirmed):
                return None
        running_job.running = True
        return await attempt(executor, self._context(running_job), self._shared)

    async def _may_start(self, running_job: _RunningJob, confirmed: asyncio.Future[int]) -> bool:
        """Whether the broker confirmed `started`, and no outage was so long that another agent may have the job."""
        await asyncio.shield(confirmed)
        lease = running_job.message.lease or self._settings.timing.lease
        return self._channel.longest_away_s(running_job.received_s) <= lease / timedelta(seconds=3)

    def _context(self, running_job: _RunningJob) -> RunContext:
        message = running_job.message
        preferences = message.operation.get("preferences")
        pairs = preferences if isinstance(preferences, list) else []
        limits = Limits(
            self._settings.program_dirs,
            self._settings.base_topic,
            str(self._settings.state_dir),
            output_bytes=message.max_payload * 5 // 16,
        )
        return RunContext(
            job_id=message.job_id,
            hostname=self._settings.hostname,
            variables={"params": message.params, "job": {"id": message.job_id}} | message.inputs,
            secret_templates=message.hidden,
            reveal=self._reveal if message.operation_id is not None else secret_reference,
            params=message.params,
            events=tuple(message.events),
            preferences={str(each["key"]): each["value"] for each in pairs if isinstance(each, dict)},
            timeout=message.timeout,
            grace=message.grace,
            publish=self._channel.publisher.publish,
            progress=lambda text: self._progress(running_job, text),
            limits=limits,
            depth=message.depth,
            root_id=message.root_id or message.job_id,
        )

    def _reveal(self, name: str) -> str:
        """Return what `${name}` stands for here: this agent's environment, and files in its state directory."""
        kind, _, what = name.partition(":")
        try:
            if kind == "ENV":
                return os.environ[what]
            return (Path(self._settings.state_dir) / what).read_text(encoding="utf-8").rstrip("\r\n")
        except (KeyError, OSError, UnicodeDecodeError):
            raise TemplateError(f"the agent {self._settings.hostname} has no {name}") from None

    # -- reports -------------------------------------------------------------------------------------------------

    def _body(self, message: AssignMessage, event: str) -> dict[str, Json]:
        return {
            "hostname": self._settings.hostname,
            "job_id": message.job_id,
            "attempt": message.attempt,
            "token": message.token,
            "event": event,
            "data": None,
            "error": "",
            "changed": None,
            "message": "",
            "timestamp": self._channel.stamp(),
        }

    def _report(self, running_job: _RunningJob, event: str, **more: Json) -> asyncio.Future[int]:
        return self._channel.report({**self._body(running_job.message, event), **more})

    def _progress(self, running_job: _RunningJob, text: str) -> None:
        running_job.progress_count += 1
        if running_job.progress_count <= PROGRESS_KEPT:
            self._report(running_job, "progress", message=text)

    def _end(self, running_job: _RunningJob, outcome: Outcome, *, given_back: bool = False) -> None:
        """Record the outcome of an assignment, and send the report until the broker confirms it."""
        body = self._body(running_job.message, "completed" if outcome.ok else "failed") | _outcome_fields(outcome)
        if given_back:
            body["given_back"] = True
        self._journal.end(running_job.entry, fitted(body, self._settings.key, running_job.message.max_payload))
        self._start_delivery(running_job.entry)

    def _start_delivery(self, entry: Entry, *, again: bool = False) -> None:
        task = asyncio.create_task(self._deliver(entry, again=again), name="report")
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, entry: Entry, *, again: bool) -> None:
        await self.durable()
        if entry.report is None:
            return
        code = await self._channel.report({**entry.report, "again": again})
        if code >= REFUSED:
            log.error("report-refused", code=code, details="the broker did not take it; see the agent's ACL")
            return
        self._journal.delivered(entry, self._clock.now())
        await self.durable()

    async def durable(self) -> None:
        """Return when the journal is on disk; after an error, such as a full disk, try again for ever."""
        while True:
            try:
                await self._journal.flush()
            except StoreError as error:
                log.error("store-unavailable", details=str(error))
                await self._clock.wait(asyncio.Event(), JOURNAL_RETRY_S)
            else:
                return

    # -- ending --------------------------------------------------------------------------------------------------

    def stop(self, job_id: str) -> None:
        """Cancel the assignments of a job."""
        for running_job in list(self._running.values()):
            if running_job.message.job_id == job_id and running_job.task is not None:
                running_job.cancel_reason = STOPPED
                running_job.task.cancel()

    def give_back_waiting(self) -> None:
        """Give back the assignments that have not started."""
        for running_job in list(self._running.values()):
            if not running_job.running and running_job.task is not None:
                running_job.cancel_reason = INTERRUPTED
                running_job.task.cancel()

    async def close(self, within_s: float) -> None:
        """Cancel every assignment and wait up to `within_s` for deliveries; the journal keeps undelivered reports."""
        tasks = [running_job.task for running_job in self._running.values() if running_job.task is not None]
        for running_job in self._running.values():
            running_job.cancel_reason = running_job.cancel_reason or INTERRUPTED
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._deliveries and self._channel.publisher.connected:
            await asyncio.wait(self._deliveries, timeout=within_s)
        for delivery in self._deliveries:
            delivery.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)

    async def release(self) -> None:
        """Close what the jobs shared, once they have ended."""
        await self._shared.close()


def _outcome_fields(outcome: Outcome) -> dict[str, Json]:
    """Return the fields of a report for an outcome; a result that stands in the output is not sent twice."""
    description = dict(outcome.description)
    in_output = outcome.result is None or outcome.result == result_of_output(description.get("stdout"))
    return {
        "data": description or None if in_output else outcome.result,
        "description": None if in_output else description,
        "error": outcome.error,
        "changed": outcome.changed,
        "message": outcome.message,
        "exit_code": outcome.exit_code,
        "stderr": outcome.stderr,
        "user_error": outcome.user_error,
        "repeatable": outcome.repeatable,
    }
