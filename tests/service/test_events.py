"""What is told of jobs: events once they are durable, documents, results, and how long they are kept."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.service.harness import ServiceHarness, a_link, an_object, an_operation, statuses, work

Build = Callable[..., ServiceHarness]

LAMP = {"lamp": an_object("home/lamp")}


async def test_events_tell_each_status_once_it_is_durable_and_are_never_retained(build: Build) -> None:
    harness = await build(objects=LAMP, operations={"dig": work()}).start()
    await harness.report("home/lamp", "on")
    harness.fake_jobs.going[0].complete({"n": 1})
    await harness.settle()
    [job] = await harness.jobs()
    topics = [each.topic for each in harness.sent("mqttjobs/event/job/#")]
    assert topics == [f"mqttjobs/event/job/{status}/dig/lamp" for status in ("submitted", "processing", "completed")]
    assert not any(each.retain for each in harness.sent("mqttjobs/event/#"))
    assert not any(topic.startswith("mqttjobs/event") for topic in harness.broker.retained)
    document = harness.documents("mqttjobs/event/job/completed/#")[0]
    assert document["id"] == job.id
    assert not document.keys() & {"responses", "agent_states", "timeline"}
    whole = await harness.data("jobs/get", id=job.id)
    assert document == {name: whole[name] for name in document}


async def test_an_event_is_not_reported_before_the_end_is_stored(build: Build) -> None:
    harness = await build(objects=LAMP, operations={"dig": work()}).start()
    await harness.report("home/lamp", "on")
    harness.store.broken = True
    harness.fake_jobs.going[0].complete()
    await harness.advance(10)
    assert harness.sent("mqttjobs/event/job/completed/#") == []
    harness.store.broken = False
    await harness.advance(2)
    assert len(harness.sent("mqttjobs/event/job/completed/#")) == 1


async def test_a_job_without_operation_or_owner_is_reported_under_an_underscore(build: Build) -> None:
    harness = await build(users={"anonymous": {"permissions": ["admin"]}}).start()
    await harness.data("jobs/create", operation={"type": "mqtt", "topic": "out", "message": "x"})
    assert [each.topic for each in harness.sent("mqttjobs/event/job/completed/#")] == [
        "mqttjobs/event/job/completed/_/_"
    ]


@pytest.mark.parametrize("moment", ["after record", "before publish"])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_an_end_is_never_left_out_whatever_the_moment_of_the_crash(build: Build, moment: str, times: int) -> None:
    harness = await build(objects=LAMP, operations={"dig": work(), "say": an_operation("lamp", triggers=[{}])}).start()
    await harness.report("home/lamp", "on")
    harness.die_at(moment, times)
    harness.fake_jobs.going[0].complete()
    await harness.settle()
    await harness.report("home/lamp", "off")
    await harness.restart()
    await harness.advance(60)
    ended = {job.id for job in await harness.jobs() if job.ended}
    assert len(ended) >= 3
    reported = [json.loads(each.payload) for each in harness.sent("mqttjobs/event/job/+/+/+")]
    assert {each["id"] for each in reported if each["status"] in ("completed", "failed")} == ended
    assert await harness.store.unannounced(10) == []


async def test_ends_while_the_broker_is_away_are_reported_when_it_is_back(build: Build) -> None:
    harness = await build(operations={"dig": work(None)}).start()
    for _ in range(3):
        await harness.data("operations/execute", id="dig")
    harness.broker.down()
    await harness.advance(1)
    for run in harness.fake_jobs.going:
        run.complete()
    await harness.advance(10)
    assert statuses(await harness.jobs()) == {"completed": 3}
    harness.broker.up()
    await harness.advance(40)
    reported = [each["uid"] for each in harness.documents("mqttjobs/event/job/completed/#")]
    assert reported == [1, 2, 3]


async def test_the_document_of_a_job_that_a_change_started(build: Build) -> None:
    objects = {"motion": an_object("home/motion"), "light": an_object("home/light")}
    operation = an_operation({"link": "way"}, message={"state": "ON"}, trigger_states=["occupied"], priority=3)
    harness = await build(
        objects=objects, links={"way": a_link("motion", "light")}, operations={"on": operation}
    ).start()
    await harness.report("home/motion", {"state": "occupied"})
    [document] = (await harness.data("jobs/list"))["items"]
    expected = {
        "uid": 1, "status": "completed", "operation_id": "on", "owner_id": "way", "owner_type": "2",
        "user_id": "system", "target": "_local", "priority": 3, "params": {}, "events": [], "result": None,
        "changed": True, "error": "", "hostname": "hub", "attempts": 1, "results": [], "parent_id": None,
        "retry_of": None, "description": {"topic": "out/way", "message": '{"state":"ON"}'},
    }  # fmt: skip
    assert expected == {name: document[name] for name in expected}
    assert document["root_id"] == document["id"]
    assert [each["event"] for each in document["timeline"]] == ["submitted", "acknowledged", "started", "completed"]
    assert document["agent_states"] == {"hub": {"status": "completed", "error": "", "duration": "0ms"}}
    assert document["responses"]["hub"]["status"] == "completed"


async def test_a_result_that_is_added_changes_nothing_else(build: Build) -> None:
    harness = await build(operations={"say": an_operation()}).start()
    made = await harness.data("operations/execute", id="say")
    before = await harness.data("jobs/get", id=made["id"])
    await harness.advance(60)
    for n in range(3):
        await harness.data("jobs/add_result", id=made["uid"], payload={"n": n})
    after = await harness.data("jobs/get", id=made["id"])
    assert [each["payload"] for each in after["results"]] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert {**after, "results": []} == before


async def test_retention_keeps_a_failure_that_ten_thousand_successes_would_push_out(build: Build) -> None:
    operations = {"dig": work(None), "say": an_operation("lamp", triggers=[{}])}
    store = {"retention": {"max_jobs": 20}}
    harness = await build(objects=LAMP, operations=operations, store=store).start()
    await harness.data("operations/execute", id="dig")
    harness.fake_jobs.going[0].fail()
    for n in range(200):
        await harness.report("home/lamp", f"{n}")
    await harness.advance(200)
    jobs = await harness.jobs()
    assert len(jobs) == 20
    assert statuses(jobs) == {"failed": 1, "completed": 19}
    harness.clock.step(days=31)
    await harness.advance(120)
    assert statuses(await harness.jobs()) == {"failed": 1}
