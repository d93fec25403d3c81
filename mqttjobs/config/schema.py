"""The JSON Schema of the whole configuration, made of the records that validate it, for editors and other tools.

What `check` accepts, the schema accepts. The schema cannot follow references to other parts of the configuration, and
knows little of how keys fit together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from inspect import get_annotations
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from mqttjobs.config.entities import ClassSection, LinkSection, ObjectSection
from mqttjobs.domain.conditions.base import condition_kinds
from mqttjobs.domain.durations import describe_duration
from mqttjobs.domain.fields import AS_WRITTEN_KEY, spellings
from mqttjobs.domain.names import ID
from mqttjobs.domain.operations import OperationKeys, ShortTriggers
from mqttjobs.domain.templates import REFERENCE
from mqttjobs.domain.triggers.base import trigger_keys
from mqttjobs.domain.users import UserKeys
from mqttjobs.executors.base import executor_types
from mqttjobs.service.settings import AgentsSettings, MqttSettings, ServiceSettings, StoreSettings

Schema = dict[str, Any]

SECTIONS: Mapping[str, type[BaseModel]] = {
    "mqtt": MqttSettings,
    "store": StoreSettings,
    "service": ServiceSettings,
    "agents": AgentsSettings,
}
BY_ID: Mapping[str, tuple[type[BaseModel], str]] = {
    "users": (UserKeys, "Who may ask, by user id."),
    "classes": (ClassSection, "Many similar objects at once, by class id."),
    "objects": (ObjectSection, "Devices and whatever else has a state, by object id."),
    "links": (LinkSection, "From one object to another, by link id."),
    "operations": (OperationKeys, "What can be run, and when it runs by itself, by operation id."),
}
NULL: Schema = {"type": "null"}
_ANNOTATIONS = frozenset({"title", "description", "default"})
_NARROW = frozenset({"enum", "const", "pattern", "minLength", "maxLength", "format"})
_CLAUSE = re.compile(r" \((contract|behaviour|seeds)[^)]*\)")


class _Generator(GenerateJsonSchema):
    """Writes defaults as a configuration does, and no titles."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as in the base class

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return false: a key is its own title."""
        del schema
        return False

    def encode_default(self, dft: Any) -> Any:
        """Return a default as it would be written."""
        if isinstance(dft, timedelta):
            return describe_duration(dft) if dft else "0s"
        if isinstance(dft, BaseModel):
            fields = type(dft).model_fields.items()
            return {spellings(name, field)[0]: self.encode_default(getattr(dft, name)) for name, field in fields}
        return super().encode_default(dft)

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        """Return a schema of anything: the types of a plugin's keys may be any types."""
        del schema, error_info
        return {}


def configuration_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12), with the keys of the types that installed packages add."""
    definitions, _ = _definitions([*SECTIONS.values(), *(model for model, _ in BY_ID.values()), ShortTriggers])
    common = definitions.pop("OperationKeys")["properties"] | definitions.pop("ShortTriggers")["properties"]
    common["triggers"]["items"] = {"$ref": "#/$defs/trigger"}
    common["conditions"] |= {"anyOf": [{"$ref": "#/$defs/conditions"}, NULL]}
    own, types = _operation_types()
    inline = definitions["ServiceSettings"]["properties"]["inline_operations"]
    inline["items"] = _or_reference({"enum": [*executor_types()]})
    definitions |= types
    definitions["common"] = {"description": "The keys that all operation types share.", "properties": common}
    definitions["operation"] = {"oneOf": own}
    definitions["trigger"] = _trigger(definitions)
    definitions["condition"] = _condition(definitions)
    definitions["conditions"] = {
        "title": "condition or list of conditions",
        "description": "A condition, or a list of conditions that must all hold.",
        "anyOf": [
            {"$ref": "#/$defs/condition"},
            {"type": "array", "items": {"$ref": "#/$defs/conditions"}, "minItems": 1},
        ],
    }
    definitions["reference"] = {
        "title": "${ENV:NAME} or ${FILE:path}",
        "description": "The text of an environment variable or of a file stands for the value.",
        "type": "string",
        "pattern": REFERENCE,
    }
    definitions["ObjectSection"] = _laid_over_a_class(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of mqttjobs",
        "type": ["object", "null"],
        "properties": _sections(definitions),
        "additionalProperties": False,
        "$defs": definitions,
    }


def _definitions(models: Iterable[type[BaseModel]]) -> tuple[dict[str, Schema], Mapping[type[BaseModel], str]]:
    """Return the schemas of records by name, with those of the records in them, and the name of each record."""
    models = list(models)
    references, whole = models_json_schema([(model, "validation") for model in models], schema_generator=_Generator)
    names = {model: references[model, "validation"]["$ref"].rpartition("/")[2] for model in models}
    definitions = {name: _written(schema, references=True) for name, schema in whole["$defs"].items()}
    for model, name in names.items():
        definitions[name]["properties"] = _spelled(model, definitions[name]["properties"])
    for schema in definitions.values():
        schema.pop("title", None)
        if "description" in schema:
            schema["description"] = _CLAUSE.sub("", schema["description"].partition("\n\n")[0].replace("\n", " "))
    return definitions, names


def _spelled(model: type[BaseModel], properties: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return the keys of a record in every spelling."""
    made: dict[str, Schema] = {}
    for name, field in model.model_fields.items():
        usual, *others = spellings(name, field)
        made[usual] = properties[usual]
        made |= {other: made[usual] | {"description": f"Another spelling of `{usual}`."} for other in others}
    return made


def _written(schema: Schema, *, references: bool) -> Schema:
    """Return a schema of what may be written, made of one of what is validated.

    Args:
        schema: as pydantic made it.
        references: whether `${…}` may stand for numbers, booleans, and texts that not every text may be; never for a
            key that is kept as it is written.
    """
    references = references and AS_WRITTEN_KEY not in schema
    made = {key: value for key, value in schema.items() if key not in (AS_WRITTEN_KEY, "uniqueItems")}
    default = made.get("default")
    if default is None or (isinstance(default, dict) and default):  # none, or a record whose keys have defaults
        made.pop("default", None)
    for key in ("properties", "patternProperties"):
        if key in made:
            made[key] = {name: _written(inner, references=references) for name, inner in made[key].items()}
    if "patternProperties" in made:
        made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = _written(made[key], references=references)
    for key in ("anyOf", "oneOf"):
        if key in made:
            made[key] = _flat(_written(each, references=references) for each in made[key])
    return _or_reference(made) if references and _is_narrow(made) else made


def _is_narrow(schema: Schema) -> bool:
    """Whether a schema is that of a scalar, and there are texts that it refuses."""
    types = schema.get("type", [])
    if types in ("integer", "number", "boolean"):
        return True
    return types not in ("array", "object", "null") and bool(_NARROW & schema.keys())


def _or_reference(schema: Schema) -> Schema:
    annotations = {key: value for key, value in schema.items() if key in _ANNOTATIONS}
    rule = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
    return {**annotations, "anyOf": [rule, {"$ref": "#/$defs/reference"}]}


def _or_null(schema: Schema) -> Schema:
    """Return a schema that accepts null too, which is as good as leaving the key out."""
    rule = {key: value for key, value in schema.items() if key != "description"}
    return {**_described(schema), "anyOf": _flat([rule, NULL])}


def _described(schema: Schema) -> Schema:
    """Return the description of a schema alone; a key of a plugin may have none."""
    return {key: value for key, value in schema.items() if key == "description"}


def _flat(alternatives: Iterable[Schema]) -> list[Schema]:
    """Return alternatives without nesting, each once."""
    made: list[Schema] = []
    for each in alternatives:
        inner = each["anyOf"] if each.keys() == {"anyOf"} else [each]
        made += [one for one in inner if one not in made]
    return made


def _merged(models: Iterable[type[BaseModel]], shared: dict[str, Schema]) -> Schema:
    """Return the schema of a mapping that has the keys of several records; what it refers to goes into `shared`."""
    definitions, names = _definitions(models)
    properties: dict[str, Schema] = {}
    dependent: dict[str, Schema] = {}
    excluded: list[Schema] = []
    for model, name in names.items():
        schema = definitions.pop(name)
        properties |= schema["properties"]
        dependent |= schema.get("dependentSchemas", {})
        written = [spellings(key, field) for key, field in model.model_fields.items()]
        excluded += [{"not": {"required": list(each)}} for each in written if len(each) > 1]
    shared |= definitions
    made: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if dependent:
        made["dependentSchemas"] = dependent
    if excluded:
        made["allOf"] = excluded
    return made


def _trigger(shared: dict[str, Schema]) -> Schema:
    keys = sorted(dict.fromkeys(trigger_keys().values()), key=lambda key: (key.position, key.name))
    schema = _merged(keys, shared)
    for key in keys:
        for name, field in key.spellings().items():
            written = schema["properties"][name]
            if key.holds_conditions:
                schema["properties"][name] = {**_described(written), "anyOf": [{"$ref": "#/$defs/conditions"}, NULL]}
            elif field.is_required():
                schema["properties"][name] = _or_null(written)
    return {"description": "What starts an operation by itself. All keys must be satisfied.", **schema}


def _condition(shared: dict[str, Schema]) -> Schema:
    kinds = dict.fromkeys(condition_kinds().values())
    schema = _merged(kinds, shared)
    for kind in kinds:
        if kind.inner is not None:
            described = schema["properties"][kind.inner]["description"]
            schema["properties"][kind.inner] = {"description": described, "$ref": "#/$defs/conditions"}
    return {"description": "What must hold. All keys must be satisfied.", **schema, "minProperties": 1}


def _operation_types() -> tuple[list[Schema], dict[str, Schema]]:
    """Return the schema of an operation of each type, and the definitions that these refer to.

    `${…}` in the keys of a type are replaced when a job runs, so that they can stand in texts alone.
    """
    kinds = executor_types()
    references, whole = models_json_schema(
        [(kind, "validation") for kind in kinds.values()],
        schema_generator=_Generator,
        ref_template="#/$defs/types.{model}",
    )
    definitions = {name: _written(schema, references=False) for name, schema in whole["$defs"].items()}
    own = []
    for name, kind in kinds.items():
        schema = definitions.pop(references[kind, "validation"]["$ref"].rpartition(".")[2])
        first = get_annotations(kind)  # then what the type shares with others
        properties = sorted(schema.get("properties", {}).items(), key=lambda each: each[0] not in first)
        own.append(_operation_type(name, schema | {"properties": dict(properties)}))
    return own, {f"types.{name}": schema for name, schema in definitions.items()}


def _operation_type(name: str, own: Schema) -> Schema:
    fields = OperationKeys.model_fields
    keys = [*fields, *(each for short, field in ShortTriggers.model_fields.items() for each in spellings(short, field))]
    return own | {
        "title": name,
        "properties": {
            **{key: {"$ref": f"#/$defs/common/properties/{key}"} for key in keys},
            "type": {"const": name, "description": fields["type"].description},
            **own["properties"],
        },
        "required": ["type", *own.get("required", ())],
        "additionalProperties": False,
    }


def _laid_over_a_class(definitions: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object: a class may have the keys that the object's own mappings lack."""
    schema = definitions["ObjectSection"]
    whole = definitions["AvailabilitySection"]
    partial = {key: value for key, value in whole.items() if key != "required"}
    availability = schema["properties"]["availability"]
    alternatives = [partial if "$ref" in each else each for each in availability["anyOf"]]
    return schema | {"properties": schema["properties"] | {"availability": availability | {"anyOf": alternatives}}}


def _sections(definitions: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return the schemas of the sections; an empty section is as good as none."""
    made: dict[str, Schema] = {}
    for name, model in SECTIONS.items():
        reference = {"$ref": f"#/$defs/{model.__name__}"}
        made[name] = {"description": definitions[model.__name__]["description"], "anyOf": [reference, NULL]}
    for name, (model, description) in BY_ID.items():
        one = {"$ref": "#/$defs/operation" if model is OperationKeys else f"#/$defs/{model.__name__}"}
        body = {"anyOf": [one, NULL]} if name in ("users", "objects") else one
        mapping = {"type": "object", "propertyNames": {"pattern": f"^{ID}$"}, "additionalProperties": body}
        made[name] = {"description": description, "anyOf": [mapping, NULL]}
    return made
