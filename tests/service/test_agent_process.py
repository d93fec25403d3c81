"""The agent takes what it is given, runs it once, and says what became of it (contract 6; behaviour 3.9)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from station import HOST, KEY, Station

from mqttjobs.agent.ledger import Ledger
from mqttjobs.domain.protocol import milliseconds
from mqttjobs.domain.signatures import signed
from mqttjobs.errors import StoreRefused
from mqttjobs.executors.orphans import end_orphans

Build = Callable[..., Station]


@pytest.fixture
async def build_station(tmp_path: Path) -> AsyncIterator[Build]:
    stations: list[Station] = []

    def make(**settings: Any) -> Station:
        stations.append(Station(tmp_path / "state", **settings))
        return stations[-1]

    yield make
    for station in stations:
        await station.crash()


@pytest.fixture
async def station(build_station: Build) -> Station:
    return await build_station().start()


async def test_it_says_that_it_is_ready_every_ten_seconds_and_offline_when_it_is_cut_off(station: Station) -> None:
    assert station.state == "ready"
    await station.advance(30)
    told = station.said("status")
    assert len(told) == 4
    assert [each["state"] for each in told] == ["ready"] * 4
    assert len({each["timestamp"] for each in told}) == 4
    assert told[0].keys() >= {"state", "labels", "version", "max_jobs", "running", "facts", "timestamp", "hostname"}
    assert told[0]["facts"].keys() >= {"hostname", "platform", "python", "load"}
    connection = told[-1]["connection"]
    station.broker.drop("agent")
    will = station.said("status")[-1]
    assert (will["state"], will["connection"]) == ("offline", connection)
    await station.advance(1)
    assert (station.state, station.said("status")[-1]["connection"] != connection) == ("ready", True)


async def test_it_runs_what_it_is_given_and_reports_each_step(station: Station) -> None:
    given = await station.assign(params={"to": "Ada"}, inputs={"id": "hall"}, preferences=[])
    [run] = station.desk.going
    assert run.context.hostname == HOST
    assert run.context.variables == {"params": {"to": "Ada"}, "job": {"id": given["job_id"]}, "id": "hall"}
    run.context.progress("half way")
    run.complete({"free": 7}, description={"exitCode": 0, "stdout": "no JSON"}, exit_code=0)
    await station.settle()
    assert station.events() == ["acknowledged", "started", "progress", "completed"]
    assert {(each["job_id"], each["attempt"], each["token"]) for each in station.said("report")} == {
        (given["job_id"], 1, given["token"])
    }
    assert (station.last["data"], station.last["description"]["exitCode"]) == ({"free": 7}, 0)
    stamps = [each["timestamp"] for each in station.said("report")]
    assert stamps == sorted(set(stamps))


async def test_no_more_run_at_once_than_it_may(build_station: Build) -> None:
    station = await build_station(max_jobs=2).start()
    for _ in range(3):
        await station.assign()
    assert len(station.desk.going) == 2
    station.desk.going[0].complete()
    await station.settle()
    assert len(station.desk.runs) == 3


async def test_what_was_sent_twice_runs_once(station: Station) -> None:
    body = station.assignment()
    payload = await station.send("assign", body)
    await station.send("assign", {**body, "expires_at": milliseconds(station.clock.now()) + 20_000})
    assert len(station.desk.runs) == 1
    assert station.rejected == []
    await station.send("assign", body)
    assert (len(station.desk.runs), station.rejected, bool(payload)) == (1, ["replayed"], True)


async def test_the_end_is_told_again_to_a_service_that_asks_again(station: Station) -> None:
    body = await station.assign()
    station.desk.going[0].complete()
    await station.settle()
    await station.send("assign", {**body, "expires_at": milliseconds(station.clock.now()) + 20_000})
    assert station.events() == ["acknowledged", "started", "completed", "completed"]
    assert station.last["again"] is True
    assert len(station.desk.runs) == 1


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
async def test_what_proves_nothing_runs_nothing(station: Station, change: dict[str, Any], reason: str) -> None:
    await station.send("assign", station.assignment(**change))
    assert (station.desk.runs, station.rejected, station.events()) == ([], [reason], [])


async def test_a_forged_or_replayed_order_has_no_effect(station: Station) -> None:
    await station.assign()
    expires_at = milliseconds(station.clock.now()) + 60_000
    drain = {"command": "drain", "expires_at": expires_at}
    await station.send("control", signed(drain, "a guess"))
    await station.send("control", {**signed(drain, KEY), "command": "undrain"})
    assert (station.state, station.rejected) == ("ready", ["forged", "forged"])
    await station.send("control", drain)
    await station.order("undrain")
    await station.send("control", drain)
    assert (station.state, station.rejected[2:]) == ("ready", ["replayed"])
    assert len(station.desk.going) == 1


async def test_a_seen_message_stays_seen_over_a_crash(station: Station) -> None:
    body = station.assignment()
    await station.send("assign", body)
    await station.restart()
    await station.send("assign", body)
    assert (len(station.desk.runs), station.rejected) == (1, ["replayed"])


async def test_a_stop_ends_the_run(station: Station) -> None:
    body = await station.assign()
    await station.order("stop", job_id=body["job_id"])
    assert station.desk.runs[0].cancelled
    assert (station.last["event"], station.last["error"], station.last["repeatable"]) == ("failed", "stopped", False)


async def test_a_drained_agent_finishes_what_runs_gives_the_rest_back_and_stays_so(build_station: Build) -> None:
    station = await build_station(max_jobs=1).start()
    running, waiting = await station.assign(), await station.assign()
    await station.order("drain")
    assert (station.state, len(station.desk.going)) == ("draining", 1)
    assert station.events(waiting["token"]) == ["acknowledged", "failed"]
    assert station.last["given_back"] is True
    refused = await station.assign()
    assert (station.events(refused["token"]), station.last["given_back"]) == (["failed"], True)
    station.desk.going[0].complete()
    await station.settle()
    assert station.events(running["token"])[-1] == "completed"
    assert station.state == "cordoned"
    await station.restart()
    assert station.state == "cordoned"
    await station.order("undrain")
    assert station.state == "ready"


@pytest.mark.parametrize("delivery", ["at_most_once", "at_least_once", None])
async def test_a_crash_in_the_middle_is_reported_by_delivery(station: Station, delivery: str | None) -> None:
    body = await station.assign(delivery=delivery)
    await station.restart()
    if delivery == "at_least_once":
        assert len(station.desk.going) == 1
        station.desk.going[0].complete()
        await station.settle()
        assert station.events(body["token"]) == ["acknowledged", "started", "completed"]
    else:
        assert len(station.desk.runs) == 1
        assert (station.last["event"], station.last["error"]) == ("failed", "interrupted")


async def test_what_had_not_begun_when_it_crashed_runs_after(build_station: Build) -> None:
    station = await build_station(max_jobs=1).start()
    await station.assign(delivery="at_least_once")
    waiting = await station.assign()
    movable = await station.assign(lease=30.0)
    await station.restart()
    assert station.events(movable["token"]) == ["acknowledged", "failed"]
    station.desk.going[0].complete()
    await station.settle()
    assert station.desk.going[0].context.job_id == waiting["job_id"]


async def test_an_outcome_that_was_not_delivered_is_reported_by_the_next_process(station: Station) -> None:
    body = await station.assign()
    station.broker.down()
    await station.settle()
    station.desk.going[0].complete({"free": 7})
    await station.advance(1)
    assert station.events() == ["acknowledged", "started"]
    await station.crash()
    station.broker.up()
    await station.start()
    assert station.events(body["token"]) == ["acknowledged", "started", "completed"]
    await station.restart()
    assert station.events(body["token"]).count("completed") == 1


async def test_work_goes_on_while_the_broker_is_away(station: Station) -> None:
    await station.assign()
    station.broker.down()
    await station.advance(40)
    station.desk.going[0].complete()
    await station.settle()
    station.broker.up()
    await station.advance(11)
    assert station.events() == ["acknowledged", "started", "completed"]


async def test_what_another_agent_may_have_by_now_is_not_begun(station: Station) -> None:
    station.broker.freeze()
    body = await station.assign(lease=30.0)
    assert (station.desk.runs, station.events()) == ([], [])
    station.broker.down()
    station.broker.thaw()
    await station.advance(12)
    station.broker.up()
    await station.advance(11)
    assert station.desk.runs == []
    assert station.events(body["token"]) == ["acknowledged", "started", "failed"]


async def test_what_a_broker_forgot_is_said_again(station: Station) -> None:
    await station.assign()
    station.broker.forget("agent")
    await station.advance(1)
    assert station.events() == ["acknowledged", "started", "acknowledged", "started"]
    assert station.last["again"] is True


async def test_a_clean_stop_ends_what_runs_and_says_offline(station: Station) -> None:
    once, again = await station.assign(), await station.assign(delivery="at_least_once")
    await station.leave()
    reports = {each["token"]: each for each in station.said("report")}
    assert (reports[once["token"]]["error"], reports[once["token"]].get("given_back")) == ("interrupted", None)
    assert reports[again["token"]]["given_back"] is True
    assert station.state == "offline"


async def test_an_unknown_type_fails_and_says_so(station: Station) -> None:
    await station.assign(operation={"type": "teleport"})
    assert station.events() == ["acknowledged", "failed"]
    assert "teleport" in station.last["error"]
    assert station.last["repeatable"] is False


async def test_a_report_fits_what_the_service_takes(station: Station) -> None:
    await station.assign(max_payload=4096)
    station.desk.going[0].complete(
        None, description={"exitCode": 0, "stdout": "begin" + "\n" * 20_000 + "end"}, stderr="x" * 20_000
    )
    await station.settle()
    payload = next(each.payload for each in reversed(station.broker.published) if each.topic.endswith("/report"))
    assert len(payload) <= 4096
    assert station.last["data"]["exitCode"] == 0
    assert station.last["data"]["stdout"].startswith("begin")
    assert station.last["data"]["stdout"].endswith("end")


async def test_a_large_result_is_left_out_and_says_so(station: Station) -> None:
    await station.assign(max_payload=4096)
    station.desk.going[0].complete(["x" * 5000])
    await station.settle()
    assert (station.last["data"], station.last["event"]) == (None, "completed")
    assert "too large" in station.last["message"]


async def test_a_torn_last_line_is_left_out(station: Station) -> None:
    body = await station.assign()
    await station.crash()
    journal = station.settings.state_dir / "agent.journal"
    journal.write_bytes(journal.read_bytes() + b'{"end": "' + body["token"].encode())
    await station.start()
    assert station.last["error"] == "interrupted"


async def test_the_journal_does_not_grow_for_ever(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqttjobs.agent.ledger.LINES_KEPT", 50)
    for _ in range(60):
        await station.assign()
        station.desk.going[0].complete()
        await station.advance(300)
    journal = (station.settings.state_dir / "agent.journal").read_bytes()
    assert journal.count(b"\n") < 250


async def test_a_state_directory_has_one_agent(tmp_path: Path, station: Station) -> None:
    with pytest.raises(StoreRefused, match="another agent"):
        Ledger(station.settings.state_dir).open(station.clock.now())
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreRefused, match="cannot be used"):
        Ledger(tmp_path / "file").open(station.clock.now())


def test_nobody_is_ended_for_no_job() -> None:
    assert end_orphans([]) == 0
    assert end_orphans(["0193aaaa-0000-7000-8000-00000000dead"]) == 0
