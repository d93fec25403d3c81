"""A plugin is one file: dropped into the folder of its family it works through `check` and in a running service."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from mqttjobs.cli.access import Access
from mqttjobs.cli.app import app as program
from mqttjobs.cli.client import Client, Refused, connected
from mqttjobs.config import load
from mqttjobs.config.schema import configuration_schema
from mqttjobs.config.yaml12 import read
from mqttjobs.service import app
from mqttjobs.transport.base import ConnectOptions, Publication, Session, Subscription, create_transport
from tests.plugins.conftest import Drop
from tests.plugins.examples import BLOCKS, FOLDERS, GROUPS, source

WAIT_S = 20.0
BASE: dict[str, Any] = {
    "mqtt": {"url": "memory://hub"},
    "store": {"url": "memory:"},
    "service": {"hostname": "hub"},
    "objects": {"lamp": {"state": {"topic": "home/lamp"}}},
    "operations": {
        "follow": {
            "attach": {"object": "lamp"},
            "type": "mqtt",
            "topic": "out/{{ id }}",
            "message": "{{ state }}",
            "triggers": [{}],
        }
    },
}


def drop_example(drop: Drop, module: str) -> None:
    drop(FOLDERS[GROUPS[module]], module.removeprefix("mqttjobs_"), source(module))


def write(folder: Path, **sections: Any) -> Path:
    """Write a configuration: one operation that publishes what `lamp` reports; sections replace those of BASE."""
    file = folder / "home.yaml"
    file.write_text(json.dumps({**BASE, **sections}))
    return file


def check(file: Path) -> tuple[int, str]:
    """Return the exit code of `mqttjobs check`, and all that it prints."""
    result = CliRunner().invoke(program, ["check", str(file)])
    return result.exit_code, result.output


def wrong(file: Path) -> str:
    """Return what `check` prints of a bad configuration."""
    code, printed = check(file)
    assert code == 2, printed
    return printed


class Watcher:
    """A client that reports for `lamp` and sees what the jobs do."""

    def __init__(self, session: Session, client: Client) -> None:
        self._session = session
        self.client = client

    async def until(self, topic: str) -> bytes:
        """Wait for a message on a topic."""
        while True:
            for message in await self._session.receive(1):
                self._session.acknowledge([message])
                if message.topic == topic:
                    return message.payload

    async def report(self, state: str) -> dict[str, Any]:
        """Report a state of the lamp and return the document of the job that completes."""
        await self._session.publish(Publication("home/lamp", state.encode(), 1))
        event = json.loads(await self.until("mqttjobs/event/job/completed/follow/lamp"))
        job = await self.client.ask("jobs/get", {"id": event["id"]})
        assert isinstance(job, dict)
        return job


@asynccontextmanager
async def running(file: Path, broker: str = "memory://hub") -> AsyncIterator[Watcher]:
    """Run the service on a configuration, as `mqttjobs run` does, and stop it cleanly."""
    stop = asyncio.Event()
    transport = create_transport(ConnectOptions(url=broker, client_id="watcher", clean=True))
    async with asyncio.timeout(WAIT_S), connected(Access(url=broker)) as client, transport.connect() as session:
        await session.subscribe([Subscription("mqttjobs/status"), Subscription("mqttjobs/event/job/#")])
        service = asyncio.create_task(app.serve(load(file), lambda: load(file), stop=stop, reload=asyncio.Event()))
        watcher = Watcher(session, client)
        try:
            while await watcher.until("mqttjobs/status") != b"online":
                assert not service.done(), service
            yield watcher
        finally:
            stop.set()
            await service


async def test_an_operation_type_is_one_file(drop: Drop, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as machine:
        machine.bind(("127.0.0.1", 0))
        machine.settimeout(WAIT_S)
        wake = BASE["operations"]["follow"] | {"type": "wake", "mac": "{{ properties.mac }}", "broadcast": "127.0.0.1"}
        del wake["topic"], wake["message"]
        operations = {"follow": wake | {"port": machine.getsockname()[1]}}
        objects = {"lamp": {**BASE["objects"]["lamp"], "properties": {"mac": "00:11:22:aa:bb:cc"}}}
        file = write(tmp_path, objects=objects, operations=operations)
        assert "operations.follow.type: must be one of mqtt, program, script" in wrong(file)
        drop_example(drop, "mqttjobs_wake")
        assert check(file)[0] == 0
        async with running(file) as watcher:
            job = await watcher.report("on")
            assert (job["result"], job["changed"]) == ({"bytes": 102}, True)
            assert job["description"] == {"mac": "00:11:22:aa:bb:cc"}
        assert len(machine.recv(200)) == 102
    typo = write(tmp_path, objects=objects, operations={"follow": {**operations["follow"], "brodcast": "127.0.0.1"}})
    assert "operations.follow.brodcast: unknown key; did you mean 'broadcast'?" in wrong(typo)
    typo = write(tmp_path, objects=objects, operations={"follow": {**operations["follow"], "mac": "00:11"}})
    assert "operations.follow.mac: must be like 00:11:22:aa:bb:cc, or a template" in wrong(typo)


@pytest.mark.parametrize("inner", ["memory:", "sqlite:///jobs.db"])
async def test_a_store_is_one_file(drop: Drop, tmp_path: Path, inner: str) -> None:
    file = write(tmp_path, store={"url": f"audit:audit.log,{inner}"})
    assert "store.url: must be like sqlite:///mqttjobs.db; the known schemes are memory, sqlite" in wrong(file)
    drop_example(drop, "mqttjobs_audit")
    assert check(file)[0] == 0
    assert not (tmp_path / "audit.log").exists()
    async with running(file) as watcher:
        job = await watcher.report("on")
        assert (job["status"], job["description"]["message"]) == ("completed", "on")
    line = (tmp_path / "audit.log").read_text()
    assert line.split()[1:] == [str(job["uid"]), "follow", "system"]
    assert (tmp_path / "jobs.db").exists() is inner.startswith("sqlite")
    for url in ("audit:", "audit:audit.log"):
        assert "store.url: must be like audit:audit.log,sqlite:///mqttjobs.db" in wrong(
            write(tmp_path, store={"url": url})
        )
    typo = write(tmp_path, store={"url": "audit:audit.log,sqlit:///jobs.db"})
    assert "store.url: must be like sqlite:///mqttjobs.db; the known schemes are audit, memory, sqlite" in wrong(typo)


async def test_what_a_store_of_ones_own_records_is_there_after_a_restart(drop: Drop, tmp_path: Path) -> None:
    drop_example(drop, "mqttjobs_audit")
    file = write(tmp_path, store={"url": "audit:audit.log,sqlite:///jobs.db"})
    async with running(file) as watcher:
        uid = (await watcher.report("on"))["uid"]
    async with running(file) as watcher:
        assert (await watcher.report("off"))["uid"] == uid + 1
        listed = await watcher.client.ask("jobs/list", {})
        assert [job["uid"] for job in listed["items"]] == [uid + 1, uid]
    assert len((tmp_path / "audit.log").read_text().splitlines()) == 2


async def test_a_transport_is_one_file(drop: Drop, tmp_path: Path) -> None:
    file = write(tmp_path, mqtt={"url": "failover:memory://first,memory://second"})
    schemes = "memory, mqtt, mqtts, ws, wss"
    assert f"mqtt.url: must be like mqtt://host:1883; the known schemes are {schemes}" in wrong(file)
    drop_example(drop, "mqttjobs_failover")
    assert check(file)[0] == 0
    async with running(file, "memory://first") as watcher:
        assert (await watcher.report("on"))["status"] == "completed"
    typo = write(tmp_path, mqtt={"url": "failover:memory://first,mqtt://"})
    assert "mqtt.url: must be like mqtt://host:1883" in wrong(typo)


def test_a_transport_is_given_no_option_that_it_does_not_take(drop: Drop, tmp_path: Path) -> None:
    url = "failover:mqtt://one.example"
    file = write(tmp_path, mqtt={"url": url, "username": "ada", "protocol": "5", "tls": {"insecure": True}})
    drop(
        FOLDERS["mqttjobs.transport"],
        "failover",
        source("mqttjobs_failover").replace('"session_expiry", "tls"', '"session_expiry"'),
    )
    assert wrong(file).strip() == f"{file}:1: mqtt.tls: has no use with failover: URLs; leave it out"


async def test_a_request_method_is_one_file(drop: Drop, tmp_path: Path) -> None:
    drop_example(drop, "mqttjobs_last")
    file = write(tmp_path)
    assert check(file)[0] == 0
    async with running(file) as watcher:
        with pytest.raises(Refused) as nothing:
            await watcher.client.ask("operations/last", {"id": "follow"})
        assert nothing.value.body["reason"] == "not_found"
        job = await watcher.report("on")
        found = await watcher.client.ask("operations/last", {"id": "follow"})
        assert found == {"uid": job["uid"], "status": "completed"}
        assert "operations/last" in (await watcher.client.ask("service/info", {}))["methods"]


async def test_a_condition_is_one_file(drop: Drop, tmp_path: Path) -> None:
    follow = BASE["operations"]["follow"]
    always = {"follow": {**follow, "conditions": {"months": list(range(1, 13))}}}
    file = write(tmp_path, operations=always)
    assert "operations.follow.conditions.months: unknown key" in wrong(file)
    drop_example(drop, "mqttjobs_months")
    assert check(file)[0] == 0
    async with running(file) as watcher:
        assert (await watcher.report("on"))["status"] == "completed"
    typo = write(tmp_path, operations={"follow": {**follow, "conditions": {"months": [13]}}})
    assert "operations.follow.conditions.months.0: must be at most 12" in wrong(typo)


async def test_a_trigger_key_is_one_file(drop: Drop, tmp_path: Path) -> None:
    follow = BASE["operations"]["follow"]

    def written(**trigger: Any) -> Path:
        return write(tmp_path, operations={"follow": {**follow, "triggers": [trigger]}})

    assert "operations.follow.triggers.0.every: unknown key" in wrong(written(every=3))
    drop_example(drop, "mqttjobs_every")
    assert "operations.follow.triggers.0.evry: unknown key; did you mean 'every'?" in wrong(written(evry=3))
    assert "operations.follow.triggers.0.every: must be at least 2" in wrong(written(every=1))
    message = "every is about state changes and cannot stand beside silence; use conditions"
    assert message in wrong(written(every=3, silence="1h"))
    file = written(every=3)
    assert check(file)[0] == 0
    async with running(file) as watcher:
        for state in ("on", "off"):
            await watcher.client.ask("states/set", {"object": "lamp", "state": state})
        [explained] = (await watcher.client.ask("operations/explain", {"id": "follow"}))["triggers"]
        assert explained["told"] == "watches the state of lamp, and runs when it changes, at each 3. time"
        assert explained["waiting_for"] == "change 3 of 3"
        job = await watcher.report("on")
        assert job["status"] == "completed"
        assert (await watcher.client.ask("jobs/list", {}))["total_items"] == 1


@pytest.mark.parametrize("name", [name for name in BLOCKS if name.endswith(".yaml")])
def test_every_configuration_of_the_examples_is_good(drop: Drop, tmp_path: Path, name: str) -> None:
    for module in GROUPS:
        drop_example(drop, module)
    file = tmp_path / name
    file.write_text(BLOCKS[name])
    assert check(file)[0] == 0, check(file)[1]
    Draft202012Validator(configuration_schema()).validate(read(file).content)


def test_the_schema_for_editors_has_the_keys_of_a_type_and_of_a_condition(drop: Drop) -> None:
    validator = Draft202012Validator(configuration_schema())
    wake = {"operations": {"op": {"type": "wake", "mac": "00:11:22:aa:bb:cc", "conditions": {"months": [5]}}}}
    assert not validator.is_valid(wake)
    drop_example(drop, "mqttjobs_wake")
    drop_example(drop, "mqttjobs_months")
    validator = Draft202012Validator(configuration_schema())
    assert validator.is_valid(wake)
    assert not validator.is_valid({"operations": {"op": {**wake["operations"]["op"], "port": 70_000}}})
