"""The input of a program: its environment, and JSON on its standard input (contract 2)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from mqttjobs.domain.model import Json
from mqttjobs.domain.protocol import encode
from mqttjobs.domain.templates import Template, as_text, reveal_all, revealed, secret_reference
from mqttjobs.executors.base import RunContext

INHERITED = ("PATH", "LANG", "HOME")
PREFIX = "MQTTJOBS"
"""The beginning of the names of all variables that a program is given."""
JOB_ID = f"{PREFIX}_JOB_ID"
"""The variable by which the processes of a job are found."""
LARGEST_VALUE = 100 * 1024
"""The kernel takes no single string over 128 KiB; a larger value is on standard input only."""
LARGEST_ENVIRONMENT = 512 * 1024
"""Variables beyond this total are on standard input only."""


class SecretResolver:
    """Resolves secrets and remembers them, so that they can be masked in the output of the program."""

    def __init__(self, context: RunContext) -> None:
        self._reveal = context.reveal
        self.given: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Return the text that `${name}` stands for; raises TemplateError if there is none."""
        text = self._reveal(name)
        self.given[text] = secret_reference(name)
        return text

    @property
    def given_secrets(self) -> list[tuple[str, str]]:
        """The resolved secrets, each with the `${name}` that stands for it."""
        return list(self.given.items())


def variables_of(context: RunContext, reveal: SecretResolver) -> dict[str, Json]:
    """Return every variable of the job, with the secrets of properties resolved."""
    variables = (
        revealed(dict(context.variables), "", dict(context.secret_templates), reveal)
        if context.secret_templates
        else None
    )
    return dict(variables if isinstance(variables, Mapping) else context.variables)


def standard_input(context: RunContext, variables: Mapping[str, Json], reveal: SecretResolver) -> bytes:
    """Return the standard input of a program: one JSON object of variables, params, events, preferences and job."""
    return encode(
        {
            "params": context.params,
            **variables,
            "events": list(context.events),
            "preferences": reveal_all(context.preferences, reveal),
            "job": {"id": context.job_id},
        }
    )


def environment(
    context: RunContext, variables: Mapping[str, Json], own: Mapping[str, Template], reveal: SecretResolver
) -> dict[str, str]:
    """Return the environment of a program: PATH, LANG and HOME, the variables as MQTTJOBS_…, and `own`.

    `own` are the templates of the operation's `env`. Nothing else of this process is passed on.

    Raises:
        TemplateError: a variable in `own` is unknown, or a secret cannot be resolved.
    """
    env = {name: os.environ[name] for name in INHERITED if name in os.environ}
    exported: dict[str, Json] = {"params": context.params, **variables, "job": {"id": context.job_id}}
    size = 0
    for name, text in _flatten(PREFIX, exported):
        size += len(name) + len(text)
        if "\0" not in text and len(text.encode()) <= LARGEST_VALUE and size <= LARGEST_ENVIRONMENT:
            env[name] = text
    env[f"{PREFIX}_AGENT"] = context.hostname
    for key, value in context.preferences.items():
        env[f"{PREFIX}_PREF_{_variable_name(key)}"] = as_text(reveal_all(value, reveal))
    for name, template in own.items():
        env[name] = template.render(context.variables, context.secret_templates, reveal).text.replace("\0", "")
    return env


def _flatten(prefix: str, value: Json) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(f"{prefix}_{_variable_name(key)}", item)
    elif value is not None:
        yield prefix, as_text(value)


def _variable_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", text).upper()
