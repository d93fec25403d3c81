"""What an operation type is: a class whose fields are its configuration keys and whose `run` is its behaviour."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from inspect import iscoroutinefunction
from types import ModuleType
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from mqttjobs.domain.fields import spellings
from mqttjobs.domain.jobs import Outcome
from mqttjobs.domain.model import Delivery, Json
from mqttjobs.domain.names import is_id
from mqttjobs.domain.operations import COMMON_KEYS
from mqttjobs.domain.templates import Reveal
from mqttjobs.registry import Family
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
        progress: adds a progress message to the timeline.
        limits: what the installation allows.
        shared: what the type's `open` returned, the same for all its jobs in this process; see Executor.open.
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
    shared: Any = None


class Executor(BaseModel):
    """An operation type. Fields are its own keys, each with a description; class variables say how its jobs are kept.

    `run` returns an Outcome for everything that can go wrong with the work; it raises only TemplateError (the
    job fails with its words) or on cancellation, after it has ended what it started. The caller enforces the
    time limit of types that do not (`own_timeout` False) by cancelling.

    Attributes:
        kind: the name of the type, as `type` in the configuration has it.
        delivery: whether a job that a crash interrupted runs again (behaviour 3.9); `delivery` of an operation wins.
        uses_slot: whether its jobs count against `service.concurrency`. Without a slot they start in row order, and
            do what they do before they first wait.
        own_timeout: whether `run` keeps to `RunContext.timeout` by itself.
        changes: whether a completed run changed something where neither its outcome nor its result says so
            (behaviour 3.4).
        no_description: the description before the end: the type's keys, each null (contract 5).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]
    delivery: ClassVar[Delivery] = Delivery.AT_MOST_ONCE
    uses_slot: ClassVar[bool] = True
    own_timeout: ClassVar[bool] = False
    changes: ClassVar[bool] = False
    no_description: ClassVar[Mapping[str, Json]] = {}

    @classmethod
    async def open(cls) -> Any:
        """Open what all jobs of this type share, such as an HTTP client, and return it; jobs find it in `shared`.

        The resource belongs to the type and the process: operations and reloads share it. It is opened before the
        first job that needs it, within 60 seconds. Whatever `open` raises fails the jobs that wait for it with its
        text and degrades `service/health`; the next job tries again. It is given no secrets: what needs one takes it
        in `run`.
        """
        return None

    @classmethod
    async def close(cls, shared: Any) -> None:
        """Close what `open` returned, within 10 seconds; no job uses it any more.

        Called when the process ends, and after a reload that leaves no operation of the type, once its last job has
        ended.
        """

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


def _types_of(module: ModuleType) -> Iterator[tuple[str, type[Executor]]]:
    """Yield the operation types of a module: its classes of Executor that have a `kind` of their own."""
    for item in vars(module).values():
        if isinstance(item, type) and issubclass(item, Executor) and "kind" in vars(item):
            _check_type(item)
            yield item.kind, item


def _check_type(kind: type[Executor]) -> None:
    """Refuse an operation type whose class variables cannot be used: no type checker may have seen them."""
    where = f"{kind.__module__}.{kind.__qualname__}"
    name: object = kind.kind
    if not (isinstance(name, str) and is_id(name)):
        raise ValueError(f"{where}.kind must be a text of letters, digits, _ and -")
    if not iscoroutinefunction(kind.run) or kind.run is Executor.run:
        raise ValueError(f"{where} has no `async def run`")
    for field, info in kind.model_fields.items():
        if field in COMMON_KEYS:
            raise ValueError(f"{where}.{field} has the name of a key that all operations have")
        if spellings(field, info) != (field,):
            raise ValueError(f"{where}.{field} has an alias: the key of a type is the name of the field")
    wanted = {"delivery": Delivery, "uses_slot": bool, "own_timeout": bool, "changes": bool, "no_description": Mapping}
    for key, expected in wanted.items():
        if not isinstance(getattr(kind, key), expected):
            raise ValueError(f"{where}.{key} must be a {expected.__name__}")


EXECUTORS = Family("mqttjobs.executors.types", "mqttjobs.executors", noun="operation type", read=_types_of)
"""The operation types, by `kind`."""


def executor_types() -> Mapping[str, type[Executor]]:
    """Return every operation type by its name."""
    return EXECUTORS.members()


def make_executor(definition: Mapping[str, Json]) -> Executor:
    """Return the executor that a definition's own keys describe.

    Raises:
        KeyError: there is no such type.
        ValueError: the keys do not fit it.
    """
    kind = executor_types()[str(definition.get("type"))]
    own = {name: definition[name] for name in kind.model_fields if name in definition}
    return kind.model_validate(own)
