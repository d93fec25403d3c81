"""Users: who may ask, for what, and about which objects and links (contract 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from mqttjobs.domain.fields import AsWritten, Record, Texts, Written

PERMISSIONS = (
    "admin", "job:read", "job:write", "operation:read", "operation:execute", "operation:manage", "agent:read",
    "agent:write", "config:write",
)  # fmt: skip

Ids = Annotated[frozenset[str], Field(strict=False)]


class UserKeys(Record):
    """One user: who may ask, and for what."""

    api_key: Annotated[str, Field(min_length=16)] | None = Field(
        default=None,
        repr=False,
        description="The key of the user, at least 16 characters. Without a key the user speaks through a trusted "
        "lane, or is only named by `run_as`.",
    )
    permissions: Annotated[Texts, Written({"type": "array", "items": {"enum": list(PERMISSIONS)}})] = Field(
        default=(), description="What the user may do: a list of permissions."
    )
    objects: Ids | None = Field(
        default=None,
        description="The objects that the user sees and may run operations on. Without `objects` and `links` these are "
        "all; giving only one of the two makes the other empty.",
    )
    links: Ids | None = Field(default=None, description="The links that the user sees; see `objects`.")
    display_name: Annotated[str | None, AsWritten()] = Field(
        default=None, description="The name that the job context of operations shows."
    )
    email: Annotated[str | None, AsWritten()] = Field(
        default=None, description="The address that the job context of operations shows."
    )
    role: Annotated[str | None, AsWritten()] = Field(
        default=None, description="The role that the job context of operations shows."
    )

    @model_validator(mode="before")
    @classmethod
    def _other_side(cls, value: Any) -> Any:
        """Make the other of `objects` and `links` empty where only one of the two is given."""
        if not isinstance(value, Mapping) or (value.get("objects") is None) is (value.get("links") is None):
            return value
        return {**value, "links" if value.get("links") is None else "objects": ()}


class User(UserKeys):
    """Who may ask. `objects` and `links` None means all; `api_key` is never in a document."""

    id: str

    def may(self, permission: str) -> bool:
        """Whether the user holds `permission`, or `admin`."""
        return permission in self.permissions or "admin" in self.permissions
