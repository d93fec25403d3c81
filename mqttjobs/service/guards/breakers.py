"""The breakers of all operations and entities; they live as long as the process and outlast a reload."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mqttjobs.domain.breaker import Breaker, BreakerRule
from mqttjobs.domain.jobs import duration_text
from mqttjobs.domain.model import EntityKey
from mqttjobs.domain.operations import Operation

SWEEP_AT = 10_000
"""So many breakers at least are kept before those with nothing to remember are looked for."""


class Breakers:
    """One breaker for each operation, as it is defined, and owner.

    Args:
        monotonic: seconds that no setting of the wall clock moves.
        on_open: called once when a breaker opens, with the operation, the owner and a sentence.
    """

    def __init__(
        self, monotonic: Callable[[], float], on_open: Callable[[Operation, EntityKey | None, str], object]
    ) -> None:
        self._monotonic = monotonic
        self._on_open = on_open
        self._breakers: dict[tuple[str, str, EntityKey | None], Breaker] = {}
        self._open: dict[tuple[str, str, EntityKey | None], str] = {}
        self._sweep_at = SWEEP_AT

    def allows(self, operation: Operation, owner: EntityKey | None) -> bool:
        """Count a firing; whether it may run."""
        rule = operation.breaker
        if not isinstance(rule, BreakerRule):
            return True
        name = (operation.id, operation.fingerprint, owner)
        now_s = self._monotonic()
        breaker = self._breakers.get(name)
        if breaker is None:
            if len(self._breakers) >= self._sweep_at:
                self._sweep(now_s)
            breaker = self._breakers[name] = Breaker(rule)
        was_open = breaker.is_open(now_s)
        if breaker.fire(now_s):
            self._open.pop(name, None)
            return True
        if not was_open:
            whose = "" if owner is None else f" for {owner.id}"
            message = (
                f"{operation.id}{whose} was started more than {rule.firings} times within "
                f"{duration_text(rule.within)} and is paused for {duration_text(rule.pause)}"
            )
            self._open[name] = message
            self._on_open(operation, owner, message)
        return False

    def install(self, operations: Iterable[Operation]) -> None:
        """Keep the breakers of operations that are as they were, and let go of the others."""
        known = {(operation.id, operation.fingerprint) for operation in operations}
        self._breakers = {name: each for name, each in self._breakers.items() if name[:2] in known}

    def _sweep(self, now_s: float) -> None:
        self._breakers = {name: each for name, each in self._breakers.items() if not each.idle(now_s)}
        self._sweep_at = max(SWEEP_AT, 2 * len(self._breakers))

    def open_for_s(self, operation: Operation, owner: EntityKey | None) -> float | None:
        """Return for how many seconds more an operation is paused, or None."""
        breaker = self._breakers.get((operation.id, operation.fingerprint, owner))
        now_s = self._monotonic()
        if breaker is None or breaker.open_until_s is None or not breaker.is_open(now_s):
            return None
        return breaker.open_until_s - now_s

    def reasons(self) -> list[str]:
        """Return a sentence for each open breaker."""
        now_s = self._monotonic()
        for name in list(self._open):
            breaker = self._breakers.get(name)
            if breaker is None or not breaker.is_open(now_s):
                del self._open[name]
        return list(self._open.values())
