"""What a condition is tested against: the stored values around one owner, at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from mqttjobs.domain.installation import Installation
from mqttjobs.domain.model import EntityKey, EntityKind, Value, ValueKey
from mqttjobs.domain.starting import Daylight
from mqttjobs.domain.sun import Location, daylight, default_location
from mqttjobs.service.settings import ServiceSettings

_zone = lru_cache(maxsize=8)(ZoneInfo)


def zone_of(service: ServiceSettings) -> tzinfo:
    """Return the time zone that schedules and conditions are in."""
    return _zone(service.time_zone)


def location_of(service: ServiceSettings) -> Location:
    """Return the configured location; without one, a place in the time zone where the sun keeps office hours."""
    return _location(service.time_zone, service.latitude, service.longitude)


@lru_cache(maxsize=8)
def _location(time_zone: str, latitude: float | None, longitude: float | None) -> Location:
    if latitude is None or longitude is None:
        return default_location(_zone(time_zone))
    return Location(latitude, longitude)


@dataclass(frozen=True, slots=True)
class StoredConditionContext:
    """See Scene."""

    installation: Installation
    values: Mapping[ValueKey, Value]
    service: ServiceSettings
    owner: EntityKey | None
    now: datetime

    @property
    def zone(self) -> tzinfo:
        """See Scene."""
        return zone_of(self.service)

    def text(self, entity: str, attribute: str | None) -> str | None:
        """See Scene."""
        key = self.installation.resolve(entity, self.owner)
        value = None if key is None else self.value(ValueKey(key.kind, key.id, attribute or ""))
        return None if value is None else value.text

    def value(self, key: ValueKey) -> Value | None:
        """Return a stored value; a link that follows an object and has not changed yet has the object's."""
        found = self.values.get(key)
        if found is None and key.kind is EntityKind.LINK:
            link = self.installation.entities.get(key.entity)
            if link is not None and link.follows is not None:
                found = self.values.get(ValueKey(EntityKind.OBJECT, link.follows, key.name))
        return found

    def daylight(self, day: date) -> Daylight:
        """See Scene."""
        return daylight(location_of(self.service), day, self.zone)
