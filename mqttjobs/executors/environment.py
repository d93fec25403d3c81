"""What a program is given: its environment and the JSON on its standard input (contract 2)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from mqttjobs.domain.model import Json
from mqttjobs.domain.protocol import encode
from mqttjobs.domain.templates import Template, as_text, reveal_all, revealed, secret_reference
from mqttjobs.executors.base import RunContext

FROM_OURS = ("PATH", "LANG", "HOME")
LARGEST_VALUE = 100 * 1024
"""The kernel takes no single string over 128 KiB; a larger value is on standard input alone."""
LARGEST_ALL = 512 * 1024


class SecretResolver:
    """Gives secrets and remembers which, so that they can be masked in whatever the program writes."""

    def __init__(self, context: RunContext) -> None:
        self._reveal = context.reveal
        self.given: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Return the text behind a name."""
        text = self._reveal(name)
        self.given[text] = secret_reference(name)
        return text

    @property
    def given_secrets(self) -> list[tuple[str, str]]:
        """What was given, and the name that stands for it."""
        return list(self.given.items())


def variables_of(context: RunContext, reveal: SecretResolver) -> dict[str, Json]:
    """Return every variable as the program may see it, secrets of properties revealed."""
    variables = (
        revealed(dict(context.variables), "", dict(context.secret_templates), reveal)
        if context.secret_templates
        else None
    )
    return dict(variables if isinstance(variables, Mapping) else context.variables)


def standard_input(context: RunContext, variables: Mapping[str, Json], reveal: SecretResolver) -> bytes:
    """Return one JSON object: the variables, params, events and preferences."""
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
    """Return PATH, LANG and HOME, the variables as MQTTJOBS_…, and the operation's own `env`; nothing else of ours.

    Raises:
        TemplateError: a variable in `env` that is unknown.
    """
    made = {name: os.environ[name] for name in FROM_OURS if name in os.environ}
    exported: dict[str, Json] = {"params": context.params, **variables, "job": {"id": context.job_id}}
    size = 0
    for name, text in _flat("MQTTJOBS", exported):
        size += len(name) + len(text)
        if "\0" not in text and len(text.encode()) <= LARGEST_VALUE and size <= LARGEST_ALL:
            made[name] = text
    made["MQTTJOBS_AGENT"] = context.hostname
    for key, value in context.preferences.items():
        made[f"MQTTJOBS_PREF_{_word(key)}"] = as_text(reveal_all(value, reveal))
    for name, template in own.items():
        made[name] = template.render(context.variables, context.secret_templates, reveal).text.replace("\0", "")
    return made


def _flat(prefix: str, value: Json) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{prefix}_{_word(key)}", item)
    elif value is not None:
        yield prefix, as_text(value)


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", text).upper()
