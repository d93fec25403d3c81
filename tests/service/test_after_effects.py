"""What follows a publish and a failure: confirmations, on_failure, and the ends of loops (behaviour 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.harness import ServiceHarness, a_link, an_object, an_operation, statuses

Build = Callable[..., ServiceHarness]


# -- confirm ----------------------------------------------------------------------------------------------------------


def a_switch(**confirm: Any) -> dict[str, Any]:
    keys = {"entity": "target", "states": ["ON"], "within": "5s", **confirm}
    return {
        "objects": {"motion": an_object("home/motion"), "lamp": an_object("home/lamp")},
        "links": {"both": a_link("motion", "lamp")},
        "operations": {
            "op": an_operation({"link": "both"}, topic="home/lamp/set", trigger_states=["on"], confirm=keys)
        },
    }


async def test_a_job_is_done_when_the_device_says_so_and_not_before(build: Build) -> None:
    harness = await build(**a_switch()).start()
    await harness.report("home/motion", "on")
    await harness.advance(3)
    assert statuses(await harness.jobs("op")).get("completed") is None
    await harness.report("home/lamp", "ON")
    assert statuses(await harness.jobs("op")) == {"completed": 1}


async def test_a_device_that_says_it_again_without_a_change_confirms_too(build: Build) -> None:
    harness = await build(**a_switch()).start()
    await harness.report("home/lamp", "ON")
    await harness.report("home/motion", "on")
    assert statuses(await harness.jobs("op")).get("completed") is None
    await harness.report("home/lamp", "ON")
    assert statuses(await harness.jobs("op")) == {"completed": 1}


async def test_what_is_not_confirmed_in_time_has_failed_saying_so(build: Build) -> None:
    harness = await build(**a_switch()).start()
    await harness.report("home/motion", "on")
    await harness.report("home/lamp", "OFF")
    await harness.advance(4.9)
    assert statuses(await harness.jobs("op")).get("failed") is None
    await harness.advance(0.2)
    [job] = (await harness.data("jobs/list"))["items"]
    assert (job["status"], job["error"]) == ("failed", "unconfirmed")
    assert job["description"]["topic"] == "home/lamp/set"


async def test_what_is_not_confirmed_is_sent_again_if_the_operation_retries(build: Build) -> None:
    config = a_switch()
    config["operations"]["op"]["retry"] = {"attempts": 3, "first": "1s"}
    harness = await build(**config).start()
    await harness.report("home/motion", "on")
    await harness.advance(7)
    assert len(harness.texts("home/lamp/set")) == 2
    await harness.report("home/lamp", "ON")
    [job] = await harness.jobs("op")
    assert (job.status.value, job.attempts) == ("completed", 2)


async def test_a_retained_report_from_before_is_no_answer(build: Build) -> None:
    harness = build(**a_switch())
    harness.send("home/lamp", "ON", retain=True)
    await harness.start()
    await harness.report("home/motion", "on")
    await harness.advance(6)
    assert statuses(await harness.jobs("op")) == {"failed": 1}


async def test_an_attribute_can_be_the_answer(build: Build) -> None:
    harness = await build(
        objects={"lamp": an_object("home/lamp", attributes={"power": {"topic": "home/lamp/power"}})},
        operations={
            "op": an_operation(
                "lamp", trigger_states=["on"], confirm={"attribute": "power", "states": [1], "within": 5}
            )
        },
    ).start()
    await harness.report("home/lamp", "on")
    await harness.report("home/lamp/power", "1")
    assert statuses(await harness.jobs("op")) == {"completed": 1}


async def test_killed_while_it_waits_for_the_answer_it_is_sent_again_and_done_once(build: Build) -> None:
    harness = await build(**a_switch()).start()
    await harness.report("home/motion", "on")
    await harness.restart()
    assert len(set(harness.texts("home/lamp/set"))) == 1
    await harness.report("home/lamp", "ON")
    assert statuses(await harness.jobs("op")) == {"completed": 1}


async def test_stopped_while_it_waits_it_stays_stopped(build: Build) -> None:
    harness = await build(**a_switch()).start()
    await harness.report("home/motion", "on")
    [job] = await harness.jobs("op")
    await harness.data("jobs/stop", id=job.id)
    await harness.report("home/lamp", "ON")
    assert statuses(await harness.jobs("op")) == {"stopped": 1}


# -- on_failure -------------------------------------------------------------------------------------------------------


def failing(**more: Any) -> dict[str, Any]:
    return {
        "objects": {"lamp": an_object("home/lamp")},
        "operations": {
            "op": an_operation("lamp", type="work", triggers=[{}], on_failure="cry", **more),
            "cry": an_operation(
                "lamp", topic="out/cry", message={"job": "{{ params.job_id }}", "error": "{{ params.error }}"}
            ),
        },
    }


async def test_on_failure_runs_another_operation_with_the_failed_jobs_id_and_error(build: Build) -> None:
    harness = await build(**failing()).start()
    await harness.report("home/lamp", "on")
    harness.fake_jobs.going[0].fail("out of paper")
    await harness.settle()
    [failed] = await harness.jobs("op")
    [cry] = await harness.jobs("cry")
    assert harness.documents("out/cry") == [{"job": failed.id, "error": "out of paper"}]
    assert (cry.parent_id, cry.root_id, cry.process_meta) == (failed.id, failed.id, None)
    assert cry.owner == failed.owner


async def test_success_a_retry_to_come_and_a_stop_are_no_failure(build: Build) -> None:
    harness = await build(**failing(retry={"attempts": 2, "first": "1s"})).start()
    await harness.report("home/lamp", "one")
    harness.fake_jobs.going[0].fail()
    await harness.settle()
    assert await harness.jobs("cry") == []
    await harness.advance(1.1)
    harness.fake_jobs.going[0].complete()
    await harness.report("home/lamp", "two")
    [running] = [job for job in await harness.jobs("op") if not job.ended]
    await harness.data("jobs/stop", id=running.id)
    await harness.advance(10)
    assert await harness.jobs("cry") == []


@pytest.mark.parametrize("moment", ["before record", "after record"])
async def test_a_failure_and_what_follows_it_are_one_transaction(build: Build, moment: str) -> None:
    harness = await build(**failing(delivery="at_least_once")).start()
    await harness.report("home/lamp", "on")
    harness.die_at(moment)
    harness.fake_jobs.going[0].fail()
    await harness.settle()
    assert not harness.running
    await harness.start()
    for run in harness.fake_jobs.going:
        run.fail()
    await harness.advance(1)
    assert statuses(await harness.jobs("op")) == {"failed": 1}
    assert statuses(await harness.jobs("cry")) == {"completed": 1}


async def test_a_job_that_a_crash_interrupted_has_failed_and_is_followed_too(build: Build) -> None:
    harness = await build(**failing()).start()
    await harness.report("home/lamp", "on")
    await harness.restart()
    assert statuses(await harness.jobs("op")) == {"failed": 1}
    assert [each["error"] for each in harness.documents("out/cry")] == ["interrupted"]


async def test_a_chain_of_failures_ends_at_its_eighth_link(build: Build) -> None:
    config = failing()
    config["operations"]["cry"] = an_operation("lamp", type="work", on_failure="op", name="cry")
    harness = await build(**config).start()
    await harness.report("home/lamp", "on")
    for _ in range(20):
        for run in harness.fake_jobs.going:
            run.fail()
        await harness.settle()
    jobs = await harness.jobs()
    assert len(jobs) == 9
    assert {job.root_id for job in jobs} == {jobs[0].id}
    assert [job.depth for job in jobs] == list(range(9))
    assert (await harness.counters())["skipped_by_reason"] == {"depth": 1}


async def test_params_that_the_other_operation_does_not_know_are_left_out(build: Build) -> None:
    config = failing()
    schema = {"type": "object", "properties": {"error": {"type": "string"}}, "additionalProperties": False}
    config["operations"]["cry"] = an_operation("lamp", topic="out/cry", message="{{ params.error }}", params=schema)
    harness = await build(**config).start()
    await harness.report("home/lamp", "on")
    harness.fake_jobs.going[0].fail("smoke")
    await harness.settle()
    assert harness.texts("out/cry") == ["smoke"]


# -- loops ------------------------------------------------------------------------------------------------------------


async def test_publishes_into_state_topics_carry_their_depth_and_beyond_eight_nothing_starts(build: Build) -> None:
    harness = await build(
        objects={"ping": an_object(), "pong": an_object()},
        operations={
            name: an_operation(
                name, topic=f"mqttjobs/state/objects/{other}", message="{{ job.id }}", triggers=[{}], allow_loop=True
            )
            for name, other in (("ping", "pong"), ("pong", "ping"))
        },
    ).start()
    await harness.report("mqttjobs/state/objects/ping", "go")
    jobs = await harness.jobs()
    assert len(jobs) == 9
    assert {job.root_id for job in jobs} == {jobs[0].id}
    assert (await harness.counters())["skipped_by_reason"] == {"depth": 1}


async def test_a_loop_through_a_device_is_broken_and_reported(build: Build) -> None:
    """The device answers each command with a new state, which carries no trace."""
    harness = await build(
        objects={"lamp": an_object("home/lamp"), "other": an_object("home/other")},
        operations={
            "op": an_operation(
                [{"object": "lamp"}, {"object": "other"}],
                triggers=[{}],
                breaker={"firings": 5, "within": "10s", "pause": "60s"},
            )
        },
    ).start()
    for number in range(20):
        await harness.report("home/lamp", f"state {number}")
    assert len(await harness.jobs("op")) == 5
    [reported] = harness.documents("mqttjobs/event/rejected")
    assert reported["reason"] == "breaker_open"
    assert "op for lamp was started more than 5 times within 10s and is paused for 1m0s" in reported["details"]
    health = await harness.data("service/health")
    assert health["status"] == "degraded"
    assert any("op for lamp" in reason for reason in health["reasons"])
    await harness.report("home/other", "on")
    assert len(await harness.jobs("op")) == 6, "the breaker is for one entity"
    await harness.advance(61)
    assert (await harness.data("service/health"))["status"] == "ok"
    await harness.report("home/lamp", "at last")
    assert len(await harness.jobs("op")) == 7


async def test_a_breaker_can_be_off(build: Build) -> None:
    harness = await build(
        objects={"lamp": an_object("home/lamp")},
        operations={"op": an_operation("lamp", triggers=[{}], breaker="off")},
    ).start()
    for number in range(1100):
        harness.send("home/lamp", f"state {number}")
    await harness.settle()
    assert len(await harness.jobs("op")) == 1100


async def test_a_condition_and_a_message_see_the_other_values_of_the_same_report(build: Build) -> None:
    harness = await build(
        objects={"lamp": an_object("home/lamp", state={"value": "state"}, attributes={"battery": {}})},
        operations={
            "op": an_operation(
                "lamp",
                message="{{ attributes.battery }}",
                trigger_states=["on"],
                conditions={"attribute": "battery", "below": 20},
            )
        },
    ).start()
    await harness.report("home/lamp", {"state": "off", "battery": 90})
    await harness.report("home/lamp", {"state": "on", "battery": 10})
    assert harness.texts("out/lamp") == ["10"]


async def test_conditions_hold_up_triggers_and_schedules_and_never_a_run_by_hand(build: Build) -> None:
    harness = await build(
        objects={"lamp": an_object("home/lamp"), "gate": an_object("home/gate")},
        operations={
            "op": an_operation(
                "lamp", triggers=[{}], schedule={"every": "60s"}, conditions={"entity": "gate", "states": ["open"]}
            )
        },
    ).start()
    await harness.report("home/lamp", "on")
    await harness.advance(60)
    assert await harness.jobs("op") == []
    assert (await harness.counters())["skipped_by_reason"] == {"condition": 2}
    await harness.data("operations/execute", id="op")
    assert len(await harness.jobs("op")) == 1
    await harness.report("home/gate", "open")
    await harness.report("home/lamp", "off")
    await harness.advance(60)
    assert len(await harness.jobs("op")) == 3


async def test_a_link_that_has_not_changed_yet_has_the_state_of_what_it_follows(build: Build) -> None:
    config = {
        "objects": {"a": an_object("home/a"), "b": an_object("home/b")},
        "operations": {"other": an_operation(topic="out/other")},
    }
    harness = await build(**config).start()
    await harness.report("home/a", "on")
    await harness.crash()
    conditions = {"entity": "ab", "states": ["on"]}
    harness.configure(
        **{
            **config,
            "links": {"ab": a_link("a", "b")},
            "operations": {
                "op": an_operation({"link": "ab"}, triggers=[{"entity": "b", "conditions": conditions}]),
            },
        }
    )
    await harness.start()
    await harness.report("home/b", "x")
    assert len(await harness.jobs("op")) == 1
