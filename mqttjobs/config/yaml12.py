"""YAML 1.2 with the line of everything: `on` is text, a key stands once, and every problem is told with its place."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mqttjobs.domain.model import Json
from mqttjobs.errors import ConfigError, Problem

Place = tuple[str | int, ...]

MOST_NODES = 3_000_000
DEEPEST = 64
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Document:
    """A file's content, and where each part of it stands."""

    file: str
    content: Json = None
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, place: Place) -> int:
        """Return the line of a place, or of the nearest thing around it that is written."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def wrong(self, place: Place, message: str) -> None:
        """Note a problem at a place; the message says what is wrong and what to do."""
        where = ".".join(str(part) for part in place)
        self.problems.append(Problem(self.file, self.line(place), f"{where}: {message}" if where else message))


def read(path: Path) -> Document:
    """Return a file's content.

    Raises:
        ConfigError: it cannot be read, or is no YAML.
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
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        words = getattr(error, "problem", None) or str(error)
        line = mark.line + 1 if mark is not None else 0
        hint = "; indent with spaces" if "\\t" in words else ""
        raise ConfigError([Problem(file, line, f"this is not YAML: {words}{hint}")]) from None
    if node is not None:
        document.content = _Builder(document).build(node, (), 0)
    return document


class _Builder:
    """Makes plain values of composed nodes."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0

    def build(self, node: Any, place: Place, depth: int) -> Json:
        self._nodes += 1
        if self._nodes > MOST_NODES or depth > DEEPEST:
            line = node.start_mark.line + 1
            raise ConfigError([Problem(self._document.file, line, "nested or repeated beyond all measure (aliases?)")])
        self._document.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*place, number), depth + 1) for number, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: Any, place: Place, depth: int) -> dict[str, Json]:
        made: dict[str, Json] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._note(line, "a key is a text")
                continue
            key = key_text(_scalar(key_node), str(key_node.value))
            inner = (*place, key)
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
        self._document.problems.append(Problem(self._document.file, line, message))


def key_text(value: Json, written: str) -> str:
    """Return a key as text: numbers and booleans as JSON writes them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return written


def _scalar(node: Any) -> Json:
    text: str = node.value
    if node.style:
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.match(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.match(text):
        return float(text)
    return text
