"""What a trigger is: keys, each a frozen record with hooks, compiled once so that matching calls only those in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from pydantic import ConfigDict
from pydantic.fields import FieldInfo

from mqttjobs.domain.fields import Record, spellings
from mqttjobs.domain.model import EMPTY, STATE, Change, EntityKey, Json
from mqttjobs.domain.starting import SELF, Condition, SkipReason
from mqttjobs.registry import Family

if TYPE_CHECKING:
    from mqttjobs.domain.sun import Location

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TriggerState:
    """The stored facts of one trigger of one entity.

    Attributes:
        name: trigger_state_name(…).
        entity: the entity that the operation runs for.
        since_at: when the trigger began to be satisfied; None while it is not.
        fired_at: the last firing since then, on the grid of the periodicity; of a silence, the firing of this one.
        meta: what a job that is started later says about its origin.
        memory: what the keys remember, by TriggerKey.name. A value is JSON, and may have datetimes in it: these are
            stored in milliseconds, and moved when the wall clock is set. A tuple stands for a list.
    """

    name: str
    entity: EntityKey
    since_at: datetime | None = None
    fired_at: datetime | None = None
    meta: Mapping[str, Json] = EMPTY
    memory: Mapping[str, Any] = EMPTY


class Waiting(NamedTuple):
    """What a trigger waits for, as a phrase, and until when, where that is known."""

    description: str
    until: datetime | None


class TriggerKey(Record):
    """One key of a trigger, or a few that belong together: the base of every class in this folder.

    The fields are the keys in the configuration, each with a `description` in sentences. A subclass overrides the
    hooks that it needs; a hook that no key of a trigger overrides costs nothing while matching. Hooks are pure
    functions of the fields and their arguments. `remembered` is what the key itself remembers (TriggerState.memory),
    None for nothing.

    Attributes:
        name: one of its keys: what it is called in messages, and under which its memory is stored; it never changes.
        position: where its phrase stands in the description of the trigger.
        of_changes: it says something about a change, so that it cannot stand beside a Kind.
        needs_lasting_value: it makes no sense for a value with `event: true`.
        keeps_clock: with `due`: a later change that satisfies the trigger too does not begin the wait anew.
        holds_conditions: its one field is given a Condition that was read by the caller.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: ClassVar[str]
    position: ClassVar[int] = 100
    of_changes: ClassVar[bool] = True
    needs_lasting_value: ClassVar[bool] = False
    keeps_clock: ClassVar[bool] = False
    holds_conditions: ClassVar[bool] = False

    @classmethod
    def spellings(cls) -> Mapping[str, FieldInfo]:
        """Return the fields by each name that they may have in the configuration, the usual one first."""
        fields = cls.model_fields.items()
        return {each: field for name, field in fields for each in spellings(name, field)}

    def written(self) -> list[str]:
        """Return the usual names of its fields that have a value, as in the configuration."""
        return [
            spellings(name, field)[0]
            for name, field in type(self).model_fields.items()
            if name in self.model_fields_set and getattr(self, name) is not None
        ]

    # -- what is watched --------------------------------------------------------------------------------------------

    def watched_entity(self) -> str | None:
        """Return the entity to watch in place of the owner: an id, `source` or `target`; None: no other."""
        return None

    def watched_value(self) -> str | None:
        """Return the name of the value to watch in place of the state; None: no other."""
        return None

    def states_waited_for(self) -> tuple[str, ...] | None:
        """Return the states that the trigger waits for, in order (`process_meta.triggerStates`); None: not listed."""
        return None

    # -- does a change satisfy the trigger --------------------------------------------------------------------------

    def lasting(self, trigger: Trigger) -> Callable[[str], bool] | None:
        """Return a test of the new state that must hold for as long as the trigger is satisfied; None: no test."""
        del trigger
        return None

    def beginning(self, trigger: Trigger) -> Callable[[Change], bool] | None:
        """Return a test of the change that begins to satisfy the trigger; None: no test."""
        del trigger
        return None

    def side(self, text: str, *, was_beyond: bool) -> bool | None:
        """Return whether a state is beyond a threshold, given whether the one before was; None for neither.

        Only crossing to the other side begins to satisfy a trigger with such a key; at most one key has this hook.
        The automaton remembers the side.
        """
        raise NotImplementedError

    def counted(self, remembered: Any, at: datetime) -> Any:
        """Return what is remembered after one more change that satisfies all keys; None: the trigger fires.

        It is asked only where the trigger would fire at the change, and not for silent changes. What it remembers
        outlasts states that do not satisfy the trigger.
        """
        raise NotImplementedError

    # -- time -------------------------------------------------------------------------------------------------------

    def begun(self, at: datetime) -> Any:
        """Return what is remembered of a change that begins to satisfy the trigger, for as long as it is satisfied."""
        raise NotImplementedError

    def due(self, since_at: datetime, remembered: Any) -> datetime | None:
        """Return when the trigger may fire, satisfied since then; it fires at the latest such time of its keys."""
        raise NotImplementedError

    def repeat_interval(self) -> timedelta | None:
        """Return after what time it fires again while it stays satisfied; None: it does not."""
        return None

    # -- may the match run ------------------------------------------------------------------------------------------

    def is_enabled(self) -> bool:
        """Whether the trigger does anything at all."""
        return True

    def condition(self) -> Condition | None:
        """Return a condition that is tested at the moment of firing; None: no condition."""
        return None

    def skip_reason(self, remembered: Any, at: datetime) -> SkipReason | None:
        """Return why a trigger that fires now may not start its operation; None: it may."""
        raise NotImplementedError

    def ran(self, at: datetime) -> Any:
        """Return what is remembered of a start of the operation; it outlasts states that do not satisfy the trigger."""
        raise NotImplementedError

    # -- memory -----------------------------------------------------------------------------------------------------

    def matters(self, remembered: Any, at: datetime) -> bool:
        """Whether what is remembered still has an effect; a trigger state in which nothing has one is dropped."""
        del remembered, at
        return True

    def after_restart(self, trigger: Trigger, state: TriggerState, now: datetime) -> TriggerState | None:
        """Return what a start of the service makes of a stored state; None: it is dropped."""
        raise NotImplementedError

    # -- words ------------------------------------------------------------------------------------------------------

    def describe(self) -> str:
        """Return a phrase that follows `it`, such as `becomes on`; phrases are joined with `and`."""
        return ""

    def describe_addition(self) -> str:
        """Return text that follows the phrases, with its own joint: ` and stays so for 5m`."""
        return ""

    def describe_watched(self, entity_id: str) -> str | None:
        """Return what is looked at: `the battery of hall_motion`; None: the state, or what another key says."""
        del entity_id
        return None

    def waiting(self, remembered: Any, now: datetime) -> Waiting | None:
        """Return what the trigger waits for because of what is remembered; None: for nothing special."""
        del remembered, now
        return None

    # -- check ------------------------------------------------------------------------------------------------------

    def conflict(self, trigger: Trigger) -> str | None:
        """Return what is wrong with the trigger as a whole, as a sentence for `mqttjobs check`; None: nothing."""
        del trigger
        return None


class Kind(TriggerKey):
    """A key that makes its trigger one of another kind: it goes by time, and not by changes."""

    of_changes: ClassVar[bool] = False


class SilenceKind(Kind):
    """Fires when nothing is heard from the watched entity."""

    def due_unheard(self, heard_at: datetime) -> datetime:
        """Return when it fires if nothing is heard after `heard_at`, which is a live report or our connection."""
        raise NotImplementedError


class ClockKind(Kind):
    """Fires at moments that come by themselves, for every owner, or once for an operation attached to nothing."""

    def is_start(self) -> bool:
        """Whether the moment is the start of the service; then there are no others."""
        raise NotImplementedError

    def needs_sun(self) -> bool:
        """Whether the moments depend on where the service is."""
        raise NotImplementedError

    def next_moment(self, after: datetime, location: Location) -> datetime | None:
        """Return the first moment later than `after`; None if there is none."""
        raise NotImplementedError

    def latest_moment(self, after: datetime, now: datetime, location: Location) -> datetime | None:
        """Return the last moment later than `after` and not after `now`; None if there is none."""
        raise NotImplementedError


def _compiled() -> Any:
    return field(init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Trigger:
    """What starts an operation by itself (behaviour 2): keys that must all be satisfied.

    The other attributes are compiled from the keys.

    Attributes:
        entity: the entity that is watched: an id, `self` (the owner), `source` or `target`.
        value_name: the name of the value that is watched.
        states_waited_for: see TriggerKey.
        enabled: whether it does anything at all.
        silence, clock: the key that makes it one of another kind.
        conditions: tested at the moment of firing.
        level: the key with two sides, such as a threshold.
        waiting: the keys with a deadline; `keeps_clock` if one of them does.
        repeats: after what time it fires again.
        marking, counting, running: the keys that remember a beginning, a count, a start of the operation.
        skipping, restarting: the keys with `skip_reason` and `after_restart`.
        lasting, beginning: the tests of a change.
        is_plain: it fires at the change itself, and remembers nothing of it.
    """

    keys: tuple[TriggerKey, ...] = ()
    entity: str = _compiled()
    value_name: str = _compiled()
    states_waited_for: tuple[str, ...] | None = _compiled()
    enabled: bool = _compiled()
    silence: SilenceKind | None = _compiled()
    clock: ClockKind | None = _compiled()
    conditions: Condition | None = _compiled()
    level: TriggerKey | None = _compiled()
    waiting: tuple[TriggerKey, ...] = _compiled()
    keeps_clock: bool = _compiled()
    repeats: timedelta | None = _compiled()
    marking: tuple[TriggerKey, ...] = _compiled()
    counting: tuple[TriggerKey, ...] = _compiled()
    running: tuple[TriggerKey, ...] = _compiled()
    skipping: tuple[TriggerKey, ...] = _compiled()
    restarting: tuple[TriggerKey, ...] = _compiled()
    lasting: tuple[Callable[[str], bool], ...] = _compiled()
    beginning: tuple[Callable[[Change], bool], ...] = _compiled()
    is_plain: bool = _compiled()

    def __post_init__(self) -> None:
        keys = sorted(self.keys, key=lambda key: (key.position, key.name))
        waiting, counting = _with(keys, "due"), _with(keys, "counted")
        repeats = _first(key.repeat_interval() for key in keys)
        self._set(
            keys=tuple(keys),
            entity=_first(key.watched_entity() for key in keys) or SELF,
            value_name=_first(key.watched_value() for key in keys) or STATE,
            states_waited_for=_first(key.states_waited_for() for key in keys),
            enabled=all(key.is_enabled() for key in keys),
            silence=_first(key for key in keys if isinstance(key, SilenceKind)),
            clock=_first(key for key in keys if isinstance(key, ClockKind)),
            conditions=_first(key.condition() for key in keys),
            level=_first(_with(keys, "side")),
            waiting=waiting,
            keeps_clock=any(key.keeps_clock for key in waiting),
            repeats=repeats,
            marking=_with(keys, "begun"),
            counting=counting,
            running=_with(keys, "ran"),
            skipping=_with(keys, "skip_reason"),
            restarting=_with(keys, "after_restart"),
            is_plain=not waiting and not counting and repeats is None,
        )
        self._set(
            lasting=tuple(test for test in (key.lasting(self) for key in keys) if test is not None),
            beginning=tuple(test for test in (key.beginning(self) for key in keys) if test is not None),
        )

    def _set(self, **compiled: Any) -> None:
        for name, value in compiled.items():
            object.__setattr__(self, name, value)

    @property
    def is_timed(self) -> bool:
        """Whether it fires because it stays satisfied."""
        return self.keeps_clock or self.repeats is not None

    @property
    def watches_changes(self) -> bool:
        """Whether it is tested at each change of a value; the others go by silence or by the clock."""
        return self.enabled and self.silence is None and self.clock is None

    def written(self) -> list[str]:
        """Return the names of its keys, as in the configuration."""
        return [name for key in self.keys for name in key.written()]

    def conflict(self) -> str | None:
        """Return the first thing that is wrong with how its keys stand together, as a sentence; None: nothing."""
        kinds = [key for key in self.keys if isinstance(key, Kind)]
        if len(kinds) > 1:
            return f"{' and '.join(kind.name for kind in kinds)} are triggers of their own; use two triggers"
        for kind in kinds:
            for key in self.keys:
                if key.of_changes:
                    message = "is about state changes and cannot stand beside"
                    return f"{key.written()[0]} {message} {kind.name}; use conditions"
        levels = _with(self.keys, "side")
        if len(levels) > 1:
            return f"{' and '.join(key.written()[0] for key in levels)} cannot stand together; use two triggers"
        return _first(key.conflict(self) for key in self.keys)

    def unfit_for_events(self) -> list[str]:
        """Return the names of the keys that make no sense for a value with `event: true`."""
        return [name for key in self.keys if key.needs_lasting_value for name in key.written()]


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _with(keys: Sequence[TriggerKey], hook: str) -> tuple[TriggerKey, ...]:
    """Return the keys that override a hook."""
    return tuple(key for key in keys if getattr(type(key), hook) is not getattr(TriggerKey, hook))


def _keys_of(module: ModuleType) -> Iterator[tuple[str, type[TriggerKey]]]:
    """Yield the names that the classes of a module may have in the configuration; a class without fields has none."""
    for item in vars(module).values():
        if isinstance(item, type) and issubclass(item, TriggerKey) and item.model_fields:
            if getattr(item, "name", None) not in list(item.spellings()):
                raise ValueError(f"{item.__module__}.{item.__qualname__}.name must be one of its keys")
            yield from dict.fromkeys(item.spellings(), item).items()


TRIGGER_KEYS = Family("mqttjobs.domain.triggers", "mqttjobs.triggers", noun="trigger key", read=_keys_of)
"""The keys of triggers, by each of their names."""


def trigger_keys() -> Mapping[str, type[TriggerKey]]:
    """Return the class behind each name that a trigger may have in the configuration."""
    return TRIGGER_KEYS.members()
