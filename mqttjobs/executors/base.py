"""What an operation type is: a class whose fields are its configuration keys and whose `run` is its behaviour."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from mqttjobs.domain.jobs import Outcome
from mqttjobs.domain.model import Delivery, Json
from mqttjobs.domain.templates import Reveal
from mqttjobs.registry import plugin_modules
from mqttjobs.transport.base import Publication

PROGRESS_KEPT = 500
"""How many progress messages of one attempt are kept; further ones are left out."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the installation allows an operation type; `program_dirs` empty means anywhere absolute."""

    program_dirs: tuple[str, ...] = ()
    base_topic: str = "mqttjobs"
    config_dir: str = "."
    output_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class RunContext:
    """Everything that one attempt of one job is given.

    Attributes:
        job_id: the job's uuid, the same at every attempt.
        hostname: the host that runs it.
        variables: what `{{ … }}` can name (contract 2), nested; see domain.templates.
        secret_templates: of `variables`, dotted path -> text with `${…}` still to be revealed.
        reveal: gives the text behind a `${…}` name; what it gave is masked in captured output.
        params, events: of the job.
        preferences: key -> value, handed to programs.
        timeout: the time limit of this attempt; grace: between TERM and KILL.
        publish: sends, and waits for the PUBACK reason code; sent again by itself after a reconnect.
        progress: tells a progress message.
        limits: what the installation allows.
    """

    job_id: str
    hostname: str
    variables: Mapping[str, Json]
    secret_templates: Mapping[str, str]
    reveal: Reveal
    params: Mapping[str, Json]
    events: tuple[str, ...]
    preferences: Mapping[str, Json]
    timeout: timedelta
    grace: timedelta
    publish: Callable[[Publication], Awaitable[int]]
    progress: Callable[[str], object]
    limits: Limits
    depth: int = 0
    root_id: str = ""


class Executor(BaseModel):
    """An operation type. Fields are the type's own keys; class variables say how its jobs are kept.

    `run` returns an Outcome for everything that can go wrong with the work; it raises only TemplateError (the
    job fails with its words) or on cancellation, after it has ended what it started. The caller enforces the
    time limit of types that do not (`own_timeout` False) by cancelling.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]
    delivery: ClassVar[Delivery] = Delivery.AT_MOST_ONCE
    uses_slot: ClassVar[bool] = True
    own_timeout: ClassVar[bool] = False
    no_description: ClassVar[Mapping[str, Json]] = {}
    """The description before the end: the type's keys, each null."""

    def inputs(self) -> frozenset[str] | None:
        """Return the variables (dotted paths) that its templates name, or None if it is given all of them."""
        return None

    def problems(self, limits: Limits) -> Mapping[str, str]:
        """Return what is wrong beyond the types of the fields: key -> words; empty when all is well."""
        del limits
        return {}

    def portable(self, limits: Limits) -> Self:
        """Return the same as another host can run it: nothing in it refers to a file of this one's configuration.

        Raises:
            OSError: such a file cannot be read.
        """
        del limits
        return self

    def title(self, operation_id: str) -> tuple[str, str]:
        """Return `process_name` and `process_id` of the operation document (contract 5)."""
        return (operation_id, operation_id)

    def preview(self, variables: Mapping[str, Json], base_topic: str) -> Mapping[str, Json]:
        """Return what a run would do, in the type's own keys, with every `${…}` kept.

        Raises:
            TemplateError: it could not be done.
        """
        del variables, base_topic
        return {}

    async def run(self, context: RunContext) -> Outcome:
        """Do the work once."""
        raise NotImplementedError


@cache
def executor_types() -> Mapping[str, type[Executor]]:
    """Return every operation type by its name."""
    found: dict[str, type[Executor]] = {}
    for module in plugin_modules("mqttjobs.executors.types", "mqttjobs.executors"):
        for item in vars(module).values():
            if isinstance(item, type) and issubclass(item, Executor) and item is not Executor:
                kind: Any = item.__dict__.get("kind")
                if kind is not None:
                    found[kind] = item
    return found


def make_executor(definition: Mapping[str, Json]) -> Executor:
    """Return the executor that a definition's own keys describe.

    Raises:
        KeyError: there is no such type.
        ValueError: the keys do not fit it.
    """
    kind = executor_types()[str(definition.get("type"))]
    own = {name: definition[name] for name in kind.model_fields if name in definition}
    return kind.model_validate(own)
