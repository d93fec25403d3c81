"""Objects, links and classes: their shapes, and the entities that are made of them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from mqttjobs.domain.fields import Also, AsWritten, Id, Record, Text, Written, number_as_text
from mqttjobs.domain.model import AVAILABILITY, STATE, Retained, ValueSource
from mqttjobs.domain.names import is_id
from mqttjobs.domain.service_topics import is_reserved, reserved_problem
from mqttjobs.domain.topics import check_topic

IDS_AT_MOST = 1_000_000
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_IDS = {"anyOf": [{"const": "any"}, {"type": "array", "items": {"type": ["string", "number", "boolean"]}}]}


def _dotted(value: str) -> str:
    if not all(value.split(".")):
        raise ValueError("must be a dotted path such as occupancy or data.0.power")
    return value


DottedPath = Annotated[
    str,
    BeforeValidator(number_as_text),
    AfterValidator(_dotted),
    Written({"title": "dotted path", "type": ["string", "integer"], "pattern": r"^[^.]+(\.[^.]+)*$"}),
]


class ValueSection(Record):
    """Where a value comes from, and how it is read: a state, or an attribute."""

    topic: str | None = Field(
        default=None,
        description="The topic, without wildcards. Without it a state is read from `<base>/state/objects/<id>` or "
        "`<base>/state/links/<id>`, and an attribute from the topic of the state.",
    )
    value: DottedPath | None = Field(
        default=None, description="A dotted path into a JSON payload; numbers index lists. Without it see Payloads."
    )
    map: dict[str, Text] = Field(default={}, description="What is reported, and what the state is then called.")
    retained: Literal["init", "fire", "ignore"] = Field(
        default="init",
        description="What a retained report does: `init` (it sets a value that is not known yet, silently, and one "
        "that differs is a change), `fire` (the same as a live report), `ignore`.",
    )
    ignore: Annotated[tuple[Text, ...], Field(strict=False)] = Field(
        default=("", "unavailable", "unknown"),
        description="These are no states: they change nothing and interrupt no duration.",
    )
    event: bool = Field(
        default=False,
        description="`true` makes every live report a change, the same one again too: for buttons and tags.",
    )

    def source(self, topic: str, path: tuple[str, ...] | None = None) -> ValueSource:
        """Return the source at a topic; `path` is what is read when no `value` is given."""
        own = tuple(self.value.split(".")) if self.value is not None else path or ()
        return ValueSource(topic, own, self.map, Retained(self.retained), frozenset(self.ignore), self.event)


class AvailabilitySection(Record):
    """Where it is reported whether an entity is there; a topic alone is enough."""

    topic: str = Field(description="The topic, without wildcards.")
    value: DottedPath | None = Field(default=None, description="A dotted path into a JSON payload.")
    online: Text = Field(default="online", description="The device's word for `online`.")
    offline: Text = Field(default="offline", description="The device's word for `offline`.")

    @model_validator(mode="before")
    @classmethod
    def _topic_alone(cls, value: Any) -> Any:
        return {"topic": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _two_texts(self) -> AvailabilitySection:
        if self.online == self.offline:
            raise ValueError("online and offline must be two different words")
        return self

    def source(self) -> ValueSource:
        """Return its source; the configured words become `online` and `offline`."""
        message = {self.online: "online", self.offline: "offline"}
        path = tuple(self.value.split(".")) if self.value else ()
        return ValueSource(self.topic, path, message, ignore=frozenset({""}) - message.keys())


def _nothing_is_empty(value: Any) -> Any:
    """Return an empty mapping for a key with nothing behind it, as in `battery:`."""
    return {} if value is None else value


class _Valued(Record):
    """What objects, links and classes have in common."""

    name: Annotated[str | None, AsWritten()] = Field(
        default=None, description="The name for people; without it the id. In a class `{{ id }}` is the member's."
    )
    properties: Annotated[dict[str, Any], AsWritten()] = Field(
        default={}, description="Facts for templates, environment and documents: any JSON."
    )
    attributes: dict[Id, Annotated[ValueSection, BeforeValidator(_nothing_is_empty), Also({"type": "null"})]] = Field(
        default={}, description="Further values by name."
    )
    availability: Annotated[AvailabilitySection, Also({"type": "string"})] | None = Field(
        default=None, description="Where the availability is read: a mapping, or its topic alone."
    )

    def sources(self, state: ValueSection, default_topic: str) -> dict[str, ValueSource]:
        """Return every value's source.

        An attribute without a topic is read from the state's topic, at its own name unless it says where.
        """
        state_topic = default_topic if state.topic is None else state.topic
        made = {STATE: state.source(state_topic)}
        for name, attribute in self.attributes.items():
            if attribute.topic is None:
                made[name] = attribute.source(state_topic, (name,))
            else:
                made[name] = attribute.source(attribute.topic)
        if self.availability is not None:
            made[AVAILABILITY] = self.availability.source()
        return made


class ObjectSection(_Valued):
    """One object: a device, or anything else that has a state."""

    class_id: str | None = Field(
        default=None, alias="class", description="The class whose keys the object takes over; its own win, key by key."
    )
    state: ValueSection = Field(default=ValueSection(), description="Where the state is read.")


def _shape(value: Any) -> str:
    """Return which of the two shapes of a link's `state` is meant, so that errors speak of that one."""
    return "mapping" if isinstance(value, Mapping | ValueSection) else "word"


class LinkSection(_Valued):
    """One link: it joins a source object to a target object."""

    source: str = Field(description="The id of the object that the link begins at.")
    target: str = Field(description="The id of the object that the link ends at.")
    state: Annotated[
        Annotated[Literal["source", "target"], Tag("word")] | Annotated[ValueSection, Tag("mapping")],
        Discriminator(_shape),
    ] = Field(
        default="source",
        description="`source` or `target`: the link has the state and the attributes of that object. Or a mapping: it "
        "has a state of its own.",
    )


class ClassSection(_Valued):
    """One class: many similar objects at once."""

    ids: Annotated[list[Text] | None, Written(_IDS)] = Field(
        description="A list of ids and ranges such as `line_{001..200}`. Or `any`: members appear as they report, are "
        "remembered, and are at most `service.max_objects`; every topic then has `{{ id }}` in it.",
    )
    state: ValueSection = Field(default=ValueSection(), description="Where the state is read.")

    @field_validator("ids", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        if value == "any":
            return None
        if not isinstance(value, list):
            raise ValueError("must be a list of ids and ranges such as line_{001..200}, or any")
        return value

    @field_validator("ids")
    @classmethod
    def _good_ids(cls, value: list[str] | None) -> list[str] | None:
        if value is None:
            return None
        if sum(count_ids(each) for each in value) > IDS_AT_MOST:
            raise ValueError(f"makes more than {IDS_AT_MOST} ids")
        if not all(is_id(made) for each in value for made in expand_ids(each)):
            raise ValueError("an id has 1 to 64 letters, digits, _ or -; a range is like line_{001..200}")
        return value

    def members(self) -> list[str]:
        """Return every id, each once, in order; none where they appear by reporting."""
        return list(dict.fromkeys(made for each in self.ids or () for made in expand_ids(each)))


def count_ids(text: str) -> int:
    """Return how many ids a text with ranges makes, without making them."""
    return math.prod(max(0, int(last) - int(first) + 1) for first, last in _RANGE.findall(text))


def expand_ids(text: str) -> Iterator[str]:
    """Yield the ids of a text with ranges: `line_{001..200}` keeps its zeros, several ranges multiply."""
    parts = _RANGE.split(text)
    choices: list[range] = []
    widths: list[int] = []
    for first, last in zip(parts[1::3], parts[2::3], strict=True):
        if int(first) > int(last):
            raise ValueError("a range goes from the smaller number to the greater")
        choices.append(range(int(first), int(last) + 1))
        widths.append(len(first) if first.startswith("0") else 0)
    for numbers in itertools.product(*choices):
        pieces = [parts[0]]
        for number, width, rest in zip(numbers, widths, parts[3::3], strict=True):
            pieces += [str(number).zfill(width), rest]
        yield "".join(pieces)


def topic_error(topic: str, base_topic: str) -> str | None:
    """Return why a state, attribute or availability cannot be read from a topic, or None."""
    if "{{" in topic:
        return "only {{ id }}, and only in a class, can stand in a topic that is listened to"
    try:
        check_topic(topic)
    except ValueError as error:
        return str(error)
    return reserved_problem(base_topic) if is_reserved(topic, base_topic) else None
