"""What a report does: values, changes and the jobs they cause (behaviour 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mqttjobs.domain.protocol import iso
from tests.service.harness import ServiceHarness, a_link, an_object, an_operation

Build = Callable[..., ServiceHarness]

EVERY = [{}]
SAYS = "{{ previous_state }}>{{ state }}"


def echo(attach: Any = "lamp", **keys: Any) -> dict[str, Any]:
    """Return an operation that tells every change: the previous state and the new one."""
    return an_operation(attach, **{"message": SAYS, "triggers": EVERY, **keys})


def a_lamp(**state: Any) -> dict[str, Any]:
    return {"objects": {"lamp": an_object("home/lamp", state=state)}, "operations": {"echo": echo()}}


async def test_the_first_live_report_is_a_change_from_null(build: Build) -> None:
    harness = await build(**a_lamp()).start()
    await harness.report("home/lamp", "on")
    [job] = await harness.jobs()
    assert job.process_meta is not None
    assert (job.process_meta["previous_state"], job.process_meta["state"]) == (None, "on")
    assert harness.texts("out/lamp") == ["null>on"]


async def test_a_repeated_value_is_no_change_and_moves_only_the_time_it_was_heard(build: Build) -> None:
    harness = await build(**a_lamp()).start()
    await harness.report("home/lamp", "on")
    changed_at = harness.clock.now()
    await harness.advance(100)
    await harness.report("home/lamp", "on")
    await harness.advance(40)
    [value] = (await harness.store.load()).values
    assert value.since_at == changed_at
    assert value.heard_at is not None
    assert (value.heard_at - changed_at).total_seconds() == 100
    assert harness.texts("out/lamp") == ["null>on"]
    counters = await harness.counters()
    assert (counters["received"], counters["changed"], counters["unchanged"], counters["jobs"]) == (2, 1, 1, 1)


async def test_hearing_a_value_again_and_again_writes_at_most_every_ten_seconds(build: Build) -> None:
    harness = await build(**a_lamp()).start()
    await harness.report("home/lamp", "on")
    written: list[Any] = []
    record = harness.store.record

    async def noted(changes: Any) -> None:
        written.extend([changes] if changes.heard or changes.values else [])
        await record(changes)

    harness.store.record = noted  # type: ignore[method-assign]
    for _ in range(600):
        await harness.report("home/lamp", "on")
        await harness.advance(0.1)
    assert 1 <= len(written) <= 6


async def test_an_event_value_changes_at_every_live_report_and_at_no_retained_one(build: Build) -> None:
    harness = build(**a_lamp(event=True))
    harness.send("home/lamp", "press", retain=True)
    await harness.start()
    assert await harness.jobs() == []
    for _ in range(3):
        await harness.report("home/lamp", "press")
    assert harness.texts("out/lamp") == ["null>press", "press>press", "press>press"]
    await harness.disconnect()
    await harness.advance(2)
    assert len(await harness.jobs()) == 3
    counters = await harness.counters()
    assert (counters["changed"], counters["retained_skipped"]) == (3, 2)


async def test_a_first_retained_report_sets_the_value_and_fires_nothing(build: Build) -> None:
    harness = build(**a_lamp())
    harness.send("home/lamp", "on", retain=True)
    await harness.start()
    assert await harness.jobs() == []
    assert (await harness.data("objects/get", id="lamp"))["state"] == "on"
    await harness.report("home/lamp", "off")
    assert harness.texts("out/lamp") == ["on>off"]


async def test_a_retained_report_that_differs_is_a_change_that_happened_while_away(build: Build) -> None:
    harness = await build(**a_lamp()).start()
    await harness.report("home/lamp", "on", retain=True)
    await harness.stop()
    harness.broker.forget("mqttjobs")
    harness.send("home/lamp", "off", retain=True)
    await harness.start()
    assert harness.texts("out/lamp") == ["null>on", "on>off"]
    assert len(await harness.jobs()) == 2


async def test_a_retained_report_is_dropped_once_the_value_was_heard_live_in_this_connection(build: Build) -> None:
    harness = await build(**a_lamp()).start()
    await harness.report("home/lamp", "old", retain=True)
    await harness.crash()
    harness.send("home/lamp", "new")
    await harness.start()
    assert harness.texts("out/lamp") == ["null>old", "old>new"]
    assert (await harness.counters())["retained_skipped"] == 1


@pytest.mark.parametrize("times", [1, 3])
async def test_a_retained_report_that_is_equal_is_nothing_at_every_connect(build: Build, times: int) -> None:
    harness = await build(**a_lamp()).start()
    await harness.report("home/lamp", "on", retain=True)
    for _ in range(times):
        await harness.disconnect()
        await harness.advance(2)
    assert len(await harness.jobs()) == 1
    assert (await harness.counters())["unchanged"] == times


async def test_fire_treats_a_retained_report_like_a_live_one(build: Build) -> None:
    harness = build(**a_lamp(retained="fire"))
    harness.send("home/lamp", "on", retain=True)
    await harness.start()
    assert harness.texts("out/lamp") == ["null>on"]


async def test_ignore_drops_every_retained_report(build: Build) -> None:
    harness = build(**a_lamp(retained="ignore"))
    harness.send("home/lamp", "on", retain=True)
    await harness.start()
    assert (await harness.data("objects/get", id="lamp"))["state"] is None
    await harness.report("home/lamp", "on")
    assert harness.texts("out/lamp") == ["null>on"]


async def test_a_silent_retained_report_arms_a_hold(build: Build) -> None:
    triggers = [{"states": ["on"], "duration": "5m"}]
    harness = build(objects={"lamp": an_object("home/lamp")}, operations={"off": echo(triggers=triggers)})
    harness.send("home/lamp", "on", retain=True)
    await harness.start()
    await harness.advance(290)
    assert await harness.jobs() == []
    await harness.advance(10)
    assert len(await harness.jobs()) == 1


@pytest.mark.parametrize("word", ["unavailable", "unknown", '{"state": ""}'])
async def test_an_ignored_state_neither_changes_the_value_nor_breaks_a_hold(build: Build, word: str) -> None:
    triggers = [{"states": ["on"], "duration": "5m"}, {"states": ["on"]}]
    harness = await build(objects={"lamp": an_object("home/lamp")}, operations={"off": echo(triggers=triggers)}).start()
    await harness.report("home/lamp", "on")
    await harness.advance(200)
    await harness.report("home/lamp", word)
    await harness.report("home/lamp", "on")
    await harness.advance(99)
    assert len(await harness.jobs()) == 1
    await harness.advance(1.5)
    assert len(await harness.jobs()) == 2
    counters = await harness.counters()
    assert (counters["ignored"], counters["unchanged"]) == (1, 1)


async def test_ignore_is_tested_before_and_after_map(build: Build) -> None:
    harness = await build(**a_lamp(map={"7": "nothing", "raw": "fine"}, ignore=["nothing", "raw"])).start()
    for word in ("7", "raw", "nothing"):
        await harness.report("home/lamp", word)
    assert await harness.jobs() == []
    assert (await harness.counters())["ignored"] == 3


async def test_an_event_id_counts_once_within_a_day(build: Build) -> None:
    harness = await build(objects={"lamp": an_object(state={"event": True})}, operations={"echo": echo()}).start()
    press = {"state": "press", "event_id": "e1"}
    await harness.report("mqttjobs/state/objects/lamp", press)
    await harness.report("mqttjobs/state/objects/lamp", press)
    await harness.restart()
    await harness.report("mqttjobs/state/objects/lamp", press)
    assert len(await harness.jobs()) == 1
    assert (await harness.counters())["duplicate"] == 1
    await harness.advance(24 * 3600)
    await harness.report("mqttjobs/state/objects/lamp", press)
    assert len(await harness.jobs()) == 2


async def test_event_ids_of_two_entities_have_nothing_to_do_with_each_other(build: Build) -> None:
    objects = {name: an_object(state={"event": True}) for name in ("lamp", "door")}
    harness = await build(objects=objects, operations={"echo": echo([{"object": "lamp"}, {"object": "door"}])}).start()
    for name in objects:
        await harness.report(f"mqttjobs/state/objects/{name}", {"state": "press", "event_id": "e1"})
    assert len(await harness.jobs()) == 2


LAMP_REPORTS = "mqttjobs/state/objects/lamp"
SENT_MS, SENT_AT = 1_772_366_400_007, "2026-03-01T12:00:00.007Z"


async def reported_ats(harness: ServiceHarness, **owner: str) -> list[tuple[str, str | None]]:
    """Return the history of a state, oldest first: each state, and when its sender says that it began."""
    page = await harness.data("states/history", **owner)
    return [(entry["state"], entry["reported_at"]) for entry in page["items"][::-1]]


async def metas(harness: ServiceHarness) -> list[tuple[str, str | None, str]]:
    """Return of each job, oldest first, the state, when it was reported to have begun, and when it was received."""
    jobs = [await harness.data("jobs/get", id=job.uid) for job in await harness.jobs()]
    return [tuple(job["process_meta"][name] for name in ("state", "reported_at", "received_at")) for job in jobs]


async def test_the_timestamp_of_a_report_is_shown_with_the_change_that_it_made(build: Build) -> None:
    objects = {"lamp": an_object(), "door": an_object("home/door")}
    attach = [{"object": "lamp"}, {"object": "door"}]
    harness = await build(objects=objects, operations={"echo": echo(attach)}).start()
    received = iso(harness.clock.now())
    await harness.report(LAMP_REPORTS, {"state": "on", "timestamp": SENT_MS})
    await harness.report(LAMP_REPORTS, {"state": "off", "timestamp": None})
    await harness.report(LAMP_REPORTS, "on")
    await harness.report("home/door", {"state": "open", "timestamp": SENT_MS})
    await harness.data("states/set", object="lamp", state="blink")
    await harness.restart()
    assert await reported_ats(harness, object="lamp") == [("on", SENT_AT), ("off", None), ("on", None), ("blink", None)]
    assert await reported_ats(harness, object="door") == [("open", None)]
    assert await metas(harness) == [
        ("on", SENT_AT, received),
        ("off", None, received),
        ("on", None, received),
        ("open", None, received),
        ("blink", None, received),
    ]


async def test_a_repeated_report_leaves_the_time_of_the_change_as_it_was(build: Build) -> None:
    harness = await build(objects={"lamp": an_object()}, operations={"echo": echo()}).start()
    await harness.report(LAMP_REPORTS, {"state": "on", "timestamp": SENT_MS})
    await harness.report(LAMP_REPORTS, {"state": "on", "timestamp": SENT_MS + 5000})
    await harness.advance(20)
    assert await reported_ats(harness, object="lamp") == [("on", SENT_AT)]
    [value] = (await harness.store.load()).values
    assert value.reported_at is not None
    assert iso(value.reported_at) == SENT_AT


async def test_reports_count_in_the_order_of_receipt_whatever_times_they_give(build: Build) -> None:
    harness = await build(objects={"lamp": an_object()}, operations={"echo": echo()}).start()
    since = harness.clock.now()
    for text, seconds in (("on", 9_000), ("off", -9_000), ("on", 0)):
        await harness.report(LAMP_REPORTS, {"state": text, "timestamp": SENT_MS + seconds * 1000})
    assert harness.texts("out/lamp") == ["null>on", "on>off", "off>on"]
    assert [each[1] for each in await metas(harness)] == [
        "2026-03-01T14:30:00.007Z",
        "2026-03-01T09:30:00.007Z",
        SENT_AT,
    ]
    lamp = await harness.data("objects/get", id="lamp")
    assert (lamp["state"], lamp["state_since"]) == ("on", iso(since))
    assert (await harness.data("states/history", object="lamp", until=since.isoformat()))["items"] == []


async def test_a_retained_report_keeps_its_time_too(build: Build) -> None:
    harness = build(objects={"lamp": an_object()}, operations={"echo": echo()})
    harness.send(LAMP_REPORTS, {"state": "on", "timestamp": SENT_MS}, retain=True)
    await harness.start()
    assert await harness.jobs() == []
    await harness.crash()
    harness.send(LAMP_REPORTS, {"state": "off", "timestamp": SENT_MS + 1}, retain=True)
    await harness.start()
    later = SENT_AT.replace("007Z", "008Z")
    assert await reported_ats(harness, object="lamp") == [("on", SENT_AT), ("off", later)]
    assert [each[:2] for each in await metas(harness)] == [("off", later)]


async def test_a_link_has_the_time_of_the_report_that_it_follows_or_of_its_own(build: Build) -> None:
    objects, links = {"lamp": an_object(), "hall": an_object()}, {"light": a_link("lamp", "hall")}
    links["own"] = a_link("lamp", "hall", state={})
    operations = {"echo": echo([{"link": "light"}, {"link": "own"}])}
    harness = await build(objects=objects, links=links, operations=operations).start()
    await harness.report(LAMP_REPORTS, {"state": "on", "timestamp": SENT_MS})
    await harness.report("mqttjobs/state/links/own", {"state": "busy", "timestamp": SENT_MS + 1})
    assert await reported_ats(harness, link="light") == [("on", SENT_AT)]
    assert [each[:2] for each in await metas(harness)] == [("on", SENT_AT), ("busy", SENT_AT.replace("007Z", "008Z"))]


@pytest.mark.parametrize("timestamp", ["1772366400007", 1.5, True, 10**18, -(10**18), {}])
async def test_a_report_whose_timestamp_is_no_time_is_refused(build: Build, timestamp: Any) -> None:
    harness = await build(objects={"lamp": an_object()}, operations={"echo": echo()}).start()
    await harness.report(LAMP_REPORTS, {"state": "on", "timestamp": timestamp})
    assert await harness.jobs() == []
    assert (await harness.counters())["invalid"] == 1
    [rejected] = harness.documents("mqttjobs/event/rejected")
    assert rejected["reason"] == "invalid_report"
    assert rejected["details"] == "timestamp must be milliseconds since 1970"


async def test_each_trigger_that_matches_one_change_makes_exactly_one_job(build: Build) -> None:
    operations = {
        "any": echo(triggers=EVERY),
        "on": echo(triggers=[{"states": ["on"]}, {"states": ["on", "off"]}]),
        "off": echo(triggers=[{"states": ["off"]}]),
    }
    harness = await build(objects={"lamp": an_object("home/lamp")}, operations=operations).start()
    await harness.report("home/lamp", "on")
    assert [job.operation_id for job in await harness.jobs()] == ["any", "on", "on"]
    counters = await harness.counters()
    assert (counters["changed"], counters["fired"], counters["jobs"]) == (1, 3, 3)


async def test_links_change_with_their_source_or_target_and_report_in_their_own_name(build: Build) -> None:
    objects = {"motion": an_object("home/motion"), "light": an_object("home/light")}
    links = {
        "by_source": a_link("motion", "light"),
        "by_target": a_link("motion", "light", state="target"),
        "own": a_link("motion", "light", state={"topic": "home/own"}),
    }
    message = "{{ source.id }}={{ source.state }} {{ target.id }}={{ target.state }} {{ state }}"
    operations = {"tell": an_operation([{"link": name} for name in links], message=message, triggers=EVERY)}
    harness = await build(objects=objects, links=links, operations=operations).start()
    await harness.report("home/motion", "occupied")
    await harness.report("home/light", "on")
    await harness.report("home/own", "mine")
    assert [(job.owner.id if job.owner else None) for job in await harness.jobs()] == ["by_source", "by_target", "own"]
    assert harness.texts("out/by_source") == ["motion=occupied light=null occupied"]
    assert harness.texts("out/by_target") == ["motion=occupied light=on on"]
    assert harness.texts("out/own") == ["motion=occupied light=on mine"]


async def test_one_report_changes_several_values_of_several_objects_together(build: Build) -> None:
    objects = {
        "one": an_object("plant/all", state={"value": "a.speed"}, attributes={"heat": {"value": "a.heat"}}),
        "two": an_object("plant/all", state={"value": "b.0"}),
        "three": an_object("plant/all", state={"value": "c"}),
    }
    attach = [{"object": name} for name in objects]
    triggers = [{}, {"attribute": "heat"}]
    harness = await build(objects=objects, operations={"echo": echo(attach, triggers=triggers[:1])}).start()
    harness.configure(
        objects=objects, operations={"echo": echo(attach), "hot": echo("one", triggers=[{"attribute": "heat"}])}
    )
    await harness.reload()
    written: list[Any] = []
    record = harness.store.record

    async def noted(changes: Any) -> None:
        written.extend([changes] if changes.values else [])
        await record(changes)

    harness.store.record = noted  # type: ignore[method-assign]
    await harness.report("plant/all", {"a": {"speed": 5, "heat": True}, "b": ["x"]})
    assert [(job.operation_id, job.owner and job.owner.id) for job in await harness.jobs()] == [
        ("echo", "one"),
        ("hot", "one"),
        ("echo", "two"),
    ]
    [changes] = written
    assert {(value.key.id, value.key.name, value.text) for value in changes.values.values()} == {
        ("one", "", "5"),
        ("one", "heat", "true"),
        ("two", "", "x"),
    }
    assert len(changes.jobs) == 3
    counters = await harness.counters()
    assert (counters["received"], counters["changed"]) == (1, 1)


async def test_each_value_obeys_the_rules_alone(build: Build) -> None:
    lamp = an_object(
        "home/lamp", attributes={"level": {"value": "level"}, "action": {"value": "action", "event": True}}
    )
    operations = {
        "state": echo(),
        "level": echo(message="level {{ attributes.level }}", triggers=[{"attribute": "level"}]),
        "action": echo(message="action {{ attributes.action }}", triggers=[{"attribute": "action"}]),
    }
    harness = await build(objects={"lamp": lamp}, operations=operations).start()
    await harness.report("home/lamp", {"state": "on", "level": 5})
    await harness.report("home/lamp", {"state": "on", "level": 6})
    await harness.report("home/lamp", {"state": "off", "level": 6, "action": "up"})
    await harness.report("home/lamp", {"action": "up"})
    assert harness.texts("out/lamp") == [
        "null>on", "level 5", "level 6", "on>off", "action up", "action up",
    ]  # fmt: skip
    assert (await harness.counters())["changed"] == 4


async def test_a_report_that_concerns_no_value_is_counted_as_ignored(build: Build) -> None:
    harness = await build(**a_lamp(value="state")).start()
    for payload in ({"other": 1}, {"state": None}, {"state": {"deep": 1}}, "bare text", b""):
        await harness.report("home/lamp", payload)
    assert await harness.jobs() == []
    assert (await harness.counters())["ignored"] == 5


async def test_filters_of_an_earlier_configuration_are_unsubscribed(build: Build) -> None:
    harness = await build(**a_lamp()).start()
    await harness.stop()
    harness.configure(objects={"lamp": an_object("home/other")}, operations={"echo": echo()})
    await harness.start()
    await harness.report("home/lamp", "on")
    assert (await harness.counters())["received"] == 0
    await harness.report("home/other", "on")
    assert (await harness.counters())["changed"] == 1


async def test_overlapping_topics_deliver_each_message_once(build: Build) -> None:
    objects = {"wide": an_object("plant/a/b"), "narrow": an_object("mqttjobs/state/objects/narrow")}
    harness = await build(
        classes={"belt": {"ids": ["a", "b"], "state": {"topic": "plant/{{ id }}/b", "event": True}}},
        objects=objects,
        operations={"echo": echo([{"class": "belt"}, {"object": "wide"}, {"object": "narrow"}])},
    ).start()
    await harness.report("plant/a/b", "x")
    await harness.report("mqttjobs/state/objects/narrow", "y")
    assert sorted((job.owner.id if job.owner else "") for job in await harness.jobs()) == ["a", "narrow", "wide"]
    assert (await harness.counters())["received"] == 2


async def test_a_refused_subscription_degrades_health_and_is_named(build: Build) -> None:
    harness = build(**a_lamp())
    harness.broker.refuse("home/#")
    await harness.start()
    health = await harness.data("service/health")
    assert health["status"] == "degraded"
    assert any("home/lamp" in reason and "0x87" in reason for reason in health["reasons"])
    harness.broker.refuse()
    await harness.disconnect()
    await harness.advance(2)
    assert (await harness.data("service/health"))["status"] == "ok"
