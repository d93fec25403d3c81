"""YAML 1.2 with the line of every value: `on` is a text, keys are unique, and every problem has its line."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mqttjobs.domain.model import Json
from mqttjobs.errors import ConfigError, Problem

KeyPath = tuple[str | int, ...]

MOST_REPEATS = 100_000
"""How many values aliases may add to the document."""
DEEPEST = 64
LONGEST_NUMBER = 300
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_PLAIN = "plain"
_CORE = "tag:yaml.org,2002:"
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}
_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_FAST):  # type: ignore[misc]
    """Composes nodes and leaves plain scalars unresolved: YAML 1.1's meanings do not apply."""

    yaml_implicit_resolvers = {None: [(_PLAIN, re.compile(""))]}  # noqa: RUF012 - the library's own name for it


@dataclass(slots=True)
class Document:
    """The content of a file, with the line of every part, and the problems found in it.

    `moved` maps key paths of the normalised content to the key paths as written.
    """

    file: str
    content: Json = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    moved: dict[KeyPath, KeyPath] = field(default_factory=dict)

    def line(self, key_path: KeyPath) -> int:
        """Return the line of a key path, or of the nearest enclosing part that is written."""
        while key_path and key_path not in self.lines:
            key_path = key_path[:-1]
        return self.lines.get(key_path, 1)

    def wrong(self, key_path: KeyPath, message: str) -> None:
        """Add an error at a key path; the message says what is wrong and what to do."""
        self.problems.append(self._problem(key_path, message))

    def warn(self, key_path: KeyPath, message: str) -> None:
        """Add a warning at a key path: valid, but probably not what the author meant."""
        self.warnings.append(self._problem(key_path, message, "warning: "))

    def add_problem(self, line: int, message: str) -> None:
        """Add an error at a line."""
        self.problems.append(Problem(self.file, line, _in_one_line(message)))

    def _problem(self, key_path: KeyPath, message: str, how: str = "") -> Problem:
        key_path = self._written(key_path)
        where = ".".join(str(part)[:64] for part in key_path)
        return Problem(
            self.file, self.line(key_path), _in_one_line(how + (f"{where}: {message}" if where else message))
        )

    def written(self, key_path: KeyPath) -> Json:
        """Return the value written at a key path, or None where nothing is written."""
        value = self.content
        for part in self._written(key_path):
            if isinstance(value, dict) or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
                value = value.get(part) if isinstance(value, dict) else value[int(part)]
            else:
                return None
        return value

    def _written(self, key_path: KeyPath) -> KeyPath:
        for length in range(len(key_path), 0, -1):
            if key_path[:length] in self.moved:
                return self.moved[key_path[:length]] + key_path[length:]
        return key_path


def _in_one_line(message: str) -> str:
    """Return a message in one line: control characters, such as a line break in a key, are escaped."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in message)


def read(path: Path) -> Document:
    """Return a file's content.

    Raises:
        ConfigError: the file cannot be read, or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(path), 0, "is not UTF-8")]) from None
    return parse(text, str(path))


def parse(text: str, file: str) -> Document:
    """Return the content of a YAML text. See read."""
    document = Document(file)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigError([_explained(error, text, file)]) from None
    except UnicodeEncodeError:
        raise ConfigError([Problem(file, 0, "is not UTF-8")]) from None
    if node is not None:
        document.content = _Builder(document, len(text) + MOST_REPEATS).build(node, (), 0)
    return document


def _explained(error: yaml.YAMLError, text: str, file: str) -> Problem:
    """Return the library's message in one line, with the likely cause."""
    message = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).partition("\n")[0]
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        line = text.encode()[: getattr(error, "position", 0)].count(b"\n") + 1
        return Problem(file, line, f"this is not YAML: {message}")
    lines = text.rstrip().split("\n")
    began = getattr(error, "context_mark", None)
    at_end = mark.line >= len(lines) or not "".join(lines[mark.line :])[mark.column :].strip()
    if began is not None and (at_end or message.startswith("did not find expected ','")):
        mark = began  # an unclosed bracket or quote is reported where it was opened
    number = min(mark.line, len(lines) - 1)
    return Problem(file, number + 1, f"this is not YAML: {message}{_hint(lines[number], mark.column)}")


def _hint(line: str, column: int) -> str:
    if "\t" in line[: column + 1]:
        return "; indent with spaces, not with tabs"
    if "{{" in line:
        return "; put a text with {{ … }} in quotes"
    if line[column : column + 1] in tuple("@`%"):
        return f"; put a text that begins with {line[column]} in quotes"
    return ""


class _Builder:
    """Builds plain values from composed nodes."""

    def __init__(self, document: Document, most_nodes: int) -> None:
        self._document = document
        self._nodes_left = most_nodes

    def build(self, node: Any, key_path: KeyPath, depth: int) -> Json:
        self._nodes_left -= 1
        if self._nodes_left < 0 or depth > DEEPEST:
            line = node.start_mark.line + 1
            raise ConfigError([Problem(self._document.file, line, "nested or repeated beyond all measure (aliases?)")])
        self._document.lines[key_path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_CORE}map":
            return self._mapping(node, key_path, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_CORE}seq":
            return [self.build(item, (*key_path, number), depth + 1) for number, item in enumerate(node.value)]
        return self._scalar(node)

    def _scalar(self, node: Any) -> Json:
        """Return a scalar's value; None after adding a problem."""
        try:
            return _value(node)
        except ValueError as error:
            self._note(node.start_mark.line + 1, str(error))
            return None

    def _mapping(self, node: Any, key_path: KeyPath, depth: int) -> dict[str, Json]:
        made: dict[str, Json] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._note(line, "a key is a text; put a text with {{ … }} in quotes")
                continue
            key = key_text(self._scalar(key_node), str(key_node.value))
            inner = (*key_path, key)
            if key == "<<" and not key_node.style:
                self._note(line, "merge keys (<<) are not part of YAML 1.2; write the keys out, or use a class")
                continue
            if key in made:
                self._note(line, f"the key {key} stands twice here")
                continue
            made[key] = self.build(value_node, inner, depth + 1)
            self._document.lines[inner] = line
        return made

    def _note(self, line: int, message: str) -> None:
        self._document.add_problem(line, message)


def key_text(value: Json, written: str) -> str:
    """Return a key as text: numbers and booleans as JSON writes them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return written


def _value(node: Any) -> Json:
    tag: str = node.tag
    if tag == _PLAIN:
        return plain_value(node.value)
    if isinstance(node, yaml.ScalarNode) and tag == f"{_CORE}str":
        return _checked_text(node.value)
    types = _TYPES.get(tag.removeprefix(_CORE)) if isinstance(node, yaml.ScalarNode) else None
    if types is None:
        written = tag.replace(_CORE, "!!")[:64]
        raise ValueError(f"the tag {written} is not known here; for secrets write ${{ENV:NAME}} or ${{FILE:path}}")
    value = plain_value(node.value)
    if type(value) not in types:
        raise ValueError(f"this is no {tag.replace(_CORE, '!!')}")
    return float(value) if types == (int, float) else value


def plain_value(text: str) -> Json:
    """Return the value of a plain scalar in the core schema of YAML 1.2."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.match(text):
        number = _integer(text) if len(text) <= LONGEST_NUMBER else None
        if number is None or not -(2**63) <= number < 2**64:
            raise ValueError("a number is beyond 64 bits; put it in quotes if it is a text")
        return number
    if _FLOAT.match(text):
        value = float(text)
        if not math.isfinite(value):
            raise ValueError("a number is too large; put it in quotes if it is a text")
        return value
    return _checked_text(text)


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _checked_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text has half a character (a lone surrogate)") from None
    return text
