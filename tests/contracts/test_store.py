"""The contract of Store, over every store; what must survive a restart is read after `close` and `open`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqttjobs.domain.jobs import CustomResult, Job, JobUpdate, OperationState, Phase, apply, submitted
from mqttjobs.domain.model import EntityKey, EntityKind, ValueKey
from mqttjobs.domain.status import ALL, EventKind, JobEvent, Status
from mqttjobs.domain.triggers.base import TriggerState
from mqttjobs.errors import NotFound, StoreRefused, TerminalState
from mqttjobs.store.base import (
    Answer,
    Changes,
    JobQuery,
    Retention,
    Scope,
    Store,
    create_store,
)
from tests.contracts.members import STORES, a_store
from tests.contracts.records import (
    CABLE,
    DOOR,
    LAMP,
    LAMP_STATE,
    NOW,
    a_job,
    a_value,
    an_ended_job,
    an_entry,
    failed,
    keyed,
    later,
    restart,
    started,
    succeeded,
)

OTHER_STATE = ValueKey(EntityKind.OBJECT, "door", "")
FOREVER = Retention(
    completed=timedelta(days=9999),
    failed=timedelta(days=9999),
    history=timedelta(days=9999),
    history_per_value=10_000,
)


def keeping(**limits: Any) -> Retention:
    return FOREVER.model_copy(update=limits)


REPORT_TIMES = (
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
    NOW,
    datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
)
"""Times of a sender's clock: any time that can be written, in milliseconds."""


async def claim(store: Store, limit: int = 100, *, at: datetime = NOW, uses_slot: bool = True) -> list[int]:
    return [job.uid for job in await store.claim(at, limit, uses_slot=uses_slot, begin=started(at))]


async def found(store: Store, query: JobQuery) -> list[int]:
    return [job.uid for job in (await store.find(query)).jobs]


async def stored(store: Store, uid: int) -> Job:
    job = await store.get(uid)
    assert job is not None, f"there is no job {uid}"
    return job


# -- values, trigger states, packets, event ids, operation states, metadata ------------------------------------------


async def test_a_new_store_is_empty(store: Store) -> None:
    snapshot = await store.load()
    assert (
        list(snapshot.values)
        == list(snapshot.trigger_states)
        == list(snapshot.operation_states)
        == list(snapshot.event_ids)
        == []
    )
    assert dict(snapshot.packets) == dict(snapshot.metadata) == {}
    assert snapshot.last_uid == 0
    assert await store.counts() == dict.fromkeys(Status, 0)
    assert (await store.health())["jobs"] == 0


@pytest.mark.parametrize("payload", [None, "on", 0, 1.5, True, [], {"a": [1, {"b": None}]}, "é\n\"'{{"])
async def test_a_value_comes_back_as_it_was(store: Store, payload: object) -> None:
    value = a_value("on", previous="off", heard_at=None, payload=payload)
    await store.record(Changes(values=keyed(value)))
    await restart(store)
    assert list((await store.load()).values) == [value]


@pytest.mark.parametrize("reported_at", REPORT_TIMES)
async def test_a_value_keeps_the_time_of_its_change_by_the_senders_clock(store: Store, reported_at: datetime) -> None:
    value = a_value("on", reported_at=reported_at)
    await store.record(Changes(values=keyed(value)))
    await store.record(Changes(heard={LAMP_STATE: later(9)}))
    await restart(store)
    assert list((await store.load()).values) == [replace(value, heard_at=later(9))]


async def test_a_value_replaces_the_one_of_its_key_and_no_other(store: Store) -> None:
    attribute = ValueKey(EntityKind.OBJECT, "lamp", "brightness")
    of_a_link = ValueKey(EntityKind.LINK, "lamp", "")
    others = [a_value("1", attribute), a_value("2", of_a_link)]
    await store.record(Changes(values=keyed(a_value("off"), *others)))
    await store.record(Changes(values=keyed(a_value("on", since_at=later(5)))))
    values = {value.key: value for value in (await store.load()).values}
    assert values == {
        LAMP_STATE: a_value("on", since_at=later(5)),
        attribute: others[0],
        of_a_link: others[1],
    }


async def test_a_repeated_value_changes_only_when_it_was_last_heard(store: Store) -> None:
    await store.record(Changes(values=keyed(a_value("on", previous="off"))))
    await store.record(Changes(heard={LAMP_STATE: later(9), OTHER_STATE: later(9)}))
    assert list((await store.load()).values) == [a_value("on", previous="off", heard_at=later(9))]


async def test_trigger_states_are_stored_replaced_and_dropped_by_name(store: Store) -> None:
    armed = TriggerState("a", LAMP, NOW, None, {"trigger": "a", "n": [1]})
    fired = replace(armed, fired_at=later(3))
    other = TriggerState("b", CABLE, NOW)
    await store.record(Changes(trigger_states={"a": armed, "b": other, "c": TriggerState("c", LAMP, NOW)}))
    await store.record(Changes(trigger_states={"a": fired, "c": None, "never there": None}))
    await restart(store)
    assert {each.name: each for each in (await store.load()).trigger_states} == {"a": fired, "b": other}


async def test_packets_are_stored_after_those_of_an_earlier_session_are_removed(store: Store) -> None:
    await store.record(Changes(packets={1: b"old", 2: b"old"}))
    await store.record(Changes(packets={2: b"\x00\xff"}))
    await restart(store)
    assert dict((await store.load()).packets) == {1: b"old", 2: b"\x00\xff"}
    await store.record(Changes(packets={3: b"new"}, forget_packets=True))
    assert dict((await store.load()).packets) == {3: b"new"}


async def test_event_ids_are_stored_by_entity(store: Store) -> None:
    ids = [(LAMP, "e1", NOW), (DOOR, "e1", later(1)), (LAMP, "e2", later(2))]
    await store.record(Changes(event_ids=ids))
    await restart(store)
    assert sorted((await store.load()).event_ids) == sorted(ids)


async def test_operation_states_are_stored_whole_and_replaced(store: Store) -> None:
    bare = OperationState("blink", "f1", NOW, NOW, "system", "system")
    full = OperationState(
        "blink", "f2", NOW, later(1), "system", "alice",
        active=False, total=7, first_run_at=later(1), triggered_at=later(2), due_at=later(3), completed_at=later(4),
        ended_at=later(5), extra={"n": [1]},
    )  # fmt: skip
    other = replace(bare, id="beep", active=True)
    await store.record(Changes(operation_states={"blink": bare, "beep": other}))
    await store.record(Changes(operation_states={"blink": full}))
    await restart(store)
    assert {each.id: each for each in (await store.load()).operation_states} == {"blink": full, "beep": other}


async def test_metadata_is_stored_and_replaced_by_name(store: Store) -> None:
    await store.record(Changes(metadata={"filters": ["a/#"], "count": 1}))
    await store.record(Changes(metadata={"count": None}))
    await restart(store)
    assert dict((await store.load()).metadata) == {"filters": ["a/#"], "count": None}


# -- jobs ------------------------------------------------------------------------------------------------------------


async def test_a_job_comes_back_whole_by_uid_and_by_id(store: Store) -> None:
    job = Job(
        uid=41, id="0190-id", created_at=NOW, operation_id="blink", operation={"id": "blink", "args": ["a", {"b": 1}]},
        fingerprint="f", owner=CABLE, user_id="ålice", target="_local", priority=-3, uses_slot=False, max_running=2,
        params={"x": [1, None, "é"]}, events=("press", "hold"), inputs={"id": "lamp", "properties": {"n": 1}},
        secret_templates={"properties.key": "${ENV:KEY}"}, process_meta={"trigger": "t"}, parent_id="p", root_id="r",
        retry_of="q", depth=4, invalid_fields={"x": ["too large"]}, expected=("a1", "a2"), due_at=later(7),
        attempts=2, executed_at=later(1),
        timeline=(
            submitted(NOW, "hub"),
            JobEvent(later(1), EventKind.FAILED, "hub", "line 1\nline 2", "exit\t1", {"result": {"n": 1}}),
        ),
        results=(CustomResult({"k": "v\n"}, "bob", later(2)),),
    )  # fmt: skip
    await store.record(Changes(jobs=[job]))
    await restart(store)
    assert await store.get(41) == job
    assert await store.get("0190-id") == job


async def test_a_job_without_operation_owner_or_limit_comes_back_whole(store: Store) -> None:
    job = a_job(1, owner=None, operation_id=None)
    await store.record(Changes(jobs=[job]))
    assert await store.get(1) == job


async def test_an_unknown_job_is_none(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(1)]))
    assert await store.get(2) is None
    assert await store.get("1") is None
    assert await store.get("") is None


async def test_jobs_keep_the_definition_that_they_were_made_with(store: Store) -> None:
    old = a_job(1, operation={"id": "blink", "path": "/old"}, fingerprint="f1")
    new = a_job(2, operation={"id": "blink", "path": "/new"}, fingerprint="f2")
    await store.record(Changes(jobs=[old]))
    await store.record(Changes(jobs=[new]))
    await restart(store)
    assert (await stored(store, 1)).operation == {"id": "blink", "path": "/old"}
    assert (await stored(store, 2)).operation == {"id": "blink", "path": "/new"}


async def test_a_refused_record_leaves_no_job_without_its_definition_behind(store: Store) -> None:
    await store.record(Changes(jobs=[an_ended_job(1)]))
    late = replace(succeeded(a_job(1), later(1)), strict=True)
    with pytest.raises(TerminalState):
        await store.record(Changes(jobs=[a_job(2, operation_id="beep")], updates=[late]))
    again = a_job(3, operation_id="beep")
    await store.record(Changes(jobs=[again]))
    assert await store.get(3) == again


async def test_a_job_recorded_while_retention_removes_the_last_of_its_kind_keeps_its_definition(store: Store) -> None:
    await store.record(Changes(jobs=[an_ended_job(1)]))
    new = a_job(2, created_at=later(86_400 * 100))
    await asyncio.gather(store.prune(later(86_400 * 100), Retention()), store.record(Changes(jobs=[new])))
    assert await store.get(1) is None
    assert await store.get(2) == new


# -- claim -----------------------------------------------------------------------------------------------------------


async def test_jobs_that_use_a_slot_are_claimed_by_priority_then_first_come(store: Store) -> None:
    priorities = {1: 0, 2: 5, 3: -1, 4: 5, 5: 0}
    await store.record(Changes(jobs=[a_job(uid, priority=p) for uid, p in priorities.items()]))
    assert await claim(store, 3) == [2, 4, 1]
    assert await claim(store, 3) == [5, 3]
    assert await claim(store, 3) == []


async def test_jobs_without_a_slot_are_claimed_in_row_order_whatever_their_priority(store: Store) -> None:
    jobs = [a_job(uid, priority=uid, uses_slot=False) for uid in (3, 1, 2)]
    await store.record(Changes(jobs=[*jobs, a_job(4, priority=9)]))
    assert await claim(store, 2, uses_slot=False) == [1, 2]
    assert await claim(store, 2, uses_slot=False) == [3]
    assert await claim(store, 2) == [4]


async def test_a_publish_that_has_to_wait_delays_all_later_ones_of_its_owner_only(store: Store) -> None:
    def publish(uid: int, operation_id: str, **more: Any) -> Job:
        return a_job(uid, uses_slot=False, operation_id=operation_id, **more)

    jobs = [
        publish(1, "on", max_running=1),
        publish(2, "on", max_running=1),
        publish(3, "off"),
        publish(4, "off", owner=DOOR),
        publish(5, "on", max_running=1, owner=None),
        publish(6, "on", max_running=1, owner=None),
        publish(7, "off", owner=None),
        publish(8, "off"),
    ]
    await store.record(Changes(jobs=jobs))
    assert await claim(store, uses_slot=False) == [1, 4, 5, 7]
    await store.record(Changes(updates=[succeeded(jobs[0], later(1)), succeeded(jobs[4], later(1))]))
    assert await claim(store, uses_slot=False) == [2, 3, 6, 8]


async def test_a_claim_writes_and_returns_what_begin_says(store: Store) -> None:
    job = a_job(1)
    await store.record(Changes(jobs=[job]))
    claimed = await store.claim(later(2), 1, uses_slot=True, begin=started(later(2)))
    assert list(claimed) == [apply(job, started(later(2))(job))]
    await restart(store)
    after = await stored(store, 1)
    assert after == claimed[0]
    assert (after.status, after.phase, after.attempts, after.executed_at) == (
        Status.PROCESSING, Phase.CLAIMED, 1, later(2),
    )  # fmt: skip
    assert list(await store.claimed()) == [after]


async def test_concurrent_claims_share_no_job(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(uid) for uid in range(1, 31)]))
    taken = await asyncio.gather(*(claim(store, 4) for _ in range(10)))
    assert sorted(uid for uids in taken for uid in uids) == list(range(1, 31))


async def test_a_job_is_not_claimed_before_it_is_due(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(1, due_at=later(10)), a_job(2, due_at=NOW), a_job(3)]))
    assert await claim(store) == [2, 3]
    assert await claim(store, at=later(9.999)) == []
    assert await claim(store, at=later(10)) == [1]


async def test_jobs_of_other_targets_are_not_claimed_here(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(1, target="agent-1"), a_job(2, target=ALL)]))
    assert await claim(store) == []


async def test_a_limit_counts_the_claimed_jobs_of_the_same_operation_and_owner_only(store: Store) -> None:
    jobs = [
        a_job(1, max_running=1),
        a_job(2, max_running=1),
        a_job(3, max_running=1, owner=DOOR),
        a_job(4, max_running=1, owner=None),
        a_job(5, max_running=1, owner=None),
        a_job(6, max_running=1, operation_id="beep"),
        a_job(7, max_running=1, owner=EntityKey(EntityKind.LINK, LAMP.id)),
        a_job(8, max_running=None),
    ]
    await store.record(Changes(jobs=jobs))
    assert await claim(store) == [1, 3, 4, 6, 7, 8]
    assert await claim(store) == []
    await store.record(Changes(updates=[succeeded(await stored(store, 8), later(1))]))
    assert await claim(store) == []
    await store.record(Changes(updates=[succeeded(await stored(store, 1), later(1))]))
    assert await claim(store) == [2]


async def test_a_limit_of_more_than_one_lets_as_many_run(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(uid, max_running=3) for uid in range(1, 6)]))
    assert await claim(store) == [1, 2, 3]
    await store.record(Changes(updates=[failed(await stored(store, 2), later(1))]))
    assert await claim(store) == [4]


async def test_jobs_at_their_limit_do_not_hide_later_ones(store: Store) -> None:
    crowd = [a_job(uid, max_running=1) for uid in range(1, 201)]
    await store.record(Changes(jobs=[*crowd, a_job(201, operation_id="beep")]))
    assert await claim(store, 2) == [1, 201]


async def test_next_due_is_the_earliest_time_still_to_come(store: Store) -> None:
    dues = {1: 5, 2: 20, 3: 10}
    jobs = [a_job(uid, due_at=later(seconds)) for uid, seconds in dues.items()]
    jobs += [a_job(4), a_job(5, due_at=later(1), target="agent-1"), an_ended_job(6, due_at=later(2))]
    await store.record(Changes(jobs=jobs))
    assert await store.next_due(NOW) == later(5)
    assert await store.next_due(later(5)) == later(10)
    assert await store.next_due(later(20)) is None


async def test_waiting_and_claimed_jobs_of_one_operation_and_owner_are_counted(store: Store) -> None:
    jobs = [a_job(uid, max_running=2) for uid in (1, 2, 3)]
    jobs += [
        a_job(4, max_running=2, owner=DOOR),
        a_job(5, max_running=2, operation_id="beep"),
        a_job(6, max_running=2, owner=None),
    ]
    jobs += [an_ended_job(7, max_running=2)]
    await store.record(Changes(jobs=jobs))
    await claim(store, 1)
    assert await store.count_active("blink", LAMP) == (2, 1)
    assert await store.count_active("blink", None) == (1, 0)
    assert await store.count_active("nothing", LAMP) == (0, 0)
    assert [job.uid for job in await store.active("blink", LAMP)] == [1, 2, 3]
    assert [job.uid for job in await store.active("blink", None)] == [6]


async def test_jobs_without_a_limit_are_active_too(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(1), a_job(2)]))
    await claim(store, 1)
    assert await store.count_active("blink", LAMP) == (1, 1)
    assert [job.uid for job in await store.active("blink", LAMP)] == [1, 2]


async def test_claimed_jobs_are_reported_oldest_first_after_a_restart(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(1, priority=0), a_job(2, priority=9), a_job(3, priority=5)]))
    assert await claim(store, 3) == [2, 3, 1]
    await store.record(Changes(updates=[succeeded(await stored(store, 2), later(1))]))
    await restart(store)
    assert [job.uid for job in await store.claimed()] == [1, 3]


# -- updates, results, deletions -------------------------------------------------------------------------------------


async def test_an_update_changes_a_job_as_apply_does(store: Store) -> None:
    job = a_job(1)
    await store.record(Changes(jobs=[job]))
    steps = [started(later(1))(job)]
    steps.append(succeeded(apply(job, steps[0]), later(2)))
    for step in steps:
        await store.record(Changes(updates=[step]))
        job = apply(job, step)
        assert await store.get(1) == job
    await restart(store)
    assert await store.get(1) == job
    assert (job.status, job.phase, len(job.timeline)) == (Status.COMPLETED, Phase.ENDED, 4)


async def test_updates_of_one_record_are_applied_in_order_and_after_its_jobs(store: Store) -> None:
    job = a_job(1)
    begun = started(later(1))(job)
    ended = failed(apply(job, begun), later(2))
    other = a_job(2)
    await store.record(Changes(jobs=[job, other], updates=[begun, started(later(1))(other), ended]))
    assert await store.get(1) == apply(apply(job, begun), ended)
    assert (await stored(store, 2)).status is Status.PROCESSING


async def test_a_strict_update_of_an_ended_job_writes_nothing_at_all(store: Store) -> None:
    ended = an_ended_job(1, Status.STOPPED)
    await store.record(Changes(jobs=[ended, a_job(2)], values=keyed(a_value("off"))))
    strict = replace(succeeded(a_job(1), later(1)), strict=True)
    with pytest.raises(TerminalState):
        await store.record(
            Changes(
                values=keyed(a_value("on")),
                trigger_states={"h": TriggerState("h", LAMP, NOW)},
                history=[an_entry(1)],
                packets={1: b"d"},
                jobs=[a_job(3)],
                updates=[succeeded(a_job(2), later(1)), strict],
                deleted=[2],
                metadata={"n": 1},
                answers=[Answer(b"k", NOW, b"{}")],
            )
        )
    await restart(store)
    snapshot = await store.load()
    assert list(snapshot.values) == [a_value("off")]
    assert (list(snapshot.trigger_states), dict(snapshot.packets), dict(snapshot.metadata)) == ([], {}, {})
    assert await store.get(1) == ended
    assert await store.get(2) == a_job(2)
    assert await store.get(3) is None
    assert await store.answer(b"k", NOW) is None
    assert (await store.history(LAMP_STATE, None, None, 10, 0)).total == 0


async def test_a_strict_update_sees_an_earlier_end_in_the_same_record(store: Store) -> None:
    job = a_job(1)
    await store.record(Changes(jobs=[job]))
    with pytest.raises(TerminalState):
        await store.record(Changes(updates=[succeeded(job, later(1)), replace(failed(job, later(2)), strict=True)]))
    assert await store.get(1) == job


async def test_a_strict_update_of_a_running_job_is_written(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(1)]))
    await store.record(Changes(updates=[replace(succeeded(a_job(1), later(1)), strict=True)]))
    assert (await stored(store, 1)).status is Status.COMPLETED


async def test_of_two_concurrent_strict_ends_one_is_refused(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(1), a_job(2)]))
    outcomes = await asyncio.gather(
        store.record(Changes(updates=[replace(succeeded(a_job(1), later(1)), strict=True)])),
        store.record(Changes(updates=[replace(failed(a_job(1), later(1)), strict=True)], metadata={"second": 1})),
        store.record(Changes(updates=[replace(failed(a_job(2), later(1)), strict=True)])),
        return_exceptions=True,
    )
    assert outcomes[0] is None
    assert isinstance(outcomes[1], TerminalState)
    assert outcomes[2] is None
    assert (await stored(store, 1)).status is Status.COMPLETED
    assert (await stored(store, 2)).status is Status.FAILED
    assert dict((await store.load()).metadata) == {}


async def test_a_late_event_is_appended_and_an_ended_job_keeps_its_end(store: Store) -> None:
    ended = an_ended_job(1, Status.STOPPED, attempts=1, executed_at=NOW)
    await store.record(Changes(jobs=[ended]))
    late = succeeded(ended, later(60))
    await store.record(Changes(updates=[replace(late, attempts=9, executed_at=later(60), due_at=later(60))]))
    after = await stored(store, 1)
    assert after == ended.evolve(timeline=(*ended.timeline, *late.events))
    assert after.status is Status.STOPPED


@pytest.mark.parametrize("phase", list(Phase))
async def test_an_update_with_only_events_changes_nothing_else_in_any_phase(store: Store, phase: Phase) -> None:
    status = {Phase.WAITING: Status.SUBMITTED, Phase.CLAIMED: Status.PROCESSING, Phase.ENDED: Status.FAILED}[phase]
    job = a_job(1, status=status, phase=phase, attempts=2, executed_at=NOW, due_at=later(9))
    await store.record(Changes(jobs=[job]))
    await store.record(Changes(announced=[1]))
    event = JobEvent(later(60), EventKind.RETRIED, "hub", "Job retried as 2")
    await store.record(Changes(updates=[JobUpdate(1, (event,), only_events=True)]))
    assert await store.get(1) == job.evolve(timeline=(*job.timeline, event))
    assert list(await store.unannounced(10)) == []


async def test_strict_events_are_refused_for_an_ended_job_and_stored_for_any_other(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(1), an_ended_job(2)]))
    event = JobEvent(later(60), EventKind.PROGRESS, "hub", "half way")
    await store.record(Changes(updates=[JobUpdate(1, (event,), strict=True, only_events=True)]))
    assert (await stored(store, 1)).timeline[-1] == event
    with pytest.raises(TerminalState):
        await store.record(Changes(updates=[JobUpdate(2, (event,), strict=True, only_events=True)]))
    assert await store.get(2) == an_ended_job(2)


async def test_an_update_that_reopens_changes_the_end_of_an_ended_job(store: Store) -> None:
    ended = an_ended_job(1, Status.FAILED, target=ALL)
    await store.record(Changes(jobs=[ended]))
    await store.record(Changes(announced=[1]))
    await store.record(Changes(updates=[replace(succeeded(ended, later(60)), reopen=True)]))
    assert (await stored(store, 1)).status is Status.COMPLETED
    assert [job.uid for job in await store.unannounced(10)] == [1]


@pytest.mark.parametrize(
    "changes",
    [
        Changes(updates=[succeeded(a_job(9), NOW)]),
        Changes(updates=[replace(succeeded(a_job(9), NOW), strict=True)]),
        Changes(results=[(9, CustomResult({}, "bob", NOW))]),
        Changes(deleted=[9]),
        Changes(updates=[succeeded(a_job(1), NOW), succeeded(a_job(9), NOW)]),
    ],
)
async def test_a_record_about_an_unknown_job_is_refused_whole(store: Store, changes: Changes) -> None:
    await store.record(Changes(jobs=[a_job(1)]))
    with pytest.raises(NotFound):
        await store.record(replace(changes, jobs=[a_job(2)], metadata={"n": 1}))
    assert await store.get(1) == a_job(1)
    assert await store.get(2) is None
    assert dict((await store.load()).metadata) == {}


async def test_results_are_appended_in_order_and_change_nothing_else(store: Store) -> None:
    ended = an_ended_job(1)
    results = [CustomResult({"n": n, "text": "a\nb"}, "bob", later(n)) for n in range(4)]
    await store.record(Changes(jobs=[ended]))
    await store.record(Changes(results=[(1, results[0]), (1, results[1])]))
    await store.record(Changes(results=[(1, results[2])]))
    await store.record(Changes(results=[(1, results[3])]))
    await restart(store)
    assert await store.get(1) == ended.evolve(results=tuple(results))


async def test_a_deleted_job_is_removed_with_all_that_belongs_to_it(store: Store) -> None:
    await store.record(Changes(jobs=[an_ended_job(1), an_ended_job(2), a_job(3)]))
    await store.record(Changes(deleted=[1, 3]))
    await restart(store)
    assert await store.get(1) is None
    assert await store.get(a_job(1).id) is None
    assert await found(store, JobQuery()) == [2]
    assert [job.uid for job in await store.unannounced(10)] == [2]
    assert await claim(store) == []
    assert (await store.health())["jobs"] == 1
    with pytest.raises(NotFound):
        await store.record(Changes(updates=[succeeded(a_job(3), NOW)]))


async def test_the_uid_of_a_deleted_job_is_never_the_last_one_again(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(1), a_job(5)]))
    await store.record(Changes(deleted=[5]))
    await restart(store)
    assert (await store.load()).last_uid == 5
    await store.record(Changes(deleted=[1]))
    await restart(store)
    assert (await store.load()).last_uid == 5
    await store.record(Changes(jobs=[a_job(6)]))
    assert (await store.load()).last_uid == 6


async def test_the_uid_of_a_job_that_retention_removed_is_never_the_last_one_again(store: Store) -> None:
    await store.record(Changes(jobs=[an_ended_job(7)]))
    assert await store.prune(later(86_400 * 400), Retention()) == 1
    await restart(store)
    assert (await store.load()).last_uid == 7


async def test_metadata_of_the_service_and_of_the_store_are_separate(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(3)], metadata={"a": 1}))
    await store.record(Changes(deleted=[3]))
    assert dict((await store.load()).metadata) == {"a": 1}


# -- the outbox ------------------------------------------------------------------------------------------------------


async def test_every_ended_job_is_unannounced_until_it_is_announced(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(1), an_ended_job(2), a_job(3), a_job(4), an_ended_job(5, Status.SKIPPED)]))
    await store.record(Changes(updates=[succeeded(a_job(4), later(1))]))
    await store.record(Changes(updates=[replace(failed(a_job(3), later(1)), strict=True)]))
    assert [job.uid for job in await store.unannounced(10)] == [2, 3, 4, 5]
    assert [job.uid for job in await store.unannounced(2)] == [2, 3]
    await store.record(Changes(announced=[2, 4]))
    await restart(store)
    assert list(await store.unannounced(10)) == [await store.get(3), await store.get(5)]


async def test_a_late_event_does_not_announce_an_end_again(store: Store) -> None:
    await store.record(Changes(jobs=[an_ended_job(1)], announced=[1]))
    assert list(await store.unannounced(10)) == []
    await store.record(Changes(updates=[failed(a_job(1), later(1))]))
    assert list(await store.unannounced(10)) == []


async def test_a_retried_attempt_is_not_an_end(store: Store) -> None:
    again = JobUpdate(1, (), Status.PROCESSING, Phase.WAITING, due_at=later(4), attempts=1)
    await store.record(Changes(jobs=[a_job(1)], updates=[started()(a_job(1)), again]))
    assert list(await store.unannounced(10)) == []
    assert await store.next_due(NOW) == later(4)


# -- listings --------------------------------------------------------------------------------------------------------

MANY = [
    a_job(1, created_at=later(0)),
    an_ended_job(2, Status.FAILED, created_at=later(10), owner=DOOR, user_id="bob"),
    an_ended_job(3, created_at=later(20), owner=CABLE, operation_id="beep"),
    an_ended_job(4, Status.SKIPPED, created_at=later(30), owner=None, user_id="bob"),
    a_job(5, created_at=later(40), owner=None, operation_id=None, user_id="alice"),
    an_ended_job(6, created_at=later(50), owner=EntityKey(EntityKind.LINK, "lamp"), user_id="bob"),
]


@pytest.mark.parametrize(
    ("query", "uids"),
    [
        (JobQuery(), [6, 5, 4, 3, 2, 1]),
        (JobQuery(statuses=frozenset({Status.FAILED, Status.SKIPPED})), [4, 2]),
        (JobQuery(statuses=frozenset()), []),
        (JobQuery(operation_id="beep"), [3]),
        (JobQuery(objects=frozenset({"lamp"})), [1]),
        (JobQuery(links=frozenset({"lamp"})), [6]),
        (JobQuery(objects=frozenset({"door"}), links=frozenset({"cable"})), [3, 2]),
        (JobQuery(objects=frozenset()), []),
        (JobQuery(user_id="bob"), [6, 4, 2]),
        (JobQuery(since=later(30)), [6, 5, 4]),
        (JobQuery(until=later(30)), [3, 2, 1]),
        (JobQuery(since=later(10), until=later(10)), []),
        (JobQuery(user_id="bob", since=later(10), until=later(50), objects=frozenset({"door"})), [2]),
        (JobQuery(scope=Scope(frozenset({"lamp"}), frozenset(), "nobody")), [1]),
        (JobQuery(scope=Scope(frozenset(), None, "bob")), [6, 4, 3]),
        (JobQuery(scope=Scope(None, frozenset({"lamp"}), "alice")), [6, 5, 2, 1]),
        (JobQuery(scope=Scope(frozenset(), frozenset(), "alice")), [5]),
        (JobQuery(scope=Scope(frozenset({"door"}), frozenset(), "x"), objects=frozenset({"lamp", "door"})), [2]),
    ],
)
async def test_every_filter_and_scope_finds_its_jobs_newest_first(
    store: Store, query: JobQuery, uids: list[int]
) -> None:
    await store.record(Changes(jobs=MANY))
    page = await store.find(query)
    assert [job.uid for job in page.jobs] == uids
    assert (page.total, page.exact) == (len(uids), True)
    assert all(job == MANY[job.uid - 1] for job in page.jobs)


async def test_a_cursor_and_paging_do_not_change_the_total(store: Store) -> None:
    await store.record(Changes(jobs=MANY))
    page = await store.find(JobQuery(before_uid=4, limit=2, offset=1))
    assert [job.uid for job in page.jobs] == [2, 1]
    assert page.total == 6


async def test_a_job_outside_the_scope_is_not_found(store: Store) -> None:
    await store.record(Changes(jobs=MANY))
    scope = Scope(frozenset({"lamp"}), frozenset(), "alice")
    assert [job.uid for job in MANY if await store.get(job.uid, scope) is not None] == [1, 5]
    assert [job.uid for job in MANY if await store.get(job.id, scope) is not None] == [1, 5]


async def test_counts_have_every_status_and_respect_the_scope(store: Store) -> None:
    await store.record(Changes(jobs=MANY))
    assert await store.counts() == {
        Status.SUBMITTED: 2,
        Status.PROCESSING: 0,
        Status.COMPLETED: 2,
        Status.FAILED: 1,
        Status.PARTIAL_FAILURE: 0,
        Status.STOPPED: 0,
        Status.SKIPPED: 1,
    }
    scoped = await store.counts(Scope(frozenset({"lamp"}), frozenset(), "bob"))
    assert {status: count for status, count in scoped.items() if count} == {Status.SUBMITTED: 1, Status.SKIPPED: 1}
    assert list(scoped) == list(Status)


async def test_the_runs_of_an_operation_are_counted_with_the_ten_newest(store: Store) -> None:
    jobs = [an_ended_job(uid) for uid in range(1, 13)] + [a_job(13), a_job(14, owner=DOOR), a_job(15, operation_id="x")]
    await store.record(Changes(jobs=jobs))
    runs = await store.runs("blink")
    assert (runs.total, runs.running) == (14, 2)
    assert list(runs.last_ids) == [a_job(uid).id for uid in range(14, 4, -1)]
    assert runs.latest == jobs[13]
    scoped = await store.runs("blink", Scope(frozenset({"lamp"}), frozenset(), "x"))
    assert (scoped.total, scoped.running, scoped.latest) == (13, 1, jobs[12])
    nothing = await store.runs("nothing")
    assert (nothing.total, nothing.running, list(nothing.last_ids), nothing.latest) == (0, 0, [], None)


OWNERS = [None, LAMP, DOOR, CABLE, EntityKey(EntityKind.LINK, "lamp")]
USERS = ["alice", "bob"]
IDS = st.none() | st.frozensets(st.sampled_from(["lamp", "door", "cable"]))
JOBS = st.lists(
    st.builds(
        lambda status, owner, user, operation, at: {
            "status": status,
            "phase": Phase.ENDED if status not in (Status.SUBMITTED, Status.PROCESSING) else Phase.WAITING,
            "owner": owner,
            "user_id": user,
            "operation_id": operation,
            "created_at": later(at),
        },
        st.sampled_from(list(Status)),
        st.sampled_from(OWNERS),
        st.sampled_from(USERS),
        st.sampled_from(["blink", "beep", None]),
        st.integers(0, 5),
    ),
    max_size=25,
)
MOMENTS = st.none() | st.integers(0, 5).map(later)
QUERIES = st.builds(
    JobQuery,
    statuses=st.none() | st.frozensets(st.sampled_from(list(Status))),
    operation_id=st.sampled_from([None, "blink", "beep"]),
    objects=IDS,
    links=IDS,
    user_id=st.sampled_from([None, *USERS]),
    since=MOMENTS,
    until=MOMENTS,
    limit=st.integers(1, 7),
    scope=st.none() | st.builds(Scope, IDS, IDS, st.sampled_from(USERS)),
)


def visible(job: Job, scope: Scope | None) -> bool:
    if scope is None:
        return True
    if job.owner is None:
        return job.user_id == scope.user_id
    allowed = scope.objects if job.owner.kind == "object" else scope.links
    return allowed is None or job.owner.id in allowed


def wanted(job: Job, query: JobQuery) -> bool:
    """Whether a query matches a job, in plain words: the oracle of the listings."""
    if query.objects is not None or query.links is not None:
        kind, owner_id = (None, None) if job.owner is None else job.owner
        named = (query.objects if kind == "object" else query.links if kind == "link" else None) or frozenset()
        if owner_id not in named:
            return False
    checks = [
        query.statuses is None or job.status in query.statuses,
        query.operation_id in (None, job.operation_id),
        query.user_id in (None, job.user_id),
        query.since is None or query.since <= job.created_at,
        query.until is None or job.created_at < query.until,
        visible(job, query.scope),
    ]
    return all(checks)


async def pages_by_offset(store: Store, query: JobQuery) -> list[Sequence[Job]]:
    pages: list[Sequence[Job]] = []
    while not pages or pages[-1]:
        page = await store.find(replace(query, offset=sum(map(len, pages))))
        pages.append(page.jobs)
    return pages[:-1]


async def pages_by_cursor(store: Store, query: JobQuery) -> list[Sequence[Job]]:
    pages: list[Sequence[Job]] = []
    while not pages or pages[-1]:
        cursor = pages[-1][-1].uid if pages else None
        page = await store.find(replace(query, before_uid=cursor))
        pages.append(page.jobs)
    return pages[:-1]


@pytest.mark.proves("listing", "offset from 0")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=JOBS, queries=st.lists(QUERIES, min_size=1, max_size=6))
def test_any_listing_visits_each_matching_job_once_and_has_the_right_total(
    store_url: str, tmp_path_factory: pytest.TempPathFactory, data: list[dict[str, object]], queries: list[JobQuery]
) -> None:
    jobs = [a_job(uid, **fields) for uid, fields in enumerate(data, 1)]

    async def check() -> None:
        store = a_store(store_url, tmp_path_factory.mktemp("listing"))
        await store.open()
        try:
            await store.record(Changes(jobs=jobs))
            for query in queries:
                expected = [job for job in reversed(jobs) if wanted(job, query)]
                for pages in (await pages_by_offset(store, query), await pages_by_cursor(store, query)):
                    assert [job for page in pages for job in page] == expected
                    assert all(len(page) <= query.limit for page in pages)
                assert (await store.find(query)).total == len(expected)
                counts = await store.counts(query.scope)
                assert counts == {
                    status: sum(job.status is status and visible(job, query.scope) for job in jobs) for status in Status
                }
        finally:
            await store.close()

    asyncio.run(check())


async def test_pages_by_cursor_neither_skip_nor_repeat_jobs_while_others_come_and_go(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(uid) for uid in range(1, 11)]))
    seen = await found(store, JobQuery(limit=4))
    await store.record(Changes(jobs=[a_job(11), a_job(12)], deleted=[9]))
    seen += await found(store, JobQuery(limit=4, before_uid=seen[-1]))
    seen += await found(store, JobQuery(limit=4, before_uid=seen[-1]))
    assert seen == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]


async def test_a_total_is_exact_up_to_ten_thousand_and_marked_beyond(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(uid) for uid in range(1, 10_001)]))
    page = await store.find(JobQuery(limit=1))
    assert (page.total, page.exact) == (10_000, True)
    await store.record(Changes(jobs=[a_job(10_001)]))
    page = await store.find(JobQuery(limit=1, before_uid=5))
    assert (page.total, page.exact) == (10_000, False)
    page = await store.find(JobQuery(statuses=frozenset({Status.SUBMITTED}), before_uid=9000, limit=3, offset=1))
    assert ([job.uid for job in page.jobs], page.total, page.exact) == ([8998, 8997, 8996], 10_000, False)
    assert sum((await store.counts()).values()) == 10_001


# -- history ---------------------------------------------------------------------------------------------------------


async def history(store: Store, *args: datetime | None, limit: int = 100, offset: int = 0) -> tuple[list[str], int]:
    since, until = args or (None, None)
    page = await store.history(LAMP_STATE, since, until, limit, offset)
    return [entry.state for entry in page.entries], page.total


async def test_history_is_returned_whole_and_newest_first_for_one_value(store: Store) -> None:
    entries = [
        an_entry(1, previous=None),
        an_entry(2, reported_by="bob", reason="button"),
        *(an_entry(3 + n, reported_at=reported_at) for n, reported_at in enumerate(REPORT_TIMES)),
    ]
    await store.record(Changes(history=[entries[0], an_entry(9, OTHER_STATE)]))
    await store.record(Changes(history=entries[1:]))
    await restart(store)
    page = await store.history(LAMP_STATE, None, None, 10, 0)
    assert list(page.entries) == entries[::-1]
    assert page.total == len(entries)


async def test_history_includes_since_and_excludes_until(store: Store) -> None:
    await store.record(Changes(history=[an_entry(n) for n in range(1, 7)]))
    assert await history(store, an_entry(3).at, None) == (["6", "5", "4", "3"], 4)
    assert await history(store, None, an_entry(3).at) == (["2", "1"], 2)
    assert await history(store, an_entry(2).at, an_entry(4).at) == (["3", "2"], 2)
    assert await history(store, an_entry(7).at, None) == ([], 0)


async def test_pages_of_history_have_the_total_of_all(store: Store) -> None:
    await store.record(Changes(history=[an_entry(n) for n in range(1, 6)]))
    assert await history(store, limit=2) == (["5", "4"], 5)
    assert await history(store, limit=2, offset=4) == (["1"], 5)
    assert await history(store, limit=2, offset=5) == ([], 5)


# -- retention -------------------------------------------------------------------------------------------------------


async def test_ended_jobs_are_removed_at_the_age_limit_of_their_status(store: Store) -> None:
    retention = keeping(completed=timedelta(seconds=10), failed=timedelta(seconds=100))
    jobs = [
        an_ended_job(1, Status.COMPLETED),
        an_ended_job(2, Status.SKIPPED),
        an_ended_job(3, Status.FAILED),
        an_ended_job(4, Status.STOPPED),
        an_ended_job(5, Status.PARTIAL_FAILURE),
        a_job(6),
        an_ended_job(7, created_at=later(5)),
    ]
    await store.record(Changes(jobs=jobs))
    assert await store.prune(later(10), retention) == 0
    assert await store.prune(later(10.001), retention) == 2
    assert await found(store, JobQuery()) == [7, 6, 5, 4, 3]
    assert await store.prune(later(100.001), retention) == 4
    assert await found(store, JobQuery()) == [6]
    assert [job.uid for job in await store.unannounced(10)] == []


async def test_the_age_of_a_job_counts_from_its_latest_event(store: Store) -> None:
    retention = keeping(completed=timedelta(seconds=10))
    await store.record(Changes(jobs=[an_ended_job(1), a_job(2), an_ended_job(3)]))
    late = JobEvent(later(8), EventKind.PROGRESS, "hub", "late")
    await store.record(
        Changes(
            updates=[
                JobUpdate(1, (late,), Status.COMPLETED, Phase.ENDED),
                succeeded(a_job(2), later(9)),
            ]
        )
    )
    assert await store.prune(later(15), retention) == 1
    assert await found(store, JobQuery()) == [2, 1]


async def test_beyond_max_jobs_the_oldest_completed_and_skipped_are_removed_and_failures_stay(store: Store) -> None:
    statuses = [
        Status.FAILED, Status.COMPLETED, Status.SKIPPED, Status.STOPPED, Status.COMPLETED, Status.PARTIAL_FAILURE,
        Status.COMPLETED,
    ]  # fmt: skip
    jobs = [an_ended_job(uid, status) for uid, status in enumerate(statuses, 1)]
    await store.record(Changes(jobs=[*jobs, a_job(8)]))
    assert await store.prune(NOW, keeping(max_jobs=8)) == 0
    assert await store.prune(NOW, keeping(max_jobs=6)) == 2
    assert await found(store, JobQuery()) == [8, 7, 6, 5, 4, 1]
    assert await store.prune(NOW, keeping(max_jobs=1)) == 2
    assert await found(store, JobQuery()) == [8, 6, 4, 1]


async def test_jobs_removed_for_their_age_count_towards_max_jobs(store: Store) -> None:
    old = [an_ended_job(uid) for uid in (1, 2)]
    young = [an_ended_job(uid, created_at=later(100)) for uid in (3, 4)]
    await store.record(Changes(jobs=[*old, *young]))
    retention = keeping(completed=timedelta(seconds=10), max_jobs=2)
    assert await store.prune(later(105), retention) == 2
    assert await found(store, JobQuery()) == [4, 3]


async def test_pruning_in_bounded_pieces_comes_to_an_end(store: Store) -> None:
    await store.record(Changes(jobs=[an_ended_job(uid) for uid in range(1, 2502)] + [a_job(3000)]))
    pieces = []
    while not pieces or pieces[-1]:
        pieces.append(await store.prune(later(86_400 * 31), Retention()))
    assert sum(pieces) == 2501
    assert max(pieces) < 2501
    assert await found(store, JobQuery()) == [3000]


async def test_history_is_bounded_by_age(store: Store) -> None:
    await store.record(Changes(history=[an_entry(n) for n in range(1, 7)]))
    await store.prune(later(7 * 60), keeping(history=timedelta(minutes=4)))
    assert await history(store) == (["6", "5", "4", "3"], 4)


async def test_history_is_bounded_for_each_value_and_keeps_the_newest(store: Store) -> None:
    await store.record(Changes(history=[an_entry(n) for n in range(1, 7)] + [an_entry(1, OTHER_STATE)]))
    await store.prune(later(7 * 60), keeping(history_per_value=2))
    assert await history(store) == (["6", "5"], 2)
    assert (await store.history(OTHER_STATE, None, None, 10, 0)).total == 1


async def test_a_response_is_returned_again_for_ten_minutes(store: Store) -> None:
    body = b'{"status":"ok"}\x00\xff'
    await store.record(Changes(answers=[Answer(b"key\x00", NOW, body), Answer(b"other", later(60), b"2")]))
    await restart(store)
    assert await store.answer(b"key\x00", NOW) == body
    assert await store.answer(b"key\x00", later(0.001)) is None
    assert await store.answer(b"nothing", NOW) is None
    await store.prune(later(600), FOREVER)
    assert await store.answer(b"key\x00", NOW) == body
    await store.prune(later(600.001), FOREVER)
    assert await store.answer(b"key\x00", NOW) is None
    assert await store.answer(b"other", NOW) == b"2"


async def test_event_ids_are_forgotten_after_a_day(store: Store) -> None:
    await store.record(Changes(event_ids=[(LAMP, "old", NOW), (LAMP, "new", later(1))]))
    await store.prune(later(86_400.001), FOREVER)
    assert [each[1] for each in (await store.load()).event_ids] == ["new"]


# -- calls -----------------------------------------------------------------------------------------------------------


async def test_concurrent_records_are_all_written_in_call_order(store: Store) -> None:
    await asyncio.gather(
        *(
            store.record(Changes(jobs=[a_job(n)], values=keyed(a_value(str(n))), history=[an_entry(n)]))
            for n in range(1, 51)
        )
    )
    await restart(store)
    assert await found(store, JobQuery(limit=100)) == list(range(50, 0, -1))
    assert [value.text for value in (await store.load()).values] == ["50"]
    page = await store.history(LAMP_STATE, None, None, 100, 0)
    assert all(int(new.state) == int(old.state) + 1 for new, old in pairwise(page.entries))


async def test_a_store_may_be_closed_twice(store: Store) -> None:
    await store.record(Changes(metadata={"a": 1}))
    await store.close()
    await store.close()
    await store.open()
    assert dict((await store.load()).metadata) == {"a": 1}


async def test_health_has_the_kind_of_the_store_and_the_number_of_jobs(store: Store, store_url: str) -> None:
    await store.record(Changes(jobs=[a_job(1), an_ended_job(2)]))
    health = await store.health()
    assert health["jobs"] == 2
    assert isinstance(health["kind"], str)
    assert health["kind"] == store_url.partition(":")[0] or store_url not in STORES.values()


@pytest.mark.parametrize("url", ["", "jobs.db", "base:", "nothing:///jobs.db", "rows:", "__init__:"])
def test_an_unknown_store_url_is_refused_with_what_to_use(url: str) -> None:
    with pytest.raises(StoreRefused, match="sqlite:///"):
        create_store(url)


async def test_every_field_of_a_trigger_state_is_stored(store: Store) -> None:
    memory = {
        "throttle": later(3),
        "above": True,
        "times": (NOW, later(1.5)),
        "mine": {"count": 2, "at": (later(1), None), "texts": ("é", -0.5, {})},
    }
    full = TriggerState("all", LAMP, NOW, later(1), {"topic": "t"}, memory)
    idle = TriggerState("idle", LAMP, memory={"above": True})
    await store.record(Changes(trigger_states={"all": full, "idle": idle}))
    await restart(store)
    assert {each.name: each for each in (await store.load()).trigger_states} == {"all": full, "idle": idle}
    await store.record(Changes(trigger_states={"all": TriggerState("all", LAMP, NOW)}))
    await restart(store)
    assert {each.name: dict(each.memory) for each in (await store.load()).trigger_states} == {
        "all": {},
        "idle": {"above": True},
    }


async def test_discovered_members_are_stored_once_and_in_order(store: Store) -> None:
    await store.record(Changes(members=[("belt", "b"), ("belt", "a")]))
    await store.record(Changes(members=[("belt", "b"), ("room", "a")]))
    await restart(store)
    assert list((await store.load()).members) == [("belt", "b"), ("belt", "a"), ("room", "a")]
