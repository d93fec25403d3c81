"""An MQTT client for tests, on paho only, as any user of the service could write it."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WAIT_S = 20.0


def milliseconds_now() -> int:
    """Return the time as documents have it: whole milliseconds since 1970, truncated."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Received:
    """A message that arrived at a test client."""

    topic: str
    payload: bytes
    retain: bool
    qos: int
    correlation: bytes | None = None
    content_type: str | None = None
    user_properties: tuple[tuple[str, str], ...] = ()

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


class Client:
    """A connected client, MQTT 5 or 3.1.1; all received messages stay in `messages`."""

    def __init__(
        self,
        port: int,
        *,
        protocol: str = "5",
        base: str = "mqttjobs",
        username: str | None = None,
        password: str | None = None,
        client_id: str | None = None,
        reconnect: bool = True,
    ) -> None:
        self.base = base
        self.five = protocol == "5"
        self.messages: list[Received] = []
        self._changed = threading.Condition()
        self._subscribed: set[int] = set()
        self._connected = threading.Event()
        self._refused: str | None = None
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or f"test-{uuid.uuid4().hex[:12]}",
            protocol=paho.MQTTv5 if self.five else paho.MQTTv311,
            reconnect_on_failure=reconnect,
        )
        self._client.username_pw_set(username, password)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.max_inflight_messages_set(1000)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._connected.wait(WAIT_S), "the broker did not answer"
        assert self._refused is None, self._refused

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self._refused = str(code) if code.is_failure else None
        self._connected.set()

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, _codes: Any, _properties: Any) -> None:
        with self._changed:
            self._subscribed.add(mid)
            self._changed.notify_all()

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        properties = message.properties
        received = Received(
            message.topic,
            message.payload,
            bool(message.retain),
            message.qos,
            getattr(properties, "CorrelationData", None),
            getattr(properties, "ContentType", None),
            tuple(getattr(properties, "UserProperty", ())),
        )
        with self._changed:
            self.messages.append(received)
            self._changed.notify_all()

    def subscribe(self, *filters: str) -> None:
        """Subscribe at QoS 1 and wait for SUBACK."""
        _, mid = self._client.subscribe([(each, 1) for each in filters])
        with self._changed:
            assert self._changed.wait_for(lambda: mid in self._subscribed, WAIT_S), f"no SUBACK for {filters}"

    def publish(
        self,
        topic: str,
        payload: bytes | str | Mapping[str, Any] = b"",
        *,
        qos: int = 1,
        retain: bool = False,
        properties: Properties | None = None,
        wait: bool = True,
    ) -> paho.MQTTMessageInfo:
        """Publish, a mapping as JSON; with `wait`, return only when the broker has acknowledged."""
        data = json.dumps(payload) if isinstance(payload, Mapping) else payload
        info = self._client.publish(topic, data, qos, retain, properties)
        if wait:
            info.wait_for_publish(WAIT_S)
            assert info.is_published(), f"the broker did not acknowledge {topic}"
        return info

    def wait_for(self, wanted: Callable[[Received], bool], *, since: int = 0, within_s: float = WAIT_S) -> Received:
        """Wait for the first message from index `since` on that `wanted` accepts, and return it."""

        def found() -> Received | None:
            return next((each for each in self.messages[since:] if wanted(each)), None)

        with self._changed:
            message = self._changed.wait_for(found, within_s)
        assert message is not None, (
            f"no such message came; there were {[each.topic for each in self.messages[since:]][-20:]}"
        )
        return message

    def wait_topic(self, topic: str, *, since: int = 0, within_s: float = WAIT_S) -> Received:
        """Wait for the first message on `topic`, and return it."""
        return self.wait_for(lambda each: each.topic == topic, since=since, within_s=within_s)

    def wait_count(self, wanted: Callable[[Received], bool], count: int, *, within_s: float = WAIT_S) -> None:
        """Wait until `wanted` accepts at least `count` messages."""
        with self._changed:
            enough = self._changed.wait_for(lambda: sum(map(wanted, self.messages)) >= count, within_s)
        assert enough, f"{sum(map(wanted, self.messages))} of {count} came"

    def ask(
        self,
        method: str,
        params: Mapping[str, Any] | bytes | None = None,
        *,
        how: str = "auto",
        lane: str | None = None,
        api_key: str | None = None,
        correlation: bytes | None = None,
        within_s: float = WAIT_S,
    ) -> Any:
        """Send a request and return the whole response.

        `how` names the reply address: response_topic, reply_to, or mirror for the mirror topic.
        """
        if how == "auto":
            how = "response_topic" if self.five else "reply_to"
        prefix = self.base if lane is None else f"{self.base}/users/{lane}"
        correlation_data = correlation or uuid.uuid4().hex.encode()
        reply = f"{prefix}/response/{method}" if how == "mirror" else f"{prefix}/response/test/{correlation_data.hex()}"
        self.subscribe(reply)
        body = params if isinstance(params, bytes) else dict(params or {})
        properties = Properties(PacketTypes.PUBLISH) if self.five else None
        if isinstance(body, dict):
            if how == "reply_to":
                body["reply_to"] = reply
            if how == "mirror" or not self.five:
                body.setdefault("transaction", correlation_data.decode())
            if api_key is not None:
                body["api_key"] = api_key
        if properties is not None and how == "response_topic":
            properties.ResponseTopic = reply
            properties.CorrelationData = correlation_data
        since = len(self.messages)
        self.publish(f"{prefix}/request/{method}", body, properties=properties)

        def is_response(message: Received) -> bool:
            if message.topic != reply or message.retain:
                return False
            if how == "mirror" and isinstance(body, dict):
                return bool(message.json.get("transaction") == body["transaction"])
            return True

        return self.wait_for(is_response, since=since, within_s=within_s).json

    def data(self, method: str, params: Mapping[str, Any] | None = None, **how: Any) -> Any:
        """Send a request and return the data of its response, which must be `ok`."""
        answer = self.ask(method, params, **how)
        assert answer["status"] == "ok", answer
        return answer["data"]

    def ended(self, job_id: str, *, within_s: float = WAIT_S) -> dict[str, Any]:
        """Wait until a job has ended, and return its document."""

        def end(asked: Client) -> Any:
            job = asked.data("jobs/get", {"id": job_id})
            return job if job["status"] not in ("submitted", "processing") else None

        found: dict[str, Any] = self.until(end, within_s=within_s, pause_s=0.1)
        return found

    def until(self, check: Callable[[Self], Any], *, within_s: float = WAIT_S, pause_s: float = 0.05) -> Any:
        """Poll until `check` returns something true, and return that; for changes without a message."""
        deadline = time.monotonic() + within_s
        while True:
            found = check(self)
            if found:
                return found
            assert time.monotonic() < deadline, f"the condition did not become true: {found!r}"
            threading.Event().wait(pause_s)
