"""What the jobs of one operation type share in a process: opened before the first job, closed when none needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import structlog

from mqttjobs.executors.base import Executor

OPEN_S = 60.0
"""How long `open` may take."""
CLOSE_S = 10.0
"""How long `close` may take."""

log = structlog.get_logger(__name__)


class NotOpened(Exception):
    """What the jobs of a type share could not be opened; the text says why."""


class _Opened(NamedTuple):
    """What `open` returned, or why it failed."""

    shared: Any = None
    error: str | None = None


@dataclass(slots=True)
class _Entry:
    """One type: how many jobs use what it shares, and the tasks that open it and that close what was open before."""

    users: int = 0
    opening: asyncio.Task[_Opened] | None = None
    closing: asyncio.Task[None] | None = None


class SharedResources:
    """Everything that operation types share among their jobs, in one process: one resource a type.

    A resource is opened for the first job that needs it. It stays open until `close`, or until no job uses it and
    `keep` no longer names its type. A new one is opened only when the old one has been closed.
    """

    def __init__(self) -> None:
        self._kept: Collection[str] | None = None
        self._entries: dict[type[Executor], _Entry] = {}
        self._failures: dict[str, str] = {}

    def keep(self, types: Collection[str]) -> None:
        """Keep open what these types share; the others are closed as soon as no job uses them.

        Until this is called, everything stays open.
        """
        self._kept = types
        for kind, entry in self._entries.items():
            self._close_if_unused(kind, entry)
        self._failures = {name: error for name, error in self._failures.items() if name in types}

    def reasons(self) -> list[str]:
        """Return what could not be opened when it was last tried, in sentences."""
        return [f"operation type {name}: {error}" for name, error in sorted(self._failures.items())]

    @asynccontextmanager
    async def use(self, kind: type[Executor], within_s: float) -> AsyncIterator[Any]:
        """Give what the jobs of a type share for as long as the block runs; None for a type that shares nothing.

        It does not suspend where the resource is open already.

        Raises:
            NotOpened: `open` failed, or took longer than OPEN_S.
            TimeoutError: it was not open within `within_s` seconds; it may be for the next job.
        """
        entry = self._entries.setdefault(kind, _Entry())
        entry.users += 1
        try:
            if entry.opening is None:
                entry.opening = asyncio.create_task(self._open(kind, entry), name=f"open-{kind.kind}")
            async with asyncio.timeout(within_s):
                opened = await asyncio.shield(entry.opening)
            if opened.error is not None:
                raise NotOpened(opened.error)
            yield opened.shared
        finally:
            entry.users -= 1
            self._close_if_unused(kind, entry)

    async def close(self) -> None:
        """Close everything; no job may be running any more."""
        for kind, entry in self._entries.items():
            self._close_soon(kind, entry)
        closing = [entry.closing for entry in self._entries.values() if entry.closing is not None]
        if closing:
            await asyncio.wait(closing)

    async def _open(self, kind: type[Executor], entry: _Entry) -> _Opened:
        if entry.closing is not None:
            await asyncio.wait([entry.closing])
        error: str
        try:
            async with asyncio.timeout(OPEN_S) as limit:
                opened = _Opened(await kind.open())
        except Exception as caught:  # noqa: BLE001 - whatever a type raises fails its jobs and nothing else
            reason = str(caught) or type(caught).__name__
            error = f"not opened within {OPEN_S:g} s" if limit.expired() else f"could not be opened: {reason}"
        else:
            self._failures.pop(kind.kind, None)
            return opened
        entry.opening = None
        if self._failures.get(kind.kind) != error:
            log.error("shared-not-opened", type=kind.kind, details=error)
        self._failures[kind.kind] = error
        return _Opened(error=error)

    def _close_if_unused(self, kind: type[Executor], entry: _Entry) -> None:
        if not entry.users and self._kept is not None and kind.kind not in self._kept:
            self._close_soon(kind, entry)

    def _close_soon(self, kind: type[Executor], entry: _Entry) -> None:
        opening, entry.opening = entry.opening, None
        if opening is not None:
            closing = _close(kind, opening, entry.closing)
            entry.closing = asyncio.create_task(closing, name=f"close-{kind.kind}")


async def _close(kind: type[Executor], opening: asyncio.Task[_Opened], before: asyncio.Task[None] | None) -> None:
    """Close what was opened, after what was open `before`; one that is being opened is given up."""
    if not opening.done():
        opening.cancel()
    await asyncio.wait([opening] if before is None else [opening, before])
    if opening.cancelled() or opening.result().error is not None:
        return
    try:
        async with asyncio.timeout(CLOSE_S):
            await kind.close(opening.result().shared)
    except Exception:
        log.exception("shared-not-closed", type=kind.kind)


@cache
def shares(kind: type[Executor]) -> bool:
    """Whether the jobs of a type share something: the type has an `open` of its own."""
    return any("open" in vars(each) for each in kind.__mro__ if issubclass(each, Executor) and each is not Executor)
