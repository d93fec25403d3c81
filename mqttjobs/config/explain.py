"""Problems in the words of the people who write configurations, with the nearest thing that they may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mqttjobs.config.yaml12 import Document, Place
from mqttjobs.domain.model import Json

M = TypeVar("M", bound=BaseModel)

_WORDS = {
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
    "dict_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def validate(model: type[M], value: Json, document: Document, place: Place) -> M | None:
    """Return the model of a value, or None with everything that is wrong noted in words."""
    try:
        return model.model_validate({} if value is None else value)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False):
            location = tuple(
                part for part in each["loc"] if isinstance(part, int) or _is_written(part, place, each, document)
            )
            document.wrong((*place, *location), _words(each, model, location))
        return None


def _is_written(part: str | int, place: Place, error: Any, document: Document) -> bool:
    """Whether a part of pydantic's location is a key, and not the name of a branch it tried."""
    del error, place, document
    return isinstance(part, str) and not part.startswith(
        ("function-", "constrained-", "dict[", "list[", "tuple[", "lax-", "is-")
    )


def _words(error: Any, model: type[BaseModel], location: Place) -> str:
    kind: str = error["type"]
    context: Mapping[str, Any] = error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{did_you_mean(str(location[-1]), _known_keys(model, location))}"
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", error["msg"]))
    if kind in ("literal_error", "enum"):
        return f"must be one of {context.get('expected')}"
    if kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
        limit = next(iter(context))
        return f"must be {words[limit]} {context[limit]}"
    if kind == "string_pattern_mismatch":
        return f"must match {context.get('pattern')}"
    if kind == "string_too_short" and context.get("min_length", 1) > 1:
        return f"must have at least {context['min_length']} characters"
    return _WORDS.get(kind, str(error["msg"]).removeprefix("Input should be "))


def _known_keys(model: type[BaseModel], location: Place) -> list[str]:
    """Return the keys that the mapping around a location may have."""
    current: Any = model
    for part in location[:-1]:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None and not isinstance(part, int):
            break
        current = _model_in(field.annotation) if field is not None else current
        if current is None:
            return []
    found = getattr(current, "model_fields", {})
    return [field.alias or name for name, field in found.items()]


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        model = _model_in(inner)
        if model is not None:
            return model
    return None
