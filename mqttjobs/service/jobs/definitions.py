"""From a job's recorded definition to its executor: configured, changed since, or sent in with a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import Json
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.templates import Reveal, secret_reference
from mqttjobs.errors import ConfigError
from mqttjobs.executors.base import Executor, Limits, executor_types, make_executor
from mqttjobs.service.settings import Settings

CACHED = 1000
"""Definitions kept ready; inline operations would otherwise grow this without bound."""


NO_LONGER_UNDERSTOOD = "its definition is no longer understood; run the operation anew"
"""The error of a job whose definition cannot be resolved."""


class ResolvedOperation(NamedTuple):
    """An operation and what runs it; `reveal` resolves its secrets, those of an inline operation stay as they are."""

    operation: Operation
    executor: Executor
    reveal: Reveal


class OperationResolver:
    """Finds the tool for a job. One for each installation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_fingerprint = {each.fingerprint: each for each in settings.installation.operations.values()}
        self._resolved: dict[tuple[str, bool], ResolvedOperation] = {}
        service = settings.service
        self.limits = Limits(
            program_dirs=service.program_dirs, base_topic=settings.base_topic, config_dir=settings.config_dir
        )

    def resolve(self, job: Job) -> ResolvedOperation:
        """Return what runs a job: from its definition as it was, not as it may be now.

        Raises:
            ConfigError: the definition is one that this version no longer understands.
        """
        name = (job.fingerprint, job.operation_id is None)
        found = self._resolved.get(name)
        if found is None:
            operation = self._by_fingerprint.get(job.fingerprint) or self._build(job)
            reveal = self._settings.reveal if job.operation_id else secret_reference
            found = ResolvedOperation(operation, executor_of(operation), reveal)
            if len(self._resolved) >= CACHED:
                self._resolved.clear()
            self._resolved[name] = found
        return found

    def _build(self, job: Job) -> Operation:
        if self._settings.build is None:
            raise ConfigError([])
        return self._settings.build(job.operation, configured=job.operation_id is not None)


def executor_of(operation: Operation) -> Executor:
    """Return the executor that an operation's own keys describe."""
    return make_executor(operation.definition)


def blank_description(type_name: str) -> Mapping[str, Json]:
    """Return the description of a job of this type before its end: its keys, each null."""
    kind = executor_types().get(type_name)
    return {} if kind is None else kind.no_description
