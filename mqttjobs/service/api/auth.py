"""Who is asking: API keys, lanes and the anonymous user (contract 4)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from mqttjobs.domain.model import EntityKey, EntityKind, Json
from mqttjobs.domain.users import User
from mqttjobs.errors import Unauthorized
from mqttjobs.service.settings import Settings
from mqttjobs.store.base import Scope

ANONYMOUS = "anonymous"
OPEN_PERMISSIONS = ("job:read", "job:write", "operation:read", "operation:execute", "agent:read")
"""What anonymous may do while no users are configured at all."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An identified caller; `lane` is the user's name in the topic, None outside of lanes."""

    user: User
    lane: str | None = None

    @property
    def scope(self) -> Scope | None:
        """What the caller may see, None for everything."""
        if self.user.objects is None and self.user.links is None:
            return None
        return Scope(self.user.objects, self.user.links, self.user.id)

    def sees(self, key: EntityKey) -> bool:
        """Whether an entity is in the caller's scope."""
        ids = self.user.objects if key.kind is EntityKind.OBJECT else self.user.links
        return ids is None or key.id in ids

    def in_scope(self, definition: Mapping[str, Json]) -> dict[str, Json]:
        """Return an operation's definition or document without what it is attached to outside of the caller's scope."""
        made = dict(definition)
        attach = made.get("attach")
        if self.scope is not None and isinstance(attach, list):
            made["attach"] = [each for each in attach if self._sees_attachment(each)]
        return made

    def _sees_attachment(self, attachment: Mapping[str, Json]) -> bool:
        kind = next((kind for kind in EntityKind if kind.value in attachment), None)
        return kind is None or self.sees(EntityKey(kind, str(attachment[kind.value])))


def identify(settings: Settings, api_key: str | None, lane: str | None) -> Caller:
    """Return who is asking.

    A key speaks for its user, in the user's own lane and outside of lanes. Without a key a trusted lane speaks for
    its user, and anything else for `anonymous`.

    Raises:
        Unauthorized: no user has this key, or it is another lane's, or anonymous may not ask.
    """
    users = settings.installation.users
    if api_key is not None:
        user = _owner_of(api_key, settings)
        if user is None or (lane is not None and lane != user.id):
            raise Unauthorized("the API key is not valid here")
        return Caller(user, lane)
    if lane is not None and settings.mqtt.trust_user_lanes:
        user = users.get(lane)
        if user is not None:
            return Caller(user, lane)
        if users:
            raise Unauthorized("this lane belongs to no configured user")
        return Caller(User(id=lane, permissions=OPEN_PERMISSIONS), lane)
    user = users.get(ANONYMOUS)
    if user is not None:
        return Caller(user, lane)
    if users:
        raise Unauthorized("send api_key in the request or as a user property, or use a trusted lane")
    return Caller(User(id=ANONYMOUS, permissions=OPEN_PERMISSIONS), lane)


def _owner_of(api_key: str, settings: Settings) -> User | None:
    """Compare with every key, each in constant time, so that the time reveals nothing."""
    found = None
    given = api_key.encode(errors="surrogatepass")
    for user in settings.installation.users.values():
        if user.api_key is not None and hmac.compare_digest(user.api_key.encode(), given):
            found = user
    return found
