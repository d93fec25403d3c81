"""The options that all client commands share: where the service is, and who sends the request."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from mqttjobs.domain.service_topics import lane

P = ParamSpec("P")
URL_VARIABLE = "MQTTJOBS_URL"
DEFAULT_URL = "mqtt://127.0.0.1:1883"
"""Where the broker is unless an option or a variable says otherwise."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the service is and who sends requests. `user` names the lane, not the user at the broker."""

    url: str = DEFAULT_URL
    base_topic: str = "mqttjobs"
    user: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 10.0
    as_json: bool = False

    @property
    def prefix(self) -> str:
        """The beginning of request and response topics: the base topic, or the user's lane below it."""
        return lane(self.base_topic, self.user)


def _user_name(value: str | None) -> str | None:
    """Return a user name; raises BadParameter unless it is one plain level of a topic. An empty one is None."""
    if value is not None and (not value or any(each in value for each in "/+#\0")):
        raise typer.BadParameter("a user name has no '/', '+' or '#'")
    return value or None


def parse_base_topic(value: str) -> str:
    """Return a base topic without a trailing slash; raises BadParameter unless it is a plain topic."""
    if not value.strip("/") or any(each in value for each in "+#\0") or value.startswith("$"):
        raise typer.BadParameter("must be a plain topic such as mqttjobs or home/jobs")
    return value.rstrip("/")


def _seconds(value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise typer.BadParameter("must be more than 0 seconds")
    return value


_OPTIONS: dict[str, tuple[Any, Any]] = {
    "url": (
        Annotated[
            str,
            typer.Option(
                envvar=URL_VARIABLE,
                help="The broker: mqtt, mqtts, ws or wss; its user and password as mqtt://user:password@host.",
                show_envvar=True,
            ),
        ],
        DEFAULT_URL,
    ),
    "base_topic": (
        Annotated[str, typer.Option(callback=parse_base_topic, help="The service's mqtt.base_topic.")],
        "mqttjobs",
    ),
    "user": (
        Annotated[
            str | None,
            typer.Option(
                envvar="MQTTJOBS_USER", callback=_user_name, help="Ask in this user's lane, <base>/users/<user>/…"
            ),
        ],
        None,
    ),
    "api_key": (
        Annotated[
            str | None,
            typer.Option(
                envvar="MQTTJOBS_API_KEY",
                help="A user's key; better in the environment, where ps does not show it.",
            ),
        ],
        None,
    ),
    "timeout": (
        Annotated[float, typer.Option(callback=_seconds, help="How long to wait for an answer, in seconds.")],
        10.0,
    ),
    "json": (Annotated[bool, typer.Option("--json", help="Print the raw data as JSON, and nothing else.")], False),
}


def with_access(command: Callable[Concatenate[Access, P], None]) -> Callable[..., None]:
    """Add the shared options to a command; the command gets them as its first argument, an Access."""
    signature = inspect.signature(command, eval_str=True)
    own = list(signature.parameters.values())[1:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _OPTIONS.items()
    ]

    @wraps(command)
    def with_options(**given: Any) -> None:
        timeout, as_json = given.pop("timeout"), given.pop("json")
        shared_options = {name: given.pop(name) for name in ("url", "base_topic", "user", "api_key")}
        call: Callable[..., None] = command
        call(Access(**shared_options, timeout_s=timeout, as_json=as_json), **given)

    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own] + shared
    marked: Any = with_options
    marked.__signature__ = signature.replace(parameters=parameters)
    marked.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_options
