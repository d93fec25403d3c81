"""The section users: who may ask, for what, and about which objects and links (contract 2)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from mqttjobs.config.explain import did_you_mean, unknown_name, validate
from mqttjobs.config.yaml12 import Document, KeyPath
from mqttjobs.domain.model import EntityKey, EntityKind, Json
from mqttjobs.domain.users import PERMISSIONS, User, UserKeys


def read_users(written: Mapping[str, Json], document: Document, entities: Collection[EntityKey]) -> dict[str, User]:
    """Return the users of a configuration; their problems are noted in the document."""
    users: dict[str, User] = {}
    owners: dict[str, str] = {}
    for user_id, body in written.items():
        key_path: KeyPath = ("users", user_id)
        keys = validate(UserKeys, body, document, key_path)
        if keys is None or body is None:
            users[user_id] = User(id=user_id)
            continue
        for number, permission in enumerate(keys.permissions):
            if permission not in PERMISSIONS:
                message = f"must be one of {', '.join(PERMISSIONS)}{did_you_mean(permission, PERMISSIONS)}"
                document.wrong((*key_path, "permissions", number), message)
        for kind in EntityKind:
            for number, name in enumerate(body.get(f"{kind}s") or ()):
                if EntityKey(kind, name) not in entities:
                    unknown_name(document, (*key_path, f"{kind}s", number), kind.value, name, ids_of(kind, entities))
        if keys.api_key is not None and owners.setdefault(keys.api_key, user_id) != user_id:
            document.wrong((*key_path, "api_key"), f"is the key of {owners[keys.api_key]} too; give each its own")
        users[user_id] = keys.extended(User, id=user_id)
    return users


def ids_of(kind: EntityKind, entities: Collection[EntityKey]) -> Iterator[str]:
    """Yield the ids of the objects, or of the links."""
    return (key.id for key in entities if key.kind is kind)
