"""The service's one sleep: until the next deadline of a hold or a schedule, or until it is woken."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import structlog

from mqttjobs.errors import StoreError
from mqttjobs.service.draft import Draft
from mqttjobs.service.ingest import Match
from mqttjobs.service.workshop import Workshop

QUIET_S = 1.0
"""Deadlines that passed while away are tested once intake has been quiet this long…"""
SETTLE_S = 30.0
"""…and after this long at the latest."""
LOOK_S = 30.0
"""Longest sleep: a wall clock that was set is noticed within this."""
STEP = timedelta(seconds=2)
"""A wall clock that moves this much against the other clock was set, not slewed."""
FLUSH_S = 10.0
PRUNE_S = 60.0

log = structlog.get_logger(__name__)


class Timekeeper:
    """Tests deadlines when they are due.

    Holds wait until a session has settled: its subscriptions are granted and its replays are in, so that they are
    tested against the values as they then are (behaviour 2). Schedules wait for that too, but at start alone.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        workshop.recorded = self._recorded
        self._clock = workshop.clock
        self._wake = asyncio.Event()
        self._connected_s: float | None = None
        self._heard_s = 0.0
        self._settled = False
        self._schedules_open = False
        self._started_s = self._clock.monotonic()
        self._offset_s = self._wall_offset_s()
        self._next_look_at = self._clock.now()
        self._flushed_s = self._started_s
        self._pruned_s = self._started_s

    def connected(self) -> None:
        """A session's subscriptions are granted: wait for its replays."""
        self._connected_s = self._heard_s = self._clock.monotonic()
        self._settled = False
        self._workshop.agenda.connected(self._clock.now())
        self._wake.set()

    def disconnected(self) -> None:
        """The session is gone: holds wait for the next."""
        self._connected_s = None
        self._settled = False
        self._workshop.agenda.connected(None)

    def before_batch(self, draft: Draft, now: datetime) -> list[Match]:
        """Return what fell due before a batch came: a hold that lasted long enough is not undone by a later change."""
        self._follow_wall_clock(draft)
        due = self._workshop.agenda.next_hold() if self._settled and self._connected_s is not None else None
        return self._workshop.agenda.holds_due(draft, now) if due is not None and due <= now else []

    def heard(self) -> None:
        """Reports were taken in: intake is not quiet yet."""
        self._heard_s = self._clock.monotonic()

    def _recorded(self) -> None:
        """Something was recorded: its holds may be due sooner than what is waited for."""
        due = self._workshop.agenda.next_hold()
        if due is not None and due < self._next_look_at:
            self._wake.set()

    def nudge(self) -> None:
        """Look now: the configuration or an activation changed."""
        self._wake.set()

    @property
    def settled(self) -> bool:
        """Whether there is a session and what came with it has been taken in."""
        return self._may_test_holds()

    async def run(self) -> None:
        """Test what is due, again and again, until cancelled."""
        while True:
            self._wake.clear()
            try:
                pause_s = await self.look()
            except StoreError as error:
                log.error("store-unavailable", details=str(error))
                pause_s = QUIET_S
            self._next_look_at = self._clock.now() + timedelta(seconds=pause_s)
            await self._clock.wait(self._wake, pause_s)

    async def look(self) -> float:
        """Do everything that is due now; return the seconds until something is due next."""
        workshop = self._workshop
        async with workshop.turn:
            await workshop.refresh()
            draft = Draft()
            self._follow_wall_clock(draft)
            now = self._clock.now()
            matches: list[Match] = []
            if self._may_test_holds():
                matches = workshop.agenda.holds_due(draft, now)
            if self._may_test_schedules():
                matches += workshop.agenda.clock_due(draft, now, ready=self._settled)
            self._flush_heard(draft)
            await workshop.ingest.place(draft, matches)
            if draft:
                await workshop.commit(draft)
        await self._sweep(now)
        return self._pause_s(now)

    def _wall_offset_s(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _follow_wall_clock(self, draft: Draft) -> None:
        """Move stored holds along when the wall clock was set, so that what remains of them stays the same."""
        offset_s = self._wall_offset_s()
        step = timedelta(seconds=offset_s - self._offset_s)
        if abs(step) < STEP:
            return
        self._offset_s = offset_s
        log.warning("wall-clock-set", seconds=step.total_seconds(), holds=len(self._workshop.mirror.holds))
        self._workshop.agenda.follow_wall_clock(draft, step)
        draft.assignments |= {row.key: row for row in self._workshop.roster.move(step)}

    def _may_test_holds(self) -> bool:
        if self._connected_s is None:
            return False
        now_s = self._clock.monotonic()
        if not self._settled:
            self._settled = now_s - self._heard_s >= QUIET_S or now_s - self._connected_s >= SETTLE_S
        return self._settled

    def _may_test_schedules(self) -> bool:
        if not self._schedules_open:
            self._schedules_open = self._settled or self._clock.monotonic() - self._started_s >= SETTLE_S
        return self._schedules_open

    def _flush_heard(self, draft: Draft) -> None:
        """Write when repeated values were last heard: at most every ten seconds (behaviour 1.2)."""
        now_s = self._clock.monotonic()
        if now_s - self._flushed_s >= FLUSH_S:
            self._flushed_s = now_s
            draft.heard.extend(self._workshop.mirror.heard.items())
            self._workshop.mirror.heard.clear()

    async def _sweep(self, now: datetime) -> None:
        workshop = self._workshop
        now_s = self._clock.monotonic()
        if now_s - self._pruned_s >= PRUNE_S:
            self._pruned_s = now_s
            gone = await workshop.store.prune(now, workshop.settings.retention)
            if gone:
                log.info("pruned", jobs=gone)
                self._pruned_s = now_s - PRUNE_S
        if workshop.announcer.behind:
            await workshop.announcer.catch_up()
        workshop.runner.clerk.nudge()

    def _pause_s(self, now: datetime) -> float:
        agenda = self._workshop.agenda
        dues = [agenda.next_hold()] if self._settled else []
        seconds = []
        if self._schedules_open:
            dues.append(agenda.next_moment())
        else:
            seconds.append(SETTLE_S - (self._clock.monotonic() - self._started_s))
        seconds += [max(0.0, (due - now) / timedelta(seconds=1)) for due in dues if due is not None]
        if self._connected_s is not None and not self._settled:
            seconds.append(QUIET_S - (self._clock.monotonic() - self._heard_s))
        if self._workshop.mirror.heard:
            seconds.append(FLUSH_S - (self._clock.monotonic() - self._flushed_s))
        return max(0.0, min([LOOK_S, *seconds]))
