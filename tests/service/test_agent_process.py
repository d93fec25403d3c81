"""The agent takes what it is given, runs it once, and says what became of it (contract 6; behaviour 3.9)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mqttjobs.agent.journal import Journal
from mqttjobs.domain.protocol import milliseconds
from mqttjobs.domain.signatures import signed
from mqttjobs.errors import StoreRefused
from mqttjobs.executors.orphans import end_orphans
from tests.service.agent_harness import HOST, KEY, AgentHarness

Build = Callable[..., AgentHarness]


@pytest.fixture
async def build_agent(tmp_path: Path) -> AsyncIterator[Build]:
    agents_built: list[AgentHarness] = []

    def make(**settings: Any) -> AgentHarness:
        agents_built.append(AgentHarness(tmp_path / "state", **settings))
        return agents_built[-1]

    yield make
    for agent in agents_built:
        await agent.crash()


@pytest.fixture
async def agent(build_agent: Build) -> AgentHarness:
    return await build_agent().start()


async def test_it_says_that_it_is_ready_every_ten_seconds_and_offline_when_it_is_cut_off(agent: AgentHarness) -> None:
    assert agent.state == "ready"
    await agent.advance(30)
    reported = agent.said("status")
    assert len(reported) == 4
    assert [each["state"] for each in reported] == ["ready"] * 4
    assert len({each["timestamp"] for each in reported}) == 4
    assert reported[0].keys() >= {"state", "labels", "version", "max_jobs", "running", "facts", "timestamp", "hostname"}
    assert reported[0]["facts"].keys() >= {"hostname", "platform", "python", "load"}
    connection = reported[-1]["connection"]
    agent.broker.drop("agent")
    will = agent.said("status")[-1]
    assert (will["state"], will["connection"]) == ("offline", connection)
    await agent.advance(1)
    assert (agent.state, agent.said("status")[-1]["connection"] != connection) == ("ready", True)


async def test_it_runs_what_it_is_given_and_reports_each_step(agent: AgentHarness) -> None:
    given = await agent.assign(params={"to": "Ada"}, inputs={"id": "hall"}, preferences=[])
    [run] = agent.fake_jobs.going
    assert run.context.hostname == HOST
    assert run.context.variables == {"params": {"to": "Ada"}, "job": {"id": given["job_id"]}, "id": "hall"}
    run.context.progress("half way")
    run.complete({"free": 7}, description={"exitCode": 0, "stdout": "no JSON"}, exit_code=0)
    await agent.settle()
    assert agent.events() == ["acknowledged", "started", "progress", "completed"]
    assert {(each["job_id"], each["attempt"], each["token"]) for each in agent.said("report")} == {
        (given["job_id"], 1, given["token"])
    }
    assert (agent.last["data"], agent.last["description"]["exitCode"]) == ({"free": 7}, 0)
    stamps = [each["timestamp"] for each in agent.said("report")]
    assert stamps == sorted(set(stamps))


async def test_no_more_run_at_once_than_it_may(build_agent: Build) -> None:
    agent = await build_agent(max_jobs=2).start()
    for _ in range(3):
        await agent.assign()
    assert len(agent.fake_jobs.going) == 2
    agent.fake_jobs.going[0].complete()
    await agent.settle()
    assert len(agent.fake_jobs.runs) == 3


async def test_what_was_sent_twice_runs_once(agent: AgentHarness) -> None:
    body = agent.assignment()
    payload = await agent.send("assign", body)
    await agent.send("assign", {**body, "expires_at": milliseconds(agent.clock.now()) + 20_000})
    assert len(agent.fake_jobs.runs) == 1
    assert agent.rejected == []
    await agent.send("assign", body)
    assert (len(agent.fake_jobs.runs), agent.rejected, bool(payload)) == (1, ["replayed"], True)


async def test_the_end_is_reported_again_to_a_service_that_asks_again(agent: AgentHarness) -> None:
    body = await agent.assign()
    agent.fake_jobs.going[0].complete()
    await agent.settle()
    await agent.send("assign", {**body, "expires_at": milliseconds(agent.clock.now()) + 20_000})
    assert agent.events() == ["acknowledged", "started", "completed", "completed"]
    assert agent.last["again"] is True
    assert len(agent.fake_jobs.runs) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"signature": None}, "unsigned"),
        ({"signature": "0" * 64}, "forged"),
        ({"hostname": "web2"}, "forged"),
        ({"expires_at": 1}, "stale"),
        ({"token": "short"}, "invalid_message"),
        ({"timeout": "soon"}, "invalid_message"),
    ],
)
async def test_what_proves_nothing_runs_nothing(agent: AgentHarness, change: dict[str, Any], reason: str) -> None:
    await agent.send("assign", agent.assignment(**change))
    assert (agent.fake_jobs.runs, agent.rejected, agent.events()) == ([], [reason], [])


async def test_a_forged_or_replayed_order_has_no_effect(agent: AgentHarness) -> None:
    await agent.assign()
    expires_at = milliseconds(agent.clock.now()) + 60_000
    drain = {"command": "drain", "expires_at": expires_at}
    await agent.send("control", signed(drain, "a guess"))
    await agent.send("control", {**signed(drain, KEY), "command": "undrain"})
    assert (agent.state, agent.rejected) == ("ready", ["forged", "forged"])
    await agent.send("control", drain)
    await agent.order("undrain")
    await agent.send("control", drain)
    assert (agent.state, agent.rejected[2:]) == ("ready", ["replayed"])
    assert len(agent.fake_jobs.going) == 1


async def test_a_seen_message_stays_seen_over_a_crash(agent: AgentHarness) -> None:
    body = agent.assignment()
    await agent.send("assign", body)
    await agent.restart()
    await agent.send("assign", body)
    assert (len(agent.fake_jobs.runs), agent.rejected) == (1, ["replayed"])


async def test_a_stop_ends_the_run(agent: AgentHarness) -> None:
    body = await agent.assign()
    await agent.order("stop", job_id=body["job_id"])
    assert agent.fake_jobs.runs[0].cancelled
    assert (agent.last["event"], agent.last["error"], agent.last["repeatable"]) == ("failed", "stopped", False)


async def test_a_drained_agent_finishes_what_runs_gives_the_rest_back_and_stays_so(build_agent: Build) -> None:
    agent = await build_agent(max_jobs=1).start()
    running, waiting = await agent.assign(), await agent.assign()
    await agent.order("drain")
    assert (agent.state, len(agent.fake_jobs.going)) == ("draining", 1)
    assert agent.events(waiting["token"]) == ["acknowledged", "failed"]
    assert agent.last["given_back"] is True
    refused = await agent.assign()
    assert (agent.events(refused["token"]), agent.last["given_back"]) == (["failed"], True)
    agent.fake_jobs.going[0].complete()
    await agent.settle()
    assert agent.events(running["token"])[-1] == "completed"
    assert agent.state == "cordoned"
    await agent.restart()
    assert agent.state == "cordoned"
    await agent.order("undrain")
    assert agent.state == "ready"


@pytest.mark.parametrize("delivery", ["at_most_once", "at_least_once", None])
async def test_a_crash_in_the_middle_is_reported_by_delivery(agent: AgentHarness, delivery: str | None) -> None:
    body = await agent.assign(delivery=delivery)
    await agent.restart()
    if delivery == "at_least_once":
        assert len(agent.fake_jobs.going) == 1
        agent.fake_jobs.going[0].complete()
        await agent.settle()
        assert agent.events(body["token"]) == ["acknowledged", "started", "completed"]
    else:
        assert len(agent.fake_jobs.runs) == 1
        assert (agent.last["event"], agent.last["error"]) == ("failed", "interrupted")


async def test_what_had_not_begun_when_it_crashed_runs_after(build_agent: Build) -> None:
    agent = await build_agent(max_jobs=1).start()
    await agent.assign(delivery="at_least_once")
    waiting = await agent.assign()
    movable = await agent.assign(lease=30.0)
    await agent.restart()
    assert agent.events(movable["token"]) == ["acknowledged", "failed"]
    agent.fake_jobs.going[0].complete()
    await agent.settle()
    assert agent.fake_jobs.going[0].context.job_id == waiting["job_id"]


async def test_an_outcome_that_was_not_delivered_is_reported_by_the_next_process(agent: AgentHarness) -> None:
    body = await agent.assign()
    agent.broker.down()
    await agent.settle()
    agent.fake_jobs.going[0].complete({"free": 7})
    await agent.advance(1)
    assert agent.events() == ["acknowledged", "started"]
    await agent.crash()
    agent.broker.up()
    await agent.start()
    assert agent.events(body["token"]) == ["acknowledged", "started", "completed"]
    await agent.restart()
    assert agent.events(body["token"]).count("completed") == 1


async def test_work_goes_on_while_the_broker_is_away(agent: AgentHarness) -> None:
    await agent.assign()
    agent.broker.down()
    await agent.advance(40)
    agent.fake_jobs.going[0].complete()
    await agent.settle()
    agent.broker.up()
    await agent.advance(11)
    assert agent.events() == ["acknowledged", "started", "completed"]


async def test_what_another_agent_may_have_by_now_is_not_begun(agent: AgentHarness) -> None:
    agent.broker.freeze()
    body = await agent.assign(lease=30.0)
    assert (agent.fake_jobs.runs, agent.events()) == ([], [])
    agent.broker.down()
    agent.broker.thaw()
    await agent.advance(12)
    agent.broker.up()
    await agent.advance(11)
    assert agent.fake_jobs.runs == []
    assert agent.events(body["token"]) == ["acknowledged", "started", "failed"]


async def test_what_a_broker_forgot_is_said_again(agent: AgentHarness) -> None:
    await agent.assign()
    agent.broker.forget("agent")
    await agent.advance(1)
    assert agent.events() == ["acknowledged", "started", "acknowledged", "started"]
    assert agent.last["again"] is True


async def test_a_clean_stop_ends_what_runs_and_says_offline(agent: AgentHarness) -> None:
    once, again = await agent.assign(), await agent.assign(delivery="at_least_once")
    await agent.leave()
    reports = {each["token"]: each for each in agent.said("report")}
    assert (reports[once["token"]]["error"], reports[once["token"]].get("given_back")) == ("interrupted", None)
    assert reports[again["token"]]["given_back"] is True
    assert agent.state == "offline"


async def test_an_unknown_type_fails_and_says_so(agent: AgentHarness) -> None:
    await agent.assign(operation={"type": "teleport"})
    assert agent.events() == ["acknowledged", "failed"]
    assert "teleport" in agent.last["error"]
    assert agent.last["repeatable"] is False


async def test_a_report_fits_what_the_service_takes(agent: AgentHarness) -> None:
    await agent.assign(max_payload=4096)
    agent.fake_jobs.going[0].complete(
        None, description={"exitCode": 0, "stdout": "begin" + "\n" * 20_000 + "end"}, stderr="x" * 20_000
    )
    await agent.settle()
    payload = next(each.payload for each in reversed(agent.broker.published) if each.topic.endswith("/report"))
    assert len(payload) <= 4096
    assert agent.last["data"]["exitCode"] == 0
    assert agent.last["data"]["stdout"].startswith("begin")
    assert agent.last["data"]["stdout"].endswith("end")


async def test_a_large_result_is_left_out_and_says_so(agent: AgentHarness) -> None:
    await agent.assign(max_payload=4096)
    agent.fake_jobs.going[0].complete(["x" * 5000])
    await agent.settle()
    assert (agent.last["data"], agent.last["event"]) == (None, "completed")
    assert "too large" in agent.last["message"]


async def test_a_torn_last_line_is_left_out(agent: AgentHarness) -> None:
    body = await agent.assign()
    await agent.crash()
    journal = agent.settings.state_dir / "agent.journal"
    journal.write_bytes(journal.read_bytes() + b'{"end": "' + body["token"].encode())
    await agent.start()
    assert agent.last["error"] == "interrupted"


async def test_the_journal_does_not_grow_for_ever(agent: AgentHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqttjobs.agent.journal.LINES_KEPT", 50)
    for _ in range(60):
        await agent.assign()
        agent.fake_jobs.going[0].complete()
        await agent.advance(300)
    journal = (agent.settings.state_dir / "agent.journal").read_bytes()
    assert journal.count(b"\n") < 250


async def test_a_state_directory_has_one_agent(tmp_path: Path, agent: AgentHarness) -> None:
    with pytest.raises(StoreRefused, match="another agent"):
        Journal(agent.settings.state_dir).open(agent.clock.now())
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreRefused, match="cannot be used"):
        Journal(tmp_path / "file").open(agent.clock.now())


def test_nobody_is_ended_for_no_job() -> None:
    assert end_orphans([]) == 0
    assert end_orphans(["0193aaaa-0000-7000-8000-00000000dead"]) == 0
