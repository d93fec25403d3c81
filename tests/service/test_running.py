"""How jobs run: in row order, bounded, attempted again, within their time, interrupted (behaviour 3)."""

from __future__ import annotations

from collections.abc import Callable

from mqttjobs.domain.jobs import Job
from tests.service.harness import ServiceHarness, an_object, an_operation, statuses, work

Build = Callable[..., ServiceHarness]

LAMP = {"lamp": an_object("home/lamp")}


def kinds(job: Job) -> list[str]:
    return [event.kind.value for event in job.timeline]


def last_error(job: Job) -> str:
    return job.timeline[-1].error


async def test_publishes_of_one_owner_leave_in_row_order_and_on_never_overtakes_off(build: Build) -> None:
    operations = {
        "on": an_operation("lamp", message="ON", triggers=[{"states": ["on"]}]),
        "off": an_operation("lamp", message="OFF", triggers=[{"states": ["off"]}]),
    }
    harness = await build(objects=LAMP, operations=operations).start()
    harness.broker.freeze()
    for n in range(40):
        harness.send("home/lamp", ("on", "off")[n % 2])
        if n % 7 == 0:
            await harness.settle()
    await harness.settle()
    harness.broker.thaw()
    await harness.settle()
    assert harness.texts("out/lamp") == ["ON", "OFF"] * 20


async def test_a_queue_of_publishes_lets_no_later_one_of_its_owner_pass(build: Build) -> None:
    lamp = {"lamp": an_object("home/lamp", state={"event": True})}
    operations = {
        "on": an_operation("lamp", message="ON", mode="queued", triggers=[{"states": ["on"]}]),
        "off": an_operation("lamp", message="OFF", triggers=[{"states": ["off"]}]),
    }
    harness = await build(objects=lamp, operations=operations).start()
    harness.broker.freeze()
    for text in ("on", "on", "off"):
        await harness.report("home/lamp", text)
    await harness.report("home/lamp", "on")
    await harness.report("home/lamp", "off")
    harness.broker.thaw()
    await harness.settle()
    assert harness.texts("out/lamp") == ["ON", "ON", "OFF", "ON", "OFF"]


async def test_row_order_is_kept_over_a_lost_connection_and_a_crash(build: Build) -> None:
    operations = {
        "on": an_operation("lamp", message="ON {{ job.id }}", triggers=[{"states": ["on"]}]),
        "off": an_operation("lamp", message="OFF {{ job.id }}", triggers=[{"states": ["off"]}]),
    }
    harness = await build(objects=LAMP, operations=operations).start()
    harness.broker.freeze()
    for text in ("on", "off", "on"):
        await harness.report("home/lamp", text)
    await harness.disconnect()
    await harness.report("home/lamp", "off")
    await harness.crash()
    harness.broker.thaw()
    await harness.start()
    jobs = await harness.jobs()
    assert [text.split()[1] for text in harness.texts("out/lamp")] == [job.id for job in jobs]
    assert [text.split()[0] for text in harness.texts("out/lamp")] == ["ON", "OFF", "ON", "OFF"]
    assert statuses(jobs) == {"completed": 4}


async def test_thirty_hung_scripts_never_stop_the_lights(build: Build) -> None:
    operations = {
        "hang": work("lamp", triggers=[{"states": ["hang"]}, {"states": ["hang"]}]),
        "on": an_operation("lamp", message="{{ state }}", triggers=[{"not_states": ["hang"]}]),
    }
    harness = await build(objects=LAMP, operations=operations, service={"concurrency": 10}).start()
    for n in range(15):
        await harness.report("home/lamp", "hang")
        await harness.report("home/lamp", f"on-{n}")
    assert len(harness.fake_jobs.going) == 10
    assert len(await harness.jobs("hang")) == 30
    assert harness.texts("out/lamp") == [f"on-{n}" for n in range(15)]


async def test_a_slot_that_becomes_free_is_used_at_once_higher_priority_first(build: Build) -> None:
    operations = {
        "low": work(None, label="low", priority=-1),
        "plain": work(None, label="plain"),
        "high": work(None, label="high", priority=5),
    }
    harness = await build(operations=operations, service={"concurrency": 1}).start()
    for name in ("plain", "low", "plain", "high", "low", "high"):
        await harness.data("operations/execute", id=name)
    while harness.fake_jobs.going:
        harness.fake_jobs.going[0].complete()
        await harness.settle()
    assert harness.fake_jobs.labels() == ["plain", "high", "high", "plain", "low", "low"]


RETRY = {"attempts": 3, "first": "4s", "factor": 2}


async def test_a_failed_attempt_is_made_again_after_its_pause_inside_the_same_job(build: Build) -> None:
    harness = await build(operations={"job": work(None, retry=RETRY)}).start()
    await harness.data("operations/execute", id="job")
    harness.fake_jobs.going[0].fail("first")
    await harness.advance(3.9)
    assert harness.fake_jobs.going == []
    await harness.advance(0.2)
    harness.fake_jobs.going[0].fail("second")
    await harness.advance(7.9)
    assert harness.fake_jobs.going == []
    await harness.advance(0.2)
    harness.fake_jobs.going[0].fail("third")
    await harness.settle()
    [job] = await harness.jobs()
    assert (job.status.value, job.attempts, last_error(job)) == ("failed", 3, "third")
    assert kinds(job).count("retried") == 2
    messages = [event.message for event in job.timeline]
    assert "Attempt 1 of 3 failed, next in 4s" in messages
    assert "Attempt 2 of 3 failed, next in 8s" in messages
    assert len(harness.fake_jobs.runs) == 3


async def test_the_pause_between_attempts_survives_a_crash(build: Build) -> None:
    harness = await build(operations={"job": work(None, retry=RETRY)}).start()
    await harness.data("operations/execute", id="job")
    harness.fake_jobs.going[0].fail()
    await harness.settle()
    await harness.restart()
    assert harness.fake_jobs.going == []
    await harness.advance(1.9)
    assert harness.fake_jobs.going == []
    await harness.advance(0.2)
    harness.fake_jobs.going[0].complete()
    await harness.settle()
    [job] = await harness.jobs()
    assert (job.status.value, job.attempts) == ("completed", 2)


async def test_a_pause_that_ended_while_the_service_was_down_is_over(build: Build) -> None:
    harness = await build(operations={"job": work(None, retry=RETRY)}).start()
    await harness.data("operations/execute", id="job")
    harness.fake_jobs.going[0].fail()
    await harness.settle()
    await harness.crash()
    await harness.advance(3600)
    await harness.start()
    assert len(harness.fake_jobs.going) == 1


async def test_a_job_over_its_time_limit_is_ended_and_fails(build: Build) -> None:
    harness = await build(operations={"job": work(None, timeout="30s")}).start()
    await harness.data("operations/execute", id="job")
    await harness.advance(29)
    assert len(harness.fake_jobs.going) == 1
    await harness.advance(2)
    [job] = await harness.jobs()
    assert (job.status.value, last_error(job)) == ("failed", "timed out after 30s")
    assert harness.fake_jobs.runs[0].cancelled


async def test_at_most_once_becomes_interrupted_after_a_crash_and_is_not_run_again(build: Build) -> None:
    harness = await build(operations={"job": work(None)}).start()
    await harness.data("operations/execute", id="job")
    await harness.restart()
    [job] = await harness.jobs()
    assert (job.status.value, last_error(job)) == ("failed", "interrupted")
    assert len(harness.fake_jobs.runs) == 1


async def test_at_most_once_is_run_again_when_retry_says_so(build: Build) -> None:
    harness = await build(operations={"job": work(None, retry=RETRY)}).start()
    await harness.data("operations/execute", id="job")
    await harness.restart()
    await harness.advance(4)
    harness.fake_jobs.going[0].complete()
    await harness.settle()
    [job] = await harness.jobs()
    assert (job.status.value, job.attempts) == ("completed", 2)
    assert "interrupted" in [event.error for event in job.timeline]


async def test_at_least_once_is_run_again_under_the_same_id(build: Build) -> None:
    harness = await build(operations={"job": work(None, delivery="at_least_once")}).start()
    made = await harness.data("operations/execute", id="job")
    await harness.restart()
    harness.fake_jobs.going[0].complete()
    await harness.settle()
    [job] = await harness.jobs()
    assert (job.id, job.status.value) == (made["id"], "completed")
    assert [run.context.job_id for run in harness.fake_jobs.runs] == [made["id"]] * 2


async def test_a_publish_that_a_crash_interrupted_is_sent_again_with_the_same_job_id(build: Build) -> None:
    harness = await build(objects=LAMP, operations={"say": an_operation("lamp", triggers=[{}])}).start()
    harness.die_at("before record", 2)
    await harness.report("home/lamp", "on")
    assert not harness.running
    [job] = await harness.jobs()
    assert harness.texts("out/lamp") == [job.id]
    await harness.start()
    assert statuses(await harness.jobs()) == {"completed": 1}
    assert harness.texts("out/lamp") == [job.id, job.id]


async def test_a_publish_lost_with_the_connection_is_sent_again_and_completes(build: Build) -> None:
    harness = await build(objects=LAMP, operations={"say": an_operation("lamp", triggers=[{}])}).start()
    harness.broker.freeze()
    await harness.report("home/lamp", "on")
    assert [job.ended for job in await harness.jobs()] == [False]
    harness.broker.down()
    harness.broker.thaw()
    await harness.advance(20)
    assert [job.ended for job in await harness.jobs()] == [False]
    harness.broker.up()
    await harness.advance(5)
    [job] = await harness.jobs()
    assert job.status.value == "completed"
    assert harness.texts("out/lamp") == [job.id]


async def test_a_publish_whose_time_limit_passes_without_a_broker_fails(build: Build) -> None:
    harness = await build(objects=LAMP, operations={"job": an_operation("lamp", triggers=[{}], timeout="30s")}).start()
    harness.broker.freeze()
    await harness.report("home/lamp", "on")
    await harness.advance(31)
    [job] = await harness.jobs()
    assert (job.status.value, last_error(job)) == ("failed", "timed out after 30s")


async def test_a_refused_publish_fails_with_the_reason_and_no_subscriber_completes_saying_so(build: Build) -> None:
    operations = {"refused": an_operation(topic="secret/x"), "unheard": an_operation(topic="nobody/x")}
    harness = build(operations=operations)
    harness.broker.refuse("secret/#")
    await harness.start()
    for name in operations:
        await harness.data("operations/execute", id=name)
    refused = (await harness.data("jobs/list", operation_id="refused"))["items"][0]
    assert refused["status"] == "failed"
    assert "not authorized" in refused["error"]
    assert "0x87" in refused["error"]
    unheard = (await harness.data("jobs/list", operation_id="unheard"))["items"][0]
    assert (unheard["status"], unheard["message"], unheard["changed"]) == ("completed", "no subscriber", True)


async def test_a_clean_stop_ends_what_runs_and_confirms_what_is_in_flight(build: Build) -> None:
    operations = {"dig": work(None), "say": an_operation()}
    harness = await build(operations=operations).start()
    await harness.data("operations/execute", id="dig")
    await harness.data("operations/execute", id="say")
    await harness.stop()
    assert harness.fake_jobs.runs[0].cancelled
    assert harness.broker.retained["mqttjobs/status"].payload == b"offline"
    await harness.start()
    assert [job.status.value for job in await harness.jobs()] == ["failed", "completed"]
    assert len(harness.texts("out")) == 1
