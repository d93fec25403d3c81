"""State messages become values, changes and jobs: one batch, one transaction, and only then acknowledged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mqttjobs.domain.installation import Installation, Reader, Watcher
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import (
    AVAILABILITY,
    EMPTY,
    Change,
    EntityKey,
    Json,
    Operation,
    Value,
    ValueKey,
    ValueSource,
)
from mqttjobs.domain.protocol import Report, ReportMeta, decode_report, digest, read_state, report_meta
from mqttjobs.domain.triggers import Hold, hold_name, receive, tick
from mqttjobs.domain.values import ORDER, Sighting, Verdict, sight
from mqttjobs.errors import ReportError
from mqttjobs.service.draft import Draft
from mqttjobs.service.mirror import EVENT_ID_MEMORY, Mirror
from mqttjobs.service.newcomers import Newcomers
from mqttjobs.service.running.confirmations import Confirmations
from mqttjobs.service.running.submission import Submission
from mqttjobs.store.base import HistoryEntry
from mqttjobs.transport.base import Message
from mqttjobs.transport.rejections import Rejections

NO_META = ReportMeta()
DEPTH_PROPERTY = "mqttjobs-depth"
ROOT_PROPERTY = "mqttjobs-root"


@dataclass(frozen=True, slots=True)
class Match:
    """A trigger that fired and the job that it asks for, still to be placed as the operation's mode says."""

    job: Job
    operation: Operation


class Ingest:
    """Turns reports into a draft. Pure rules decide; this keeps the mirror and the draft in step with them."""

    def __init__(
        self,
        installation: Installation,
        mirror: Mirror,
        submission: Submission,
        rejections: Rejections,
        confirmations: Confirmations,
        *,
        base_topic: str,
        max_payload: int,
        max_objects: int,
    ) -> None:
        self._installation = installation
        self._mirror = mirror
        self._submission = submission
        self._rejections = rejections
        self._confirmations = confirmations
        self._own_prefix = f"{base_topic}/state/"
        self._max_payload = max_payload
        self._newcomers = Newcomers(
            installation,
            mirror,
            rejections,
            base_topic=base_topic,
            max_payload=max_payload,
            max_objects=max_objects,
        )

    async def take(
        self, draft: Draft, messages: Sequence[Message], at: datetime, matches: Sequence[Match] = ()
    ) -> None:
        """Put what the messages of one batch do into the draft.

        Args:
            draft: to add to.
            messages: in order of receipt; those that are no reports are only remembered by their identifier.
            at: the time of receipt.
            matches: what fell due before the batch came.
        """
        matches = list(matches)
        for message in messages:
            if message.qos and not self._is_new(draft, message):
                draft.reports[Verdict.DUPLICATE] += 1
                continue
            verdict = self._report(draft, matches, message, at)
            draft.reports[verdict] += 1
        await self.place(draft, matches)

    def note_packet(self, draft: Draft, message: Message) -> bool:
        """Remember a request's packet identifier; whether it is new (and no repeat by the broker)."""
        return not message.qos or self._is_new(draft, message)

    async def place(self, draft: Draft, matches: Sequence[Match]) -> None:
        """Put the jobs of matches into the draft, each as its operation's mode says."""
        for match in matches:
            await self._submission.place_match(draft, match.job, match.operation)

    def _is_new(self, draft: Draft, message: Message) -> bool:
        mark = digest(message.topic, message.payload)
        if self._mirror.is_redelivery(message, mark):
            return False
        self._mirror.packets[message.packet_id] = mark
        draft.packets[message.packet_id] = mark
        return True

    def _report(self, draft: Draft, matches: list[Match], message: Message, at: datetime) -> Verdict:
        readers = self._newcomers.readers(draft, message)
        own = f"{message.topic}/".startswith(self._own_prefix)
        if not readers:
            if own:
                self._rejections.tell(message.topic, "unknown_entity", "no configured object or link has this topic")
            return Verdict.UNMATCHED
        try:
            report = decode_report(message.payload, self._max_payload)
            meta = report_meta(report) if own and report is not None else NO_META
        except ReportError as error:
            self._rejections.tell(message.topic, error.reason, error.details)
            return Verdict.INVALID
        if report is None:
            return Verdict.IGNORED
        if meta.event_id is not None and not self._is_new_event(draft, readers[0].key.entity, meta.event_id, at):
            return Verdict.DUPLICATE
        best = Verdict.IGNORED
        changes: list[Change] = []
        for reader in readers:
            verdict = self._read(draft, changes, reader, _Received(report, meta, message, at))
            if ORDER[verdict] < ORDER[best]:
                best = verdict
        self.test(draft, matches, changes)
        return best

    def _is_new_event(self, draft: Draft, entity: EntityKey, event_id: str, at: datetime) -> bool:
        seen_at = self._mirror.event_ids.get((entity, event_id))
        if seen_at is not None and at - seen_at < EVENT_ID_MEMORY:
            return False
        self._mirror.event_ids[(entity, event_id)] = at
        draft.event_ids.append((entity, event_id, at))
        return True

    def _read(self, draft: Draft, changes: list[Change], reader: Reader, received: _Received) -> Verdict:
        text = read_state(received.report, reader.source.path)
        if text is None:
            return Verdict.IGNORED
        verdict = self._value(draft, changes, reader.key, reader.source, text, received)
        for link in self._installation.followers(reader.key.entity):
            key = ValueKey(link.kind, link.id, reader.key.name)
            self._value(draft, changes, key, reader.source, text, received)
        return verdict

    def _value(
        self,
        draft: Draft,
        changes: list[Change],
        key: ValueKey,
        source: ValueSource,
        text: str,
        received: _Received,
    ) -> Verdict:
        mirror = self._mirror
        retained = received.message.retain
        seen = Sighting(text, received.at, received.report.content, retained, key in mirror.live)
        result = sight(key, source, mirror.values.get(key), seen)
        if not retained and result.verdict is not Verdict.IGNORED:
            mirror.live.add(key)
        if not retained and result.value is not None:
            self._heard(draft, key, result.value.text)
        if result.verdict is Verdict.UNCHANGED and result.value is not None:
            mirror.values[key] = result.value
            mirror.heard[key] = received.at
        elif result.verdict is Verdict.CHANGED and result.value is not None:
            depth, root_id = _trace(received.message)
            change = Change(
                key,
                result.value.text,
                result.value.previous,
                received.at,
                received.message.topic,
                result.value.payload,
                silent=result.silent,
                reported_by=received.meta.by,
                reason=received.meta.reason,
                depth=depth,
                root_id=root_id,
            )
            self._keep_value(draft, change, result.value)
            changes.append(change)
        return result.verdict

    def _keep_value(self, draft: Draft, change: Change, value: Value) -> None:
        self._mirror.values[change.key] = value
        self._mirror.heard.pop(change.key, None)
        draft.values[change.key] = value
        draft.history.append(
            HistoryEntry(change.key, change.at, change.text, change.previous, change.reported_by, change.reason)
        )

    def test(self, draft: Draft, matches: list[Match], changes: Sequence[Change]) -> None:
        """Test the triggers that watch what one report changed, once all its values are known."""
        for change in changes:
            for watcher in self._installation.watchers(change.key):
                self._match(draft, matches, watcher, change)

    def _match(self, draft: Draft, matches: list[Match], watcher: Watcher, change: Change) -> None:
        """Test one trigger against a change, and keep what it has to remember."""
        name = hold_name(watcher.operation.trigger_ids[watcher.place], watcher.owner)
        held = self._mirror.holds.get(name)
        step = receive(watcher.trigger, watcher.owner, name, held, change)
        if step.hold is None:
            if held is not None:
                self._mirror.drop_hold(name)
                draft.holds[name] = None
        elif step.hold != held:
            hold = step.hold
            if hold.since_at is not None and (step.fires or held is None or held.since_at != hold.since_at):
                hold = replace(hold, meta=_cause(change))
            self._keep(draft, hold)
        if step.fires:
            job = self._submission.fire(draft, watcher, change, change.at)
            if job is not None:
                matches.append(Match(job, watcher.operation))

    def _heard(self, draft: Draft, key: ValueKey, text: str) -> None:
        """Tell of a live report: a silence is over, and a command may be confirmed by it."""
        if self._mirror.fallen and key.entity in self._mirror.fallen and key.name != AVAILABILITY:
            draft.holds |= self._mirror.heard_again(key.entity)
        if self._confirmations.waits_for(key):
            self._confirmations.heard(key, text)

    def set_state(
        self, draft: Draft, key: ValueKey, text: str, at: datetime, *, by: str | None, reason: str | None
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
            result = sight(each, bare, self._mirror.values.get(each), Sighting(text, at, text))
            self._mirror.live.add(each)
            self._heard(draft, each, text)
            if result.verdict is Verdict.CHANGED and result.value is not None:
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
                self._keep_value(draft, change, result.value)
                changes.append(change)
        self.test(draft, matches, changes)
        return matches

    def pass_time(self, draft: Draft, now: datetime) -> list[Match]:
        """Test the holds that are due and return what fires (behaviour 2)."""
        matches: list[Match] = []
        for hold in self._mirror.due_holds(now):
            self._tick(draft, matches, hold, now)
        return matches

    def _tick(self, draft: Draft, matches: list[Match], hold: Hold, now: datetime) -> None:
        watcher = self._mirror.watcher(hold)
        if watcher is None:
            return
        step = tick(watcher.trigger, hold, now)
        if step.hold is not None:
            self._keep(draft, step.hold)
        else:
            self._mirror.drop_hold(hold.name)
            draft.holds[hold.name] = None
        key = self._installation.watched(watcher.trigger, watcher.owner)
        value = None if key is None else self._mirror.values.get(key)
        if step.fires and value is not None:
            job = self._submission.fire(draft, watcher, self._held_change(value, hold), now)
            if job is not None:
                matches.append(Match(job, watcher.operation))

    def _held_change(self, value: Value, hold: Hold) -> Change:
        """Return the state change that a hold still stands for, from the stored facts."""
        source = self._installation.source_of(value.key)
        meta = hold.meta or EMPTY
        return Change(
            value.key,
            value.text,
            value.previous,
            value.since_at,
            meta.get("topic") or (source.topic if source else None),
            value.payload,
            reported_by=meta.get("reported_by"),
            user_id=meta.get("user_id"),
            depth=meta.get("depth", 0),
            root_id=meta.get("root_id"),
        )

    def _keep(self, draft: Draft, hold: Hold) -> None:
        self._mirror.put_hold(hold)
        draft.holds[hold.name] = hold


@dataclass(frozen=True, slots=True)
class _Received:
    """One decoded message, as its readers share it."""

    report: Report
    meta: ReportMeta
    message: Message
    at: datetime


def _cause(change: Change) -> dict[str, Json]:
    """Return what a job that a hold starts later says of the change that armed it."""
    meta: dict[str, Json] = {}
    for name in ("topic", "reported_by", "user_id", "root_id"):
        value = getattr(change, name)
        if value is not None:
            meta[name] = value
    if change.depth:
        meta["depth"] = change.depth
    return meta


def _trace(message: Message) -> tuple[int, str | None]:
    """Return the depth and root of a publish of ours that came back as a report (behaviour 4)."""
    if not message.user_properties:
        return 0, None
    properties = dict(message.user_properties)
    depth = properties.get(DEPTH_PROPERTY, "")
    if not (depth.isascii() and depth.isdigit() and len(depth) < 4):
        return 0, None
    return int(depth), properties.get(ROOT_PROPERTY, "")[:64] or None
