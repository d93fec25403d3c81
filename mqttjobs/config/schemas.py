"""JSON Schemas of params: errors that the metaschema does not find, and that would fail a job at its start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from mqttjobs.domain.model import Json

NO_SCHEMAS = frozenset({"const", "default", "enum", "examples"})
"""Keywords whose values are data, not schemas."""


def check_references(schema: Mapping[str, Json]) -> None:
    """Raise ValueError unless every `$ref` points into the same schema; nothing is fetched from elsewhere."""
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
