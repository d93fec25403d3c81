"""How jobs run: in row order, bounded, attempted again, within their time, interrupted (behaviour 3)."""

from __future__ import annotations

from collections.abc import Callable

from house import House, an_object, an_operation, statuses, work

from mqttjobs.domain.jobs import Job

Build = Callable[..., House]

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
    house = await build(objects=LAMP, operations=operations).start()
    house.broker.freeze()
    for n in range(40):
        house.send("home/lamp", ("on", "off")[n % 2])
        if n % 7 == 0:
            await house.settle()
    await house.settle()
    house.broker.thaw()
    await house.settle()
    assert house.texts("out/lamp") == ["ON", "OFF"] * 20


async def test_a_queue_of_publishes_lets_no_later_one_of_its_owner_pass(build: Build) -> None:
    lamp = {"lamp": an_object("home/lamp", state={"event": True})}
    operations = {
        "on": an_operation("lamp", message="ON", mode="queued", triggers=[{"states": ["on"]}]),
        "off": an_operation("lamp", message="OFF", triggers=[{"states": ["off"]}]),
    }
    house = await build(objects=lamp, operations=operations).start()
    house.broker.freeze()
    for text in ("on", "on", "off"):
        await house.report("home/lamp", text)
    await house.report("home/lamp", "on")
    await house.report("home/lamp", "off")
    house.broker.thaw()
    await house.settle()
    assert house.texts("out/lamp") == ["ON", "ON", "OFF", "ON", "OFF"]


async def test_row_order_is_kept_over_a_lost_connection_and_a_crash(build: Build) -> None:
    operations = {
        "on": an_operation("lamp", message="ON {{ job.id }}", triggers=[{"states": ["on"]}]),
        "off": an_operation("lamp", message="OFF {{ job.id }}", triggers=[{"states": ["off"]}]),
    }
    house = await build(objects=LAMP, operations=operations).start()
    house.broker.freeze()
    for text in ("on", "off", "on"):
        await house.report("home/lamp", text)
    await house.disconnect()
    await house.report("home/lamp", "off")
    await house.crash()
    house.broker.thaw()
    await house.start()
    jobs = await house.jobs()
    assert [text.split()[1] for text in house.texts("out/lamp")] == [job.id for job in jobs]
    assert [text.split()[0] for text in house.texts("out/lamp")] == ["ON", "OFF", "ON", "OFF"]
    assert statuses(jobs) == {"completed": 4}


async def test_thirty_hung_scripts_never_stop_the_lights(build: Build) -> None:
    operations = {
        "hang": work("lamp", triggers=[{"states": ["hang"]}, {"states": ["hang"]}]),
        "on": an_operation("lamp", message="{{ state }}", triggers=[{"not_states": ["hang"]}]),
    }
    house = await build(objects=LAMP, operations=operations, service={"concurrency": 10}).start()
    for n in range(15):
        await house.report("home/lamp", "hang")
        await house.report("home/lamp", f"on-{n}")
    assert len(house.desk.going) == 10
    assert len(await house.jobs("hang")) == 30
    assert house.texts("out/lamp") == [f"on-{n}" for n in range(15)]


async def test_a_slot_that_becomes_free_is_used_at_once_higher_priority_first(build: Build) -> None:
    operations = {
        "low": work(None, label="low", priority=-1),
        "plain": work(None, label="plain"),
        "high": work(None, label="high", priority=5),
    }
    house = await build(operations=operations, service={"concurrency": 1}).start()
    for name in ("plain", "low", "plain", "high", "low", "high"):
        await house.data("operations/execute", id=name)
    while house.desk.going:
        house.desk.going[0].complete()
        await house.settle()
    assert house.desk.labels() == ["plain", "high", "high", "plain", "low", "low"]


RETRY = {"attempts": 3, "first": "4s", "factor": 2}


async def test_a_failed_attempt_is_made_again_after_its_pause_inside_the_same_job(build: Build) -> None:
    house = await build(operations={"job": work(None, retry=RETRY)}).start()
    await house.data("operations/execute", id="job")
    house.desk.going[0].fail("first")
    await house.advance(3.9)
    assert house.desk.going == []
    await house.advance(0.2)
    house.desk.going[0].fail("second")
    await house.advance(7.9)
    assert house.desk.going == []
    await house.advance(0.2)
    house.desk.going[0].fail("third")
    await house.settle()
    [job] = await house.jobs()
    assert (job.status.value, job.attempts, last_error(job)) == ("failed", 3, "third")
    assert kinds(job).count("retried") == 2
    messages = [event.message for event in job.timeline]
    assert "Attempt 1 of 3 failed, next in 4s" in messages
    assert "Attempt 2 of 3 failed, next in 8s" in messages
    assert len(house.desk.runs) == 3


async def test_the_pause_between_attempts_survives_a_crash(build: Build) -> None:
    house = await build(operations={"job": work(None, retry=RETRY)}).start()
    await house.data("operations/execute", id="job")
    house.desk.going[0].fail()
    await house.settle()
    await house.restart()
    assert house.desk.going == []
    await house.advance(1.9)
    assert house.desk.going == []
    await house.advance(0.2)
    house.desk.going[0].complete()
    await house.settle()
    [job] = await house.jobs()
    assert (job.status.value, job.attempts) == ("completed", 2)


async def test_a_pause_that_ended_while_the_service_was_down_is_over(build: Build) -> None:
    house = await build(operations={"job": work(None, retry=RETRY)}).start()
    await house.data("operations/execute", id="job")
    house.desk.going[0].fail()
    await house.settle()
    await house.crash()
    await house.advance(3600)
    await house.start()
    assert len(house.desk.going) == 1


async def test_a_job_over_its_time_limit_is_ended_and_fails(build: Build) -> None:
    house = await build(operations={"job": work(None, timeout="30s")}).start()
    await house.data("operations/execute", id="job")
    await house.advance(29)
    assert len(house.desk.going) == 1
    await house.advance(2)
    [job] = await house.jobs()
    assert (job.status.value, last_error(job)) == ("failed", "timed out after 30s")
    assert house.desk.runs[0].cancelled


async def test_at_most_once_becomes_interrupted_after_a_crash_and_is_not_run_again(build: Build) -> None:
    house = await build(operations={"job": work(None)}).start()
    await house.data("operations/execute", id="job")
    await house.restart()
    [job] = await house.jobs()
    assert (job.status.value, last_error(job)) == ("failed", "interrupted")
    assert len(house.desk.runs) == 1


async def test_at_most_once_is_run_again_when_retry_says_so(build: Build) -> None:
    house = await build(operations={"job": work(None, retry=RETRY)}).start()
    await house.data("operations/execute", id="job")
    await house.restart()
    await house.advance(4)
    house.desk.going[0].complete()
    await house.settle()
    [job] = await house.jobs()
    assert (job.status.value, job.attempts) == ("completed", 2)
    assert "interrupted" in [event.error for event in job.timeline]


async def test_at_least_once_is_run_again_under_the_same_id(build: Build) -> None:
    house = await build(operations={"job": work(None, delivery="at_least_once")}).start()
    made = await house.data("operations/execute", id="job")
    await house.restart()
    house.desk.going[0].complete()
    await house.settle()
    [job] = await house.jobs()
    assert (job.id, job.status.value) == (made["id"], "completed")
    assert [run.context.job_id for run in house.desk.runs] == [made["id"]] * 2


async def test_a_publish_that_a_crash_interrupted_is_sent_again_with_the_same_job_id(build: Build) -> None:
    house = await build(objects=LAMP, operations={"say": an_operation("lamp", triggers=[{}])}).start()
    house.die_at("before record", 2)
    await house.report("home/lamp", "on")
    assert not house.running
    [job] = await house.jobs()
    assert house.texts("out/lamp") == [job.id]
    await house.start()
    assert statuses(await house.jobs()) == {"completed": 1}
    assert house.texts("out/lamp") == [job.id, job.id]


async def test_a_publish_lost_with_the_connection_is_sent_again_and_completes(build: Build) -> None:
    house = await build(objects=LAMP, operations={"say": an_operation("lamp", triggers=[{}])}).start()
    house.broker.freeze()
    await house.report("home/lamp", "on")
    assert [job.ended for job in await house.jobs()] == [False]
    house.broker.down()
    house.broker.thaw()
    await house.advance(20)
    assert [job.ended for job in await house.jobs()] == [False]
    house.broker.up()
    await house.advance(5)
    [job] = await house.jobs()
    assert job.status.value == "completed"
    assert house.texts("out/lamp") == [job.id]


async def test_a_publish_whose_time_limit_passes_without_a_broker_fails(build: Build) -> None:
    house = await build(objects=LAMP, operations={"job": an_operation("lamp", triggers=[{}], timeout="30s")}).start()
    house.broker.freeze()
    await house.report("home/lamp", "on")
    await house.advance(31)
    [job] = await house.jobs()
    assert (job.status.value, last_error(job)) == ("failed", "timed out after 30s")


async def test_a_refused_publish_fails_with_the_reason_and_no_subscriber_completes_saying_so(build: Build) -> None:
    operations = {"refused": an_operation(topic="secret/x"), "unheard": an_operation(topic="nobody/x")}
    house = build(operations=operations)
    house.broker.refuse("secret/#")
    await house.start()
    for name in operations:
        await house.data("operations/execute", id=name)
    refused = (await house.data("jobs/list", operation_id="refused"))["items"][0]
    assert refused["status"] == "failed"
    assert "not authorized" in refused["error"]
    assert "0x87" in refused["error"]
    unheard = (await house.data("jobs/list", operation_id="unheard"))["items"][0]
    assert (unheard["status"], unheard["message"], unheard["changed"]) == ("completed", "no subscriber", True)


async def test_a_clean_stop_ends_what_runs_and_confirms_what_is_in_flight(build: Build) -> None:
    operations = {"dig": work(None), "say": an_operation()}
    house = await build(operations=operations).start()
    await house.data("operations/execute", id="dig")
    await house.data("operations/execute", id="say")
    await house.stop()
    assert house.desk.runs[0].cancelled
    assert house.broker.retained["mqttjobs/status"].payload == b"offline"
    await house.start()
    assert [job.status.value for job in await house.jobs()] == ["failed", "completed"]
    assert len(house.texts("out")) == 1
