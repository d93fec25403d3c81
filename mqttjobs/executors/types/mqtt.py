"""mqtt: publish one message, and take the broker's word for how it went (behaviour 3.10)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

from pydantic import Field, JsonValue

from mqttjobs.domain.jobs import Outcome
from mqttjobs.domain.model import Delivery, Json
from mqttjobs.domain.protocol import trace_properties
from mqttjobs.domain.service_topics import is_report_topic
from mqttjobs.domain.templates import Template, topic_problem
from mqttjobs.executors.base import Executor, Limits, RunContext
from mqttjobs.transport.base import NO_MATCHING_SUBSCRIBERS, REFUSED, Publication, describe_refusal


class Mqtt(Executor):
    """Publishes `message` (a text, or JSON) to `topic`; both are templates."""

    kind: ClassVar[str] = "mqtt"
    delivery: ClassVar[Delivery] = Delivery.AT_LEAST_ONCE
    uses_slot: ClassVar[bool] = False
    changes: ClassVar[bool] = True
    no_description: ClassVar[Mapping[str, Json]] = {"topic": None, "message": None}

    topic: str = Field(min_length=1, description="The topic to publish to: a template.")
    message: JsonValue = Field(
        default="", description="The payload: a template. A mapping or list of templates is sent as JSON."
    )
    qos: int = Field(default=1, ge=0, le=2, strict=True, description="The QoS of the publish.")
    retain: bool = Field(default=False, strict=True, description="Whether the broker retains the message.")

    @cached_property
    def _topic(self) -> Template:
        return Template.of(self.topic)

    @cached_property
    def _message(self) -> Template:
        return Template.of(self.message)

    def inputs(self) -> frozenset[str] | None:
        """See Executor."""
        return self._topic.names | self._message.names

    def problems(self, limits: Limits) -> Mapping[str, str]:
        """See Executor."""
        found: dict[str, str] = {}
        for key in ("topic", "message"):
            try:
                Template.of(getattr(self, key))
            except ValueError as error:
                found[key] = str(error)
        if "topic" not in found and self._topic.constant:
            problem = topic_problem(self.topic, limits.base_topic)
            if problem:
                found["topic"] = problem
        return found

    def title(self, operation_id: str) -> tuple[str, str]:
        """See Executor."""
        del operation_id
        return (self.topic, self.topic)

    def preview(self, variables: Mapping[str, Json], base_topic: str) -> Mapping[str, Json]:
        """See Executor."""
        topic = self._topic.render_topic(variables, base_topic=base_topic)
        message = self._message.render(variables)
        return {"topic": topic.shown_text, "message": message.shown_text, "qos": self.qos, "retain": self.retain}

    async def run(self, context: RunContext) -> Outcome:
        """See Executor. It publishes before it first waits, so that publishes leave in row order."""
        topic = self._topic.render_topic(
            context.variables, context.secret_templates, context.reveal, base_topic=context.limits.base_topic
        )
        message = self._message.render(context.variables, context.secret_templates, context.reveal)
        properties: tuple[tuple[str, str], ...] = ()
        if is_report_topic(topic.text, context.limits.base_topic):
            properties = trace_properties(context.depth + 1, context.root_id)
        sending = context.publish(
            Publication(topic.text, message.text.encode(), self.qos, self.retain, user_properties=properties)
        )
        code = await sending
        description = {"topic": topic.shown_text, "message": message.shown_text}
        if code >= REFUSED:
            error = f"the broker refused the publish: {describe_refusal(code)}"
            return Outcome(ok=False, error=error, description=description)
        return Outcome(
            ok=True,
            changed=self.changes,
            message="no subscriber" if code == NO_MATCHING_SUBSCRIBERS else "",
            description=description,
        )
