"""Every page of a listing visits each job once, whatever is filtered and whoever asks (contract 4, jobs/list)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mqttjobs.domain.jobs import TERMINAL_STATUSES, Job, Phase, Status
from mqttjobs.domain.model import EntityKey, EntityKind
from mqttjobs.domain.protocol import iso
from mqttjobs.store.base import Changes
from tests.contracts.records import a_job
from tests.service.hand_clock import BEGIN, HandLoop
from tests.service.harness import ServiceHarness, an_object, an_operation

KEY = "0123456789abcdef"
NAMES = ("lamp", "door")
CONFIG: dict[str, Any] = {
    "objects": {name: an_object(f"home/{name}") for name in NAMES},
    "links": {"way": {"source": "lamp", "target": "door"}},
    "operations": {name: an_operation() for name in ("say", "sing")},
    "users": {
        "anonymous": {"permissions": ["job:read"]},
        "alice": {"api_key": KEY, "permissions": ["job:read"], "objects": ["lamp"]},
    },
}
OWNERS = [*(EntityKey(EntityKind.OBJECT, name) for name in NAMES), EntityKey(EntityKind.LINK, "way"), None]


@dataclass(frozen=True)
class Filter:
    """What is asked for, and what a job must be like to be in it."""

    params: dict[str, Any]
    scoped: bool

    def visible(self, job: Job) -> bool:
        if not self.scoped:
            return True
        return job.owner == OWNERS[0] or (job.owner is None and job.user_id == "alice")

    def holds(self, job: Job) -> bool:
        wanted = self.params
        entities = {(kind, each) for kind in ("object", "link") for each in wanted.get(kind, ())}
        return (
            self.visible(job)
            and ("status" not in wanted or job.status.value in wanted["status"])
            and ("operation_id" not in wanted or job.operation_id == wanted["operation_id"])
            and ("user_id" not in wanted or job.user_id == wanted["user_id"])
            and (not entities or (job.owner is not None and (job.owner.kind.value, job.owner.id) in entities))
            and ("since" not in wanted or iso(job.created_at) >= wanted["since"])
            and ("until" not in wanted or iso(job.created_at) < wanted["until"])
        )


minutes = st.integers(0, 10).map(lambda n: BEGIN + timedelta(minutes=n))
jobs = st.lists(
    st.fixed_dictionaries(
        {
            "status": st.sampled_from(list(Status)),
            "owner": st.sampled_from(OWNERS),
            "user_id": st.sampled_from(["alice", "bob"]),
            "operation_id": st.sampled_from(["say", "sing"]),
            "created_at": minutes,
        }
    ),
    max_size=40,
)
filters = st.builds(
    Filter,
    st.fixed_dictionaries(
        {},
        optional={
            "status": st.lists(st.sampled_from([each.value for each in Status]), min_size=1, max_size=3),
            "operation_id": st.sampled_from(["say", "sing", "unknown"]),
            "object": st.lists(st.sampled_from(NAMES), min_size=1, max_size=2),
            "link": st.just(["way"]),
            "user_id": st.sampled_from(["alice", "bob"]),
            "since": minutes.map(iso),
            "until": minutes.map(iso),
        },
    ),
    st.booleans(),
)
bounded = settings(max_examples=60, derandomize=True, deadline=None)


def filled(made: list[dict[str, Any]], first: int = 1) -> list[Job]:
    """Return jobs that nothing will run: those that have not ended are claimed by nobody that is here."""
    return [
        a_job(
            uid,
            **each,
            target="_local" if each["status"] in TERMINAL_STATUSES else "elsewhere",
            phase=Phase.ENDED if each["status"] in TERMINAL_STATUSES else Phase.WAITING,
        )
        for uid, each in enumerate(made, first)
    ]


async def read_all(
    harness: ServiceHarness, asked: Filter, limit: int, more: list[Job], *, by_cursor: bool
) -> list[int]:
    """Read page after page, `more` jobs coming to be after the first, and return the uids in the order they came."""
    key = {"api_key": KEY} if asked.scoped else {}
    place: dict[str, Any] = {}
    uids: list[int] = []
    while True:
        page = await harness.data("jobs/list", **asked.params, **key, **place, limit=limit)
        uids += [item["uid"] for item in page["items"]]
        if more:
            await harness.store.record(Changes(jobs=more))
            more = []
        if by_cursor:
            if page["next_cursor"] is None:
                return uids
            place = {"cursor": page["next_cursor"]}
        else:
            if len(page["items"]) < limit:
                return uids
            place = {"offset": len(uids)}


@bounded
@given(made=jobs, asked=filters, limit=st.integers(1, 7), by_cursor=st.booleans())
def test_pages_visit_each_job_once_newest_first(
    *, made: list[dict[str, Any]], asked: Filter, limit: int, by_cursor: bool
) -> None:
    async def check() -> None:
        harness = ServiceHarness(CONFIG)
        stored = filled(made)
        await harness.store.record(Changes(jobs=stored))
        await harness.start()
        expected = [job.uid for job in reversed(stored) if asked.holds(job)]
        assert await read_all(harness, asked, limit, [], by_cursor=by_cursor) == expected
        key = {"api_key": KEY} if asked.scoped else {}
        page = await harness.data("jobs/list", **asked.params, **key, limit=100)
        assert page["total_items"] == len(expected)
        counts = dict.fromkeys((status.value for status in Status), 0)
        for job in stored:
            counts[job.status.value] += asked.visible(job)
        assert page["status_counts"] == counts
        await harness.crash()

    with asyncio.Runner(loop_factory=HandLoop) as runner:
        runner.run(check())


@bounded
@given(made=jobs, new=jobs, asked=filters, limit=st.integers(1, 7))
def test_a_cursor_is_not_moved_by_jobs_that_come_meanwhile(
    made: list[dict[str, Any]], new: list[dict[str, Any]], asked: Filter, limit: int
) -> None:
    async def check() -> None:
        harness = ServiceHarness(CONFIG)
        stored = filled(made)
        await harness.store.record(Changes(jobs=stored))
        await harness.start()
        expected = [job.uid for job in reversed(stored) if asked.holds(job)]
        later = filled(new, len(made) + 1)
        assert await read_all(harness, asked, limit, later, by_cursor=True) == expected
        await harness.crash()

    with asyncio.Runner(loop_factory=HandLoop) as runner:
        runner.run(check())
