"""The sections users, classes, objects, links and operations, put together: every reference is followed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mqttjobs.config.entities import (
    ClassSection,
    LinkSection,
    ObjectSection,
    ValueSection,
    topic_error,
)
from mqttjobs.config.explain import unknown_name, validate
from mqttjobs.config.inheritance import inherited
from mqttjobs.config.loops import find_loops
from mqttjobs.config.operations import read_operation
from mqttjobs.config.overlaps import doubled_events
from mqttjobs.config.references import References
from mqttjobs.config.secrets import Secrets
from mqttjobs.config.users import ids_of, read_users
from mqttjobs.config.yaml12 import Document, KeyPath
from mqttjobs.domain.fields import kept_as_written
from mqttjobs.domain.installation import Installation
from mqttjobs.domain.membership import filter_of, has_id, with_id
from mqttjobs.domain.model import AVAILABILITY, STATE, Entity, EntityClass, EntityKey, EntityKind, Json, ValueSource
from mqttjobs.domain.names import is_id
from mqttjobs.domain.operations import Attach, Operation
from mqttjobs.domain.service_topics import report_filter, report_topic
from mqttjobs.domain.users import User, UserKeys
from mqttjobs.executors.base import Limits

KEPT_AS_WRITTEN = kept_as_written(ClassSection, ObjectSection, LinkSection, UserKeys)
"""What documents show, with its `${…}`."""


def build_installation(
    document: Document,
    content: Mapping[str, Json],
    secrets: Secrets,
    limits: Limits,
    max_objects: int,
    *,
    has_location: bool = True,
) -> Installation:
    """Return the installation of a configuration; what is wrong with it is noted in the document."""
    builder = _Builder(document, secrets, limits, max_objects)
    builder.classes(_section(document, content, "classes"))
    builder.objects(_section(document, content, "objects"))
    builder.links(_section(document, content, "links"))
    builder.users(_section(document, content, "users"))
    builder.operations(_section(document, content, "operations"))
    builder.check_overlaps()
    objects = sum(key.kind is EntityKind.OBJECT for key in builder.entities)
    if objects > max_objects:
        document.wrong(("objects",), f"{objects} objects are more than service.max_objects ({max_objects})")
    installation = Installation(
        builder.entities, builder.known_classes, builder.known_operations, builder.known_users, builder.patterns
    )
    sampled = _with_samples(installation)
    References(document, sampled, has_location=has_location).check()
    explicit = frozenset(EntityKey(EntityKind.OBJECT, name) for name in _section(document, content, "objects"))
    for loop in find_loops(sampled, secrets.revealed, explicit):
        document.wrong(("operations", loop.operations[0], "topic"), loop.describe())
    return installation


def _section(document: Document, content: Mapping[str, Json], name: str) -> dict[str, Json]:
    value = content.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        document.wrong((name,), "must be a mapping of ids")
        return {}
    for key in value:
        if not is_id(key):
            document.wrong((name, key[:64]), "an id has 1 to 64 letters, digits, _ or -")
    return value


class _Builder:
    def __init__(self, document: Document, secrets: Secrets, limits: Limits, max_objects: int) -> None:
        self.max_objects = max_objects
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
            key_path: KeyPath = ("classes", class_id)
            body = self._revealed(raw)
            section = validate(ClassSection, body, self.document, key_path)
            if section is None or not isinstance(body, dict):
                self.known_classes[class_id] = EntityClass(class_id, ())
                continue
            if section.ids is None:
                self._open_class(class_id, section, body, key_path)
                continue
            members = section.members()
            if len(members) > self.max_objects:
                message = f"makes {len(members)} objects, more than service.max_objects ({self.max_objects})"
                self.document.wrong((*key_path, "ids"), message)
                members = members[:1]
            self.known_classes[class_id] = EntityClass(class_id, tuple(members))
            self._written_classes[class_id] = body
            sources = section.sources(section.state, report_topic(self.base, EntityKind.OBJECT, "{{ id }}"))
            self._check_sources(sources, key_path, shown_id="x")
            if len(members) > 1:
                self._add_filters(source.topic for source in sources.values())
            for member in members:
                self._add_member(class_id, member, section, sources, key_path)

    def _open_class(self, class_id: str, section: ClassSection, body: dict[str, Json], key_path: KeyPath) -> None:
        """Take up a class whose members appear as they report."""
        sources = section.sources(section.state, report_topic(self.base, EntityKind.OBJECT, "{{ id }}"))
        self._check_sources(sources, key_path, shown_id="x")
        topics = tuple(dict.fromkeys(source.topic for source in sources.values()))
        for name, source in sources.items():
            if not has_id(source.topic):
                message = "with ids: any every topic has {{ id }} in it: it says which member reports"
                self.document.wrong((*key_path, *value_key_path(name)), message)
        for other in self.known_classes.values():
            if other.make is not None and set(other.topics) & set(topics):
                message = f"its members would have the topics of those of {other.id}, whose ids are any too"
                self.document.wrong((*key_path, "ids"), message)
        self._add_filters(topics)
        self._written_classes[class_id] = body

        def make(member: str) -> Entity:
            return _member(class_id, member, section, sources)

        self.known_classes[class_id] = EntityClass(class_id, None, make, topics)

    def _add_filters(self, topics: Iterable[str]) -> None:
        """Note the filters by which the members of a class are subscribed to together."""
        filters = [filter_of(topic) for topic in topics if has_id(topic)]
        self.patterns += [each for each in filters if not each.startswith(f"{self.base}/")]

    def _add_member(
        self, class_id: str, member: str, section: ClassSection, sources: Mapping[str, ValueSource], key_path: KeyPath
    ) -> None:
        key = EntityKey(EntityKind.OBJECT, member)
        if key in self.entities:
            other = self.entities[key].class_id
            self.document.wrong((*key_path, "ids"), f"the id {member} is a member of the class {other} already")
            return
        made = _member(class_id, member, section, sources)
        for value, source in made.sources.items():
            if source.topic.startswith(f"{self.base}/") and not sources[value].topic.startswith(f"{self.base}/"):
                message = f"for the id {member} it is under {self.base}/, where topics are the service's own"
                self.document.wrong((*key_path, *value_key_path(value), "topic"), message)
        self.entities[key] = made

    def objects(self, written: Mapping[str, Json]) -> None:
        for object_id, raw in written.items():
            key_path: KeyPath = ("objects", object_id)
            body = self._with_class(object_id, self._revealed(raw), key_path)
            section = validate(ObjectSection, body, self.document, key_path)
            key = EntityKey(EntityKind.OBJECT, object_id)
            if section is None:
                self.entities.setdefault(key, Entity(key, object_id))
                continue
            class_id = section.class_id
            if class_id is None and key in self.entities:
                class_id = self.entities[key].class_id
            sources = section.sources(section.state, report_topic(self.base, EntityKind.OBJECT, object_id))
            self._check_sources(sources, key_path)
            self.entities[key] = Entity(key, section.name or object_id, class_id, section.properties, sources)

    def _with_class(self, object_id: str, body: Json, key_path: KeyPath) -> Json:
        """Return an object's keys over those of its class; an unknown class is a problem of the document."""
        if body is None:
            body = {}
        member = self.entities.get(EntityKey(EntityKind.OBJECT, object_id))
        class_id = body.get("class") or (member.class_id if member else None) if isinstance(body, dict) else None
        if not isinstance(class_id, str):
            return body
        if class_id not in self.known_classes:
            unknown_name(self.document, (*key_path, "class"), "class", class_id, self.known_classes)
            return body
        return inherited(body, self._written_classes.get(class_id, {}), class_id, object_id)

    def _check_sources(
        self, sources: Mapping[str, ValueSource], key_path: KeyPath, shown_id: str | None = None
    ) -> None:
        """Tell which of the topics that are written here cannot be listened to."""
        for name, source in sources.items():
            topic = source.topic if shown_id is None else str(with_id(source.topic, shown_id))
            problem = topic_error(topic, self.base)
            where: KeyPath = (*key_path, *value_key_path(name))
            written = self.document.written(where)
            if problem and isinstance(written, str):
                self.document.wrong(where, problem)
            elif problem and isinstance(written, dict) and "topic" in written:
                self.document.wrong((*where, "topic"), problem)

    # -- links --------------------------------------------------------------------------------------------------

    def links(self, written: Mapping[str, Json]) -> None:
        for link_id, raw in written.items():
            key_path: KeyPath = ("links", link_id)
            section = validate(LinkSection, self._revealed(raw), self.document, key_path)
            key = EntityKey(EntityKind.LINK, link_id)
            if section is None:
                self.entities[key] = Entity(key, link_id)
                continue
            for side in ("source", "target"):
                self._check_reference((*key_path, side), EntityKind.OBJECT, getattr(section, side))
            if isinstance(section.state, ValueSection):
                sources = section.sources(section.state, report_topic(self.base, EntityKind.LINK, link_id))
                follows = None
                self._check_sources(sources, key_path)
            else:
                sources = {}
                follows = section.source if section.state == "source" else section.target
                for own in ("attributes", "availability"):
                    if getattr(section, own):
                        message = (
                            f"a link whose state is its {section.state}'s has its {own} too; give it a state mapping"
                        )
                        self.document.wrong((*key_path, own), message)
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

    def _check_reference(self, key_path: KeyPath, kind: EntityKind, name: str) -> None:
        if EntityKey(kind, name) not in self.entities:
            unknown_name(self.document, key_path, kind.value, name, ids_of(kind, self.entities))

    # -- users and operations -----------------------------------------------------------------------------------

    def users(self, written: Mapping[str, Json]) -> None:
        body = {user_id: self._revealed(raw) for user_id, raw in written.items()}
        self.known_users = read_users(body, self.document, self.entities)

    def operations(self, written: Mapping[str, Json]) -> None:
        for operation_id, raw in written.items():
            key_path: KeyPath = ("operations", operation_id)
            operation = read_operation(operation_id, raw, self.document, key_path, self.limits, self.secrets.revealed)
            if operation is None:
                self._check_attach(_attach_in(self.secrets.revealed(raw)), key_path)
                continue
            self.known_operations[operation_id] = operation
            self._check_attach(operation.attach, key_path)

    def _check_attach(self, places: Sequence[Attach], key_path: KeyPath) -> None:
        for number, attach in enumerate(places):
            where: KeyPath = (*key_path, "attach", number)
            if attach.object is not None:
                self._check_reference((*where, "object"), EntityKind.OBJECT, attach.object)
            elif attach.link is not None:
                self._check_reference((*where, "link"), EntityKind.LINK, attach.link)
            elif attach.class_id is not None and attach.class_id not in self.known_classes:
                unknown_name(self.document, (*where, "class"), "class", attach.class_id, self.known_classes)

    def check_overlaps(self) -> None:
        """Refuse partly overlapping filters that feed an event value (behaviour 1.8)."""
        for key, one, other in doubled_events([*self.patterns, report_filter(self.base)], self.entities):
            class_id = self.entities[key.entity].class_id
            key_path: KeyPath = (f"{key.kind}s", key.id) if class_id is None else ("classes", class_id)
            message = f"{one} and {other} both bring this event, and a broker may deliver it twice"
            self.document.wrong((*key_path, *value_key_path(key.name), "event"), message)


def _member(class_id: str, member: str, section: ClassSection, sources: Mapping[str, ValueSource]) -> Entity:
    """Return the member of a class that has an id."""
    own = {name: replace(each, topic=str(with_id(each.topic, member))) for name, each in sources.items()}
    name = str(with_id(section.name, member)) if section.name is not None else member
    return Entity(EntityKey(EntityKind.OBJECT, member), name, class_id, with_id(section.properties, member), own)


def _with_samples(installation: Installation) -> Installation:
    """Return an installation in which every class with `ids: any` has a member, to check operations against."""
    if not installation.membership:
        return installation
    sampled = installation.copy()
    for name, each in installation.classes.items():
        if each.make is not None and not installation.members(name):
            sampled.register(name, f"{name[:56]}-sample")
    return sampled


def value_key_path(name: str) -> KeyPath:
    """Return where a value of an entity is configured, under the entity."""
    return {STATE: ("state",), AVAILABILITY: ("availability",)}.get(name, ("attributes", name))


def _attach_in(written: Json) -> list[Attach]:
    """Return what can be understood of where an operation belongs that cannot be read as a whole."""
    attach = written.get("attach") if isinstance(written, dict) else None
    places = [each if isinstance(each, dict) else {} for each in (attach if isinstance(attach, list) else [attach])]
    texts = [{key: name for key, name in each.items() if isinstance(name, str)} for each in places]
    return [
        Attach.model_construct(object=each.get("object"), link=each.get("link"), class_id=each.get("class"))
        for each in texts
    ]
