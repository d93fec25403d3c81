"""Params of an operation: their JSON Schema checked, its defaults filled in, and the problems of params by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from mqttjobs.domain.model import Json
from mqttjobs.errors import MOST_INVALID_FIELDS

NO_SCHEMAS = frozenset({"const", "default", "enum", "examples"})
"""Keywords whose values are data, not schemas."""


def check_schema(schema: Mapping[str, Json]) -> None:
    """Raise ValueError with a message unless `schema` is a JSON Schema whose references name parts of itself."""
    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path)
        raise ValueError(f"is no JSON Schema{f' at {where}' if where else ''}") from None
    _check_references(schema)


def _check_references(schema: Mapping[str, Json]) -> None:
    """Refuse a `$ref` that names no part of the same schema: it would fail when a job is started."""
    resource = DRAFT202012.create_resource(dict(schema))
    resolver = Registry().with_resource("", resource).resolver()
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except (Unresolvable, ValueError):
            raise ValueError(f"the reference {reference[:64]!r} names nothing in this schema") from None


def _references(value: Json) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in ("$ref", "$dynamicRef") and isinstance(item, str):
                yield item
            elif key not in NO_SCHEMAS:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def fill_params(
    schema: Mapping[str, Json] | None, given: Mapping[str, Json]
) -> tuple[dict[str, Json], dict[str, list[str]]]:
    """Return the params with defaults, and their problems: field -> messages, empty when all is well.

    Without a schema any params are good. Messages never repeat a value.
    """
    params = dict(given)
    if schema is None:
        return params, {}
    params = _with_defaults(schema, params)
    wrong: dict[str, list[str]] = {}
    for error in Draft202012Validator(schema).iter_errors(params):
        field = _field(error)
        if field in wrong or len(wrong) < MOST_INVALID_FIELDS:
            wrong.setdefault(field, []).append(_message(error))
    return params, wrong


def _with_defaults(schema: Mapping[str, Json], params: dict[str, Json]) -> dict[str, Json]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return params
    filled = dict(params)
    for name, inner in properties.items():
        if not isinstance(inner, Mapping):
            continue
        if name not in filled and "default" in inner:
            filled[name] = inner["default"]
        if isinstance(filled.get(name), dict):
            filled[name] = _with_defaults(inner, filled[name])
    return filled


def _field(error: Any) -> str:
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return str(missing[0]) if missing else "params"
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        extra = [name for name in error.instance if name not in known]
        return str(extra[0])[:64] if extra else "params"
    return ".".join(str(part) for part in error.absolute_path)[:64] or "params"


def _message(error: Any) -> str:
    rule, value = error.validator, error.validator_value
    message = {
        "required": "is required",
        "additionalProperties": "is not a known parameter",
        "type": f"must be of type {value}",
        "minLength": f"must have at least {value} characters",
        "maxLength": f"must have at most {value} characters",
        "minimum": f"must be at least {value}",
        "maximum": f"must be at most {value}",
        "exclusiveMinimum": f"must be more than {value}",
        "exclusiveMaximum": f"must be less than {value}",
        "pattern": f"must match {value}",
        "enum": f"must be one of {value}",
        "const": f"must be {value}",
        "minItems": f"must have at least {value} items",
        "maxItems": f"must have at most {value} items",
        "format": f"must be a {value}",
    }
    return message.get(str(rule), f"breaks the rule {rule}")
