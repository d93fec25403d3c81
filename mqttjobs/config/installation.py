"""The sections users, classes, objects, links and operations, put together: every reference is followed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mqttjobs.config.entities import (
    ClassSection,
    LinkSection,
    ObjectSection,
    ValueSection,
    pattern_of,
    topic_error,
    with_id,
)
from mqttjobs.config.explain import did_you_mean, validate
from mqttjobs.config.operations import read_operation
from mqttjobs.config.secrets import Secrets
from mqttjobs.config.sections import PERMISSIONS, UserSection
from mqttjobs.config.yaml12 import Document, Place
from mqttjobs.domain.installation import Installation
from mqttjobs.domain.model import (
    AVAILABILITY,
    STATE,
    Attach,
    Entity,
    EntityClass,
    EntityKey,
    EntityKind,
    Json,
    Operation,
    User,
    ValueSource,
)
from mqttjobs.domain.topics import covers, matches, overlaps
from mqttjobs.executors.base import Limits

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
KEPT_AS_WRITTEN = ("properties", "name")
"""What documents show, with its `${…}`."""


def build_installation(
    document: Document, content: Mapping[str, Json], secrets: Secrets, limits: Limits, max_objects: int
) -> Installation:
    """Return the installation of a configuration; what is wrong with it is noted in the document."""
    builder = _Builder(document, secrets, limits)
    builder.classes(_section(document, content, "classes"))
    builder.objects(_section(document, content, "objects"))
    builder.links(_section(document, content, "links"))
    builder.users(_section(document, content, "users"))
    builder.operations(_section(document, content, "operations"))
    builder.check_overlaps()
    objects = sum(key.kind is EntityKind.OBJECT for key in builder.entities)
    if objects > max_objects:
        document.wrong(("objects",), f"{objects} objects are more than service.max_objects ({max_objects})")
    return Installation(
        builder.entities, builder.known_classes, builder.known_operations, builder.known_users, builder.patterns
    )


def _section(document: Document, content: Mapping[str, Json], name: str) -> dict[str, Json]:
    value = content.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        document.wrong((name,), "must be a mapping of ids")
        return {}
    for key in value:
        if not _ID.match(key):
            document.wrong((name, key[:64]), "an id has 1 to 64 letters, digits, _ or -")
    return value


class _Builder:
    def __init__(self, document: Document, secrets: Secrets, limits: Limits) -> None:
        self.document = document
        self.secrets = secrets
        self.limits = limits
        self.base = limits.base_topic
        self.entities: dict[EntityKey, Entity] = {}
        self.known_classes: dict[str, EntityClass] = {}
        self.known_operations: dict[str, Operation] = {}
        self.known_users: dict[str, User] = {}
        self.patterns: list[str] = []
        self._written_classes: dict[str, dict[str, Json]] = {}

    def _revealed(self, written: Json) -> Json:
        """Replace `${…}` in what is listened to; what documents show keeps it."""
        if not isinstance(written, dict):
            return written
        return {
            key: value if key in KEPT_AS_WRITTEN else self.secrets.revealed(value) for key, value in written.items()
        }

    # -- classes and objects ------------------------------------------------------------------------------------

    def classes(self, written: Mapping[str, Json]) -> None:
        for class_id, raw in written.items():
            place: Place = ("classes", class_id)
            body = self._revealed(raw)
            section = validate(ClassSection, body, self.document, place)
            if section is None or not isinstance(body, dict):
                self.known_classes[class_id] = EntityClass(class_id, ())
                continue
            members = section.members()
            self.known_classes[class_id] = EntityClass(class_id, tuple(members))
            self._written_classes[class_id] = {key: value for key, value in body.items() if key != "ids"}
            sources = section.sources(section.state, f"{self.base}/state/objects/{{{{ id }}}}")
            self._check_sources(sources, place, shown_id="x")
            if len(members) > 1:
                self.patterns += [
                    pattern
                    for source in sources.values()
                    if (pattern := pattern_of(source.topic)) and not pattern.startswith(f"{self.base}/")
                ]
            for member in members:
                self._add_member(class_id, member, section, sources, place)

    def _add_member(
        self, class_id: str, member: str, section: ClassSection, sources: Mapping[str, ValueSource], place: Place
    ) -> None:
        key = EntityKey(EntityKind.OBJECT, member)
        if key in self.entities:
            other = self.entities[key].class_id
            self.document.wrong((*place, "ids"), f"the id {member} is a member of the class {other} already")
            return
        own = {name: replace(each, topic=str(with_id(each.topic, member))) for name, each in sources.items()}
        name = str(with_id(section.name, member)) if section.name is not None else member
        self.entities[key] = Entity(key, name, class_id, with_id(section.properties, member), own)

    def objects(self, written: Mapping[str, Json]) -> None:
        for object_id, raw in written.items():
            place: Place = ("objects", object_id)
            body = self._with_class(object_id, self._revealed(raw), place)
            section = validate(ObjectSection, body, self.document, place)
            key = EntityKey(EntityKind.OBJECT, object_id)
            if section is None:
                self.entities.setdefault(key, Entity(key, object_id))
                continue
            class_id = section.class_id
            if class_id is None and key in self.entities:
                class_id = self.entities[key].class_id
            sources = section.sources(section.state, f"{self.base}/state/objects/{object_id}")
            self._check_sources(sources, place)
            self.entities[key] = Entity(key, section.name or object_id, class_id, section.properties, sources)

    def _with_class(self, object_id: str, body: Json, place: Place) -> Json:
        """Return an object's keys over those of its class: its own win, key by key."""
        if body is None:
            body = {}
        if not isinstance(body, dict):
            return body
        member = self.entities.get(EntityKey(EntityKind.OBJECT, object_id))
        class_id = body.get("class") or (member.class_id if member else None)
        if class_id is None:
            return body
        if class_id not in self.known_classes:
            words = f"there is no class {str(class_id)[:64]!r}{did_you_mean(str(class_id), self.known_classes)}"
            self.document.wrong((*place, "class"), words)
            return body
        base = with_id(self._written_classes.get(str(class_id), {}), object_id)
        merged = {**base, **body, "class": class_id}
        for nested in ("properties", "attributes"):
            if isinstance(base.get(nested), dict) and isinstance(body.get(nested), dict):
                merged[nested] = {**base[nested], **body[nested]}
        return merged

    def _check_sources(self, sources: Mapping[str, ValueSource], place: Place, shown_id: str | None = None) -> None:
        for name, source in sources.items():
            topic = source.topic if shown_id is None else str(with_id(source.topic, shown_id))
            problem = topic_error(topic, self.base)
            if problem:
                where = {STATE: ("state",), AVAILABILITY: ("availability",)}.get(name, ("attributes", name))
                self.document.wrong((*place, *where, "topic"), problem)

    # -- links --------------------------------------------------------------------------------------------------

    def links(self, written: Mapping[str, Json]) -> None:
        for link_id, raw in written.items():
            place: Place = ("links", link_id)
            section = validate(LinkSection, self._revealed(raw), self.document, place)
            key = EntityKey(EntityKind.LINK, link_id)
            if section is None:
                self.entities[key] = Entity(key, link_id)
                continue
            for side in ("source", "target"):
                self._check_reference((*place, side), EntityKind.OBJECT, getattr(section, side))
            if isinstance(section.state, ValueSection):
                sources = section.sources(section.state, f"{self.base}/state/links/{link_id}")
                follows = None
                self._check_sources(sources, place)
            else:
                sources = {}
                follows = section.source if section.state == "source" else section.target
                for own in ("attributes", "availability"):
                    if getattr(section, own):
                        words = (
                            f"a link whose state is its {section.state}'s has its {own} too; give it a state mapping"
                        )
                        self.document.wrong((*place, own), words)
            self.entities[key] = Entity(
                key,
                section.name or link_id,
                None,
                section.properties,
                sources,
                source=section.source,
                target=section.target,
                follows=follows,
            )

    def _check_reference(self, place: Place, kind: EntityKind, name: str) -> None:
        if EntityKey(kind, name) not in self.entities:
            known = [key.id for key in self.entities if key.kind is kind]
            self.document.wrong(place, f"there is no {kind.value} {name[:64]!r}{did_you_mean(name, known)}")

    # -- users and operations -----------------------------------------------------------------------------------

    def users(self, written: Mapping[str, Json]) -> None:
        keys: dict[str, str] = {}
        for user_id, raw in written.items():
            place: Place = ("users", user_id)
            section = validate(UserSection, self.secrets.revealed(raw), self.document, place)
            if section is None:
                self.known_users[user_id] = User(user_id)
                continue
            for number, permission in enumerate(section.permissions):
                if permission not in PERMISSIONS:
                    words = f"must be one of {', '.join(PERMISSIONS)}{did_you_mean(permission, PERMISSIONS)}"
                    self.document.wrong((*place, "permissions", number), words)
            for noun, kind in (("objects", EntityKind.OBJECT), ("links", EntityKind.LINK)):
                for number, name in enumerate(getattr(section, noun) or ()):
                    self._check_reference((*place, noun, number), kind, name)
            if section.api_key is not None and keys.setdefault(section.api_key, user_id) != user_id:
                self.document.wrong(
                    (*place, "api_key"), f"is the key of {keys[section.api_key]} too; give each its own"
                )
            self.known_users[user_id] = _user(user_id, section)

    def operations(self, written: Mapping[str, Json]) -> None:
        for operation_id, raw in written.items():
            place: Place = ("operations", operation_id)
            operation = read_operation(operation_id, raw, self.document, place, self.limits, self.secrets.revealed)
            if operation is None:
                self._check_attach(_attach_in(raw), place)
                continue
            self.known_operations[operation_id] = operation
            self._check_attach(operation.attach, place)
            self._check_operation(operation, place)

    def _check_attach(self, places: Sequence[Attach], place: Place) -> None:
        several = len(places) > 1
        for number, attach in enumerate(places):
            where: Place = (*place, "attach", number) if several else (*place, "attach")
            if attach.object is not None:
                self._check_reference((*where, "object"), EntityKind.OBJECT, attach.object)
            elif attach.link is not None:
                self._check_reference((*where, "link"), EntityKind.LINK, attach.link)
            elif attach.class_id is not None and attach.class_id not in self.known_classes:
                words = f"there is no class {attach.class_id[:64]!r}{did_you_mean(attach.class_id, self.known_classes)}"
                self.document.wrong((*where, "class"), words)

    def _check_operation(self, operation: Operation, place: Place) -> None:
        if operation.run_as is not None and self.known_users and operation.run_as not in self.known_users:
            words = f"there is no user {operation.run_as[:64]!r}{did_you_mean(operation.run_as, self.known_users)}"
            self.document.wrong((*place, "run_as"), words)
        self._check_triggers(operation, place)

    def _check_triggers(self, operation: Operation, place: Place) -> None:
        """Every watched value exists on what the operation is attached to, and fits the trigger (behaviour 1.2)."""
        if not operation.triggers:
            return
        if not operation.attach:
            self.document.wrong(
                (*place, "triggers"), "nothing is watched: say with attach what the operation belongs to"
            )
        for sources in self._attached_sources(operation):
            for number, trigger in enumerate(operation.triggers):
                where: Place = (*place, "triggers", number)
                source = sources.get(trigger.value_name)
                if source is None:
                    known = [name for name in sources if name and name != AVAILABILITY]
                    wanted = str(trigger.attribute)
                    words = f"there is no attribute {wanted[:64]!r}{did_you_mean(wanted, known)}"
                    self.document.wrong((*where, "attribute"), words)
                elif source.event and trigger.holds:
                    words = "a value with event: true lasts no time; duration and periodicity cannot be used on it"
                    self.document.wrong(where, words)

    def _attached_sources(self, operation: Operation) -> list[Mapping[str, ValueSource]]:
        """Return the sources of what an operation is attached to; one member stands for its class."""
        found: list[Mapping[str, ValueSource]] = []
        for attach in operation.attach:
            members = self.known_classes.get(attach.class_id or "", EntityClass("", ())).ids
            kind = EntityKind.OBJECT if attach.link is None else EntityKind.LINK
            name = attach.object or attach.link or (members[0] if members else None)
            entity = self.entities.get(EntityKey(kind, name)) if name else None
            if entity is not None and entity.follows is not None:
                entity = self.entities.get(EntityKey(EntityKind.OBJECT, entity.follows))
            if entity is not None and entity.sources:
                found.append(entity.sources)
        return found

    def check_overlaps(self) -> None:
        """Refuse partly overlapping filters that feed an event value: a broker may deliver it twice (behaviour 1.8)."""
        filters = [*dict.fromkeys(self.patterns), f"{self.base}/state/#"]
        for number, one in enumerate(filters):
            for other in filters[number + 1 :]:
                if not overlaps(one, other) or covers(one, other) or covers(other, one):
                    continue
                for entity in self.entities.values():
                    for source in entity.sources.values():
                        if source.event and matches(one, source.topic) and matches(other, source.topic):
                            words = f"{one} and {other} both bring the event {source.topic}: it would come twice"
                            self.document.wrong(("classes",), words)
                            return


def _attach_in(written: Json) -> list[Attach]:
    """Return what can be understood of where an operation belongs that cannot be read as a whole."""
    attach = written.get("attach") if isinstance(written, dict) else None
    places = [each if isinstance(each, dict) else {} for each in (attach if isinstance(attach, list) else [attach])]
    texts = [{key: name for key, name in each.items() if isinstance(name, str)} for each in places]
    return [Attach(each.get("object"), each.get("link"), each.get("class")) for each in texts]


def _user(user_id: str, section: UserSection) -> User:
    """Return the user; of objects and links, one given makes the other none (contract 2)."""
    objects = None if section.objects is None else frozenset(section.objects)
    links = None if section.links is None else frozenset(section.links)
    if objects is None and links is not None:
        objects = frozenset()
    if links is None and objects is not None:
        links = frozenset()
    return User(
        user_id,
        frozenset(section.permissions),
        objects,
        links,
        section.display_name,
        section.email,
        section.role,
        section.api_key,
    )
