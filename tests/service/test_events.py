"""What is told of jobs: events once they are durable, documents, results, and how long they are kept."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from house import House, a_link, an_object, an_operation, statuses, work

Build = Callable[..., House]

LAMP = {"lamp": an_object("home/lamp")}


async def test_events_tell_each_status_once_it_is_durable_and_are_never_retained(build: Build) -> None:
    house = await build(objects=LAMP, operations={"dig": work()}).start()
    await house.report("home/lamp", "on")
    house.desk.going[0].complete({"n": 1})
    await house.settle()
    [job] = await house.jobs()
    topics = [each.topic for each in house.sent("mqttjobs/event/job/#")]
    assert topics == [f"mqttjobs/event/job/{status}/dig/lamp" for status in ("submitted", "processing", "completed")]
    assert not any(each.retain for each in house.sent("mqttjobs/event/#"))
    assert not any(topic.startswith("mqttjobs/event") for topic in house.broker.retained)
    document = house.documents("mqttjobs/event/job/completed/#")[0]
    assert document["id"] == job.id
    assert not document.keys() & {"responses", "agent_states", "timeline"}
    whole = await house.data("jobs/get", id=job.id)
    assert document == {name: whole[name] for name in document}


async def test_an_event_is_not_told_before_the_end_is_stored(build: Build) -> None:
    house = await build(objects=LAMP, operations={"dig": work()}).start()
    await house.report("home/lamp", "on")
    house.store.broken = True
    house.desk.going[0].complete()
    await house.advance(10)
    assert house.sent("mqttjobs/event/job/completed/#") == []
    house.store.broken = False
    await house.advance(2)
    assert len(house.sent("mqttjobs/event/job/completed/#")) == 1


async def test_a_job_without_operation_or_owner_is_told_under_an_underscore(build: Build) -> None:
    house = await build(users={"anonymous": {"permissions": ["admin"]}}).start()
    await house.data("jobs/create", operation={"type": "mqtt", "topic": "out", "message": "x"})
    assert [each.topic for each in house.sent("mqttjobs/event/job/completed/#")] == ["mqttjobs/event/job/completed/_/_"]


@pytest.mark.parametrize("moment", ["after record", "before publish"])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_an_end_is_never_left_out_whatever_the_moment_of_the_crash(build: Build, moment: str, times: int) -> None:
    house = await build(objects=LAMP, operations={"dig": work(), "say": an_operation("lamp", triggers=[{}])}).start()
    await house.report("home/lamp", "on")
    house.die_at(moment, times)
    house.desk.going[0].complete()
    await house.settle()
    await house.report("home/lamp", "off")
    await house.restart()
    await house.advance(60)
    ended = {job.id for job in await house.jobs() if job.ended}
    assert len(ended) >= 3
    told = [json.loads(each.payload) for each in house.sent("mqttjobs/event/job/+/+/+")]
    assert {each["id"] for each in told if each["status"] in ("completed", "failed")} == ended
    assert await house.store.unannounced(10) == []


async def test_ends_while_the_broker_is_away_are_told_when_it_is_back(build: Build) -> None:
    house = await build(operations={"dig": work(None)}).start()
    for _ in range(3):
        await house.data("operations/execute", id="dig")
    house.broker.down()
    await house.advance(1)
    for run in house.desk.going:
        run.complete()
    await house.advance(10)
    assert statuses(await house.jobs()) == {"completed": 3}
    house.broker.up()
    await house.advance(40)
    told = [each["uid"] for each in house.documents("mqttjobs/event/job/completed/#")]
    assert told == [1, 2, 3]


async def test_the_document_of_a_job_that_a_change_started(build: Build) -> None:
    objects = {"motion": an_object("home/motion"), "light": an_object("home/light")}
    operation = an_operation({"link": "way"}, message={"state": "ON"}, trigger_states=["occupied"], priority=3)
    house = await build(objects=objects, links={"way": a_link("motion", "light")}, operations={"on": operation}).start()
    await house.report("home/motion", {"state": "occupied"})
    [document] = (await house.data("jobs/list"))["items"]
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
    house = await build(operations={"say": an_operation()}).start()
    made = await house.data("operations/execute", id="say")
    before = await house.data("jobs/get", id=made["id"])
    await house.advance(60)
    for n in range(3):
        await house.data("jobs/add_result", id=made["uid"], payload={"n": n})
    after = await house.data("jobs/get", id=made["id"])
    assert [each["payload"] for each in after["results"]] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert {**after, "results": []} == before


async def test_retention_keeps_a_failure_that_ten_thousand_successes_would_push_out(build: Build) -> None:
    operations = {"dig": work(None), "say": an_operation("lamp", triggers=[{}])}
    store = {"retention": {"max_jobs": 20}}
    house = await build(objects=LAMP, operations=operations, store=store).start()
    await house.data("operations/execute", id="dig")
    house.desk.going[0].fail()
    for n in range(200):
        await house.report("home/lamp", f"{n}")
    await house.advance(200)
    jobs = await house.jobs()
    assert len(jobs) == 20
    assert statuses(jobs) == {"failed": 1, "completed": 19}
    house.clock.step(days=31)
    await house.advance(120)
    assert statuses(await house.jobs()) == {"failed": 1}
