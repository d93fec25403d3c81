"""Attempts inside one job: back-off, what a kill does to them, and what the broker says of a publication."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.harness import ServiceHarness, an_object, an_operation, statuses

Build = Callable[..., ServiceHarness]
AT_LEAST_ONCE = {"delivery": "at_least_once"}


async def shop(build: Build, **operations: Any) -> ServiceHarness:
    harness = build(objects={"lamp": an_object("lamp")}, operations=operations)
    return await harness.start()


def work(**keys: Any) -> dict[str, Any]:
    return an_operation("lamp", type="work", timeout="1h", **keys)


async def begin(harness: ServiceHarness, operation: str = "dig") -> str:
    return str((await harness.data("operations/execute", id=operation))["id"])


async def the_job(harness: ServiceHarness) -> Any:
    [job] = (await harness.data("jobs/list"))["items"]
    return job


def events(job: Any) -> list[str]:
    return [each["event"] for each in job["timeline"]]


async def fail(harness: ServiceHarness, **how: Any) -> None:
    harness.fake_jobs.going[-1].fail(**how)
    await harness.settle()


async def test_attempts_are_made_inside_the_job_with_a_growing_wait(build: Build) -> None:
    harness = await shop(build, dig=work(retry={"attempts": 4, "first": "2s", "factor": 3, "max": "10s"}))
    await begin(harness)
    for number, wait in ((1, 2), (2, 6), (3, 10)):
        await fail(harness, error=f"broke {number}")
        job = await the_job(harness)
        assert (job["status"], job["attempts"]) == ("processing", number)
        last = job["timeline"][-1]
        assert last["event"] == "retried"
        assert last["message"] == f"Attempt {number} of 4 failed, next in {wait}s"
        assert last["error"] == f"broke {number}"
        await harness.advance(wait - 0.1)
        assert harness.fake_jobs.going == []
        await harness.advance(0.1)
        assert len(harness.fake_jobs.going) == 1
    await fail(harness, error="broke for good")
    job = await the_job(harness)
    assert (job["status"], job["attempts"], job["error"]) == ("failed", 4, "broke for good")
    assert events(job).count("started") == 4
    assert events(job).count("failed") == 1
    assert len(harness.documents("mqttjobs/event/job/failed/#")) == 1


async def test_a_later_attempt_may_succeed(build: Build) -> None:
    harness = await shop(build, dig=work(retry={"attempts": 3}))
    await begin(harness)
    await fail(harness)
    await harness.advance(1)
    harness.fake_jobs.going[0].complete({"depth": 2})
    await harness.settle()
    job = await the_job(harness)
    assert (job["status"], job["attempts"], job["error"], job["result"]) == ("completed", 2, "", {"depth": 2})
    assert job["agent_states"]["hub"]["duration"] == "1s"


async def test_what_cannot_help_is_not_attempted_again(build: Build) -> None:
    harness = await shop(build, dig=work(retry={"attempts": 3}))
    await begin(harness)
    await fail(harness, repeatable=False)
    assert (await the_job(harness))["status"] == "failed"


async def test_a_waiting_attempt_survives_a_kill_and_keeps_its_time(build: Build) -> None:
    harness = await shop(build, dig=work(retry={"attempts": 2, "first": "1m"}))
    await begin(harness)
    await fail(harness)
    await harness.advance(20)
    await harness.crash()
    await harness.advance(20)
    await harness.start()
    assert harness.fake_jobs.going == []
    await harness.advance(17)
    assert harness.fake_jobs.going == []
    await harness.advance(1)
    harness.fake_jobs.going[0].complete()
    await harness.settle()
    job = await the_job(harness)
    assert (job["status"], job["attempts"]) == ("completed", 2)


async def test_a_waiting_attempt_can_be_stopped(build: Build) -> None:
    harness = await shop(build, dig=work(retry={"attempts": 2, "first": "1m"}))
    job_id = await begin(harness)
    await fail(harness)
    assert (await harness.data("jobs/stop", id=job_id))["status"] == "stopped"
    await harness.advance(120)
    assert harness.fake_jobs.going == []


async def test_a_time_limit_is_an_attempt_that_failed(build: Build) -> None:
    harness = await shop(build, dig=work(retry={"attempts": 2}) | {"timeout": "30s"})
    await begin(harness)
    await harness.advance(31)
    job = await the_job(harness)
    assert job["timeline"][-3]["error"] == "timed out after 30s"
    assert (job["status"], job["attempts"]) == ("processing", 2)
    await harness.advance(31)
    assert (await the_job(harness))["error"] == "timed out after 30s"
    assert [run.cancelled for run in harness.fake_jobs.runs] == [True, True]


# -- what a kill interrupts ------------------------------------------------------------------------------------------


async def test_at_least_once_a_killed_job_runs_again_as_itself(build: Build) -> None:
    harness = await shop(build, dig=work(**AT_LEAST_ONCE))
    job_id = await begin(harness)
    await harness.restart()
    assert [run.context.job_id for run in harness.fake_jobs.runs] == [job_id, job_id]
    harness.fake_jobs.going[0].complete()
    await harness.settle()
    job = await the_job(harness)
    assert (job["id"], job["status"], job["attempts"]) == (job_id, "completed", 1)


async def test_at_most_once_a_killed_job_has_failed_as_interrupted(build: Build) -> None:
    harness = await shop(build, dig=work())
    await begin(harness)
    assert events(await the_job(harness))[-1] == "started"
    await harness.restart()
    job = await the_job(harness)
    assert (job["status"], job["error"], job["attempts"]) == ("failed", "interrupted", 1)
    operation = await harness.data("operations/get", id="dig")
    assert (operation["start_date"], operation["end_date"]) == (job["created"], job["updated_at"])
    assert len(harness.fake_jobs.runs) == 1
    assert len(harness.documents("mqttjobs/event/job/failed/#")) == 1


async def test_at_most_once_an_interrupted_job_is_attempted_again_if_retry_says_so(build: Build) -> None:
    harness = await shop(build, dig=work(retry={"attempts": 2}))
    await begin(harness)
    await harness.restart()
    job = await the_job(harness)
    assert [each["error"] for each in job["timeline"] if each["event"] == "retried"] == ["interrupted"]
    assert len(harness.fake_jobs.going) == 1
    harness.fake_jobs.going[0].complete()
    await harness.settle()
    assert (await the_job(harness))["status"] == "completed"


@pytest.mark.parametrize("moment", ["before claim", "after claim", "before record", "after record"])
async def test_killed_at_any_moment_a_job_runs_and_ends_once(build: Build, moment: str) -> None:
    harness = await shop(build, dig=work(**AT_LEAST_ONCE))
    harness.die_at(moment)
    harness.put("operations/execute", id="dig", transaction="t")
    await harness.settle()
    if not harness.running:
        await harness.start()
    await harness.ask("operations/execute", id="dig", transaction="t")
    assert len(harness.fake_jobs.going) == 1
    harness.die_at("after record")
    harness.fake_jobs.going[0].complete()
    await harness.settle()
    await harness.start()
    for run in harness.fake_jobs.going:
        run.complete()
    await harness.settle()
    assert statuses(await harness.jobs()) == {"completed": 1}
    assert len(harness.documents("mqttjobs/event/job/completed/#")) == 1


# -- what the broker says --------------------------------------------------------------------------------------------


async def test_a_job_completes_when_the_broker_has_the_publication(build: Build) -> None:
    harness = await shop(build, on=an_operation("lamp"))
    harness.broker.freeze()
    harness.put("operations/execute", id="on")
    await harness.settle()
    harness.broker.thaw()
    await harness.settle()
    assert statuses(await harness.jobs()) == {"completed": 1}


@pytest.mark.proves("common", "modes, attempts and what the broker says of a publication")
async def test_a_refused_publication_fails_the_job_with_the_reason_and_is_attempted_again_if_so_configured(
    build: Build,
) -> None:
    harness = await shop(build, on=an_operation("lamp", retry={"attempts": 2}))
    harness.broker.refuse("out/#")
    await begin(harness, "on")
    await harness.advance(1)
    job = await the_job(harness)
    assert (job["status"], job["attempts"], job["changed"]) == ("failed", 2, None)
    assert "0x87" in job["error"]
    assert "not authorized" in job["error"].lower()


async def test_a_publication_without_subscriber_completes_the_job_and_says_so(build: Build) -> None:
    harness = await shop(build, on=an_operation("lamp"))
    await begin(harness, "on")
    job = await the_job(harness)
    assert (job["status"], job["changed"], job["message"]) == ("completed", True, "no subscriber")


async def ticking(build: Build, **keys: Any) -> ServiceHarness:
    """Start a house that publishes by its schedule: ten seconds from now, and every hundred."""
    harness = await shop(build, on=an_operation("lamp", schedule={"every": "100s"}, **keys))
    harness.jitter = 1.0
    await harness.advance(88)
    return harness


async def test_a_publication_while_the_broker_is_away_is_sent_when_it_is_back(build: Build) -> None:
    harness = await ticking(build, timeout="60s")
    harness.broker.down()
    await harness.advance(12)
    assert statuses(await harness.jobs()) == {"submitted": 1}
    harness.broker.up()
    await harness.advance(40)
    [job] = await harness.jobs()
    assert (job.status.value, job.attempts) == ("completed", 1)
    assert harness.texts("out/lamp") == [job.id]


async def test_a_publication_whose_confirmation_was_lost_is_sent_again_as_the_same_job(build: Build) -> None:
    harness = await ticking(build, timeout="60s")
    harness.broker.freeze()
    await harness.advance(12)
    assert statuses(await harness.jobs()) == {"submitted": 1}
    await harness.disconnect()
    harness.broker.thaw()
    await harness.advance(40)
    [job] = await harness.jobs()
    assert (job.status.value, job.attempts) == ("completed", 1)
    assert set(harness.texts("out/lamp")) == {job.id}


async def test_a_publication_that_nobody_confirms_within_the_time_limit_has_failed(build: Build) -> None:
    harness = await ticking(build, timeout="30s")
    harness.broker.down()
    await harness.advance(50)
    harness.broker.up()
    await harness.advance(30)
    [job] = await harness.jobs()
    assert job.status.value == "failed"
    assert job.timeline[-1].error == "timed out after 30s"
    assert harness.texts("out/lamp") == []
    assert len(harness.documents("mqttjobs/event/job/failed/#")) == 1
