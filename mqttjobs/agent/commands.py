"""What the agent is told by its service: assignments and orders, each checked before it has any effect."""

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
    """Takes messages in. Unsigned, forged, stale and replayed ones do nothing and are told on event/rejected."""

    def __init__(
        self, settings: AgentSettings, journal: Journal, worker: Worker, rejections: Rejections, clock: Clock
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._worker = worker
        self._rejections = rejections
        self._clock = clock

    async def take(self, messages: Sequence[Message]) -> None:
        """Take in a batch; when this returns what it does is on disk, and it may be acknowledged."""
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
        order, signature = open_message(
            ControlMessage, message.payload, self._settings.key, self._settings.hostname, self._settings.max_payload
        )
        if not self._is_new(message, signature, order.expires_at):
            return
        log.info("order", command=order.command, job=order.job_id)
        if order.command == "stop":
            if order.job_id is not None:
                self._worker.stop(order.job_id)
            return
        drained = order.command == "drain"
        self._journal.drain(drained=drained)
        if drained:
            self._worker.return_waiting()

    def _is_new(self, message: Message, signature: str, expires_at: datetime) -> bool:
        """Whether a message may have an effect; False for one that the broker sent again.

        Raises:
            ReportError: `retained`, `stale` or `replayed`.
        """
        if message.retain:
            raise ReportError("what is told to an agent is not to be published retained", reason="retained")
        now = self._clock.now()
        if signature in self._journal.seen:
            if message.duplicate:
                return False
            raise ReportError("the message came before", reason="replayed")
        if now > expires_at:
            seconds = round((now - expires_at).total_seconds())
            raise ReportError(f"the message expired {seconds} s ago; are both clocks right?", reason="stale")
        self._journal.see(signature, expires_at)
        return True
