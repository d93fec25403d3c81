"""The configuration in use, and the one way in which what is decided becomes durable and starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mqttjobs.domain.status import LOCAL
from mqttjobs.service.jobs.runner import Runner
from mqttjobs.service.parts import Configuration, Parts
from mqttjobs.service.settings import Settings
from mqttjobs.service.state.transaction import Transaction


class Engine:
    """What every use case shares: transactions, and the configuration by which they are decided.

    Attributes:
        configuration: what is in use now. A use case reads it anew each time; it changes between transactions alone.
        runner: runs the jobs that transactions have made.
    """

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self._parts = parts
        self._lock = asyncio.Lock()
        self._stale = True
        self._handed_over: set[asyncio.Future[None]] = set()
        self.runner = Runner(
            settings.service.hostname,
            parts.store,
            parts.cache,
            parts.publisher,
            parts.job_events,
            parts.clock,
            parts.confirmations,
            transaction=self.transaction,
        )
        self.use(parts.configure(settings))

    def use(self, configuration: Configuration) -> None:
        """Decide by a configuration from now on, and look anew at everything that waits."""
        parts, settings = self._parts, configuration.settings
        self.configuration = configuration
        self.runner.install(settings, configuration.resolver)
        parts.breakers.install(settings.installation.operations.values())
        parts.deadlines.install(settings, configuration.ingest, configuration.job_factory)
        parts.agent_scheduler.install(settings, configuration.resolver)
        parts.deadlines.wake.set()
        parts.agent_scheduler.wake()
        self.runner.wake()

    def adopt(self, tx: Transaction, configuration: Configuration, by: str) -> None:
        """Bring what is remembered in line with a configuration, which is used once that is recorded."""
        cache, installation, now = self._parts.cache, configuration.settings.installation, self._parts.clock.now()
        cache.install(installation)
        tx.trigger_states |= dict.fromkeys(cache.take_gone())
        for operation in installation.operations.values():
            cache.remember(tx, operation, now, by)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Decide into a transaction, which is recorded when the block ends. There is no other way to commit.

        1. The lock is taken: transactions are decided one after the other, and recorded in that order.
        2. The cache is read from the store if it may be ahead of the store.
        3. The block decides, and changes the cache only together with the transaction.
        4. What follows failures is added (`on_failure`). Stops lose against outcomes that were recorded meanwhile:
           they are left out, and a strict one is refused. Jobs that publish are claimed at once where nothing waits
           before them (Runner.admit).
        5. The store records everything or nothing. A transaction without content is not recorded.
        6. What was recorded is counted, stopped and started.

        An exclusive transaction (see there) keeps the lock until it is stored. Any other lets go of the lock once the
        store has it, so that outcomes share a commit with what is decided meanwhile. Synchronous code that follows
        the block of an exclusive transaction runs before any other transaction is decided.

        On any exception, of the block or of the store, nothing is written, and what an exclusive transaction has
        changed in the cache is read anew before the next one is decided.

        Raises:
            StoreError: the store is unavailable.
            TerminalState: a strict update is of a job that has ended.
            NotFound: an update, result or deletion is of a job that is not stored.
        """
        tx = Transaction()
        async with self._lock:
            try:
                await self._refresh()
                yield tx
                await self._complete(tx)
                recording = self._hand_over(tx) if tx else None
                if recording is not None and tx.exclusive:
                    await asyncio.shield(recording)
            except BaseException:
                self._stale = self._stale or tx.exclusive
                raise
        if recording is not None:
            await asyncio.shield(recording)
        self._recorded(tx)

    async def _refresh(self) -> None:
        """Read what is known from the store if it may be ahead of it: at first, and when a record has failed."""
        if not self._stale:
            return
        await self._settle()
        parts, installation = self._parts, self.configuration.settings.installation
        snapshot = await parts.store.load()
        parts.agent_registry.load(snapshot.agents, await parts.store.assignments())
        for class_id, member in snapshot.members:
            installation.register(class_id, member)
        parts.cache.load(snapshot, installation)
        parts.deadlines.restore()
        self._stale = False

    async def _settle(self) -> None:
        """Wait until everything that the store was given is stored, or has failed."""
        while self._handed_over:
            await asyncio.wait(self._handed_over)

    async def _complete(self, tx: Transaction) -> None:
        """Add what follows from the decisions, and take away what came too late."""
        follow, now = self.configuration.on_failure.follow, self._parts.clock.now()
        for job in tx.ended.values():
            await follow(tx, job, now)
        followed = 0
        while followed < len(tx.jobs):
            job = tx.jobs[followed]
            if job.ended and job.target != LOCAL and job.invalid_fields is None:  # it found no agent
                await follow(tx, job, now)
            followed += 1
        if tx.stopped:
            await self._settle()
            await self._leave_out_ended(tx)
        tx.jobs = [self.runner.admit(job) for job in tx.jobs]

    def _hand_over(self, tx: Transaction) -> asyncio.Future[None]:
        """Give a transaction to the store, behind all that were given before."""
        recording = asyncio.ensure_future(self._parts.store.record(tx))
        self._handed_over.add(recording)
        recording.add_done_callback(self._handed_over.discard)
        return recording

    async def _leave_out_ended(self, tx: Transaction) -> None:
        """Leave out stops of jobs that ended by themselves meanwhile; a strict one is left to be refused."""
        fresh = {job.uid for job in tx.jobs}
        strict = {update.uid for update in tx.updates if update.strict}
        gone = set()
        for job in tx.stopped:
            if job.uid not in fresh | strict:
                stored = await self._parts.store.get(job.uid)
                if stored is None or stored.ended:
                    gone.add(job.uid)
        if gone:
            tx.stopped = [job for job in tx.stopped if job.uid not in gone]
            tx.updates = [update for update in tx.updates if update.uid not in gone]

    def _recorded(self, tx: Transaction) -> None:
        """Count what was recorded, end what it stopped and start its jobs."""
        self._parts.counters.add(tx)
        if not tx:
            return
        self._parts.cache.recorded(tx)
        if tx.stopped:
            self.runner.stopped(tx.stopped)
        self.runner.start(tx.jobs)
        self.runner.publish_changed(tx.changed.values())
        self._parts.agent_scheduler.recorded(tx)
        self._parts.deadlines.recorded()
