"""Assignments and commands that the service sends to an agent, each checked before it has any effect."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import orjson
import structlog

from mqttjobs.agent.journal import Journal
from mqttjobs.agent.settings import AgentSettings
from mqttjobs.agent.worker import Worker
from mqttjobs.clock import Clock
from mqttjobs.domain.agent_messages import AssignMessage, ControlMessage, open_message
from mqttjobs.errors import ReportError
from mqttjobs.transport.base import Message
from mqttjobs.transport.rejections import Rejections

log = structlog.get_logger(__name__)


class CommandHandler:
    """Handles the messages of the service; unsigned, forged, stale and replayed ones go to event/rejected only."""

    def __init__(
        self, settings: AgentSettings, journal: Journal, worker: Worker, rejections: Rejections, clock: Clock
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._worker = worker
        self._rejections = rejections
        self._clock = clock

    async def take(self, messages: Sequence[Message]) -> None:
        """Handle a batch; on return its effects are in the journal on disk, and the batch may be acknowledged."""
        for message in messages:
            try:
                if message.topic == self._settings.topic("assign"):
                    self._assign(message)
                elif message.topic == self._settings.topic("control"):
                    self._control(message)
            except ReportError as error:
                self._rejections.publish(message.topic, error.reason, error.details)
        await self._worker.durable()

    def _assign(self, message: Message) -> None:
        assignment, signature = open_message(
            AssignMessage, message.payload, self._settings.key, self._settings.hostname, self._settings.max_payload
        )
        if not self._is_new(message, signature, assignment.expires_at) or self._worker.repeat(assignment.token):
            return
        raw = orjson.loads(message.payload)
        if self._journal.drained:
            self._worker.give_back(assignment, raw, "the agent is drained")
        else:
            self._worker.take(assignment, raw)

    def _control(self, message: Message) -> None:
        command, signature = open_message(
            ControlMessage, message.payload, self._settings.key, self._settings.hostname, self._settings.max_payload
        )
        if not self._is_new(message, signature, command.expires_at):
            return
        log.info("command", command=command.command, job=command.job_id)
        if command.command == "stop":
            if command.job_id is not None:
                self._worker.stop(command.job_id)
            return
        drained = command.command == "drain"
        self._journal.drain(drained=drained)
        if drained:
            self._worker.give_back_waiting()

    def _is_new(self, message: Message, signature: str, expires_at: datetime) -> bool:
        """Whether a message may have an effect; False for a redelivery.

        Raises:
            ReportError: `retained`, `stale` or `replayed`.
        """
        if message.retain:
            raise ReportError("messages to an agent must not be retained", reason="retained")
        now = self._clock.now()
        if signature in self._journal.seen:
            if message.duplicate:
                return False
            raise ReportError("the message came before", reason="replayed")
        if now > expires_at:
            seconds = round((now - expires_at).total_seconds())
            raise ReportError(f"the message expired {seconds} s ago; are both clocks right?", reason="stale")
        self._journal.mark_seen(signature, expires_at)
        return True
