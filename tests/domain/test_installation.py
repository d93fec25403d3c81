"""The indexes of an installation: what a topic feeds and what watches a value, at a cost that does not grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from mqttjobs.domain.installation import Installation
from mqttjobs.domain.model import STATE, Entity, EntityClass, EntityKey, EntityKind, ValueKey, ValueSource
from mqttjobs.domain.operations import Attach, Operation
from mqttjobs.domain.triggers.base import Trigger
from tests.domain.builders import a_trigger


def an_object_key(name: str) -> EntityKey:
    return EntityKey(EntityKind.OBJECT, name)


def a_link_key(name: str) -> EntityKey:
    return EntityKey(EntityKind.LINK, name)


def an_object(name: str, topic: str | None = None, **changes: Any) -> Entity:
    sources = {STATE: ValueSource(topic or f"home/{name}")}
    return Entity(an_object_key(name), name, **{"sources": sources, **changes})


def a_link(name: str, source: str, target: str, follows: str | None) -> Entity:
    return Entity(a_link_key(name), name, source=source, target=target, follows=follows)


def an_operation(name: str, *attach: Attach, triggers: tuple[Trigger, ...] = (Trigger(),), **changes: Any) -> Operation:
    return Operation(
        id=name,
        type="mqtt",
        definition={"id": name},
        fingerprint=f"fingerprint of {name}",
        attach=attach,
        triggers=triggers,
        **changes,
    )


def an_installation(*parts: Entity | Operation | EntityClass, **more: Any) -> Installation:
    return Installation(
        {each.key: each for each in parts if isinstance(each, Entity)},
        {each.id: each for each in parts if isinstance(each, EntityClass)},
        {each.id: each for each in parts if isinstance(each, Operation)},
        **more,
    )


def state_of(key: EntityKey) -> ValueKey:
    return ValueKey(key.kind, key.id, STATE)


def test_one_topic_feeds_values_of_several_objects() -> None:
    battery = {STATE: ValueSource("home/a"), "battery": ValueSource("home/a", ("battery",))}
    installation = an_installation(an_object("a", sources=battery), an_object("b", "home/a"), an_object("c"))
    assert {(each.key.id, each.key.name) for each in installation.readers("home/a")} == {
        ("a", ""),
        ("a", "battery"),
        ("b", ""),
    }
    assert list(installation.readers("home/nothing")) == []


@pytest.mark.parametrize(("follows", "followed", "other"), [("a", "a", "b"), ("b", "b", "a")])
def test_a_link_follows_its_source_or_its_target(follows: str, followed: str, other: str) -> None:
    installation = an_installation(an_object("a"), an_object("b"), a_link("l", "a", "b", follows))
    assert list(installation.followers(an_object_key(followed))) == [a_link_key("l")]
    assert list(installation.followers(an_object_key(other))) == []
    source = installation.source_of(state_of(a_link_key("l")))
    assert source is not None
    assert source.topic == f"home/{followed}"


def test_there_is_no_source_of_what_is_not_there() -> None:
    installation = an_installation(an_object("a"), a_link("l", "a", "gone", "gone"))
    assert installation.source_of(ValueKey(EntityKind.OBJECT, "a", "battery")) is None
    assert installation.source_of(state_of(an_object_key("nothing"))) is None
    assert installation.source_of(state_of(a_link_key("l"))) is None


def test_the_triggers_of_an_entity_are_its_own_and_those_of_its_class() -> None:
    own = an_operation("own", Attach(object="m1"), triggers=(Trigger(), a_trigger(attribute="x")))
    shared = an_operation(
        "shared", Attach.model_validate({"class": "room"}), triggers=(a_trigger(attribute="x"), Trigger())
    )
    installation = an_installation(
        an_object("m1", class_id="room"),
        an_object("m2", class_id="room"),
        an_object("m3"),
        EntityClass("room", ()),
        own,
        shared,
    )
    watched = [(each.operation.id, each.trigger_index) for each in installation.watchers(state_of(an_object_key("m1")))]
    assert watched == [("own", 0), ("shared", 1)]
    attribute = ValueKey(EntityKind.OBJECT, "m2", "x")
    assert [(each.operation.id, each.trigger_index) for each in installation.watchers(attribute)] == [("shared", 0)]
    assert list(installation.watchers(state_of(an_object_key("m3")))) == []
    assert list(installation.watchers(state_of(an_object_key("unknown")))) == []


@pytest.mark.parametrize(
    "attach",
    [
        (Attach(object="m"), Attach(object="m")),
        (Attach.model_validate({"class": "room"}), Attach.model_validate({"class": "room"})),
        (Attach(object="m"), Attach.model_validate({"class": "room"})),
        (Attach.model_validate({"class": "room"}), Attach(object="m"), Attach.model_validate({"class": "room"})),
    ],
)
def test_an_operation_that_is_attached_in_two_ways_is_started_once(attach: tuple[Attach, ...]) -> None:
    installation = an_installation(
        an_object("m", class_id="room"),
        EntityClass("room", ()),
        an_operation("op", *attach, triggers=(Trigger(), Trigger())),
    )
    key = an_object_key("m")
    assert [each.trigger_index for each in installation.watchers(state_of(key))] == [0, 1]
    assert [each.id for each in installation.operations_of(key)] == ["op"]
    assert list(installation.owners(installation.operations["op"])) == [key]
    assert installation.is_attached(installation.operations["op"], key)


def test_an_object_and_a_link_of_one_name_are_two() -> None:
    operation = an_operation("op", Attach(link="x"))
    installation = an_installation(an_object("x"), an_object("y"), a_link("x", "x", "y", "x"), operation)
    assert list(installation.watchers(state_of(an_object_key("x")))) == []
    assert len(list(installation.watchers(state_of(a_link_key("x"))))) == 1
    assert not installation.is_attached(operation, an_object_key("x"))
    assert not installation.is_attached(operation, an_object_key("nothing"))


def test_the_filters_are_the_fewest_that_bring_every_topic() -> None:
    members = [an_object(f"m{number}", f"plant/m{number}/belt") for number in range(100)]
    installation = an_installation(
        *members, an_object("x", "other"), an_object("y", "other"), patterns=["plant/+/belt"]
    )
    assert installation.filters() == ["plant/+/belt", "other"]


def test_what_runs_by_the_clock_is_known() -> None:
    timed = an_operation("timed", schedule="* * * * *")
    assert an_installation(timed, an_operation("other")).scheduled == (timed,)


class NotWalked(Mapping[EntityKey, Entity]):
    """Entities that can be looked up one at a time and no more."""

    def __init__(self, inner: Mapping[EntityKey, Entity]) -> None:
        self._inner = inner
        self.looks = 0

    def __getitem__(self, key: EntityKey) -> Entity:
        self.looks += 1
        return self._inner[key]

    def __iter__(self) -> Iterator[EntityKey]:
        raise AssertionError("walked over every entity")

    def __len__(self) -> int:
        raise AssertionError("counted every entity")


def test_a_message_costs_the_same_among_many_as_among_few() -> None:
    looks = []
    for size in (10, 5000):
        objects = [an_object(f"m{number}", class_id="room") for number in range(size)]
        links = [a_link(f"l{number}", f"m{number}", "m0", f"m{number}") for number in range(size)]
        operations = [an_operation(f"op{number}", Attach(link=f"l{number}")) for number in range(size)]
        shared = an_operation("shared", Attach.model_validate({"class": "room"}))
        installation = an_installation(*objects, *links, *operations, shared, EntityClass("room", ()))
        entities = NotWalked(installation.entities)
        installation.entities = entities
        (reader,) = installation.readers("home/m7")
        (link,) = installation.followers(reader.key.entity)
        assert [each.operation.id for each in installation.watchers(reader.key)] == ["shared"]
        assert [each.operation.id for each in installation.watchers(state_of(link))] == ["op7"]
        assert installation.source_of(state_of(link)) == reader.source
        assert [each.id for each in installation.operations_of(link)] == ["op7"]
        assert installation.is_attached(operations[7], link)
        looks.append(entities.looks)
    assert looks[0] == looks[1]
