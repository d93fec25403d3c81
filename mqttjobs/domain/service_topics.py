"""The topics below the base topic, which the service shares with its agents and clients (contract 3)."""

from __future__ import annotations

from mqttjobs.domain.model import EntityKind

ONLINE, OFFLINE = "online", "offline"
"""What the service publishes on its status topic."""
NOBODY = "_"
"""The level of a job event's topic where there is no operation or no owner."""


def status_topic(base_topic: str) -> str:
    """Return the topic of the service's retained status."""
    return f"{base_topic}/status"


def lane(base_topic: str, user: str | None) -> str:
    """Return what the topics of requests and responses begin with: the base topic, or a user's lane below it."""
    return base_topic if user is None else f"{base_topic}/users/{user}"


def job_events(base_topic: str) -> str:
    """Return what the topics of job events begin with, without the slash that follows."""
    return f"{base_topic}/event/job"


def job_event_topic(base_topic: str, status: str, operation_id: str | None, owner_id: str | None) -> str:
    """Return the topic of a job event; `+` in place of a status or an id makes it a filter."""
    return f"{job_events(base_topic)}/{status}/{operation_id or NOBODY}/{owner_id or NOBODY}"


def agent_topic(base_topic: str, hostname: str, what: str) -> str:
    """Return a topic of an agent: its status, assign, report or control; with the hostname `+` a filter."""
    return f"{base_topic}/agents/{hostname}/{what}"


def report_topic(base_topic: str, kind: EntityKind, entity_id: str) -> str:
    """Return the topic on which an entity without a state topic of its own reports."""
    return f"{base_topic}/state/{kind.value}s/{entity_id}"


def report_filter(base_topic: str) -> str:
    """Return the filter of all topics on which entities without a state topic of their own report."""
    return f"{base_topic}/state/#"


def is_report_topic(topic: str, base_topic: str) -> bool:
    """Whether a topic is one of those below the base topic that anyone may publish states to."""
    return topic.startswith(f"{base_topic}/state/")


def is_reserved(topic: str, base_topic: str) -> bool:
    """Whether a topic below the base topic is the service's own."""
    return topic.startswith(f"{base_topic}/") and not is_report_topic(topic, base_topic)


def reserved_problem(base_topic: str) -> str:
    """Return why a topic that is reserved cannot be used."""
    return f"topics under {base_topic}/ are the service's own, but for {base_topic}/state/…"
