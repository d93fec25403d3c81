"""Requests: where the answer goes, who asks, what is asked, and exactly one answer (contract 4)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import structlog
from pydantic import ValidationError

from mqttjobs.clock import Clock
from mqttjobs.domain.model import Json
from mqttjobs.domain.protocol import check_transaction, decode_request, encode
from mqttjobs.domain.service_topics import lane
from mqttjobs.domain.topics import reply_topic_allowed
from mqttjobs.errors import (
    MOST_INVALID_FIELDS,
    Forbidden,
    InvalidRequest,
    MqttJobsError,
    NotFound,
    RequestError,
    Throttled,
    Unauthorized,
    UnknownMethod,
)
from mqttjobs.service.api.auth import Caller, identify
from mqttjobs.service.api.request import Method, Reply, RequestContext, envelope, methods, pending_job_of
from mqttjobs.service.engine import Engine
from mqttjobs.store.base import ANSWERS_KEPT, Store
from mqttjobs.transport.base import Message, Publication
from mqttjobs.transport.publisher import Publisher
from mqttjobs.transport.rejections import Rejections

AT_ONCE = 1000
"""Requests that are worked on at once; beyond this intake waits."""
WAITING_AT_ONCE = 2000
"""Requests in all, those that wait for a job included; beyond this the answer is 429."""
REFUSALS_PER_S = 20.0
"""Answers to requests without a valid key; more are dropped."""
RESERVED = frozenset({"transaction", "reply_to", "api_key"})
MAX_NAME = 64

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """What a request's topic says, and where its answer goes; `allowed` False: only the mirror topic, with 403."""

    name: str
    lane: str | None
    cache: str
    reply: str
    allowed: bool


class RequestRouter:
    """Answers requests, each in a task of its own.

    `counts` are requests by result; `new_context` makes the context of one of its caller, transaction, repeat_key and
    parked.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        publisher: Publisher,
        rejections: Rejections,
        counts: Counter[str],
        clock: Clock,
        new_context: Callable[..., RequestContext],
    ) -> None:
        self._engine = engine
        self._store = store
        self._publisher = publisher
        self._rejections = rejections
        self._counts = counts
        self._clock = clock
        self._new_context = new_context
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_work: dict[bytes, asyncio.Future[bytes]] = {}
        self._parked = 0
        self._room = asyncio.Event()
        self._room.set()
        self._refusals = REFUSALS_PER_S
        self._refused_s = clock.monotonic()

    def accept(self, messages: Sequence[Message]) -> None:
        """Start answering; the messages are committed and acknowledged."""
        for message in messages:
            task = asyncio.create_task(self._answer(message), name="request")
            self._tasks.add(task)
            task.add_done_callback(self._finished)
        self._look_for_room()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._look_for_room()

    def _look_for_room(self) -> None:
        if len(self._tasks) - self._parked < AT_ONCE:
            self._room.set()
        else:
            self._room.clear()

    @contextmanager
    def _park(self) -> Iterator[None]:
        """Let a request that waits for a job not count among those that are worked on."""
        self._parked += 1
        self._look_for_room()
        try:
            yield
        finally:
            self._parked -= 1
            self._look_for_room()

    async def room(self) -> None:
        """Wait, a moment at most, while too many requests are in work; those that wait for jobs do not stop intake."""
        if not self._room.is_set():
            await self._clock.wait(self._room, 1.0)

    async def close(self) -> None:
        """Let go of what is still waiting."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, message: Message) -> None:
        if message.retain:
            self._rejections.publish(message.topic, "retained_request", "requests are not to be published retained")
            self._counts["retained"] += 1
            return
        body, problem = _decode(message.payload, self._engine.configuration.settings.service.max_payload)
        address = self._address(message, body)
        transaction = None if problem is not None else body.get("transaction")
        try:
            answer = await self._carry_out(message, body, problem, address)
        except MqttJobsError as error:
            if isinstance(error, Unauthorized) and not self._may_refuse():
                self._counts["401_dropped"] += 1
                return
            answer = encode(error_body(error, transaction))
            self._counts[str(error.code)] += 1
        except Exception:
            log.exception("request-failed", method=address.name)
            answer = encode(error_body(MqttJobsError(), transaction))
            self._counts["500"] += 1
        else:
            self._counts["ok"] += 1
        self._publisher.publish(
            Publication(
                address.reply if address.allowed else address.cache,
                answer,
                qos=min(1, message.qos),
                correlation_data=message.correlation_data,
                content_type="application/json",
            )
        )

    def _address(self, message: Message, body: Mapping[str, Json]) -> Address:
        base = self._engine.configuration.settings.base_topic
        levels = message.topic[len(base) + 1 :].split("/")
        user = levels[1] if levels[0] == "users" else None
        name = "/".join(levels[-2:])
        prefix = lane(base, user)
        cache = f"{prefix}/response/{name}"
        wanted: Json = message.response_topic
        if wanted is None:
            wanted = body.get("reply_to")
        if wanted is None:
            return Address(name, user, cache, cache, allowed=True)
        filters = [f"{base}/response/#", *self._engine.configuration.settings.mqtt.reply_topics]
        if user is not None:
            filters.append(f"{prefix}/response/#")
        allowed = isinstance(wanted, str) and reply_topic_allowed(wanted, filters)
        return Address(name, user, cache, wanted if allowed else cache, allowed)

    async def _carry_out(
        self, message: Message, body: Mapping[str, Json], problem: RequestError | None, address: Address
    ) -> bytes:
        """Check in the contract's order, do the work once, and return the answer's bytes."""
        if not address.allowed:
            raise Forbidden(
                "the Response Topic or reply_to is not one that answers may go to; see mqtt.reply_topics",
                reason="reply_topic_not_allowed",
            )
        caller = identify(self._engine.configuration.settings, _api_key(message, body), address.lane)
        method = methods().get(address.name)
        if method is None:
            raise UnknownMethod("there is no such method; service/info lists them")
        if method.permissions and not any(caller.user.may(each) for each in method.permissions):
            raise Forbidden(f"missing permission: {' or '.join(method.permissions)}")
        if problem is not None:
            raise problem
        if len(self._tasks) > WAITING_AT_ONCE:
            raise Throttled("too many requests are waiting")
        params = parse_params(method, body)
        transaction = body.get("transaction")
        repeatable = method.changes and (message.correlation_data or transaction not in (None, ""))
        key = _repeat_key(message, address, caller, transaction) if repeatable else None
        request = self._new_context(caller=caller, transaction=transaction, repeat_key=key, parked=self._park)
        if key is None:
            return await self._handle(method, request, params)
        return await self._once(key, method, request, params)

    async def _once(self, key: bytes, method: Method, request: RequestContext, params: object) -> bytes:
        """Do the work of a repeated request once, also when it is asked again before it has been answered."""
        others = self._in_work.get(key)
        if others is not None:
            with self._park():
                return await asyncio.shield(others)
        mine: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._in_work[key] = mine
        try:
            since = self._clock.now() - ANSWERS_KEPT
            kept = await self._store.answer(key, since)
            pending_job = None if kept is None else pending_job_of(kept)
            if kept is None or pending_job is not None:
                answer = await self._handle(method, replace(request, pending_job=pending_job), params)
            else:
                answer = kept
        except BaseException as error:
            mine.set_exception(error)
            mine.exception()  # nobody else may be waiting
            raise
        else:
            mine.set_result(answer)
            return answer
        finally:
            del self._in_work[key]

    async def _handle(self, method: Method, request: RequestContext, params: object) -> bytes:
        result = await method.handle(request, params)
        reply = result if isinstance(result, Reply) else Reply(result)
        return encode(envelope(reply, request.transaction))

    def _may_refuse(self) -> bool:
        now_s = self._clock.monotonic()
        self._refusals = min(REFUSALS_PER_S, self._refusals + (now_s - self._refused_s) * REFUSALS_PER_S)
        self._refused_s = now_s
        if self._refusals < 1:
            return False
        self._refusals -= 1
        return True


def error_body(error: MqttJobsError, transaction: Json) -> dict[str, Json]:
    """Return the error body: title, details and code (seeds 004), reason for machines, and whether to ask again."""
    title = f"{error.noun} not found." if isinstance(error, NotFound) else error.title
    body: dict[str, Json] = {
        "status": "error",
        "code": error.code,
        "error": title,
        "details": error.details,
        "reason": error.reason,
        "retryable": error.retryable,
        "transaction": transaction,
    }
    if isinstance(error, InvalidRequest):
        body["invalid_fields"] = error.invalid_fields
    return body


def parse_params(method: Method, body: Mapping[str, Json]) -> object:
    """Return a method's typed parameters.

    Raises:
        InvalidRequest: with at most five fields named, and nothing of the input but unknown keys, cut.
    """
    own = {name: value for name, value in body.items() if name not in RESERVED}
    try:
        return method.params.model_validate_json(encode(own))
    except ValidationError as error:
        fields: dict[str, list[str]] = {}
        for each in error.errors(include_url=False, include_input=False, include_context=False):
            name = str(each["loc"][0])[:MAX_NAME] if each["loc"] else "request"
            if len(fields) < MOST_INVALID_FIELDS or name in fields:
                message = "unknown parameter" if each["type"] == "extra_forbidden" else _plain(each["msg"])
                messages = fields.setdefault(name, [])
                if message not in messages and len(messages) < MOST_INVALID_FIELDS:
                    messages.append(message)
        raise InvalidRequest(f"wrong parameters: {', '.join(fields)}", fields) from None


def _plain(message: str) -> str:
    """Return the validator's words without what it says of itself."""
    return message.removeprefix("Value error, ").removeprefix("Input ")


def _decode(payload: bytes, max_payload: int) -> tuple[Mapping[str, Json], RequestError | None]:
    """Return the body and its error, which is reported after the reply topic and the caller were checked."""
    body: Mapping[str, Json] = {}
    try:
        body = decode_request(payload, max_payload)
        check_transaction(body.get("transaction"))
    except RequestError as error:
        return body, error
    return body, None


def _api_key(message: Message, body: Mapping[str, Json]) -> str | None:
    given = body.get("api_key")
    if given is not None:
        if not isinstance(given, str):
            raise Unauthorized("api_key must be text")
        return given
    return next((value for name, value in message.user_properties if name == "api_key"), None)


def _repeat_key(message: Message, address: Address, caller: Caller, transaction: Json) -> bytes:
    """Return what makes two requests the same; the correlation data only where there is no transaction."""
    mark = b"" if transaction not in (None, "") else message.correlation_data or b""
    parts = [
        caller.user.id.encode(),
        (address.lane or "").encode(),
        address.name.encode(),
        message.payload,
        mark,
    ]
    key = hashlib.blake2b(digest_size=16)
    for part in parts:
        key.update(len(part).to_bytes(4, "big"))
        key.update(part)
    return key.digest()
