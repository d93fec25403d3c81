"""The section users: who may ask, for what, and about which objects and links (contract 2)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from mqttjobs.config.explain import did_you_mean, unknown_name, validate
from mqttjobs.config.sections import PERMISSIONS, UserSection
from mqttjobs.config.yaml12 import Document, KeyPath
from mqttjobs.domain.model import EntityKey, EntityKind, Json, User


def read_users(written: Mapping[str, Json], document: Document, entities: Collection[EntityKey]) -> dict[str, User]:
    """Return the users of a configuration; what is wrong with them is noted in the document."""
    users: dict[str, User] = {}
    keys: dict[str, str] = {}
    for user_id, body in written.items():
        key_path: KeyPath = ("users", user_id)
        section = validate(UserSection, body, document, key_path)
        if section is None:
            users[user_id] = User(user_id)
            continue
        for number, permission in enumerate(section.permissions):
            if permission not in PERMISSIONS:
                message = f"must be one of {', '.join(PERMISSIONS)}{did_you_mean(permission, PERMISSIONS)}"
                document.wrong((*key_path, "permissions", number), message)
        for kind in EntityKind:
            for number, name in enumerate(getattr(section, f"{kind}s") or ()):
                if EntityKey(kind, name) not in entities:
                    unknown_name(document, (*key_path, f"{kind}s", number), kind.value, name, ids_of(kind, entities))
        if section.api_key is not None and keys.setdefault(section.api_key, user_id) != user_id:
            document.wrong((*key_path, "api_key"), f"is the key of {keys[section.api_key]} too; give each its own")
        users[user_id] = _user(user_id, section)
    return users


def ids_of(kind: EntityKind, entities: Collection[EntityKey]) -> Iterator[str]:
    """Yield the ids of the objects, or of the links."""
    return (key.id for key in entities if key.kind is kind)


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
