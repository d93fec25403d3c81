"""Attempts inside one job: back-off, what a kill does to them, and what the broker says of a publication."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from house import House, an_object, an_operation, statuses

Build = Callable[..., House]
AT_LEAST_ONCE = {"delivery": "at_least_once"}


async def shop(build: Build, **operations: Any) -> House:
    house = build(objects={"lamp": an_object("lamp")}, operations=operations)
    return await house.start()


def work(**keys: Any) -> dict[str, Any]:
    return an_operation("lamp", type="work", timeout="1h", **keys)


async def begin(house: House, operation: str = "dig") -> str:
    return str((await house.data("operations/execute", id=operation))["id"])


async def the_job(house: House) -> Any:
    [job] = (await house.data("jobs/list"))["items"]
    return job


def events(job: Any) -> list[str]:
    return [each["event"] for each in job["timeline"]]


async def fail(house: House, **how: Any) -> None:
    house.desk.going[-1].fail(**how)
    await house.settle()


async def test_attempts_are_made_inside_the_job_with_a_growing_wait(build: Build) -> None:
    house = await shop(build, dig=work(retry={"attempts": 4, "first": "2s", "factor": 3, "max": "10s"}))
    await begin(house)
    for number, wait in ((1, 2), (2, 6), (3, 10)):
        await fail(house, error=f"broke {number}")
        job = await the_job(house)
        assert (job["status"], job["attempts"]) == ("processing", number)
        last = job["timeline"][-1]
        assert last["event"] == "retried"
        assert last["message"] == f"Attempt {number} of 4 failed, next in {wait}s"
        assert last["error"] == f"broke {number}"
        await house.advance(wait - 0.1)
        assert house.desk.going == []
        await house.advance(0.1)
        assert len(house.desk.going) == 1
    await fail(house, error="broke for good")
    job = await the_job(house)
    assert (job["status"], job["attempts"], job["error"]) == ("failed", 4, "broke for good")
    assert events(job).count("started") == 4
    assert events(job).count("failed") == 1
    assert len(house.documents("mqttjobs/event/job/failed/#")) == 1


async def test_a_later_attempt_may_succeed(build: Build) -> None:
    house = await shop(build, dig=work(retry={"attempts": 3}))
    await begin(house)
    await fail(house)
    await house.advance(1)
    house.desk.going[0].complete({"depth": 2})
    await house.settle()
    job = await the_job(house)
    assert (job["status"], job["attempts"], job["error"], job["result"]) == ("completed", 2, "", {"depth": 2})
    assert job["agent_states"]["hub"]["duration"] == "1s"


async def test_what_cannot_help_is_not_attempted_again(build: Build) -> None:
    house = await shop(build, dig=work(retry={"attempts": 3}))
    await begin(house)
    await fail(house, repeatable=False)
    assert (await the_job(house))["status"] == "failed"


async def test_a_waiting_attempt_survives_a_kill_and_keeps_its_time(build: Build) -> None:
    house = await shop(build, dig=work(retry={"attempts": 2, "first": "1m"}))
    await begin(house)
    await fail(house)
    await house.advance(20)
    await house.crash()
    await house.advance(20)
    await house.start()
    assert house.desk.going == []
    await house.advance(17)
    assert house.desk.going == []
    await house.advance(1)
    house.desk.going[0].complete()
    await house.settle()
    job = await the_job(house)
    assert (job["status"], job["attempts"]) == ("completed", 2)


async def test_a_waiting_attempt_can_be_stopped(build: Build) -> None:
    house = await shop(build, dig=work(retry={"attempts": 2, "first": "1m"}))
    job_id = await begin(house)
    await fail(house)
    assert (await house.data("jobs/stop", id=job_id))["status"] == "stopped"
    await house.advance(120)
    assert house.desk.going == []


async def test_a_time_limit_is_an_attempt_that_failed(build: Build) -> None:
    house = await shop(build, dig=work(retry={"attempts": 2}) | {"timeout": "30s"})
    await begin(house)
    await house.advance(31)
    job = await the_job(house)
    assert job["timeline"][-3]["error"] == "timed out after 30s"
    assert (job["status"], job["attempts"]) == ("processing", 2)
    await house.advance(31)
    assert (await the_job(house))["error"] == "timed out after 30s"
    assert [run.cancelled for run in house.desk.runs] == [True, True]


# -- what a kill interrupts ------------------------------------------------------------------------------------------


async def test_at_least_once_a_killed_job_runs_again_as_itself(build: Build) -> None:
    house = await shop(build, dig=work(**AT_LEAST_ONCE))
    job_id = await begin(house)
    await house.restart()
    assert [run.context.job_id for run in house.desk.runs] == [job_id, job_id]
    house.desk.going[0].complete()
    await house.settle()
    job = await the_job(house)
    assert (job["id"], job["status"], job["attempts"]) == (job_id, "completed", 1)


async def test_at_most_once_a_killed_job_has_failed_as_interrupted(build: Build) -> None:
    house = await shop(build, dig=work())
    await begin(house)
    assert events(await the_job(house))[-1] == "started"
    await house.restart()
    job = await the_job(house)
    assert (job["status"], job["error"], job["attempts"]) == ("failed", "interrupted", 1)
    operation = await house.data("operations/get", id="dig")
    assert (operation["start_date"], operation["end_date"]) == (job["created"], job["updated_at"])
    assert len(house.desk.runs) == 1
    assert len(house.documents("mqttjobs/event/job/failed/#")) == 1


async def test_at_most_once_an_interrupted_job_is_attempted_again_if_retry_says_so(build: Build) -> None:
    house = await shop(build, dig=work(retry={"attempts": 2}))
    await begin(house)
    await house.restart()
    job = await the_job(house)
    assert [each["error"] for each in job["timeline"] if each["event"] == "retried"] == ["interrupted"]
    assert len(house.desk.going) == 1
    house.desk.going[0].complete()
    await house.settle()
    assert (await the_job(house))["status"] == "completed"


@pytest.mark.parametrize("moment", ["before claim", "after claim", "before record", "after record"])
async def test_killed_at_any_moment_a_job_runs_and_ends_once(build: Build, moment: str) -> None:
    house = await shop(build, dig=work(**AT_LEAST_ONCE))
    house.die_at(moment)
    house.put("operations/execute", id="dig", transaction="t")
    await house.settle()
    if not house.running:
        await house.start()
    await house.ask("operations/execute", id="dig", transaction="t")
    assert len(house.desk.going) == 1
    house.die_at("after record")
    house.desk.going[0].complete()
    await house.settle()
    await house.start()
    for run in house.desk.going:
        run.complete()
    await house.settle()
    assert statuses(await house.jobs()) == {"completed": 1}
    assert len(house.documents("mqttjobs/event/job/completed/#")) == 1


# -- what the broker says --------------------------------------------------------------------------------------------


async def test_a_job_completes_when_the_broker_has_the_publication(build: Build) -> None:
    house = await shop(build, on=an_operation("lamp"))
    house.broker.freeze()
    house.put("operations/execute", id="on")
    await house.settle()
    house.broker.thaw()
    await house.settle()
    assert statuses(await house.jobs()) == {"completed": 1}


async def test_a_refused_publication_fails_the_job_with_the_reason_and_is_attempted_again_if_so_configured(
    build: Build,
) -> None:
    house = await shop(build, on=an_operation("lamp", retry={"attempts": 2}))
    house.broker.refuse("out/#")
    await begin(house, "on")
    await house.advance(1)
    job = await the_job(house)
    assert (job["status"], job["attempts"], job["changed"]) == ("failed", 2, None)
    assert "0x87" in job["error"]
    assert "not authorized" in job["error"].lower()


async def test_a_publication_without_subscriber_completes_the_job_and_says_so(build: Build) -> None:
    house = await shop(build, on=an_operation("lamp"))
    await begin(house, "on")
    job = await the_job(house)
    assert (job["status"], job["changed"], job["message"]) == ("completed", True, "no subscriber")


async def ticking(build: Build, **keys: Any) -> House:
    """Start a house that publishes by its schedule: ten seconds from now, and every hundred."""
    house = await shop(build, on=an_operation("lamp", schedule={"every": "100s"}, **keys))
    house.jitter = 1.0
    await house.advance(88)
    return house


async def test_a_publication_while_the_broker_is_away_is_sent_when_it_is_back(build: Build) -> None:
    house = await ticking(build, timeout="60s")
    house.broker.down()
    await house.advance(12)
    assert statuses(await house.jobs()) == {"submitted": 1}
    house.broker.up()
    await house.advance(40)
    [job] = await house.jobs()
    assert (job.status.value, job.attempts) == ("completed", 1)
    assert house.texts("out/lamp") == [job.id]


async def test_a_publication_whose_confirmation_was_lost_is_sent_again_as_the_same_job(build: Build) -> None:
    house = await ticking(build, timeout="60s")
    house.broker.freeze()
    await house.advance(12)
    assert statuses(await house.jobs()) == {"submitted": 1}
    await house.disconnect()
    house.broker.thaw()
    await house.advance(40)
    [job] = await house.jobs()
    assert (job.status.value, job.attempts) == ("completed", 1)
    assert set(house.texts("out/lamp")) == {job.id}


async def test_a_publication_that_nobody_confirms_within_the_time_limit_has_failed(build: Build) -> None:
    house = await ticking(build, timeout="30s")
    house.broker.down()
    await house.advance(50)
    house.broker.up()
    await house.advance(30)
    [job] = await house.jobs()
    assert job.status.value == "failed"
    assert job.timeline[-1].error == "timed out after 30s"
    assert house.texts("out/lamp") == []
    assert len(house.documents("mqttjobs/event/job/failed/#")) == 1
