"""The service's one sleep: until the next deadline of a hold or a schedule, or until it is woken."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from mqttjobs.clock import Clock
from mqttjobs.errors import StoreError
from mqttjobs.service.engine import Engine
from mqttjobs.service.ingest.reports import Match
from mqttjobs.service.jobs.events import JobEventPublisher
from mqttjobs.service.scheduling.deadlines import Deadlines
from mqttjobs.service.state.agents import AgentRegistry
from mqttjobs.service.state.cache import StateCache
from mqttjobs.service.state.transaction import Transaction
from mqttjobs.store.base import Store

QUIET_S = 1.0
"""Deadlines that passed while away are tested once intake has been quiet this long…"""
SETTLE_S = 30.0
"""…and after this long at the latest."""
LONGEST_SLEEP_S = 30.0
"""Longest sleep: a wall clock that was set is noticed within this."""
STEP = timedelta(seconds=2)
"""A wall clock that moves this much against the other clock was set, not slewed."""
FLUSH_S = 10.0
PRUNE_S = 60.0

log = structlog.get_logger(__name__)


class Scheduler:
    """Tests deadlines when they are due.

    Holds wait until a session has settled: its subscriptions are granted and its replays are in, so that they are
    tested against the values as they then are (behaviour 2). Schedules wait for that too, but at start alone.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        cache: StateCache,
        agent_registry: AgentRegistry,
        deadlines: Deadlines,
        job_events: JobEventPublisher,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._store = store
        self._cache = cache
        self._agent_registry = agent_registry
        self._deadlines = deadlines
        self._job_events = job_events
        self._clock = clock
        self._connected_s: float | None = None
        self._heard_s = 0.0
        self._settled = False
        self._schedules_open = False
        self._started_s = self._clock.monotonic()
        self._offset_s = self._wall_offset_s()
        self._flushed_s = self._started_s
        self._pruned_s = self._started_s

    def connected(self) -> None:
        """A session's subscriptions are granted: wait for its replays."""
        self._connected_s = self._heard_s = self._clock.monotonic()
        self._settled = False
        self._deadlines.connected(self._clock.now())
        self._deadlines.wake.set()

    def disconnected(self) -> None:
        """The session is gone: holds wait for the next."""
        self._connected_s = None
        self._settled = False
        self._deadlines.connected(None)

    def before_batch(self, tx: Transaction, now: datetime) -> list[Match]:
        """Return what fell due before a batch came: a hold that lasted long enough is not undone by a later change."""
        self._follow_wall_clock(tx)
        due = self._deadlines.next_trigger() if self._settled and self._connected_s is not None else None
        return self._deadlines.triggers_due(tx, now) if due is not None and due <= now else []

    def heard(self) -> None:
        """Reports were taken in: intake is not quiet yet."""
        self._heard_s = self._clock.monotonic()

    async def run(self) -> None:
        """Test what is due, again and again, until cancelled."""
        deadlines = self._deadlines
        while True:
            deadlines.wake.clear()
            try:
                pause_s = await self.run_due()
            except StoreError as error:
                log.error("store-unavailable", details=str(error))
                pause_s = QUIET_S
            deadlines.next_look_at = self._clock.now() + timedelta(seconds=pause_s)
            await self._clock.wait(deadlines.wake, pause_s)

    async def run_due(self) -> float:
        """Do everything that is due now; return the seconds until something is due next."""
        async with self._engine.transaction() as tx:
            self._follow_wall_clock(tx)
            now = self._clock.now()
            matches: list[Match] = []
            if self.is_settled():
                matches = self._deadlines.triggers_due(tx, now)
            ready = self._may_test_schedules() and self._settled
            if self._schedules_open:
                matches += self._deadlines.clock_due(tx, now, ready=ready)
            self._flush_heard(tx)
            await self._engine.configuration.ingest.enqueue(tx, matches)
        if ready:
            self._deadlines.start_done()
        await self._sweep(now)
        return self._pause_s(now)

    def _wall_offset_s(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _follow_wall_clock(self, tx: Transaction) -> None:
        """Move stored holds along when the wall clock was set, so that what remains of them stays the same."""
        offset_s = self._wall_offset_s()
        step = timedelta(seconds=offset_s - self._offset_s)
        if abs(step) < STEP:
            return
        self._offset_s = offset_s
        log.warning("wall-clock-set", seconds=step.total_seconds(), trigger_states=len(self._cache.trigger_states))
        self._deadlines.follow_wall_clock(tx, step)
        tx.assignments |= {row.key: row for row in self._agent_registry.move(step)}

    def is_settled(self) -> bool:
        """Whether there is a session and what came with it has been taken in."""
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

    def _flush_heard(self, tx: Transaction) -> None:
        """Write when repeated values were last heard: at most every ten seconds (behaviour 1.2)."""
        now_s = self._clock.monotonic()
        if now_s - self._flushed_s >= FLUSH_S:
            self._flushed_s = now_s
            tx.heard |= self._cache.heard

    async def _sweep(self, now: datetime) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._pruned_s >= PRUNE_S:
            self._pruned_s = now_s
            gone = await self._store.prune(now, self._engine.configuration.settings.store.retention)
            if gone:
                log.info("pruned", jobs=gone)
                self._pruned_s = now_s - PRUNE_S
        if self._job_events.behind:
            await self._job_events.catch_up()
        self._engine.runner.completer.nudge()

    def _pause_s(self, now: datetime) -> float:
        deadlines = self._deadlines
        dues = [deadlines.next_trigger()] if self._settled else []
        seconds = []
        if self._schedules_open:
            dues.append(deadlines.next_moment())
        else:
            seconds.append(SETTLE_S - (self._clock.monotonic() - self._started_s))
        seconds += [max(0.0, (due - now) / timedelta(seconds=1)) for due in dues if due is not None]
        if self._connected_s is not None and not self._settled:
            seconds.append(QUIET_S - (self._clock.monotonic() - self._heard_s))
        if self._cache.heard:
            seconds.append(FLUSH_S - (self._clock.monotonic() - self._flushed_s))
        return max(0.0, min([LONGEST_SLEEP_S, *seconds]))
