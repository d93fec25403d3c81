"""An MQTT client of the running service: sends requests and returns the data of the responses."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import orjson

from mqttjobs.cli.access import Access
from mqttjobs.domain.model import Json
from mqttjobs.domain.service_topics import OFFLINE, ONLINE, status_topic
from mqttjobs.errors import ConnectionLost, ConnectionRefused, RequestError, TransportError
from mqttjobs.transport.base import (
    LARGEST_PACKET,
    NO_MATCHING_SUBSCRIBERS,
    REFUSED,
    ConnectOptions,
    Message,
    Publication,
    Session,
    Subscription,
    create_transport,
    describe_refusal,
    resolve_broker_url,
)

CONNECT_ATTEMPTS = 3
"""A broker without MQTT 5 may close the connection twice before 3.1.1 is tried (behaviour 6)."""


class Refused(RequestError):
    """The service responded with an error; the text is for people, `body` is the whole response."""

    def __init__(self, body: Mapping[str, Json]) -> None:
        super().__init__(error_text(body), reason=str(body.get("reason") or "error"))
        self.body = body


class NoAnswer(TransportError):
    """No response came; the text says which service was asked, and what to check."""


class Client:
    """One connection to the service's broker, for one request at a time."""

    def __init__(self, access: Access, session: Session, token: str) -> None:
        self.session = session
        self._access = access
        self._reply = f"{access.prefix}/response/cli/{token}"
        self._status_topic = status_topic(access.base_topic)
        self._status: str | None = None

    async def open(self) -> None:
        """Subscribe to the responses and to the status of the service.

        Raises:
            NoAnswer: the broker refuses the subscription to the responses.
        """
        codes = await self.session.subscribe(
            [Subscription(self._reply, replay=False), Subscription(self._status_topic)]
        )
        if codes[0] >= REFUSED:
            raise NoAnswer(
                f"the broker at {display_url(self._access.url)} does not let us subscribe to {self._reply} "
                f"({describe_refusal(codes[0])}); check its ACL, or use --user for a lane"
            )

    async def ask(self, method: str, params: Mapping[str, Json]) -> Json:
        """Send one request and return the `data` of its response; parameters that are None are left out.

        Raises:
            Refused: the service responded with an error.
            NoAnswer: no response came in time, or nobody subscribes to the request topic.
            ConnectionLost: the connection ended first.
        """
        topic = f"{self._access.prefix}/request/{method}"
        correlation = secrets.token_hex(8)
        given = {name: value for name, value in params.items() if value is not None}
        try:
            async with asyncio.timeout(self._access.timeout_s):
                code = await self.session.publish(self._request(topic, given, correlation))
                self._check_puback(code, topic)
                body = await self._answer(correlation)
        except TimeoutError:
            raise NoAnswer(self._silence_text(topic)) from None
        if body.get("status") != "ok":
            raise Refused(body)
        return body.get("data")

    def _request(self, topic: str, params: Mapping[str, Json], correlation: str) -> Publication:
        """Return the request: reply topic, correlation and key are MQTT 5 properties or in the body (contract 4)."""
        key = self._access.api_key
        if self.session.protocol == "5":
            return Publication(
                topic,
                orjson.dumps(params),
                qos=1,
                response_topic=self._reply,
                correlation_data=correlation.encode(),
                content_type="application/json",
                user_properties=() if key is None else (("api_key", key),),
                expiry_s=math.ceil(self._access.timeout_s),
            )
        reserved = {"reply_to": self._reply, "transaction": correlation} | ({} if key is None else {"api_key": key})
        return Publication(topic, orjson.dumps({**params, **reserved}), qos=1)

    def _check_puback(self, code: int, topic: str) -> None:
        where = display_url(self._access.url)
        if code == NO_MATCHING_SUBSCRIBERS:
            raise NoAnswer(
                f"nobody listens on {topic} at {where}: no service runs there with the base topic "
                f"{self._access.base_topic!r} (see --url and --base-topic)"
            )
        if code >= REFUSED:
            refusal = describe_refusal(code)
            raise NoAnswer(f"the broker at {where} refused the request on {topic}: {refusal}; check its ACL")

    async def _answer(self, correlation: str) -> Mapping[str, Json]:
        while True:
            messages = await self.session.receive()
            self.session.acknowledge(messages)
            for message in messages:
                if message.topic == self._status_topic:
                    self._status = message.payload.decode(errors="replace")
                elif message.topic == self._reply:
                    body = _body(message)
                    if correlation in (
                        (message.correlation_data or b"").decode(errors="replace"),
                        body.get("transaction"),
                    ):
                        return body

    def _silence_text(self, topic: str) -> str:
        """Return why there may be no response, as far as the status of the service shows, and what to check."""
        access = self._access
        if self._status == ONLINE:
            why = f"The service is online there; check that the broker's ACL lets {topic} and {self._reply} through."
        elif self._status == OFFLINE:
            why = "The service there is offline; start it with `mqttjobs run`."
        else:
            why = (
                f"No service has announced itself on {self._status_topic}; is it running, and are --url and "
                "--base-topic right?"
            )
        return f"no answer within {access.timeout_s:g} s to {topic} at {display_url(access.url)}. {why}"


@asynccontextmanager
async def connected(access: Access) -> AsyncIterator[Client]:
    """Connect to the broker, with no session kept, and yield the client.

    Raises:
        NoAnswer: the broker cannot be reached or refuses; the text says what to check.
    """
    token = secrets.token_hex(8)
    try:
        url = resolve_broker_url(access.url, Path.cwd())
    except ValueError as error:
        raise NoAnswer(f"--url (MQTTJOBS_URL) {error}") from None
    transport = create_transport(
        ConnectOptions(
            url=url,
            client_id=f"mqttjobs-cli-{token}",
            clean=True,
            maximum_packet_size=LARGEST_PACKET,  # a page of a hundred jobs with their output can be over 1 MiB
        )
    )
    async with AsyncExitStack() as stack:
        for attempt in range(1, CONNECT_ATTEMPTS + 1):
            try:
                session = await stack.enter_async_context(transport.connect())
                break
            except ConnectionLost as error:
                if attempt == CONNECT_ATTEMPTS:
                    message = f"cannot reach the broker: {error}. Is it running, and is --url (MQTTJOBS_URL) right?"
                    raise NoAnswer(message) from None
            except ConnectionRefused as error:
                message = f"{error}. The broker's user and password go into --url: mqtt://user:password@host"
                raise NoAnswer(message) from None
        client = Client(access, session, token)
        await client.open()
        yield client


async def ask(access: Access, method: str, params: Mapping[str, Json]) -> Json:
    """Connect, send one request, and return its data; raises as `connected` and `Client.ask` do."""
    async with connected(access) as client:
        return await client.ask(method, params)


def error_text(body: Mapping[str, Json]) -> str:
    """Return the body of an error response as text for people; invalid fields have a line each."""
    title = str(body.get("error") or "The service refused.").rstrip(".")
    details = str(body.get("details") or "")
    text = f"{title}: {details}" if details and details.rstrip(".") != title else f"{title}."
    fields = body.get("invalid_fields")
    if isinstance(fields, Mapping):
        for name, messages in fields.items():
            message = "; ".join(map(str, messages)) if isinstance(messages, list) else str(messages)
            text += f"\n  {name}: {message}"
    if body.get("code") == 401:
        text += "\nGive a key with --api-key or MQTTJOBS_API_KEY, or a trusted lane with --user."
    return text


def display_url(url: str) -> str:
    """Return a URL without its user and password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _body(message: Message) -> Mapping[str, Json]:
    try:
        body = orjson.loads(message.payload)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}
