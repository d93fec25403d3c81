"""The exception tree: everything that this project raises on purpose.

::

    MqttJobsError                     500 internal
    ├── ConfigError                   the configuration file (carries every problem, with its line)
    ├── ReportError                   a message that cannot be used; `reason` goes to event/rejected
    ├── TemplateError                 a {{ variable }} that cannot be filled in; fails the job
    ├── RequestError                  answered to the caller as the error body
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
    ├── StoreError                    503: the disk or the database; ends the session, recovery is the start-up path
    │   └── StoreRefused              it will not open: corrupt, newer, or in use by another process; says what to do
    └── TransportError                the connection to the broker
        ├── ConnectionLost            it is gone; connect again
        ├── ConnectionRefused         the broker said no (bad credentials, not authorized …)
        └── ClientIdTaken             another client uses our client id
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


class MqttJobsError(Exception):
    """The root; `code` is HTTP's, `reason` the word for machines, `details` the sentence for people."""

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
    """One thing wrong in a configuration; `line` counts from 1, 0 when it belongs to the whole file."""

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
    """A message on a state topic that cannot be used; told on event/rejected."""

    code = 400
    default_reason = "invalid_report"
    title = "The message cannot be used."


class TemplateError(MqttJobsError):
    """A variable that is unknown, or a value that may not stand where it was put."""

    code = 400
    default_reason = "template"
    title = "A variable cannot be filled in."


class RequestError(MqttJobsError):
    """An error that is answered to whoever asked."""

    code = 400
    default_reason = "invalid_request"
    title = "Invalid request."


class Unauthorized(RequestError):
    """No key, or a wrong one, where one is needed."""

    code = 401
    default_reason = "unauthorized"
    title = "API key required"


class Forbidden(RequestError):
    """The caller is known and may not; details name the missing permission."""

    code = 403
    default_reason = "forbidden"
    title = "Forbidden."


class UnknownMethod(RequestError):
    """There is no such method."""

    code = 404
    default_reason = "unknown_method"
    title = "Unknown method."


class InvalidJson(RequestError):
    """The payload is not the JSON that is accepted here (behaviour 5)."""

    code = 400
    default_reason = "invalid_json"
    title = "Invalid JSON."


MOST_INVALID_FIELDS = 5
"""How many fields `invalid_fields` names at most, and how many messages of each (contract 4)."""


class InvalidRequest(RequestError):
    """The parameters are wrong; `invalid_fields` maps a field to its messages, see MOST_INVALID_FIELDS."""

    def __init__(self, details: str = "", invalid_fields: Mapping[str, list[str]] | None = None) -> None:
        super().__init__(details)
        self.invalid_fields = dict(invalid_fields or {})


class NotFound(RequestError):
    """Well formed and unknown, or outside the caller's scope: both look alike."""

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
    """It cannot be done in the present state of things."""

    code = 409
    default_reason = "conflict"
    title = "Conflict."


class TooLarge(RequestError):
    """The payload is over service.max_payload."""

    code = 413
    default_reason = "too_large"
    title = "The request is too large."


class Throttled(RequestError):
    """Too much at once; ask again later."""

    code = 429
    default_reason = "throttled"
    title = "Too many requests."
    retryable = True


class Unavailable(RequestError):
    """The service cannot do it now (store or broker); ask again later."""

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
    """The store will not open and why: corrupt, from a newer version, or in use; the text says what to do."""

    retryable = False


class TransportError(MqttJobsError):
    """The connection to the broker."""

    code = 503
    default_reason = "unavailable"
    title = "The broker is unavailable."
    retryable = True


class ConnectionLost(TransportError):
    """The connection is gone; connect again."""


class ConnectionRefused(TransportError):
    """The broker answered CONNECT with a refusal; the details carry its reason."""


class ClientIdTaken(TransportError):
    """Another client took our session over (MQTT 5 reason 0x8E)."""
