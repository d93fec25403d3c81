"""`mqttjobs test` and `mqttjobs operations explain`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.brokers import MosquittoBroker
from tests.running import StartService, mqttjobs

CONFIG = """\
objects:
  motion:
    state: {topic: z/motion, value: occupancy, map: {"true": occupied, "false": clear}}
    attributes: {battery: {}}
  lamp: {state: {topic: z/lamp}}
links:
  both: {source: motion, target: lamp}
operations:
  hello: {attach: {object: lamp}, type: mqtt, topic: out/hello, triggers: [{at: start}]}
  off:
    attach: {link: both}
    type: mqtt
    topic: z/lamp/set
    message: {state: "OFF"}
    triggers: [{states: [clear], for: 5m}]
    conditions: {entity: target, states: [on]}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "mqttjobs.yaml"
    file.write_text(CONFIG)
    return str(file)


def test_reports_messages_and_time_are_simulated_in_the_order_given(config: str) -> None:
    run = mqttjobs(
        "test", config, "--report", "lamp=off", "--topic", "z/motion",
        "--payload", '{"occupancy": false, "battery": 9}', "--after", "4m",
        "--report=lamp=on", "--after=90s", "--report", "motion.battery=8",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if line.startswith(">")]
    assert lines == [
        "> lamp is reported as off",
        '> z/motion {"occupancy": false, "battery": 9}',
        "> after 240 s",
        "> lamp is reported as on",
        "> after 90 s",
        "> motion.battery is reported as 8",
    ]
    assert "hello for lamp runs, trigger 1: mqtt topic out/hello" in run.stdout.split(">")[0]
    assert "motion: nothing known -> clear" in run.stdout
    assert "off for both waits until" in run.stdout
    assert 'off for both runs, trigger 1: mqtt topic z/lamp/set, message {"state":"OFF"}' in run.stdout
    assert run.stdout.count(" runs, ") == 2


def test_a_simulation_shows_a_retained_message_and_why_a_match_is_skipped(config: str) -> None:
    run = mqttjobs(
        "test", config, "--topic", "z/motion", "--payload", '{"occupancy":false}', "--retained", "--after", "6m"
    )
    assert "(retained)" in run.stdout
    assert "off for both does not run: condition, target must be on, and is not known" in run.stdout


def test_a_simulation_prints_json_and_writes_no_file(config: str) -> None:
    run = mqttjobs("test", config, "--report", "motion=clear", "--json")
    assert [each["seen"][0]["result"] for each in json.loads(run.stdout)] == [None, "changed"]
    assert [each.name for each in Path(config).parent.iterdir()] == ["mqttjobs.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give at least one --report, --topic or --after"),
        (["--report", "nobody=on"], "there is no object or link 'nobody'"),
        (["--after", "soon"], "a duration is a number of seconds"),
        (["--payload", "x"], "--payload belongs to a --topic"),
        (["--report", "lamp=on", "--retained"], "--retained belongs to a --topic"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(config: str, arguments: list[str], message: str) -> None:
    run = mqttjobs("test", config, *arguments)
    assert run.returncode == 2
    assert message in " ".join(run.stderr.replace("│", " ").split())


def test_a_bad_configuration_is_reported_as_check_does(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("objects: {lamp: {stat: {}}}\n")
    run = mqttjobs("test", str(file), "--report", "lamp=on")
    assert run.returncode == 2
    assert f"{file}:1: objects.lamp.stat: unknown key" in run.stderr


@pytest.mark.mosquitto
def test_explain_prints_sentences(mosquitto: MosquittoBroker, start_service: StartService) -> None:
    text = f"mqtt: {{url: 'mqtt://127.0.0.1:{mosquitto.port}'}}\n{CONFIG}"
    service = start_service(mosquitto.port, text)
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    with service.client() as client:
        client.subscribe("out/#")
        client.wait_topic("out/hello")
        client.publish("z/motion", {"occupancy": False, "battery": 9})
        client.ask("service/info")
        run = mqttjobs("operations", "explain", "off", "--url", url)
        assert run.returncode == 0, run.stderr
        lines = run.stdout.splitlines()
        assert lines[0] == "off for both: off"
        assert lines[1] == "It runs by itself only if target must be on, and is not known: which is not so."
        assert lines[3] == "Trigger 1 watches the state of both, and runs when it becomes clear and stays so for 5m."
        assert lines[4].startswith("  Now it is clear since ")
        assert lines[4].endswith(", as the trigger wants it.")
        assert lines[5].startswith("  It waits for this: that it stays clear, until ")
        assert lines[6] == "  It has not fired lately."
        assert lines[8] == "No match was skipped since the service started."
        hello = mqttjobs("operations", "explain", "hello", "--url", url)
        assert "Trigger 1 runs when the service starts." in hello.stdout
        assert "  It last fired at " in hello.stdout
        machine = json.loads(mqttjobs("operations", "explain", "off", "--url", url, "--json").stdout)
        assert machine["triggers"][0]["satisfied"] is True
        assert mqttjobs("operations", "explain", "nothing", "--url", url).returncode == 1
