"""The service gives jobs to agents and takes in what becomes of them (contract 6; behaviour 3.3, 3.6, 3.9)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mqttjobs.domain.protocol import encode, milliseconds
from mqttjobs.domain.signatures import signed
from mqttjobs.errors import ConfigError
from tests.service.fake_agents import AGENTS, KEY, FakeAgent, live, ready
from tests.service.harness import ServiceHarness, an_object, an_operation

Build = Callable[..., ServiceHarness]


def a_script(target: str = "_any", **keys: Any) -> dict[str, Any]:
    return an_operation(**{"type": "script", "text": "true", "target": target, "timeout": "60s", **keys})


def fleet(build: Build, *names: str, target: str = "_any", **keys: Any) -> tuple[ServiceHarness, list[FakeAgent]]:
    harness = build(agents=AGENTS, operations={"backup": a_script(target, **keys)})
    return harness, [FakeAgent(harness, name, group=f"web.{name}") for name in names]


async def execute(harness: ServiceHarness, **more: Any) -> dict[str, Any]:
    started: dict[str, Any] = await harness.data("operations/execute", id="backup", **more)
    return started


async def only_job(harness: ServiceHarness) -> dict[str, Any]:
    [job] = (await harness.data("jobs/list"))["items"]
    found: dict[str, Any] = job
    return found


def events(job: dict[str, Any]) -> list[tuple[str, str]]:
    return [(event["hostname"], event["event"]) for event in job["timeline"]]


def rejected(harness: ServiceHarness) -> list[str]:
    return [each["reason"] for each in harness.documents("mqttjobs/event/rejected")]


# -- who is there ----------------------------------------------------------------------------------------------------


async def test_an_agent_that_says_it_is_ready_is_listed(build: Build) -> None:
    harness, [b, a] = fleet(build, "b", "a")
    await ready(harness, b, a)
    listed = await harness.data("agents/list")
    assert (listed["total_items"], [each["hostname"] for each in listed["items"]]) == (2, ["a", "b"])
    assert (await harness.data("agents/list", limit=1, offset=1))["items"] == [listed["items"][1]]
    agent = await harness.data("agents/get", hostname="a")
    assert agent.keys() == {"hostname", "state", "labels", "version", "running", "max_jobs", "facts", "last_seen"}
    assert (agent["state"], agent["labels"], agent["max_jobs"]) == ("ready", {"group": "web.a"}, 4)
    assert (await harness.ask("agents/get", hostname="c"))["code"] == 404
    assert (await harness.data("service/health"))["agents"]["ready"] == 2


async def test_an_agent_that_is_silent_for_a_lease_is_offline(build: Build) -> None:
    harness, [a] = fleet(build, "a")
    await ready(harness, a)
    await harness.advance(30)
    assert (await harness.data("agents/get", hostname="a"))["state"] == "ready"
    await harness.advance(0.1)
    assert (await harness.data("agents/get", hostname="a"))["state"] == "offline"


async def test_after_a_restart_whoever_was_there_still_is(build: Build) -> None:
    harness, [a] = fleet(build, "a")
    await ready(harness, a)
    harness.broker.retained.clear()
    await harness.advance(100)
    await harness.crash()
    await harness.start(quiet=False)
    await execute(harness)
    assert len(a.given) == 1


async def test_a_retained_status_tells_a_new_service_who_is_there(build: Build) -> None:
    harness, [a, _] = fleet(build, "a", "b")
    await a.status()
    await harness.start()
    assert (await harness.data("agents/get", hostname="a"))["state"] == "ready"


# -- one agent -------------------------------------------------------------------------------------------------------


async def test_any_agent_does_the_job_and_it_reads_like_one_of_the_service(build: Build) -> None:
    harness, [a] = fleet(build, "a", retry={"attempts": 2})
    await ready(harness, a)
    started = await execute(harness, params={"to": "Ada"})
    [given] = a.given
    assert (given["job_id"], given["attempt"], given["params"]) == (started["id"], 1, {"to": "Ada"})
    assert given["operation"] == {"type": "script", "text": "true", "preferences": []}
    assert (given["timeout"], given["delivery"]) == (60.0, "at_most_once")
    assert (await only_job(harness))["status"] == "submitted"
    await a.report("acknowledged")
    assert (await only_job(harness))["status"] == "processing"
    await a.report("started")
    await a.report("progress", message="half way")
    await a.report("completed", data={"exitCode": 0, "stdout": '{"free": 7, "changed": true}'})
    job = await only_job(harness)
    assert (job["status"], job["hostname"], job["target"], job["attempts"]) == ("completed", "a", "_any", 1)
    assert (job["result"], job["changed"]) == ({"free": 7, "changed": True}, True)
    assert job["description"] == {"exitCode": 0, "stdout": '{"free": 7, "changed": true}'}
    assert job["timestamp"] is not None
    assert events(job) == [
        ("hub", "submitted"), ("a", "acknowledged"), ("a", "started"), ("a", "progress"), ("a", "completed"),
    ]  # fmt: skip
    assert job["agent_states"].keys() == job["responses"].keys() == {"a"}
    reported = harness.sent("mqttjobs/event/job/#")
    statuses = [each.topic.split("/")[3] for each in reported]
    assert statuses == ["submitted", "processing", "completed"]
    facts = await harness.data("operations/get", id="backup")
    assert (facts["status"], facts["target"], facts["end_date"]) == ("completed", "_any", job["updated_at"])
    assert facts["job_context"]["robot_id"] == "a"


async def test_the_least_busy_agent_gets_the_job(build: Build) -> None:
    harness, agents = fleet(build, "a", "b", "c")
    await ready(harness, *agents)
    for _ in range(6):
        await execute(harness)
    assert [len(agent.given) for agent in agents] == [2, 2, 2]


async def test_no_agent_gets_more_than_it_has_room_for_and_the_rest_goes_by_priority(build: Build) -> None:
    harness = build(
        agents=AGENTS,
        operations={"dull": a_script(), "urgent": a_script(priority=5), "note": an_operation(target="_any")},
    )
    agent = FakeAgent(harness, "a", max_jobs=1)
    await ready(harness, agent)
    for name in ("dull", "dull", "urgent", "note"):
        await harness.data("operations/execute", id=name)
    assert [each["operation_id"] for each in agent.given] == ["dull", "note"]
    await agent.report("started", "completed", about=agent.given[0])
    assert [each["operation_id"] for each in agent.given] == ["dull", "note", "urgent"]
    await agent.report("started", "completed")
    assert [each["operation_id"] for each in agent.given] == ["dull", "note", "urgent", "dull"]


async def test_a_crowd_that_waits_for_room_never_holds_up_what_is_only_published(build: Build) -> None:
    harness = build(agents=AGENTS, operations={"dull": a_script(), "note": an_operation(target="_any", priority=-1)})
    agent = FakeAgent(harness, "a", max_jobs=1)
    await ready(harness, agent)
    for _ in range(250):
        harness.put("operations/execute", id="dull")
    await harness.settle()
    await harness.data("operations/execute", id="note")
    assert [each["operation_id"] for each in agent.given] == ["dull", "note"]


async def test_a_named_agent_gets_its_jobs_and_no_other(build: Build) -> None:
    harness, [a, b] = fleet(build, "a", "b", target="b")
    await ready(harness, a, b)
    await execute(harness)
    assert (len(a.given), len(b.given)) == (0, 1)
    assert (await only_job(harness))["agent_states"]["b"]["status"] == "submitted"


async def test_a_program_that_fails_is_attempted_again(build: Build) -> None:
    harness, [a] = fleet(build, "a", retry={"attempts": 2, "first": "4s"})
    await ready(harness, a)
    await execute(harness)
    await a.report("started")
    await a.report("failed", error="exit code 1")
    await harness.advance(3.9)
    assert len(a.given) == 1
    await harness.advance(0.2)
    assert [each["attempt"] for each in a.given] == [1, 2]
    await a.report("started")
    await a.report("failed", error="exit code 1", data={"exitCode": 1, "stdout": ""})
    job = await only_job(harness)
    assert (job["status"], job["error"], job["attempts"]) == ("failed", "exit code 1", 2)
    assert "retried" in [kind for _, kind in events(job)]


async def test_waiting_for_the_end_works_for_agents_too(build: Build) -> None:
    harness, [a] = fleet(build, "a")
    await ready(harness, a)
    question = harness.put("operations/execute", id="backup", wait=True)
    await harness.settle()
    await a.report("started", "completed")
    assert (question.answer["code"], question.answer["data"]["status"]) == (200, "completed")


# -- silence ---------------------------------------------------------------------------------------------------------


async def test_an_agent_that_does_not_acknowledge_loses_the_job_to_another(build: Build) -> None:
    harness, [a, b] = fleet(build, "a", "b")
    await ready(harness, a, b)
    await execute(harness)
    assert (len(a.given), len(b.given)) == (1, 0)
    await live(harness, [a, b], 9.9)
    assert len(b.given) == 0
    await live(harness, [a, b], 0.2)
    assert (len(a.given), len(b.given)) == (1, 1)
    await b.report("started", "completed")
    job = await only_job(harness)
    assert (job["status"], job["hostname"], job["responses"].keys()) == ("completed", "b", {"b"})
    assert a.orders == ["stop"]


async def test_an_agent_that_falls_silent_gives_the_job_back_with_its_lease(build: Build) -> None:
    harness, [a, b] = fleet(build, "a", "b", delivery="at_least_once")
    await ready(harness, a, b)
    await execute(harness)
    await a.report("acknowledged", "started")
    a.silent = True
    await live(harness, [a, b], 29)
    assert len(b.given) == 0
    await live(harness, [a, b], 2)
    assert [each["attempt"] for each in b.given] == [2]
    await a.report("completed")
    job = await only_job(harness)
    assert job["status"] == "processing"
    assert job["timeline"][-1]["event"] == "progress"
    b.silent = True
    await live(harness, [a, b], 70)
    job = await only_job(harness)
    assert (job["status"], job["error"]) == ("failed", "timeout: agent did not respond")
    assert (len(a.given), {each["attempt"] for each in b.given}) == (1, {2})


async def test_what_has_started_and_runs_at_most_once_is_not_given_to_another(build: Build) -> None:
    harness, [a, b] = fleet(build, "a", "b")
    await ready(harness, a, b)
    await execute(harness)
    await a.report("acknowledged", "started")
    a.silent = True
    await live(harness, [a, b], 64.9)
    assert (await only_job(harness))["status"] == "processing"
    await live(harness, [a, b], 0.2)
    job = await only_job(harness)
    assert (job["status"], job["error"], len(b.given)) == ("failed", "timeout: agent did not respond", 0)


async def test_a_late_completion_outranks_the_time_out(build: Build) -> None:
    harness, [a] = fleet(build, "a", target="a")
    await ready(harness, a)
    await execute(harness)
    await a.report("started")
    a.silent = True
    await live(harness, [a], 66)
    assert (await only_job(harness))["status"] == "failed"
    await a.report("completed")
    job = await only_job(harness)
    assert (job["status"], job["error"]) == ("completed", "")
    assert [each.topic.split("/")[3] for each in harness.sent("mqttjobs/event/job/#")][-2:] == ["failed", "completed"]


# -- broadcasts ------------------------------------------------------------------------------------------------------


async def test_a_broadcast_is_one_job_with_an_answer_of_each_agent(build: Build) -> None:
    harness, [a, b, c] = fleet(build, "a", "b", "c", target="_all")
    await ready(harness, a, b, c)
    await execute(harness)
    late = FakeAgent(harness, "d")
    await late.status()
    assert [len(each.given) for each in (a, b, c, late)] == [1, 1, 1, 0]
    await a.report("acknowledged", "started", "completed")
    await b.report("acknowledged", "started")
    await b.report("failed", error="exit code 3", data={"exitCode": 3, "stdout": "no"})
    job = await only_job(harness)
    assert (job["status"], job["result"]) == ("processing", None)
    assert {host: state["status"] for host, state in job["agent_states"].items()} == {
        "a": "completed", "b": "failed", "c": "submitted",
    }  # fmt: skip
    c.silent = True
    await live(harness, [a, b, c], 64)
    assert (await only_job(harness))["status"] == "processing"
    await live(harness, [a, b, c], 2)
    job = await only_job(harness)
    assert (job["status"], job["error"]) == ("partial_failure", "")
    assert job["responses"]["b"] == {
        "status": "failed",
        "data": {"exitCode": 3, "stdout": "no"},
        "changed": None,
        "error": "exit code 3",
        "hostname": "b",
    }
    assert job["responses"]["c"]["error"] == "timeout: agent did not respond"
    await c.report("completed", changed=True)
    job = await only_job(harness)
    assert (job["status"], job["changed"]) == ("partial_failure", True)
    assert job["responses"]["c"]["status"] == "completed"


async def test_a_silent_agent_is_asked_again_for_the_same_attempt(build: Build) -> None:
    harness, [a] = fleet(build, "a", target="_all")
    await ready(harness, a)
    await execute(harness)
    await live(harness, [a], 21)
    assert len({each["token"] for each in a.given}) == 1
    assert [each["attempt"] for each in a.given] == [1, 1, 1]
    assert len({each["signature"] for each in a.given}) == 3


async def test_a_label_means_agents_by_whole_segments(build: Build) -> None:
    harness = build(agents=AGENTS, operations={"backup": a_script("group:web")})
    agents = [
        FakeAgent(harness, f"h{n}", group=group) for n, group in enumerate(["web", "web.dev", "webshop", "db.web"])
    ]
    await ready(harness, *agents)
    await execute(harness)
    assert [len(agent.given) for agent in agents] == [1, 1, 0, 0]


async def test_a_rollout_goes_in_waves_and_waits_for_its_interval(build: Build) -> None:
    harness, agents = fleet(build, "a", "b", "c", target="_all", rollout={"batch": 2, "interval": "20s"})
    [a, b, c] = agents
    await ready(harness, *agents)
    await execute(harness)
    assert [len(each.given) for each in agents] == [1, 1, 0]
    await a.report("started", "completed")
    await live(harness, agents, 30)
    assert len(c.given) == 0
    await b.report("started", "completed")
    assert len(c.given) == 1
    await c.report("started", "completed")
    assert (await only_job(harness))["status"] == "completed"


async def test_a_rollout_waits_for_its_interval_over_a_crash_too(build: Build) -> None:
    harness, [a, b] = fleet(build, "a", "b", target="_all", rollout={"batch": 1, "interval": "20s"})
    await ready(harness, a, b)
    await execute(harness)
    await a.report("started", "completed")
    await harness.restart()
    await live(harness, [a, b], 15)
    assert len(b.given) == 0
    await live(harness, [a, b], 5)
    assert len(b.given) == 1


async def test_a_rollout_stops_when_too_many_fail(build: Build) -> None:
    rollout = {"batch": 1, "abort_failures": 2}
    harness, agents = fleet(build, "a", "b", "c", "d", target="_all", rollout=rollout)
    await ready(harness, *agents)
    await execute(harness)
    for agent in agents[:2]:
        await agent.report("started")
        await agent.report("failed", error="exit code 1")
    job = await only_job(harness)
    assert [len(each.given) for each in agents] == [1, 1, 0, 0]
    assert (job["status"], job["responses"]["c"]["error"]) == ("failed", "rollout aborted")
    assert job["responses"]["d"]["error"] == "rollout aborted"


# -- who may not be there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["_any", "_all", "a", "b", "group:db"])
async def test_a_target_that_means_no_ready_agent_is_refused_or_recorded(build: Build, target: str) -> None:
    operation = a_script(target, attach={"object": "lamp"}, trigger_states=["on"])
    harness = build(agents=AGENTS, objects={"lamp": an_object("home/lamp")}, operations={"backup": operation})
    agent = FakeAgent(harness, "a", group="web")
    await ready(harness, agent)
    await agent.status("cordoned")
    answer = await harness.ask("operations/execute", id="backup")
    assert (answer["code"], list(answer["invalid_fields"])) == (400, ["target"])
    await harness.report("home/lamp", "on")
    job = await only_job(harness)
    assert (job["status"], job["error"]) == ("failed", f"no ready agent for the target {target}")


async def test_without_a_key_only_the_service_itself_exists(build: Build) -> None:
    with pytest.raises(ConfigError, match=r"needs agents\.key"):
        build(operations={"backup": a_script()})
    harness = await build(operations={"backup": an_operation(type="work", target="_local")}).start()
    assert harness.broker.published
    started = await execute(harness)
    answer = await harness.ask("jobs/retry", id=started["id"], target="_any")
    assert (answer["code"], list(answer["invalid_fields"])) == (400, ["target"])


async def test_a_retry_goes_where_it_is_reported_or_where_the_old_one_was(build: Build) -> None:
    harness, [a, b] = fleet(build, "a", "b", target="_all")
    await ready(harness, a, b)
    started = await execute(harness)
    await a.report("started", "completed")
    await b.report("started", "completed")
    for wanted, target in ((None, "_any"), ("b", "b"), ("group:web", "group:web")):
        retried = await harness.data("jobs/retry", id=started["id"], target=wanted)
        assert (await harness.data("jobs/get", id=retried["id"]))["target"] == target
    assert (await harness.ask("jobs/retry", id=started["id"], target="c"))["code"] == 400
    assert (await harness.ask("jobs/retry", id=started["id"], target="a b"))["code"] == 400


async def test_a_drained_agent_gets_nothing_new_until_it_is_undrained(build: Build) -> None:
    harness = build(
        agents=AGENTS,
        operations={"backup": a_script()},
        users={
            "boss": {"api_key": "k" * 16, "permissions": ["agent:read", "agent:write", "operation:execute"]},
            "reader": {"api_key": "r" * 16, "permissions": ["agent:read"]},
        },
    )
    agent = FakeAgent(harness, "a")
    await ready(harness, agent)
    boss = {"api_key": "k" * 16}
    assert (await harness.ask("agents/drain", hostname="a", api_key="r" * 16))["code"] == 403
    assert (await harness.data("agents/drain", hostname="a", **boss))["state"] == "draining"
    assert (await harness.ask("operations/execute", id="backup", **boss))["code"] == 400
    await harness.restart()
    await agent.status("ready")
    assert (await harness.data("agents/get", hostname="a", **boss))["state"] == "draining"
    assert (await harness.data("agents/undrain", hostname="a", **boss))["state"] == "ready"
    assert agent.orders == ["drain", "undrain"]
    assert (await harness.ask("operations/execute", id="backup", **boss))["code"] == 201
    assert (await harness.ask("agents/drain", hostname="zzz", **boss))["code"] == 404


# -- stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["jobs/stop", "jobs/delete"])
async def test_a_stopped_job_is_stopped_on_its_agents(build: Build, method: str) -> None:
    harness, [a, b] = fleet(build, "a", "b", target="_all")
    await ready(harness, a, b)
    started = await execute(harness)
    await a.report("started")
    await harness.data(method, id=started["id"])
    assert (a.orders, b.orders) == (["stop"], ["stop"])
    assert a.sent("control")[0]["job_id"] == started["id"]
    assert list(await harness.store.assignments()) == []
    await a.report("failed", error="stopped")
    if method == "jobs/stop":
        job = await only_job(harness)
        assert (job["status"], events(job)[-1]) == ("stopped", ("a", "failed"))
    else:
        assert rejected(harness) == ["unassigned"]


@pytest.mark.parametrize("moment", ["before record", "after record", "before publish", "after publish"])
async def test_a_stop_reaches_the_agent_over_a_crash(build: Build, moment: str) -> None:
    harness, [a] = fleet(build, "a")
    await ready(harness, a)
    started = await execute(harness)
    await a.report("started")
    harness.die_at(moment)
    harness.put("jobs/stop", id=started["id"])
    await harness.settle()
    assert not harness.running
    await harness.start()
    if (await only_job(harness))["status"] != "stopped":
        await harness.data("jobs/stop", id=started["id"])
    assert a.orders[-1] == "stop"
    assert list(await harness.store.assignments()) == []


async def revive(harness: ServiceHarness) -> None:
    if not harness.running:
        await harness.start()


# -- crashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before record", "after record", "before publish", "before acknowledge"])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_crash_of_the_service_loses_no_assignment_and_doubles_none(
    build: Build, moment: str, times: int
) -> None:
    operation = a_script("a", attach={"object": "lamp"}, trigger_states=["on"])
    harness = build(agents=AGENTS, objects={"lamp": an_object("home/lamp")}, operations={"backup": operation})
    agent = FakeAgent(harness, "a")
    await ready(harness, agent)
    harness.die_at(moment, times)
    await harness.report("home/lamp", "on")
    await revive(harness)
    await live(harness, [agent], 12)
    await revive(harness)
    for event in ("acknowledged", "started", "completed"):
        await agent.report(event)
        await revive(harness)
    assert len({(each["job_id"], each["attempt"], each["token"]) for each in agent.given}) == 1
    [job] = (await harness.data("jobs/list"))["items"]
    assert job["status"] == "completed"


@pytest.mark.parametrize("moment", ["before record", "after record", "before acknowledge"])
async def test_a_report_that_a_crash_cut_short_counts_once(build: Build, moment: str) -> None:
    harness, [a] = fleet(build, "a")
    await ready(harness, a)
    await execute(harness)
    await a.report("acknowledged", "started")
    harness.die_at(moment)
    await a.report("completed")
    assert not harness.running
    await harness.start()
    job = await only_job(harness)
    assert Counter(events(job)) == Counter(
        [("hub", "submitted"), ("a", "acknowledged"), ("a", "started"), ("a", "completed")]
    )


async def test_what_agents_said_while_the_service_was_away_is_taken_in_before_its_deadline_is_judged(
    build: Build,
) -> None:
    harness, [a] = fleet(build, "a", target="a")
    await ready(harness, a)
    await execute(harness)
    await a.report("acknowledged", "started")
    await harness.crash()
    await harness.clock.advance(1000)
    await a.report("completed")
    await harness.start()
    job = await only_job(harness)
    assert (job["status"], "failed" in [kind for _, kind in events(job)]) == ("completed", False)


async def test_after_an_outage_agents_have_time_to_come_back_before_they_are_judged(build: Build) -> None:
    harness, [a] = fleet(build, "a", target="a")
    await ready(harness, a)
    await execute(harness)
    await a.report("acknowledged", "started")
    harness.broker.down()
    await harness.advance(100)
    harness.broker.up()
    await harness.advance(8)
    assert harness.connected
    assert (await only_job(harness))["status"] == "processing"
    await a.report("completed")
    job = await only_job(harness)
    assert (job["status"], "failed" in [kind for _, kind in events(job)]) == ("completed", False)


async def test_a_wall_clock_that_is_set_ends_nothing(build: Build) -> None:
    harness, [a] = fleet(build, "a", target="a")
    await ready(harness, a)
    await execute(harness)
    await a.report("acknowledged", "started")
    for days in (1, -2):
        harness.clock.step(days=days)
        await harness.advance(31)
        await a.status(timestamp=milliseconds(harness.clock.now()))
        assert (await only_job(harness))["status"] == "processing"
    await a.report("completed")
    assert (await only_job(harness))["status"] == "completed"


# -- messages that prove nothing -------------------------------------------------------------------------------------


async def test_reports_that_prove_nothing_change_nothing_and_are_reported(build: Build) -> None:
    harness, [a, b] = fleet(build, "a", "b", target="a")
    await ready(harness, a, b)
    await execute(harness)
    good = a.report_body("completed")
    reported = [
        (a, good, "unsigned"),
        (a, {**good, "signature": "0" * 64}, "forged"),
        (a, signed(good, "another key"), "forged"),
        (a, {**signed(good, KEY), "event": "failed"}, "forged"),
        (b, signed(good, KEY), "forged"),
        (b, signed({**good, "hostname": "b"}, KEY), "unassigned"),
        (a, signed({**good, "token": "t" * 32}, KEY), "unassigned"),
        (a, signed({**good, "attempt": 2}, KEY), "unassigned"),
        (a, signed({**good, "job_id": "00000000-0000-7000-8000-000000000099"}, KEY), "unassigned"),
        (a, signed({**good, "event": "exploded"}, KEY), "invalid_message"),
    ]
    for sender, body, _ in reported:
        await sender.say(body)
    await a.say(signed(good, KEY), retain=True)
    assert rejected(harness) == [reason for _, _, reason in reported]
    job = await only_job(harness)
    assert job["status"] == "completed"
    await a.say(signed(good, KEY))
    assert rejected(harness)[-1] == "replayed"
    assert len((await only_job(harness))["timeline"]) == len(job["timeline"])


async def test_a_retained_report_counts_not(build: Build) -> None:
    harness, [a] = fleet(build, "a", target="a")
    await ready(harness, a)
    await execute(harness)
    await harness.disconnect()
    harness.broker.retained["mqttjobs/agents/a/report"] = harness.broker.published[-1]
    await harness.advance(5)
    assert (await only_job(harness))["status"] == "submitted"


async def test_statuses_that_prove_nothing_change_nothing_and_are_reported(build: Build) -> None:
    harness, [a] = fleet(build, "a")
    await ready(harness, a)
    first = await a.status()
    await harness.advance(1)
    await a.status()
    await harness.report("mqttjobs/agents/a/status", first)
    stale = {"state": "offline", "timestamp": milliseconds(harness.clock.now()) - 40_000}
    await harness.report("mqttjobs/agents/z/status", signed(stale, KEY))
    await harness.report("mqttjobs/agents/z/status", {"state": "ready", "timestamp": 1})
    await harness.report("mqttjobs/agents/z/status", b"x" * 70_000)
    await harness.report("mqttjobs/agents/z/status", b'{"state": "ready", "state": "ready"}')
    assert rejected(harness) == ["replayed", "stale", "unsigned", "too_large", "invalid_json"]
    assert [each["hostname"] for each in (await harness.data("agents/list"))["items"]] == ["a"]
    counted = (await harness.data("service/health"))["counters"]
    assert counted["agent_messages"] == sum(counted["agent_messages_by_result"].values())


async def test_the_fields_of_the_contract_are_enough(build: Build) -> None:
    harness, [a] = fleet(build, "a", target="_all")
    await harness.start()
    now = milliseconds(harness.clock.now())
    status = {"state": "ready", "labels": {}, "version": "x", "max_jobs": 2, "running": 0, "facts": {}}
    await harness.report("mqttjobs/agents/a/status", signed({**status, "timestamp": now}, KEY), retain=True)
    await execute(harness)
    assert a.given[0].keys() >= {
        "job_id",
        "attempt",
        "token",
        "operation",
        "params",
        "timeout",
        "expires_at",
        "signature",
    }
    for event in ("acknowledged", "started", "completed"):
        report = {name: a.given[0][name] for name in ("job_id", "attempt", "token")}
        report |= {"event": event, "data": {"n": 1}, "error": "", "changed": True, "message": "", "timestamp": now}
        await harness.report("mqttjobs/agents/a/report", signed(report, KEY))
    job = await only_job(harness)
    assert (job["status"], job["result"], job["changed"]) == ("completed", {"n": 1}, True)
    offline = {**status, "state": "offline", "timestamp": now + 1}
    await harness.report("mqttjobs/agents/a/status", signed(offline, KEY), retain=True)
    assert (await harness.data("agents/get", hostname="a"))["state"] == "offline"


async def test_the_secret_is_nowhere_to_be_seen(build: Build) -> None:
    harness, [a] = fleet(build, "a")
    await ready(harness, a)
    await execute(harness)
    await a.report("started", "completed")
    await harness.data("service/info")
    await harness.data("service/health")
    assert KEY.encode() not in b"".join(each.payload for each in harness.broker.published)
    assert KEY not in repr(harness.settings)


async def test_an_assignment_that_is_too_large_fails_its_job_and_says_so(build: Build) -> None:
    harness = build(agents=AGENTS, operations={"backup": a_script(text="x" * 70_000)})
    await ready(harness, FakeAgent(harness, "a"))
    await execute(harness)
    job = await only_job(harness)
    assert job["status"] == "failed"
    assert "service.max_payload" in job["error"]


async def test_what_follows_a_failure_follows_one_on_an_agent_too(build: Build) -> None:
    operations = {
        "backup": a_script("_all", on_failure="alarm", timeout="5s"),
        "alarm": an_operation(message="{{ params.error }}"),
    }
    harness = build(agents=AGENTS, operations=operations)
    a, b = FakeAgent(harness, "a"), FakeAgent(harness, "b")
    await ready(harness, a, b)
    await execute(harness)
    await a.report("started", "completed")
    await b.report("started")
    b.silent = True
    assert harness.texts("out") == []
    await live(harness, [a, b], 11)
    assert harness.texts("out") == [""]
    await b.report("completed")
    assert [each.status for each in await harness.jobs()] == ["completed", "completed"]
    assert harness.texts("out") == [""]


async def test_what_follows_a_failure_follows_a_missing_agent_too(build: Build) -> None:
    operations = {
        "backup": a_script(on_failure="alarm", attach={"object": "lamp"}, trigger_states=["on"]),
        "alarm": an_operation(message="{{ params.error }}"),
    }
    harness = await build(agents=AGENTS, objects={"lamp": an_object("home/lamp")}, operations=operations).start()
    await harness.report("home/lamp", "on")
    assert harness.texts("out") == ["no ready agent for the target _any"]


async def test_only_the_service_itself_can_confirm(build: Build) -> None:
    confirm = {"entity": "lamp", "states": ["on"], "within": "5s"}
    operation = an_operation("lamp", target="_any", confirm=confirm)
    with pytest.raises(ConfigError, match="the service itself publishes"):
        build(agents=AGENTS, objects={"lamp": an_object("home/lamp")}, operations={"backup": operation})


async def test_modes_hold_for_agents(build: Build) -> None:
    harness, [a] = fleet(build, "a", mode="queued")
    await ready(harness, a)
    for _ in range(3):
        await execute(harness)
    assert len(a.given) == 1
    for count in (2, 3):
        await a.report("started", "completed")
        assert len(a.given) == count


async def test_an_agent_job_whose_store_fails_goes_on_when_it_is_back(build: Build) -> None:
    harness, [a] = fleet(build, "a")
    await ready(harness, a)
    await execute(harness)
    harness.store.broken = True
    await a.report("acknowledged", "started")
    await harness.advance(3)
    harness.store.broken = False
    await harness.advance(3)
    await a.report("completed")
    job = await only_job(harness)
    assert Counter(kind for _, kind in events(job)) == Counter(["submitted", "acknowledged", "started", "completed"])


def test_an_assignment_is_json_that_anyone_can_check() -> None:
    body = json.loads(encode(signed({"a": 60.0, "b": [1, "é"]}, KEY)))
    assert signed(body, KEY) == body
