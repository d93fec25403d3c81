"""Publishing in order, with a bounded number in flight, and again after a reconnect."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import structlog

from mqttjobs.errors import ConnectionLost
from mqttjobs.transport.base import REFUSED, Publication, Session

WINDOW = 800
"""The most publications in flight: the client takes time in proportion to their number."""
SUSPECT = 2
"""After so many lost connections in a row, the first unconfirmed publication is sent alone, to find the cause."""
MOST_LOST = 10
"""After so many lost connections in a row, that publication is given up: it would end every connection."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Item:
    """One publication, its index in the order of calls, and the caller's future."""

    index: int
    publication: Publication
    future: asyncio.Future[int]
    lost: int = 0
    """How many connections were lost while this was the first unconfirmed publication."""


class Publisher:
    """Sends publications in call order over the current session.

    Publications in flight when a connection is lost are sent again on the next one, in the same order, unless the
    caller has cancelled the future: the outcome of a lost publication is unknown, not failed (behaviour 3.10).
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._session: Session | None = None
        self._waiting: deque[_Item] = deque()
        self._sent: dict[int, _Item] = {}
        self._next_index = 0

    @property
    def connected(self) -> bool:
        """Whether there is a session to send on."""
        return self._session is not None

    @property
    def backlog(self) -> int:
        """How many publications wait for room or for a connection."""
        return len(self._waiting)

    def publish(self, publication: Publication) -> asyncio.Future[int]:
        """Send, now or when there is room; the future gives the PUBACK reason code.

        The future raises ValueError for a publication that cannot be sent. Cancel the future to give up.
        """
        item = _Item(self._next_index, publication, asyncio.get_running_loop().create_future())
        self._next_index += 1
        if self._session is not None and not self._waiting and self._has_room(item):
            self._send(self._session, item)
        else:
            self._waiting.append(item)
        return item.future

    def _has_room(self, item: _Item) -> bool:
        if not self._sent:
            return True
        first = next(iter(self._sent.values()))
        return max(first.lost, item.lost) < SUSPECT and len(self._sent) < self._window

    def attach(self, session: Session) -> None:
        """Send over `session` from now on, beginning with lost publications."""
        self._session = session
        self._pump()

    def detach(self) -> None:
        """Stop sending: the session is gone. Publications in flight wait for the next session."""
        self._session = None
        lost = sorted(self._sent.values(), key=lambda item: item.index)
        self._sent.clear()
        if lost:
            lost[0].lost += 1
            if lost[0].lost >= MOST_LOST:
                self._refuse(lost.pop(0))
        self._waiting.extendleft(reversed(lost))

    def _refuse(self, item: _Item) -> None:
        """Give up a publication that seems to end each connection: a 3.1.1 broker cannot refuse it in another way."""
        log.error("publication-refused", topic=item.publication.topic, bytes=len(item.publication.payload))
        if not item.future.done():
            item.future.set_result(REFUSED)

    def _send(self, session: Session, item: _Item) -> None:
        try:
            sending = session.publish(item.publication)
        except ConnectionLost:
            self._waiting.appendleft(item)
            self._session = None
            return
        except ValueError as error:
            item.future.set_exception(error)
            item.future.exception()  # the caller may not wait for it
            return
        self._sent[item.index] = item
        sending.add_done_callback(lambda done: self._sent_or_lost(session, item, done))

    def _sent_or_lost(self, session: Session, item: _Item, done: asyncio.Future[int]) -> None:
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or isinstance(error, ConnectionLost):
            return  # detach() queues it again: the session fails all its futures
        if self._sent.pop(item.index, None) is not None and not item.future.done():
            if error is None:
                item.future.set_result(done.result())
            else:
                item.future.set_exception(error)
        if self._waiting and session is self._session:
            self._pump()

    def _pump(self) -> None:
        while self._session is not None and self._waiting and self._has_room(self._waiting[0]):
            item = self._waiting.popleft()
            if not item.future.done():
                self._send(self._session, item)
