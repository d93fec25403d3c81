"""The contract of Store for agents and their assignments, over every store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from mqttjobs.domain.agent_messages import Readiness
from mqttjobs.domain.agents import Agent
from mqttjobs.domain.assignments import Assignment, Stage
from mqttjobs.domain.jobs import JobUpdate, Phase
from mqttjobs.domain.status import ALL, ANY, EventKind, Status
from mqttjobs.store.base import Changes, Retention, Store
from tests.contracts.records import DOOR, NOW, a_job, an_ended_job, keyed, later, restart, started


def an_agent(hostname: str = "web1", **changes: Any) -> Agent:
    return Agent(**{"hostname": hostname, "state": Readiness.READY, **changes})


def an_assignment(uid: int = 1, hostname: str = "web1", **changes: Any) -> Assignment:
    fields: dict[str, Any] = {"attempt": 1, "stage": Stage.ASSIGNED, "planned_at": NOW, **changes}
    return Assignment(uid, hostname, **fields)


def claim(uid: int) -> JobUpdate:
    return JobUpdate(uid, (), Status.SUBMITTED, Phase.CLAIMED)


async def waiting(store: Store, limit: int = 100, seconds: float = 0, *, uses_slot: bool = True) -> list[int]:
    return [job.uid for job in await store.assignable(later(seconds), limit, uses_slot=uses_slot)]


async def test_an_agent_comes_back_as_it_was_and_replaces_the_one_of_its_name(store: Store) -> None:
    whole = an_agent(
        labels={"group": "web.dev"},
        version="1.0",
        max_jobs=8,
        running=3,
        facts={"load": 0.5, "python": "3.11"},
        status_at=NOW,
        heard_at=later(1),
        connection="abc",
        drained=True,
    )
    await store.record(Changes(agents={"web1": an_agent(), "web2": an_agent("web2")}))
    await store.record(Changes(agents={"web1": whole}))
    await restart(store)
    assert sorted((await store.load()).agents, key=lambda agent: agent.hostname) == [whole, an_agent("web2")]


async def test_an_assignment_comes_back_as_it_was_and_replaces_the_one_of_its_key(store: Store) -> None:
    whole = an_assignment(
        token="t" * 32,
        wave=2,
        priority=-7,
        uses_slot=False,
        limit=timedelta(milliseconds=1500),
        movable=True,
        movable_once_run=True,
        assigned_at=later(1),
        answer_by=later(11),
        deadline_at=later(66),
        progress_at=later(5),
        taken=frozenset({EventKind.ACKNOWLEDGED, EventKind.STARTED}),
        superseded=True,
    )
    await store.record(Changes(jobs=[a_job(1, target=ANY)], assignments=keyed(an_assignment())))
    await store.record(Changes(assignments=keyed(whole)))
    await restart(store)
    assert list(await store.assignments(1)) == [whole]


async def test_without_a_uid_only_open_assignments_are_returned(store: Store) -> None:
    rows = [
        an_assignment(1, "a", stage=Stage.HELD),
        an_assignment(1, "b", stage=Stage.CLOSED),
        an_assignment(1, "b", attempt=2, stage=Stage.PLANNED),
        an_assignment(2, "a"),
    ]
    await store.record(Changes(jobs=[a_job(1, target=ALL), a_job(2, target=ALL)], assignments=keyed(*rows)))
    assert list(await store.assignments()) == [rows[0], rows[2], rows[3]]
    assert list(await store.assignments(1)) == rows[:3]


async def test_assignments_are_removed_with_their_job_and_none_is_stored_without_one(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(1, target=ALL)], assignments=keyed(an_assignment(1), an_assignment(9))))
    await store.record(Changes(deleted=[1], assignments=keyed(an_assignment(1, "b"))))
    assert [list(await store.assignments(uid)) for uid in (None, 1, 9)] == [[], [], []]


async def test_retention_removes_assignments_with_their_job(store: Store) -> None:
    rows = [an_assignment(1, stage=Stage.CLOSED), an_assignment(2)]
    await store.record(Changes(jobs=[an_ended_job(1, target=ALL), a_job(2, target=ALL)], assignments=keyed(*rows)))
    assert await store.prune(later(86_400), Retention(completed=timedelta(hours=1))) == 1
    assert [list(await store.assignments(uid)) for uid in (1, 2)] == [[], rows[1:]]


async def test_jobs_for_agents_are_assignable_by_priority_then_first_come(store: Store) -> None:
    jobs = [
        a_job(1, target=ANY),
        a_job(2, target=ANY, priority=5),
        a_job(3),
        a_job(4, target="web1"),
        a_job(7, target="web1", uses_slot=False),
        a_job(5, target=ALL, due_at=later(10)),
        an_ended_job(6, target=ANY),
    ]
    await store.record(Changes(jobs=jobs))
    assert await waiting(store) == [2, 1, 4]
    assert await waiting(store, limit=1) == [2]
    assert await waiting(store, uses_slot=False) == [7]
    assert await waiting(store, seconds=10) == [2, 1, 4, 5]
    await store.record(Changes(updates=[claim(2)]))
    assert await waiting(store) == [1, 4]


async def test_jobs_for_agents_wait_at_their_limit(store: Store) -> None:
    jobs = [a_job(uid, target=ANY, max_running=2) for uid in (1, 2, 3)] + [
        a_job(4, target=ANY, max_running=2, owner=DOOR)
    ]
    await store.record(Changes(jobs=jobs))
    assert await waiting(store) == [1, 2, 4]
    await store.record(Changes(updates=[claim(1)]))
    assert await waiting(store) == [2, 4]


async def test_the_service_and_its_agents_each_have_their_own_jobs(store: Store) -> None:
    await store.record(Changes(jobs=[a_job(1, target=ANY, due_at=later(5)), a_job(2, due_at=later(7))]))
    assert await store.next_due(NOW) == later(7)
    assert await store.next_assignable(NOW) == later(5)
    assert await store.next_assignable(later(5)) is None
    claimed = await store.claim(later(9), 10, uses_slot=True, begin=started(later(9)))
    assert [job.uid for job in claimed] == [2]
    await store.record(Changes(updates=[claim(1)]))
    assert [job.uid for job in await store.claimed()] == [2]


async def test_a_large_broadcast_is_written_whole(store: Store) -> None:
    rows = [an_assignment(1, f"h{n:03}", stage=Stage.PLANNED) for n in range(300)]
    await store.record(Changes(jobs=[a_job(1, target=ALL)], assignments=keyed(*rows)))
    await store.record(Changes(assignments=keyed(*(replace(row, stage=Stage.CLOSED) for row in rows[:299]))))
    assert list(await store.assignments()) == rows[299:]
