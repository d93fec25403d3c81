"""State messages become values, changes and jobs: one batch, one transaction, and only then acknowledged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mqttjobs.domain.automaton import receive, tick, trigger_state_name
from mqttjobs.domain.installation import Reader, Watcher
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import AVAILABILITY, EMPTY, Change, EntityKey, Json, Value, ValueKey, ValueSource
from mqttjobs.domain.operations import Operation
from mqttjobs.domain.protocol import (
    NO_META,
    Report,
    ReportMeta,
    decode_report,
    digest,
    read_state,
    read_trace,
    report_meta,
)
from mqttjobs.domain.triggers.base import TriggerState
from mqttjobs.domain.values import ORDER, Reading, ReportResult, apply_reading
from mqttjobs.errors import ReportError
from mqttjobs.service.ingest.discovery import Discovery
from mqttjobs.service.jobs.confirmations import Confirmations
from mqttjobs.service.jobs.factory import JobFactory
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.store.base import EVENT_IDS_KEPT, HistoryEntry
from mqttjobs.transport.base import Message
from mqttjobs.transport.rejections import Rejections


@dataclass(frozen=True, slots=True)
class Match:
    """A trigger that fired and the job that it asks for, still to be placed as the operation's mode says."""

    job: Job
    operation: Operation


class Ingest:
    """Turns reports into values, changes and jobs, by pure rules; changes the cache and the transaction together."""

    def __init__(
        self,
        settings: Settings,
        cache: StateCache,
        job_factory: JobFactory,
        rejections: Rejections,
        confirmations: Confirmations,
    ) -> None:
        self._installation = settings.installation
        self._cache = cache
        self._job_factory = job_factory
        self._rejections = rejections
        self._confirmations = confirmations
        self._own_prefix = f"{settings.base_topic}/state/"
        self._max_payload = settings.service.max_payload
        self._discovery = Discovery(settings, cache, rejections)

    async def take(
        self, tx: Transaction, messages: Sequence[Message], at: datetime, matches: Sequence[Match] = ()
    ) -> None:
        """Add the effects of a batch of messages to a transaction.

        Args:
            tx: to add to.
            messages: in order of receipt; those that are no reports are only remembered by their identifier.
            at: the time of receipt.
            matches: what fell due before the batch came.
        """
        matches = list(matches)
        for message in messages:
            if message.qos and not self._is_new(tx, message):
                tx.reports[ReportResult.DUPLICATE] += 1
                continue
            report_result = self._report(tx, matches, message, at)
            tx.reports[report_result] += 1
        await self.enqueue(tx, matches)

    def note_packet(self, tx: Transaction, message: Message) -> bool:
        """Remember a request's packet identifier; whether it is new (and no repeat by the broker)."""
        return not message.qos or self._is_new(tx, message)

    async def enqueue(self, tx: Transaction, matches: Sequence[Match]) -> None:
        """Add the jobs of matches to a transaction, each as its operation's mode requires."""
        for match in matches:
            await self._job_factory.enqueue_match(tx, match.job, match.operation)

    def _is_new(self, tx: Transaction, message: Message) -> bool:
        mark = digest(message.topic, message.payload)
        if self._cache.is_redelivery(message, mark):
            return False
        self._cache.packets[message.packet_id] = mark
        tx.packets[message.packet_id] = mark
        return True

    def _report(self, tx: Transaction, matches: list[Match], message: Message, at: datetime) -> ReportResult:
        readers = self._discovery.readers(tx, message)
        own = f"{message.topic}/".startswith(self._own_prefix)
        if not readers:
            if own:
                self._rejections.publish(message.topic, "unknown_entity", "no configured object or link has this topic")
            return ReportResult.UNMATCHED
        try:
            report = decode_report(message.payload, self._max_payload)
            meta = report_meta(report) if own and report is not None else NO_META
        except ReportError as error:
            self._rejections.publish(message.topic, error.reason, error.details)
            return ReportResult.INVALID
        if report is None:
            return ReportResult.IGNORED
        if meta.event_id is not None and not self._is_new_event(tx, readers[0].key.entity, meta.event_id, at):
            return ReportResult.DUPLICATE
        best = ReportResult.IGNORED
        changes: list[Change] = []
        for reader in readers:
            report_result = self._read(tx, changes, reader, _Received(report, meta, message, at))
            if ORDER[report_result] < ORDER[best]:
                best = report_result
        self.test(tx, matches, changes)
        return best

    def _is_new_event(self, tx: Transaction, entity: EntityKey, event_id: str, at: datetime) -> bool:
        seen_at = self._cache.event_ids.get((entity, event_id))
        if seen_at is not None and at - seen_at < EVENT_IDS_KEPT:
            return False
        self._cache.event_ids[(entity, event_id)] = at
        tx.event_ids.append((entity, event_id, at))
        return True

    def _read(self, tx: Transaction, changes: list[Change], reader: Reader, received: _Received) -> ReportResult:
        text = read_state(received.report, reader.source.path)
        if text is None:
            return ReportResult.IGNORED
        report_result = self._value(tx, changes, reader.key, reader.source, text, received)
        for link in self._installation.followers(reader.key.entity):
            key = ValueKey(link.kind, link.id, reader.key.name)
            self._value(tx, changes, key, reader.source, text, received)
        return report_result

    def _value(
        self,
        tx: Transaction,
        changes: list[Change],
        key: ValueKey,
        source: ValueSource,
        text: str,
        received: _Received,
    ) -> ReportResult:
        cache = self._cache
        retained = received.message.retain
        reading = Reading(
            text,
            received.at,
            received.report.content,
            retained,
            live_before=key in cache.live,
            reported_at=received.meta.reported_at,
        )
        result = apply_reading(key, source, cache.values.get(key), reading)
        if not retained and result.report_result is not ReportResult.IGNORED:
            cache.live.add(key)
        if not retained and result.value is not None:
            self._heard(tx, key, result.value.text)
        if result.report_result is ReportResult.UNCHANGED and result.value is not None:
            cache.values[key] = result.value
            cache.heard[key] = received.at
        elif result.report_result is ReportResult.CHANGED and result.value is not None:
            depth, root_id = read_trace(received.message.user_properties)
            change = Change(
                key,
                result.value.text,
                result.value.previous,
                received.at,
                received.message.topic,
                result.value.payload,
                silent=result.silent,
                reported_at=result.value.reported_at,
                reported_by=received.meta.by,
                reason=received.meta.reason,
                depth=depth,
                root_id=root_id,
            )
            self._keep_value(tx, change, result.value)
            changes.append(change)
        return result.report_result

    def _keep_value(self, tx: Transaction, change: Change, value: Value) -> None:
        self._cache.values[change.key] = value
        self._cache.heard.pop(change.key, None)
        tx.values[change.key] = value
        tx.history.append(
            HistoryEntry(
                change.key,
                change.at,
                change.text,
                change.previous,
                change.reported_by,
                change.reason,
                change.reported_at,
            )
        )

    def test(self, tx: Transaction, matches: list[Match], changes: Sequence[Change]) -> None:
        """Test the triggers that watch what one report changed, once all its values are known."""
        for change in changes:
            for watcher in self._installation.watchers(change.key):
                self._match(tx, matches, watcher, change)

    def _match(self, tx: Transaction, matches: list[Match], watcher: Watcher, change: Change) -> None:
        """Test one trigger against a change, and keep what it has to remember."""
        name = trigger_state_name(watcher.operation.trigger_ids[watcher.trigger_index], watcher.owner)
        held = self._cache.trigger_states.get(name)
        step = receive(watcher.trigger, watcher.owner, name, held, change)
        if step.state is None:
            if held is not None:
                self._cache.drop_trigger_state(tx, name)
        elif step.state != held:
            trigger_state = step.state
            if trigger_state.since_at is not None and (
                step.fires or held is None or held.since_at != trigger_state.since_at
            ):
                trigger_state = replace(trigger_state, meta=_origin(change))
            self._cache.put_trigger_state(tx, trigger_state)
        if step.fires:
            job = self._job_factory.create_from_trigger(tx, watcher, change, change.at)
            if job is not None:
                matches.append(Match(job, watcher.operation))

    def _heard(self, tx: Transaction, key: ValueKey, text: str) -> None:
        """Tell of a live report: a silence is over, and a command may be confirmed by it."""
        if self._cache.fallen and key.entity in self._cache.fallen and key.name != AVAILABILITY:
            self._cache.heard_again(tx, key.entity)
        if self._confirmations.waits_for(key):
            self._confirmations.heard(key, text)

    def set_state(
        self, tx: Transaction, key: ValueKey, text: str, at: datetime, *, by: str | None, reason: str | None
    ) -> list[Match]:
        """Set a value as if it had been reported, with `by` as the authenticated user (states/set).

        The value's `map` and `ignore` are for what devices say and are not used. Links that follow change too.
        """
        matches: list[Match] = []
        changes: list[Change] = []
        keys = [
            key,
            *(ValueKey(link.kind, link.id, key.name) for link in self._installation.followers(key.entity)),
        ]
        for each in keys:
            source = self._installation.source_of(each) or ValueSource("")
            bare = ValueSource(source.topic, event=source.event, ignore=frozenset())
            result = apply_reading(each, bare, self._cache.values.get(each), Reading(text, at, text))
            self._cache.live.add(each)
            self._heard(tx, each, text)
            if result.report_result is ReportResult.CHANGED and result.value is not None:
                change = Change(
                    each,
                    text,
                    result.value.previous,
                    at,
                    payload=text,
                    reported_by=by,
                    reason=reason,
                    user_id=by,
                )
                self._keep_value(tx, change, result.value)
                changes.append(change)
        self.test(tx, matches, changes)
        return matches

    def pass_time(self, tx: Transaction, now: datetime) -> list[Match]:
        """Test the holds that are due and return what fires (behaviour 2)."""
        matches: list[Match] = []
        for trigger_state in self._cache.due_trigger_states(now):
            self._tick(tx, matches, trigger_state, now)
        return matches

    def _tick(self, tx: Transaction, matches: list[Match], trigger_state: TriggerState, now: datetime) -> None:
        watcher = self._cache.watcher(trigger_state)
        if watcher is None:
            return
        step = tick(watcher.trigger, trigger_state, now)
        if step.state is not None:
            self._cache.put_trigger_state(tx, step.state)
        else:
            self._cache.drop_trigger_state(tx, trigger_state.name)
        key = self._installation.watched(watcher.trigger, watcher.owner)
        value = None if key is None else self._cache.values.get(key)
        if step.fires and value is not None:
            job = self._job_factory.create_from_trigger(tx, watcher, self._held_change(value, trigger_state), now)
            if job is not None:
                matches.append(Match(job, watcher.operation))

    def _held_change(self, value: Value, trigger_state: TriggerState) -> Change:
        """Return the state change that a hold still stands for, from the stored facts."""
        source = self._installation.source_of(value.key)
        meta = trigger_state.meta or EMPTY
        return Change(
            value.key,
            value.text,
            value.previous,
            value.since_at,
            meta.get("topic") or (source.topic if source else None),
            value.payload,
            reported_at=value.reported_at,
            reported_by=meta.get("reported_by"),
            user_id=meta.get("user_id"),
            depth=meta.get("depth", 0),
            root_id=meta.get("root_id"),
        )


@dataclass(frozen=True, slots=True)
class _Received:
    """One decoded message, as its readers share it."""

    report: Report
    meta: ReportMeta
    message: Message
    at: datetime


def _origin(change: Change) -> dict[str, Json]:
    """Return what a job that a hold starts later says of the change that armed it."""
    meta: dict[str, Json] = {}
    for name in ("topic", "reported_by", "user_id", "root_id"):
        value = getattr(change, name)
        if value is not None:
            meta[name] = value
    if change.depth:
        meta["depth"] = change.depth
    return meta
