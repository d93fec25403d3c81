"""What `{{ … }}` can name: the picture of an entity at one moment, as much of it as an operation uses (contract 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mqttjobs.domain.installation import Installation
from mqttjobs.domain.model import STATE, Entity, EntityKey, EntityKind, Json, ValueKey
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.templates import secret_names
from mqttjobs.service.state.cache import StateCache


class TemplateContext(NamedTuple):
    """The variables, and those of them whose text has `${…}` still to be revealed (dotted path -> that text)."""

    variables: dict[str, Json]
    secret_templates: dict[str, str]


NOTHING = TemplateContext({}, {})


class TemplateContextBuilder:
    """Makes pictures of entities from their stored values; only the parts that the operation names."""

    def __init__(self, installation: Installation, cache: StateCache) -> None:
        self._installation = installation
        self._cache = cache
        self._secret_templates: dict[EntityKey, dict[str, str]] = {}
        self._parts: dict[str, frozenset[str] | None] = {}

    def template_context(
        self, operation: Operation, owner: EntityKey | None, extra: Mapping[str, Json]
    ) -> TemplateContext:
        """Return what a job of `operation` for `owner` is rendered with.

        Args:
            operation: its `inputs` say which parts are needed; None means all.
            owner: the entity, or None for a job without one.
            extra: the parts that do not come from stored values: params, user, job, payload, state, previous_state.
        """
        if operation.fingerprint not in self._parts:
            inputs = operation.inputs
            parts = None if inputs is None else frozenset(path.split(".", 1)[0] for path in inputs)
            self._parts[operation.fingerprint] = parts
        parts = self._parts[operation.fingerprint]
        if parts is not None and not parts:
            return NOTHING
        variables: dict[str, Json] = {}
        secret_templates: dict[str, str] = {}
        entity = None if owner is None else self._installation.entities.get(owner)
        if entity is not None:
            self._add_entity(entity, "", variables, secret_templates)
            for side in ("source", "target"):
                other = getattr(entity, side)
                found = self._installation.entities.get(EntityKey(EntityKind.OBJECT, other)) if other else None
                if found is not None and (parts is None or side in parts):
                    variables[side] = {}
                    self._add_entity(found, f"{side}.", variables[side], secret_templates)
        variables |= extra
        _find_default_secrets(operation.params, extra.get("params"), "params", secret_templates)
        if parts is not None:
            variables = {name: value for name, value in variables.items() if name in parts}
            secret_templates = {path: text for path, text in secret_templates.items() if path.split(".", 1)[0] in parts}
        return TemplateContext(variables, secret_templates)

    def _add_entity(self, entity: Entity, prefix: str, into: dict[str, Json], secret_templates: dict[str, str]) -> None:
        kind, entity_id = entity.key
        values = self._cache.values
        state = values.get(ValueKey(kind, entity_id, STATE))
        into["id"] = entity_id
        into["name"] = entity.name
        into["properties"] = entity.properties
        into["state"] = state.text if state else None
        into["previous_state"] = state.previous if state else None
        into["payload"] = state.payload if state else None
        into["attributes"] = {}
        for name in self._value_names(entity):
            value = values.get(ValueKey(kind, entity_id, name))
            if name and not name.startswith("@"):
                into["attributes"][name] = value.text if value else None
        if entity.key not in self._secret_templates:
            found: dict[str, str] = {}
            _find_secrets(entity.name, "name", found)
            _find_secrets(entity.properties, "properties", found)
            self._secret_templates[entity.key] = found
        secret_templates |= {prefix + path: text for path, text in self._secret_templates[entity.key].items()}

    def _value_names(self, entity: Entity) -> Mapping[str, object]:
        if entity.follows is None:
            return entity.sources
        leader = self._installation.entities.get(EntityKey(EntityKind.OBJECT, entity.follows))
        return entity.sources if leader is None else leader.sources


def _find_secrets(value: Json, path: str, found: dict[str, str]) -> None:
    if isinstance(value, str):
        if secret_names(value):
            found[path] = value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _find_secrets(item, f"{path}.{key}", found)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _find_secrets(item, f"{path}.{index}", found)


def _find_default_secrets(schema: Json, value: Json, path: str, found: dict[str, str]) -> None:
    """Find the params that are their schema's default; what a caller sends is never filled in otherwise."""
    if not isinstance(schema, Mapping):
        return
    default = schema.get("default")
    if default is not None and value == default:
        _find_secrets(default, path, found)
    properties = schema.get("properties")
    if isinstance(value, Mapping) and isinstance(properties, Mapping):
        for name, inner in properties.items():
            if name in value:
                _find_default_secrets(inner, value[name], f"{path}.{name}", found)
