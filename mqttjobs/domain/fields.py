"""Configured records: their base, and the types of their keys, each validated and described in a JSON Schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from mqttjobs.domain.durations import DURATION, LONGEST, SIZE, parse_duration, parse_size
from mqttjobs.domain.model import Json
from mqttjobs.domain.names import ID
from mqttjobs.domain.protocol import scalar_text

AS_WRITTEN_KEY = "x-as-written"
"""Marks in a JSON Schema a key whose `${…}` is not replaced."""
_ALL_GIVEN: set[str] = set()
_NOTHING = r"\s*0+(\.0+)?\s*[A-Za-z]*\s*$"

R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """A mapping in which an unknown key is an error, and no type is bent to fit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def extended(self, kind: type[R], **more: Any) -> R:
        """Return a record of a subclass of this one: the same values and more, which are taken as they are."""
        return kind.model_construct(_ALL_GIVEN, **{**self.__dict__, **more})


def number_as_text(value: Any) -> Any:
    """Return a whole number as the text that it was meant to be; anything else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def exactly_one(*keys: str) -> dict[str, Json]:
    """Return the rule of a JSON Schema that one of these keys is given and the others are not."""
    return {"oneOf": [_given(key) for key in keys]}


def all_or_none(*keys: str) -> dict[str, Json]:
    """Return the rule of a JSON Schema that all of these keys are given, or none."""
    given = [_given(key) for key in keys]
    return {"oneOf": [{"allOf": given}, {"not": {"anyOf": given}}]}


def _given(key: str) -> dict[str, Json]:
    return {"required": [key], "properties": {key: {"not": {"type": "null"}}}}


@dataclass(frozen=True, eq=False)
class Written:
    """Says in the JSON Schema how a type is written, where its validator alone knows."""

    schema: Json

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Json]:
        """Return the schema."""
        del schema, handler
        return dict(self.schema)


@dataclass(frozen=True, eq=False)
class OrElse:
    """Lets null stand for what a function returns."""

    make: Callable[[], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Replace null."""
        replace: Callable[[Any], Any] = lambda value: self.make() if value is None else value  # noqa: E731
        return core_schema.no_info_before_validator_function(replace, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Json]:
        """Return the schema with null."""
        return {"anyOf": [handler(schema), {"type": "null"}]}


@dataclass(frozen=True, eq=False)
class Also:
    """Says in the JSON Schema in which other way a type can be written, where its validator alone knows."""

    schema: Json

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Json]:
        """Return both ways."""
        return {"anyOf": [handler(schema), self.schema]}


class AsWritten:
    """Marks a key that documents show: its `${…}` is kept and not replaced."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Json]:
        """Mark the schema."""
        return {**handler(schema), AS_WRITTEN_KEY: True}


class Made:
    """Marks a field that is not written in a configuration: its value is taken as it is."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Accept anything."""
        del source, handler
        return core_schema.any_schema()


def spellings(name: str, field: FieldInfo) -> tuple[str, ...]:
    """Return how the key of a field may be written, the usual way first."""
    if isinstance(field.validation_alias, AliasChoices):
        return tuple(map(str, field.validation_alias.choices))
    return (field.alias or name,)


def key_names(model: type[BaseModel]) -> list[str]:
    """Return the keys of a record, in every spelling."""
    return [each for name, field in model.model_fields.items() for each in spellings(name, field)]


def kept_as_written(*models: type[Record]) -> frozenset[str]:
    """Return the keys of records that documents show with their `${…}`."""
    return frozenset(
        field.alias or name
        for model in models
        for name, field in model.model_fields.items()
        if any(isinstance(each, AsWritten) for each in field.metadata)
    )


@dataclass(frozen=True, eq=False)
class OneOrMany:
    """Lets one item of these types stand for a list with nothing else in it."""

    types: tuple[type, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Make a list of one item."""
        wrap: Callable[[Any], Any] = lambda value: [value] if isinstance(value, self.types) else value  # noqa: E731
        return core_schema.no_info_before_validator_function(wrap, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Json]:
        """Return both spellings."""
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


class NotEmpty:
    """Refuses an empty list, once its items are good."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Check the length."""
        return core_schema.no_info_after_validator_function(_not_empty, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Json]:
        """Return the schema with the length."""
        return {**handler(schema), "minItems": 1}


def _not_empty(value: Any) -> Any:
    if not value:
        raise ValueError("must not be empty")
    return value


def as_text(value: Any) -> str:
    """Return a scalar of YAML as the text that states are: `5` is "5", true is "true"."""
    text = scalar_text(value)
    if text is None:
        raise ValueError("must be a text, a number, true or false")
    return text


def _duration(value: Any) -> Any:
    if value is None or isinstance(value, timedelta):
        return value
    if isinstance(value, str | int | float):
        return parse_duration(value)
    raise ValueError("a duration is a number of seconds, or 500ms, 10s, 5m, 2h, 30d")


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be more than nothing")
    return value


def _size(value: Any) -> Any:
    if isinstance(value, str | int):
        return parse_size(value)
    raise ValueError("a size is a number of bytes, or 64KiB, 1MiB")


def _path(value: str) -> str:
    if "\0" in value:
        raise ValueError("a path contains no NUL")
    return value


def as_schema(title: str, number: Json, text: str) -> Written:
    """Return how something is written that is a number, or a text of a pattern."""
    return Written({"title": title, "anyOf": [number, {"type": "string", "pattern": f"^{text}$"}]})


_LONGEST_S = int(LONGEST.total_seconds())
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    as_schema("duration", {"type": "number", "minimum": 0, "maximum": _LONGEST_S}, DURATION),
]
PositiveDuration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    AfterValidator(_positive),
    as_schema(
        "duration", {"type": "number", "exclusiveMinimum": 0, "maximum": _LONGEST_S}, f"(?!{_NOTHING}){DURATION}"
    ),
]
Size = Annotated[
    int, BeforeValidator(_size), as_schema("size", {"type": "integer", "minimum": 1}, f"(?!{_NOTHING}){SIZE}")
]
Id = Annotated[str, Field(pattern=f"^{ID}$")]
Text = Annotated[str, BeforeValidator(as_text), Written({"type": ["string", "number", "boolean"]})]
States = Annotated[tuple[Text, ...], Field(strict=False), NotEmpty(), OneOrMany((str, int, float, bool))]
Texts = Annotated[tuple[str, ...], Field(strict=False)]
FilePath = Annotated[str, AfterValidator(_path)]
FilePaths = Annotated[tuple[FilePath, ...], Field(strict=False)]
