"""`{{ dotted.path }}` and `${NAME}` in configuration text: substitution and nothing else (contract 2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import orjson

from mqttjobs.domain.model import EMPTY, Json
from mqttjobs.domain.service_topics import is_reserved, reserved_problem
from mqttjobs.domain.topics import check_topic
from mqttjobs.errors import TemplateError

Reveal = Callable[[str], str]
"""Gives the text behind a name such as `ENV:TOKEN` or `FILE:secret.txt`; `secret_reference` reveals nothing."""

_TOKEN = re.compile(r"\{\{(?P<variable>.*?)\}\}|\$\{(?P<secret>(?:ENV|FILE):[^}]+)\}", re.DOTALL)
_PATH = re.compile(r"\s*([A-Za-z0-9_@-]+(?:\.[A-Za-z0-9_@-]+)*)\s*\Z")
REFERENCE = r"\$\{((?:ENV|FILE):[^}]+)\}"
_SECRET = re.compile(REFERENCE)
_TRUSTED = re.compile(r"(?:(?:source|target)\.)?(?:id|name|properties)(?:\..*)?\Z|user\.id\Z|job\.id\Z")
"""What the configuration or the service itself says; everything else may come from a message or a caller."""


LONGEST_INDEX = 9


class _Variable(NamedTuple):
    path: str


class _Secret(NamedTuple):
    name: str


class Rendered(NamedTuple):
    """A filled-in value: `value` with every `${…}` revealed, `shown` with every `${…}` kept, for records."""

    value: Json
    shown: Json

    @property
    def text(self) -> str:
        """The value as text; what is not text as JSON."""
        return as_text(self.value)

    @property
    def shown_text(self) -> str:
        """The shown form as text."""
        return as_text(self.shown)


def as_text(value: Json) -> str:
    """Return text as it is, and anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value, default=_plain).decode()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


def secret_reference(name: str) -> str:
    """Return the `${…}` of a name, as a configuration has it."""
    return "${" + name + "}"


def secret_names(text: str) -> list[str]:
    """Return the names of the `${…}` in configuration text."""
    return _SECRET.findall(text) if "${" in text else []


def reveal_text(text: str, reveal: Reveal) -> str:
    """Return configuration text with every `${…}` replaced."""
    return _SECRET.sub(lambda found: reveal(found[1]), text) if "${" in text else text


def reveal_all(value: Json, reveal: Reveal) -> Json:
    """Return a nested value of the configuration with every `${…}` in its texts replaced."""
    if isinstance(value, str):
        return reveal_text(value, reveal)
    if isinstance(value, Mapping):
        return {key: reveal_all(item, reveal) for key, item in value.items()}
    if isinstance(value, list):
        return [reveal_all(item, reveal) for item in value]
    return value


def list_index(part: str) -> int | None:
    """Return the place in a list that a part of a dotted path names, or None; a longer number is beyond every list."""
    return int(part) if len(part) <= LONGEST_INDEX and part.isascii() and part.isdigit() else None


def lookup(variables: Mapping[str, Json], path: str) -> Json:
    """Return the value at a dotted path; numbers index lists.

    Raises:
        TemplateError: there is none, naming the path up to where it fails.
    """
    value: Json = variables
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list | tuple) and (index := list_index(part)) is not None and index < len(value):
            value = value[index]
        else:
            raise TemplateError(f"unknown variable {{{{ {path} }}}}: there is no {part!r}")
    return value


class Template:
    """Configuration text, or a mapping or list of it, with its variables found once.

    A mapping value or list item that is exactly one variable keeps its JSON type; elsewhere a value that is not
    text is put in as JSON. What is put in is never looked at again.
    """

    __slots__ = ("_constant", "_parts", "names", "source")

    def __init__(self, source: Json, parts: Json, names: frozenset[str], *, constant: bool) -> None:
        self.source = source
        self.names = names
        self._parts = parts
        self._constant = Rendered(source, source) if constant else None

    @classmethod
    def of(cls, value: Json) -> Template:
        """Return the template of a configuration value.

        Raises:
            ValueError: a `{{ … }}` that is no dotted path, in words.
        """
        parts = _compile(value)
        names = frozenset(part.path for part in _walk(parts) if isinstance(part, _Variable))
        constant = not any(isinstance(part, _Variable | _Secret) for part in _walk(parts))
        return cls(value, parts, names, constant=constant)

    @property
    def constant(self) -> bool:
        """Whether it is the same for every job."""
        return self._constant is not None

    def render(
        self, variables: Mapping[str, Json], secret_templates: Mapping[str, str] = EMPTY, reveal: Reveal | None = None
    ) -> Rendered:
        """Return the template filled in.

        Args:
            variables: nested.
            secret_templates: dotted path -> configuration text with `${…}`, for variables whose text has secrets.
            reveal: gives secrets; without it they stay as they are.

        Raises:
            TemplateError: an unknown variable.
        """
        if self._constant is not None:
            return self._constant
        return Rendered(
            _fill(self._parts, variables, secret_templates, reveal), _fill(self._parts, variables, {}, None)
        )

    def render_topic(
        self,
        variables: Mapping[str, Json],
        secret_templates: Mapping[str, str] = EMPTY,
        reveal: Reveal | None = None,
        *,
        base_topic: str,
    ) -> Rendered:
        """Return the topic to publish to, checked.

        Raises:
            TemplateError: an unknown variable; a value from a message or a caller that brings a `/`; a wildcard, NUL,
                nothing in it, a leading `$`, or a topic of the service's own.
        """
        for name in self.names:
            if not _TRUSTED.match(name) and "/" in as_text(lookup(variables, name)):
                raise TemplateError(f"{{{{ {name} }}}} would bring a / into the topic")
        topic = self.render(variables, secret_templates, reveal)
        problem = topic_problem(topic.text, base_topic)
        if problem:
            raise TemplateError(problem)
        return topic


def topic_problem(topic: str, base_topic: str) -> str | None:
    """Return why an operation may not publish to a topic, or None."""
    try:
        check_topic(topic)
    except ValueError as error:
        return str(error)
    if topic.startswith("$"):
        return "a topic that begins with $ belongs to the broker"
    if topic == base_topic or is_reserved(topic, base_topic):
        return reserved_problem(base_topic)
    return None


def _compile(value: Json) -> Json:
    if isinstance(value, str):
        return _compile_text(value)
    if isinstance(value, Mapping):
        return {key: _compile(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_compile(item) for item in value]
    return value


def _compile_text(text: str) -> Json:
    parts: list[str | _Variable | _Secret] = []
    end = 0
    for found in _TOKEN.finditer(text):
        if found.start() > end:
            parts.append(text[end : found.start()])
        end = found.end()
        if found["secret"] is not None:
            parts.append(_Secret(found["secret"]))
            continue
        path = _PATH.match(found["variable"])
        if path is None:
            raise ValueError("between {{ and }} stands one variable such as id or properties.x, no expression")
        parts.append(_Variable(path[1]))
    rest = text[end:]
    if "{{" in rest:
        raise ValueError("a {{ is not closed by }}")
    if rest or not parts:
        parts.append(rest)
    return parts[0] if len(parts) == 1 else tuple(parts)


def _walk(parts: Json) -> Iterator[Json]:
    if isinstance(parts, _Variable | _Secret):
        yield parts
    elif isinstance(parts, dict):
        for item in parts.values():
            yield from _walk(item)
    elif isinstance(parts, list | tuple):
        for item in parts:
            yield from _walk(item)
    else:
        yield parts


def _fill(
    parts: Json, variables: Mapping[str, Json], secret_templates: Mapping[str, str], reveal: Reveal | None
) -> Json:
    if isinstance(parts, _Variable):
        return _variable(parts.path, variables, secret_templates, reveal)
    if isinstance(parts, _Secret):
        return secret_reference(parts.name) if reveal is None else reveal(parts.name)
    if isinstance(parts, dict):
        return {key: _fill(item, variables, secret_templates, reveal) for key, item in parts.items()}
    if isinstance(parts, list):
        return [_fill(item, variables, secret_templates, reveal) for item in parts]
    if isinstance(parts, tuple):
        return "".join(as_text(_fill(item, variables, secret_templates, reveal)) for item in parts)
    return parts


def _variable(
    path: str, variables: Mapping[str, Json], secret_templates: Mapping[str, str], reveal: Reveal | None
) -> Json:
    value = lookup(variables, path)
    if not secret_templates or reveal is None:
        return value
    if path in secret_templates:
        return reveal_text(secret_templates[path], reveal)
    inside = {name: text for name, text in secret_templates.items() if name.startswith(f"{path}.")}
    return revealed(value, path, inside, reveal) if inside else value


def revealed(value: Json, path: str, secret_templates: Mapping[str, str], reveal: Reveal) -> Json:
    """Return a nested value with the texts that `secret_templates` names (dotted paths from the root) revealed."""
    if path in secret_templates:
        return reveal_text(secret_templates[path], reveal)
    if isinstance(value, Mapping):
        return {
            key: revealed(item, f"{path}.{key}" if path else key, secret_templates, reveal)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [revealed(item, f"{path}.{index}", secret_templates, reveal) for index, item in enumerate(value)]
    return value
