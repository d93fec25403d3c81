"""Problems in the words of the people who write configurations, with the nearest thing that they may have meant."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mqttjobs.config.yaml12 import Document, KeyPath, plain_value
from mqttjobs.domain.fields import key_names, spellings
from mqttjobs.domain.model import Json
from mqttjobs.domain.names import ID, NAME

M = TypeVar("M", bound=BaseModel)

_QUOTED = re.compile(r"'([^']*)'")
_MESSAGES = {
    "missing": "is missing",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "frozen_set_type": "must be a list",
    "dict_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
_PATTERNS = {
    f"^{ID}$": "must have 1 to 64 letters, digits, _ or -",
    f"^{NAME}$": "must have 1 to 64 letters, digits, _, . or -",
}
_NO_TEXTS = frozenset({"bool_type", "int_type", "float_type"})
_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
MOST_COMPARED = 500
"""Names beyond this are not searched for a likely one: a suggestion is not worth seconds."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or nothing."""
    near = difflib.get_close_matches(word[:64], list(itertools.islice(known, MOST_COMPARED)), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown_name(document: Document, key_path: KeyPath, noun: str, name: str, known: Iterable[str]) -> None:
    """Add the problem that a name is unknown; the text behind a `${…}` is not shown."""
    written = document.written(key_path)
    if isinstance(written, str) and "${" in written:
        document.wrong(key_path, f"there is no {noun} of the name that {written[:64]} stands for")
    else:
        document.wrong(key_path, f"there is no {noun} {name[:64]!r}{did_you_mean(name, known)}")


def validate(model: type[M], value: Json, document: Document, key_path: KeyPath) -> M | None:
    """Return the model of a value, or None with everything that is wrong noted in words."""
    value = {} if value is None else value
    try:
        return model.model_validate(value)
    except ValidationError as error:
        numbers = _numbers_behind_names(error, value, document, key_path)
        if numbers:
            return validate(model, _with(value, numbers), document, key_path)
        messages: dict[KeyPath, list[str]] = {}
        for each in _flat(error):
            location, found = _located(each["loc"], value, missing=each["type"] == "missing")
            messages.setdefault(location, []).append(_message(each, model, location, found))
        for location, message in messages.items():
            for sentence in _together(message):
                document.wrong((*key_path, *location), sentence)
        return None


def _numbers_behind_names(
    error: ValidationError, value: Json, document: Document, key_path: KeyPath
) -> dict[KeyPath, Json]:
    """Return the numbers and booleans that `${…}` stand for where one of these is needed: such a text is no text."""
    made: dict[KeyPath, Json] = {}
    for each in _flat(error):
        location, found = _located(each["loc"], value, missing=False)
        written = document.written((*key_path, *location))
        if each["type"] in _NO_TEXTS and isinstance(found, str) and isinstance(written, str) and "${" in written:
            with suppress(ValueError):
                made[location] = plain_value(found)
    return {location: item for location, item in made.items() if isinstance(item, int | float)}


def _with(value: Json, changes: Mapping[KeyPath, Json]) -> Json:
    """Return a value with other ones at some places."""
    if () in changes:
        return changes[()]
    items: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    made = {
        key: _with(item, {key_path[1:]: new for key_path, new in changes.items() if key_path[0] == key})
        for key, item in items
    }
    if isinstance(value, Mapping):
        return made
    return list(made.values()) if isinstance(value, list) else value


def _flat(error: ValidationError) -> Iterator[dict[str, Any]]:
    """Yield every error, those of a model that was validated on its own inside another too."""
    for each in error.errors(include_url=False, include_input=False):
        inner = each.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):
            yield from ({**one, "loc": (*each["loc"], *one["loc"])} for one in _flat(inner))
        else:
            yield {**each}


def _together(message: list[str]) -> list[str]:
    """Return what is wrong at one place: of several shapes that it could have, one sentence."""
    shapes = [each.partition(";")[0] for each in message]
    if len(message) > 1 and all(each in _MESSAGES.values() for each in shapes):
        return [" or ".join([shapes[0], *(each.removeprefix("must be ") for each in shapes[1:])])]
    return message


def _located(parts: KeyPath, value: Json, *, missing: bool) -> tuple[KeyPath, Json]:
    """Return where in what is written an error is, and what stands there.

    Pydantic's location also has the names of branches that it tried.
    """
    location: list[str | int] = []
    for number, part in enumerate(parts):
        written = part in value if isinstance(value, Mapping) else isinstance(value, list) and part in range(len(value))
        if written:
            value = value[part]
        elif missing and number == len(parts) - 1:
            value = None
        else:
            continue
        location.append(part)
    return tuple(location), value


def _message(error: Any, model: type[BaseModel], location: KeyPath, found: Json) -> str:
    kind: str = error["type"]
    context: Mapping[str, Any] = error.get("ctx", {})
    if error["loc"] and error["loc"][-1] == "[key]":
        return "a name has 1 to 64 letters, digits, _ or -"
    if kind == "extra_forbidden":
        key = str(location[-1])
        return f"unknown key{did_you_mean(key, (each for each in _known_keys(model, location) if each != key))}"
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", error["msg"]))
    if kind in ("literal_error", "enum"):
        expected = str(context.get("expected"))
        likely = did_you_mean(found, _QUOTED.findall(expected)) if isinstance(found, str) else ""
        return f"must be one of {expected}{likely}"
    if kind in _LIMITS:
        message, limit = _LIMITS[kind]
        return f"must be {message} {context[limit]}"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"must match {context['pattern']}")
    if kind == "string_too_short" and context.get("min_length", 1) > 1:
        return f"must have at least {context['min_length']} characters"
    if kind == "string_too_long":
        return f"must have at most {context['max_length']} characters"
    if kind == "string_type" and isinstance(found, int | float):
        return "must be a text; put it in quotes"
    return _MESSAGES.get(kind, str(error["msg"]).removeprefix("Input should be "))


def _known_keys(model: type[BaseModel], location: KeyPath) -> list[str]:
    """Return the keys that the mapping around a location may have."""
    current: Any = model
    for part in location[:-1]:
        current = _step(current, part)
    found = _model_in(current)
    return key_names(found) if found else []


def _step(annotation: Any, part: str | int) -> Any:
    """Return the annotation of a part of what an annotation describes, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return next((field.annotation for name, field in fields if part in spellings(name, field)), None)
    arguments: tuple[Any, ...] = getattr(annotation, "__args__", ())
    origin = getattr(annotation, "__origin__", None)
    if origin in (dict, list, tuple):
        return arguments[0 if origin is tuple else -1]
    return next((found for inner in arguments if (found := _step(inner, part)) is not None), None)


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        model = _model_in(inner)
        if model is not None:
            return model
    return None
