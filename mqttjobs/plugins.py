"""The plugin interface: everything that a plugin may import from mqttjobs, and nothing else.

docs/extending.md lists the names by family, and says what is promised about them.
"""

from __future__ import annotations

from mqttjobs.domain.agent_messages import Readiness
from mqttjobs.domain.agents import Agent
from mqttjobs.domain.assignments import Assignment, Key, Stage
from mqttjobs.domain.conditions.base import ConditionKind
from mqttjobs.domain.durations import describe_duration
from mqttjobs.domain.fields import Duration, PositiveDuration, States
from mqttjobs.domain.jobs import CustomResult, Job, JobUpdate, OperationState, Outcome, Phase, apply
from mqttjobs.domain.model import Change, Delivery, Entity, EntityKey, EntityKind, Json, Value, ValueKey
from mqttjobs.domain.starting import Condition, ConditionContext, Daylight, SkipReason
from mqttjobs.domain.status import LOCAL, EventKind, JobEvent, Status
from mqttjobs.domain.sun import Location
from mqttjobs.domain.templates import Rendered, Template, topic_problem
from mqttjobs.domain.topics import check_filter, check_topic, matches
from mqttjobs.domain.triggers.base import ClockKind, SilenceKind, Trigger, TriggerKey, TriggerState, Waiting
from mqttjobs.domain.users import User
from mqttjobs.errors import (
    ClientIdTaken,
    Conflict,
    ConnectionLost,
    ConnectionRefused,
    Forbidden,
    InvalidRequest,
    NotFound,
    RequestError,
    StoreError,
    StoreRefused,
    TemplateError,
    TerminalState,
    TransportError,
    Unavailable,
)
from mqttjobs.executors.base import Executor, Limits, RunContext
from mqttjobs.service.api.auth import Caller
from mqttjobs.service.api.request import NoParams, Params, Reply, RequestContext, method
from mqttjobs.store.base import (
    EXACT_LIMIT,
    Answer,
    Changes,
    HistoryEntry,
    HistoryPage,
    JobPage,
    JobQuery,
    Retention,
    Runs,
    Scope,
    Snapshot,
    Store,
    StoreModule,
    create_store,
    resolve_store_url,
)
from mqttjobs.transport.base import (
    NO_MATCHING_SUBSCRIBERS,
    REFUSED,
    ConnectOptions,
    Message,
    Publication,
    Session,
    Subscription,
    Tls,
    Transport,
    TransportModule,
    create_transport,
    describe_refusal,
    resolve_broker_url,
)

__all__ = [
    "EXACT_LIMIT",
    "LOCAL",
    "NO_MATCHING_SUBSCRIBERS",
    "REFUSED",
    "Agent",
    "Answer",
    "Assignment",
    "Caller",
    "Change",
    "Changes",
    "ClientIdTaken",
    "ClockKind",
    "Condition",
    "ConditionContext",
    "ConditionKind",
    "Conflict",
    "ConnectOptions",
    "ConnectionLost",
    "ConnectionRefused",
    "CustomResult",
    "Daylight",
    "Delivery",
    "Duration",
    "Entity",
    "EntityKey",
    "EntityKind",
    "EventKind",
    "Executor",
    "Forbidden",
    "HistoryEntry",
    "HistoryPage",
    "InvalidRequest",
    "Job",
    "JobEvent",
    "JobPage",
    "JobQuery",
    "JobUpdate",
    "Json",
    "Key",
    "Limits",
    "Location",
    "Message",
    "NoParams",
    "NotFound",
    "OperationState",
    "Outcome",
    "Params",
    "Phase",
    "PositiveDuration",
    "Publication",
    "Readiness",
    "Rendered",
    "Reply",
    "RequestContext",
    "RequestError",
    "Retention",
    "RunContext",
    "Runs",
    "Scope",
    "Session",
    "SilenceKind",
    "SkipReason",
    "Snapshot",
    "Stage",
    "States",
    "Status",
    "Store",
    "StoreError",
    "StoreModule",
    "StoreRefused",
    "Subscription",
    "Template",
    "TemplateError",
    "TerminalState",
    "Tls",
    "Transport",
    "TransportError",
    "TransportModule",
    "Trigger",
    "TriggerKey",
    "TriggerState",
    "Unavailable",
    "User",
    "Value",
    "ValueKey",
    "Waiting",
    "apply",
    "check_filter",
    "check_topic",
    "create_store",
    "create_transport",
    "describe_duration",
    "describe_refusal",
    "matches",
    "method",
    "resolve_broker_url",
    "resolve_store_url",
    "topic_problem",
]
