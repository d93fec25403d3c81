"""The exception tree: every error that this project raises on purpose.

::

    MqttJobsError                     500 internal
    ├── ConfigError                   the configuration file (carries every problem, with its line)
    ├── ReportError                   a message that cannot be used; published on event/rejected with its `reason`
    ├── TemplateError                 a {{ variable }} that cannot be filled in; fails the job
    ├── RequestError                  returned to the caller as the error body
    │   ├── Unauthorized              401 unauthorized
    │   ├── Forbidden                 403 forbidden
    │   ├── UnknownMethod             404 unknown_method
    │   ├── InvalidJson               400 invalid_json
    │   ├── InvalidRequest            400 invalid_request (with invalid_fields)
    │   ├── NotFound                  404 not_found
    │   ├── TerminalState             409 terminal_state
    │   ├── Inactive                  409 inactive
    │   ├── Conflict                  409 conflict
    │   ├── TooLarge                  413 too_large
    │   ├── Throttled                 429 throttled
    │   └── Unavailable               503 unavailable
    ├── StoreError                    503: the disk or the database; ends the session, and recovery is as after a start
    │   └── StoreRefused              the store does not open: corrupt, newer, or in use by another process
    └── TransportError                the connection to the broker
        ├── ConnectionLost            the connection is gone; connect again
        ├── ConnectionRefused         the broker refused it (bad credentials, not authorized …)
        └── ClientIdTaken             another client uses our client id
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


class MqttJobsError(Exception):
    """The root of the tree.

    Attributes:
        code: an HTTP status code.
        reason: the kind of error for machines, such as `not_found`; the class has a default.
        title: the kind of error for people.
        details: what is wrong in this case, for people; may be empty.
        retryable: whether the same request may succeed later.
    """

    code: ClassVar[int] = 500
    default_reason: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error."
    retryable: ClassVar[bool] = False

    def __init__(self, details: str = "", *, reason: str | None = None) -> None:
        super().__init__(details or self.title)
        self.details = details
        self.reason = reason or self.default_reason


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a configuration; `line` counts from 1, and is 0 for a problem of the whole file."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        """Return `file:line: message`, as compilers write it."""
        return f"{self.file}:{self.line}: {self.message}"


class ConfigError(MqttJobsError):
    """A configuration that cannot be used; carries every problem found."""

    code = 400
    default_reason = "invalid_config"
    title = "The configuration cannot be used."

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class ReportError(MqttJobsError):
    """A message that cannot be used, such as a report; published on event/rejected."""

    code = 400
    default_reason = "invalid_report"
    title = "The message cannot be used."


class TemplateError(MqttJobsError):
    """A template that cannot be rendered: an unknown variable, or a value that is not allowed in its place."""

    code = 400
    default_reason = "template"
    title = "A variable cannot be filled in."


class RequestError(MqttJobsError):
    """An error that is returned to the caller of a request as the error body."""

    code = 400
    default_reason = "invalid_request"
    title = "Invalid request."


class Unauthorized(RequestError):
    """A key is needed, and the request has none or a wrong one."""

    code = 401
    default_reason = "unauthorized"
    title = "API key required"


class Forbidden(RequestError):
    """The caller lacks a permission; `details` name it."""

    code = 403
    default_reason = "forbidden"
    title = "Forbidden."


class UnknownMethod(RequestError):
    """No method has this name."""

    code = 404
    default_reason = "unknown_method"
    title = "Unknown method."


class InvalidJson(RequestError):
    """The payload is not JSON as requests accept it (behaviour 5)."""

    code = 400
    default_reason = "invalid_json"
    title = "Invalid JSON."


MOST_INVALID_FIELDS = 5
"""How many fields `invalid_fields` names at most, and how many messages of each (contract 4)."""


class InvalidRequest(RequestError):
    """The parameters are wrong; `invalid_fields` maps each wrong field to its messages, see MOST_INVALID_FIELDS."""

    def __init__(self, details: str = "", invalid_fields: Mapping[str, list[str]] | None = None) -> None:
        super().__init__(details)
        self.invalid_fields = dict(invalid_fields or {})


class NotFound(RequestError):
    """Nothing has this id in the caller's scope; the error does not show whether it exists outside of the scope.

    `noun` is the kind of thing, such as `job`.
    """

    code = 404
    default_reason = "not_found"
    title = "Not found."

    def __init__(self, noun: str, details: str = "") -> None:
        super().__init__(details)
        self.noun = noun


class TerminalState(RequestError):
    """The job has ended already."""

    code = 409
    default_reason = "terminal_state"
    title = "The job has already ended."


class Inactive(RequestError):
    """The operation is deactivated."""

    code = 409
    default_reason = "inactive"
    title = "The operation is inactive."


class Conflict(RequestError):
    """The present state does not allow the request."""

    code = 409
    default_reason = "conflict"
    title = "Conflict."


class TooLarge(RequestError):
    """The payload is over service.max_payload."""

    code = 413
    default_reason = "too_large"
    title = "The request is too large."


class Throttled(RequestError):
    """Too many requests at once; ask again later."""

    code = 429
    default_reason = "throttled"
    title = "Too many requests."
    retryable = True


class Unavailable(RequestError):
    """The store or the broker is away; ask again later."""

    code = 503
    default_reason = "unavailable"
    title = "Unavailable."
    retryable = True


class StoreError(MqttJobsError):
    """The store could not read or write: disk full, locked, read-only, I/O error."""

    code = 503
    default_reason = "unavailable"
    title = "The store is unavailable."
    retryable = True


class StoreRefused(StoreError):
    """The store does not open: corrupt, of a newer version, or in use; the text says why and what to do."""

    retryable = False


class TransportError(MqttJobsError):
    """An error of the connection to the broker."""

    code = 503
    default_reason = "unavailable"
    title = "The broker is unavailable."
    retryable = True


class ConnectionLost(TransportError):
    """The connection is gone; connect again."""


class ConnectionRefused(TransportError):
    """The broker refused CONNECT; `details` have its reason."""


class ClientIdTaken(TransportError):
    """Another client with the same client id took the session over (MQTT 5 reason 0x8E)."""
