"""What the jobs of one operation type share: opened once, for all of them, and closed when none needs it any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mqttjobs.executors.base import executor_types
from mqttjobs.service.jobs import definitions
from tests.service.agent_harness import AgentHarness
from tests.service.fake_jobs import Work
from tests.service.harness import ServiceHarness, an_object, an_operation

Build = Callable[..., ServiceHarness]


class Pool:
    """What the jobs of `pooled` share. `log` has every opening and closing, in order."""

    log: ClassVar[list[str]] = []
    opening: ClassVar[asyncio.Event | None] = None
    closing: ClassVar[asyncio.Event | None] = None
    failure: ClassVar[Exception | None] = None


class Pooled(Work):
    """Goes on until the test ends it, with a pool that all jobs share."""

    kind: ClassVar[str] = "pooled"

    @classmethod
    async def open(cls) -> Pool:
        Pool.log.append("open")
        if Pool.opening is not None:
            await Pool.opening.wait()
        if Pool.failure is not None:
            raise Pool.failure
        Pool.log.append("opened")
        return Pool()

    @classmethod
    async def close(cls, shared: Pool) -> None:
        assert isinstance(shared, Pool)
        Pool.log.append("close")
        if Pool.closing is not None:
            await Pool.closing.wait()
        Pool.log.append("closed")


@pytest.fixture(autouse=True)
def _pooled() -> Iterator[None]:
    executor_types()["pooled"] = Pooled  # type: ignore[index]
    Pool.log = []
    Pool.opening = Pool.closing = Pool.failure = None
    yield
    executor_types().pop("pooled")  # type: ignore[attr-defined]


OPENED = ["open", "opened"]
CLOSED = ["close", "closed"]


def config(*names: str, **more: Any) -> dict[str, Any]:
    """Return a configuration with an operation of the type `pooled` for each name."""
    return {
        "users": {"anonymous": {"permissions": ["admin"]}},
        "objects": {"lamp": an_object("home/lamp")},
        "operations": {
            "other": an_operation("lamp"),
            **{
                name: an_operation("lamp", **{"type": "pooled", "label": name, "timeout": "1h", **more})
                for name in names
            },
        },
    }


async def execute(harness: ServiceHarness, name: str) -> None:
    answer = await harness.ask("operations/execute", id=name)
    assert answer["code"] == 201, answer


async def ended(harness: ServiceHarness) -> list[tuple[str, str]]:
    """Return the status and error of every job, oldest first."""
    items = (await harness.data("jobs/list", limit=100))["items"]
    return [(item["status"], item["error"]) for item in reversed(items)]


async def test_it_is_opened_before_the_first_job_and_closed_once_when_the_service_stops(build: Build) -> None:
    harness = await build(**config("a", "b")).start()
    await execute(harness, "other")
    assert Pool.log == []
    for name in ("a", "b", "a"):
        await execute(harness, name)
    assert Pool.log == OPENED
    shared = {run.context.shared for run in harness.fake_jobs.runs}
    assert len(shared) == 1
    assert isinstance(shared.pop(), Pool)
    harness.fake_jobs.runs[0].complete()
    await harness.settle()
    await harness.stop()
    assert Pool.log == OPENED + CLOSED


async def test_jobs_that_come_while_it_is_opened_wait_for_the_same_one(build: Build) -> None:
    Pool.opening = asyncio.Event()
    harness = await build(**config("a")).start()
    for _ in range(3):
        await execute(harness, "a")
    assert (Pool.log, harness.fake_jobs.runs) == (["open"], [])
    Pool.opening.set()
    await harness.settle()
    assert Pool.log == OPENED
    assert len({run.context.shared for run in harness.fake_jobs.runs}) == 1
    assert len(harness.fake_jobs.going) == 3


async def test_a_reload_that_leaves_an_operation_of_the_type_keeps_it(build: Build) -> None:
    harness = await build(**config("a", "b")).start()
    await execute(harness, "a")
    harness.configure(**config("b", label="another"))
    await harness.reload()
    await execute(harness, "b")
    assert Pool.log == OPENED
    assert len({run.context.shared for run in harness.fake_jobs.runs}) == 1


async def test_a_reload_that_removes_the_type_closes_it_once_its_last_job_has_ended(build: Build) -> None:
    harness = await build(**config("a", "b")).start()
    await execute(harness, "a")
    await execute(harness, "b")
    harness.configure(**config())
    await harness.reload()
    assert Pool.log == OPENED
    harness.fake_jobs.runs[0].complete()
    await harness.settle()
    assert Pool.log == OPENED
    harness.fake_jobs.runs[1].complete()
    await harness.settle()
    assert Pool.log == OPENED + CLOSED
    assert await ended(harness) == [("completed", ""), ("completed", "")]
    await harness.stop()
    assert Pool.log == OPENED + CLOSED


async def test_a_reload_closes_at_once_what_no_job_uses(build: Build) -> None:
    harness = await build(**config("a")).start()
    await execute(harness, "a")
    harness.fake_jobs.runs[0].complete()
    await harness.settle()
    harness.configure(**config())
    await harness.reload()
    assert Pool.log == OPENED + CLOSED


async def test_a_job_that_waited_over_a_reload_has_it_for_itself(build: Build) -> None:
    harness = await build(**config("a", mode="queued")).start()
    await execute(harness, "a")
    await execute(harness, "a")
    harness.configure(**config())
    await harness.reload()
    for number in range(2):
        harness.fake_jobs.runs[number].complete()
        await harness.settle()
    assert await ended(harness) == [("completed", ""), ("completed", "")]
    assert Pool.log == (OPENED + CLOSED) * 2


async def test_a_type_that_comes_back_is_opened_only_when_the_old_one_is_closed(build: Build) -> None:
    Pool.closing = asyncio.Event()
    harness = await build(**config("a")).start()
    await execute(harness, "a")
    harness.fake_jobs.runs[0].complete()
    for names in ((), ("a",)):
        harness.configure(**config(*names))
        await harness.reload()
    await execute(harness, "a")
    assert Pool.log == [*OPENED, "close"]
    Pool.closing.set()
    await harness.settle()
    assert Pool.log == OPENED + CLOSED + OPENED
    assert len({run.context.shared for run in harness.fake_jobs.runs}) == 2


async def test_definitions_that_are_let_go_of_leave_it_open(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "CACHED", 2)
    harness = await build(**config(), service={"inline_operations": ["pooled"]}).start()
    for number in range(7):
        operation = {"type": "pooled", "label": f"sent in {number}"}
        assert (await harness.ask("jobs/create", operation=operation))["code"] == 201
        if number != 3:
            harness.fake_jobs.runs[number].complete()
            await harness.settle()
    assert Pool.log == OPENED
    assert len({run.context.shared for run in harness.fake_jobs.runs}) == 1
    harness.fake_jobs.runs[3].complete()
    await harness.settle()
    assert [status for status, _ in await ended(harness)] == ["completed"] * 7
    await harness.stop()
    assert Pool.log == OPENED + CLOSED


async def test_an_open_that_fails_fails_the_job_says_so_and_is_tried_again_by_the_next(build: Build) -> None:
    harness = await build(**config("a")).start()
    Pool.failure = OSError("the bus is not there")
    await execute(harness, "a")
    assert await ended(harness) == [("failed", "pooled: could not be opened: the bus is not there")]
    health = await harness.data("service/health")
    reason = "operation type pooled: could not be opened: the bus is not there"
    assert (health["status"], health["reasons"]) == ("degraded", [reason])
    Pool.failure = None
    await execute(harness, "a")
    assert len(harness.fake_jobs.going) == 1
    assert (await harness.data("service/health"))["status"] == "ok"
    await harness.stop()
    assert Pool.log == ["open", *OPENED, *CLOSED]


async def test_attempts_open_it_again(build: Build) -> None:
    harness = await build(**config("a", retry={"attempts": 2, "first": "5s"})).start()
    Pool.failure = RuntimeError
    await execute(harness, "a")
    Pool.failure = None
    await harness.advance(5)
    harness.fake_jobs.runs[0].complete()
    await harness.settle()
    assert await ended(harness) == [("completed", "")]


async def test_a_reload_that_removes_the_type_ends_the_complaint(build: Build) -> None:
    harness = await build(**config("a")).start()
    Pool.failure = OSError("the bus is not there")
    await execute(harness, "a")
    harness.configure(**config())
    await harness.reload()
    assert (await harness.data("service/health"))["status"] == "ok"


@pytest.mark.parametrize("own_timeout", [True, False])
async def test_a_job_waits_within_its_time_limit_and_the_next_finds_it_open(
    build: Build, monkeypatch: pytest.MonkeyPatch, own_timeout: bool
) -> None:
    monkeypatch.setattr(Pooled, "own_timeout", own_timeout)
    Pool.opening = asyncio.Event()
    settings = config("a")
    settings["operations"]["a"]["timeout"] = "10s"
    harness = await build(**settings).start()
    await execute(harness, "a")
    await harness.advance(11)
    assert await ended(harness) == [("failed", "timed out after 10s")]
    Pool.opening.set()
    await harness.settle()
    await execute(harness, "a")
    assert Pool.log == OPENED
    assert len(harness.fake_jobs.going) == 1


async def test_an_open_that_never_ends_is_given_up(build: Build) -> None:
    Pool.opening = asyncio.Event()
    harness = await build(**config("a")).start()
    await execute(harness, "a")
    await harness.advance(61)
    assert await ended(harness) == [("failed", "pooled: not opened within 60 s")]
    assert (await harness.data("service/health"))["status"] == "degraded"
    await harness.stop()
    assert Pool.log == ["open"]


async def test_a_stop_while_it_is_opened_opens_nothing(build: Build) -> None:
    Pool.opening = asyncio.Event()
    harness = await build(**config("a")).start()
    await execute(harness, "a")
    await harness.stop()
    assert Pool.log == ["open"]


async def test_a_close_that_fails_or_never_ends_does_not_keep_the_service_from_stopping(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(shared: Pool) -> None:
        Pool.log.append("close")
        raise OSError(str(shared))

    for replaced in (False, True):
        Pool.log, Pool.closing = [], asyncio.Event()
        if replaced:
            monkeypatch.setattr(Pooled, "close", broken)
        harness = await build(**config("a")).start()
        await execute(harness, "a")
        harness.fake_jobs.runs[0].complete()
        await harness.settle()
        assert await ended(harness) == [("completed", "")]
        began_s = harness.clock.monotonic()
        await harness.stop()
        assert Pool.log == [*OPENED, "close"]
        assert harness.clock.monotonic() - began_s < 15


# -- on an agent ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[AgentHarness]:
    agent = await AgentHarness(tmp_path / "state").start()
    yield agent
    await agent.crash()


def pooled(number: int) -> dict[str, Any]:
    return {"operation": {"type": "pooled", "name": f"pooled-{number}"}}


async def test_an_agent_opens_it_once_for_all_its_jobs_and_closes_it_when_it_stops(agent: AgentHarness) -> None:
    assert Pool.log == []
    for number in range(3):
        await agent.assign(**pooled(number))
    assert Pool.log == OPENED
    assert len({run.context.shared for run in agent.fake_jobs.runs}) == 1
    agent.fake_jobs.runs[0].complete()
    await agent.settle()
    assert agent.last["event"] == "completed"
    await agent.leave()
    assert Pool.log == OPENED + CLOSED
    assert [run.cancelled for run in agent.fake_jobs.runs] == [False, True, True]


async def test_an_open_that_fails_on_an_agent_fails_the_job_and_nothing_else(agent: AgentHarness) -> None:
    Pool.failure = OSError("the bus is not there")
    await agent.assign(**pooled(1))
    assert (agent.last["event"], agent.last["error"]) == ("failed", "pooled: could not be opened: the bus is not there")
    Pool.failure = None
    await agent.assign(**pooled(2))
    agent.fake_jobs.runs[0].complete()
    await agent.settle()
    assert agent.last["event"] == "completed"
    assert agent.state == "ready"
