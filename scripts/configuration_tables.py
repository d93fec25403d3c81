"""The tables of docs/configuration.md: every key, made of the JSON Schema that `mqttjobs schema` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from mqttjobs.config.schema import BY_ID, SECTIONS, configuration_schema
from mqttjobs.domain.operations import SHORT_KEYS
from mqttjobs.executors.base import executor_types

Schema = Mapping[str, Any]

FAILURES = ("on_failure", "confirm", "breaker", "allow_loop", "record_skipped")
"""The keys of operations in the section about failures, loops and skipped matches."""
APART = ("ValueSection", "AvailabilitySection", "trigger", "condition", "conditions")
"""Definitions with a table of their own, which are not written out in the tables of what refers to them."""
PLAIN = {"string": "text", "integer": "whole number", "number": "number", "boolean": "boolean", "object": "mapping"}
KIB = 1024


class Row(NamedTuple):
    """One key: its name, the cells beside it, and a note behind its name."""

    key: str
    type: str
    default: str
    description: str
    note: str = ""


@cache
def definitions() -> Mapping[str, Schema]:
    """Return the definitions of the JSON Schema by name."""
    found: Mapping[str, Schema] = configuration_schema()["$defs"]
    return found


def target_of(reference: str) -> Schema:
    """Return what a reference of the schema points to."""
    name, *path = reference.removeprefix("#/$defs/").split("/")
    found = definitions()[name]
    for part in path:
        found = found[part]
    return found


def alternatives(schema: Schema) -> Iterator[Schema]:
    """Yield the ways in which something can be written, but for null and `${…}`, which can stand everywhere."""
    for key in ("anyOf", "oneOf"):
        if key in schema and schema.get("type") != "object" and "title" not in schema:
            for each in schema[key]:
                if each not in ({"type": "null"}, {"$ref": "#/$defs/reference"}):
                    yield from alternatives(each)
            return
    if "$ref" in schema and "properties" not in target_of(schema["$ref"]):
        yield from alternatives(target_of(schema["$ref"]))
    else:
        yield schema


def types(schema: Schema) -> str:
    """Return what a key can be, such as `duration` or `text or list of texts`."""
    *others, last = dict.fromkeys(name for each in alternatives(schema) for name in names(each))
    return f"{', '.join(others)} or {last}" if others else last


def names(schema: Schema) -> Iterator[str]:
    """Yield the names of one way in which something can be written."""
    if "title" in schema:
        yield schema["title"]
    elif "const" in schema:
        yield f"`{schema['const']}`"
    elif "enum" in schema:
        yield from (f"`{each}`" for each in schema["enum"] if str(each) == each or str(each) not in schema["enum"])
    elif schema.get("type") == "array":
        item = types(schema["items"])
        yield "list of texts" if "`" in item else f"list of {item}s"
    elif isinstance(schema.get("type"), list):
        yield "text"
    elif schema.get("type") in PLAIN or "$ref" in schema:
        yield PLAIN.get(schema.get("type", "object"), "")
    else:
        yield "any"


def default(schema: Schema, *, required: bool) -> str:
    """Return the default of a key as it would be written."""
    if required:
        return "required"
    value = schema.get("default", "")
    if value == "":
        return ""
    if schema.get("title") == "size":
        return f"`{value // KIB}KiB`"
    return f"`{flow(value)}`"


def flow(value: Any) -> str:
    """Return a value in the flow style of YAML."""
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) or '""'


def rows(record: Schema, prefix: str = "") -> Iterator[Row]:
    """Yield a row for each key of a record, and of the records in it."""
    for key, schema in record["properties"].items():
        whole = target_of(schema["$ref"]) | schema if "$ref" in schema else schema
        required = key in record.get("required", ())
        yield Row(f"{prefix}{key}", types(schema), default(schema, required=required), whole["description"])
        inner = dict.fromkeys(each.get("items", each).get("$ref", "") for each in alternatives(schema))
        for reference in inner:
            if reference.removeprefix("#/$defs/") not in ("", *APART):
                yield from rows(target_of(reference), f"{prefix}{key}.")


def table(made: Iterable[Row]) -> str:
    """Return a table of keys."""
    return "\n".join(["| key | type | default | description |", "|---|---|---|---|", *map(line, made)])


def line(row: Row) -> str:
    """Return a row as a line of a table."""
    cells = (each.replace("|", "\\|") for each in (f"`{row.key}`{row.note}", row.type, row.default, row.description))
    return f"| {' | '.join(cells)} |"


def operations() -> list[Row]:
    """Return the keys that all operation types share."""
    made = list(rows({**definitions()["common"], "required": ["type"]}))
    short = [row for row in made if row.key in SHORT_KEYS]
    rest = [row for row in made if row.key not in SHORT_KEYS]
    place = [row.key for row in rest].index("triggers")
    return [*rest[:place], *short, *rest[place:]]


def entities() -> Iterator[Row]:
    """Yield the keys of objects, links and classes; a key that not all three have says whose it is."""
    nouns = {noun: list(rows(target_of(f"#/$defs/{BY_ID[f'{noun}s'][0].__name__}"))) for noun in ("object", "link")}
    nouns["class"] = list(rows(target_of(f"#/$defs/{BY_ID['classes'][0].__name__}")))
    for row in dict.fromkeys(row for each in nouns.values() for row in each):
        whose = [noun for noun, each in nouns.items() if row in each]
        yield row if len(whose) == len(nouns) else row._replace(note=f" ({', '.join(whose)})")


def operation_types() -> str:
    """Return the keys of each operation type that comes with mqttjobs."""
    lines = ["| operation type | key | type | default | description |", "|---|---|---|---|---|"]
    shared = definitions()["common"]["properties"]
    for schema in definitions()["operation"]["oneOf"]:
        if executor_types()[schema["title"]].__module__.startswith("mqttjobs."):
            own = {key: each for key, each in schema["properties"].items() if key not in shared}
            made = rows({"properties": own, "required": schema["required"]})
            lines += [f"| `{schema['title']}` {line(row)}" for row in made]
    return "\n".join(lines)


TABLES: Mapping[str, Callable[[], str]] = {
    **{name: (lambda record=model.__name__: table(rows(definitions()[record]))) for name, model in SECTIONS.items()},
    "users": lambda: table(rows(definitions()["UserKeys"])),
    "entities": lambda: table(entities()),
    "values": lambda: table(rows(definitions()["ValueSection"])),
    "availability": lambda: table(rows(definitions()["AvailabilitySection"])),
    "operations": lambda: table(row for row in operations() if row.key.partition(".")[0] not in FAILURES),
    "operation types": operation_types,
    "triggers": lambda: table(rows(definitions()["trigger"])),
    "conditions": lambda: table(rows(definitions()["condition"])),
    "failures": lambda: table(row for row in operations() if row.key.partition(".")[0] in FAILURES),
}
"""The tables, by the names of their markers."""
