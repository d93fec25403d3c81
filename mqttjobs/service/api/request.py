"""What a request method is, what it is given, and how its work and its answer become durable together."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from inspect import iscoroutinefunction
from types import ModuleType
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel, ConfigDict

from mqttjobs.clock import Clock
from mqttjobs.domain.installation import Installation
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import Entity, EntityKey, EntityKind, Json
from mqttjobs.domain.protocol import encode
from mqttjobs.domain.users import PERMISSIONS
from mqttjobs.errors import InvalidRequest, NotFound
from mqttjobs.registry import Family
from mqttjobs.service.agents.scheduler import AgentScheduler
from mqttjobs.service.api.auth import Caller
from mqttjobs.service.engine import Engine
from mqttjobs.service.explaining import Explainer
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.agents import AgentRegistry
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.store.base import Answer, Store

if TYPE_CHECKING:
    from mqttjobs.service.api.status import ServiceStatus

PENDING_JOB = "begun"
"""The only key of what is kept for a repeated request while its answer waits for a job's end."""


class Params(BaseModel):
    """The parameters of a method: unknown ones are refused, and no type is bent to fit."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class NoParams(Params):
    """For methods without parameters."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer: HTTP's code and the data."""

    data: Json = None
    code: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """One request being carried out, and what a method may use.

    Attributes:
        engine: transactions, the configuration in use, and the runner of jobs.
        store: for reading.
        cache: what the store knows of values and operations.
        agent_registry: what the store knows of agents.
        agent_scheduler: sends orders to agents.
        clock: time.
        status: info and health.
        explainer: why an operation ran or did not, and what would run.
        reload: reads the configuration anew on behalf of a user and returns the differences; None: there is no file.
        caller: who asks.
        transaction: of the request, repeated in its answer.
        repeat_key: set when the same request asked again must not do its work again.
        pending_job: uid of the job that the same request made before, when its answer waits for that job's end and was
            not given: the process ended meanwhile. The method waits on and makes no other.
        parked: entered while waiting for something that may take long, so that the wait does not hold up intake.
    """

    engine: Engine
    store: Store
    cache: StateCache
    agent_registry: AgentRegistry
    agent_scheduler: AgentScheduler
    clock: Clock
    status: ServiceStatus
    explainer: Explainer
    reload: Callable[[str], Awaitable[dict[str, Json]]] | None
    caller: Caller
    transaction: Json = None
    repeat_key: bytes | None = None
    pending_job: int | None = None
    parked: Callable[[], AbstractContextManager[object]] = nullcontext

    @property
    def settings(self) -> Settings:
        """The settings in use."""
        return self.engine.configuration.settings

    @property
    def installation(self) -> Installation:
        """Objects, links, operations and users as they are configured."""
        return self.settings.installation

    def keep_answer(self, tx: Transaction, reply: Reply) -> Reply:
        """Record the answer together with the work, to be given again when the same is asked again; return it."""
        self._keep(tx, envelope(reply, self.transaction))
        return reply

    def keep_pending_job(self, tx: Transaction, job: Job) -> None:
        """Record which job the answer waits for, to wait on when the same is asked again."""
        self._keep(tx, {PENDING_JOB: job.uid})

    def _keep(self, tx: Transaction, body: dict[str, Json]) -> None:
        if self.repeat_key is not None:
            tx.answers.append(Answer(self.repeat_key, self.clock.now(), encode(body)))

    async def replace_answer(self, reply: Reply) -> Reply:
        """Record the final answer in place of what was kept when the work began, and return it."""
        async with self.engine.transaction() as tx:
            return self.keep_answer(tx, reply)

    def entity(self, object_id: str | None, link_id: str | None) -> Entity:
        """Return the entity that is meant, in the caller's scope.

        Raises:
            InvalidRequest: not exactly one of the two was given.
            NotFound: it is unknown or outside the scope.
        """
        if (object_id is None) == (link_id is None):
            raise InvalidRequest("give either object or link", {"object": ["give either object or link"]})
        kind, entity_id = (EntityKind.OBJECT, object_id) if object_id is not None else (EntityKind.LINK, link_id)
        key = EntityKey(kind, str(entity_id))
        found = self.installation.entities.get(key)
        if found is None or not self.caller.sees(key):
            raise NotFound(kind.value.capitalize(), f"no {kind.value} has this id")
        return found


Handler = Callable[[RequestContext, Any], Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class Method:
    """A method: its name, the permissions of which one is enough, its parameters, and whether it changes something."""

    name: str
    permissions: tuple[str, ...]
    params: type[Params]
    handle: Handler
    changes: bool = False


def method(
    name: str, *permissions: str, params: type[Params] = NoParams, changes: bool = False
) -> Callable[[Handler], Handler]:
    """Make a function the handler of a method; no permissions means any user."""

    def mark(handle: Handler) -> Handler:
        handle.__dict__["method"] = Method(name, permissions, params, handle, changes)
        return handle

    return mark


_NAME = re.compile(r"[a-z0-9_]+/[a-z0-9_]+\Z")


def _methods_of(module: ModuleType) -> Iterator[tuple[str, Method]]:
    """Yield the methods of a module: its functions that `method` has marked."""
    for item in vars(module).values():
        marked = getattr(item, "method", None)
        if isinstance(marked, Method):
            _check_method(marked, f"{module.__name__}.{marked.handle.__name__}")
            yield marked.name, marked


def _check_method(method: Method, where: str) -> None:
    """Refuse a method that cannot be asked for or would fail when it is: no type checker may have seen it."""
    if not _NAME.match(method.name):
        raise ValueError(f"{where}: the method {method.name!r} must be named like noun/verb")
    if not iscoroutinefunction(method.handle):
        raise ValueError(f"{where} must be an `async def`")
    unknown = [each for each in method.permissions if each not in PERMISSIONS]
    if unknown:
        raise ValueError(f"{where}: there is no permission {unknown[0]!r}; the known ones are {', '.join(PERMISSIONS)}")
    params: object = method.params
    if not (isinstance(params, type) and issubclass(params, Params)):
        raise ValueError(f"{where}: params must be a class of Params")


METHODS = Family("mqttjobs.service.methods", "mqttjobs.service.methods", noun="request method", read=_methods_of)
"""The request methods, by name."""


def methods() -> Mapping[str, Method]:
    """Return every method by its name."""
    return METHODS.members()


def pending_job_of(kept: bytes) -> int | None:
    """Return the uid of the job that a kept answer still waits for, or None when it is the answer itself."""
    body = orjson.loads(kept)
    uid = body.get(PENDING_JOB)
    return uid if isinstance(uid, int) else None


def envelope(reply: Reply, transaction: Json) -> dict[str, Json]:
    """Return the body of a good answer."""
    return {"status": "ok", "code": reply.code, "data": reply.data, "transaction": transaction}
