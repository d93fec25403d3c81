"""Members of classes with `ids: any`: who reports on a topic of the class is one, once it has said something."""

from __future__ import annotations

from collections.abc import Sequence

from mqttjobs.domain.installation import Reader
from mqttjobs.domain.model import Entity
from mqttjobs.domain.protocol import decode_report, read_state
from mqttjobs.domain.service_topics import is_reserved
from mqttjobs.errors import ReportError
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.transport.base import Message
from mqttjobs.transport.rejections import Rejections


class Discovery:
    """Finds the values that a topic feeds, and takes up whoever is new. One for each installation."""

    def __init__(self, settings: Settings, cache: StateCache, rejections: Rejections) -> None:
        self._base_topic = settings.base_topic
        self._installation = settings.installation
        self._cache = cache
        self._rejections = rejections
        self._max_payload = settings.service.max_payload
        self._max_objects = settings.service.max_objects
        self._objects = settings.installation.objects

    def readers(self, tx: Transaction, message: Message) -> Sequence[Reader]:
        """Return the values that a message's topic feeds, those of a member that appears with it included."""
        installation = self._installation
        if not installation.membership:
            return installation.readers(message.topic)
        if not installation.readers(message.topic):
            self._welcome(message)
        readers = installation.readers(message.topic)
        for reader in readers:
            self._remember(tx, reader)
        return readers

    def _welcome(self, message: Message) -> None:
        if is_reserved(message.topic, self._base_topic):
            return
        for class_id, entity in self._installation.membership.candidates(message.topic):
            if entity.key in self._installation.entities or not self._says_something(entity, message):
                continue
            if self._objects >= self._max_objects:
                details = f"there are as many objects as service.max_objects allows ({self._max_objects})"
                self._rejections.publish(message.topic, "too_many_objects", details)
            elif self._installation.register(class_id, entity.key.id) is not None:
                self._objects += 1
                self._cache.joined.append(entity.key)

    def _remember(self, tx: Transaction, reader: Reader) -> None:
        """Have a member stored that is not: it is new, or the transaction that had it failed."""
        key = reader.key.entity
        if not self._installation.is_registered(key):
            return
        member = (self._installation.entities[key].class_id or "", key.id)
        if member not in self._cache.members:
            self._cache.members.add(member)
            tx.members.append(member)

    def _says_something(self, entity: Entity, message: Message) -> bool:
        """Whether a message has a state for one of an entity's values: garbage makes no member."""
        try:
            report = decode_report(message.payload, self._max_payload)
        except ReportError:
            return False
        if report is None:
            return False
        texts = [
            (source, read_state(report, source.path))
            for source in entity.sources.values()
            if source.topic == message.topic
        ]
        return any(text is not None and text not in source.ignore for source, text in texts)
