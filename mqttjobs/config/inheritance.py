"""What an object takes over from its class: everything, and its own keys win one by one (contract 2)."""

from __future__ import annotations

from collections.abc import Mapping

from mqttjobs.domain.membership import with_id
from mqttjobs.domain.model import Json

NOT_TAKEN_OVER = ("ids",)


def inherited(
    own: Mapping[str, Json], class_body: Mapping[str, Json], class_id: str, object_id: str
) -> dict[str, Json]:
    """Return an object's keys over those of its class, in which `{{ id }}` is the object's.

    Mappings are put together key by key, at every depth: an object that says only where its `state` is read keeps
    the class's topic.
    """
    base = {key: with_id(value, object_id) for key, value in class_body.items() if key not in NOT_TAKEN_OVER}
    return {**_over(own, base), "class": class_id}


def _over(own: Mapping[str, Json], base: Mapping[str, Json]) -> dict[str, Json]:
    made = {**base, **own}
    for key, value in own.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            made[key] = _over(value, base[key])
    return made
