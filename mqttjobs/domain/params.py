"""Params of an operation: its JSON Schema's defaults filled in, and what is wrong said by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from mqttjobs.domain.model import Json, Operation
from mqttjobs.errors import MOST_INVALID_FIELDS


def fill_params(operation: Operation, given: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, list[str]]]:
    """Return the params with defaults, and what is wrong with them: field -> messages, empty when all is well.

    An operation without a schema takes any params. Messages never repeat a value.
    """
    params = dict(given)
    if operation.params is None:
        return params, {}
    params = _with_defaults(operation.params, params)
    wrong: dict[str, list[str]] = {}
    for error in Draft202012Validator(operation.params).iter_errors(params):
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
