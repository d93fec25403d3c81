"""A random walk through everything that can happen to the service, against an oracle that knows only the promises.

The oracle keeps the changes that the broker accepted from their publishers, in order. Whatever the walk does, the
history is a beginning of them, and each entry of it has exactly its jobs; once all is calm again, it is all of them.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mqttjobs.domain.jobs import Job
from mqttjobs.domain.model import ValueKey
from tests.service.hand_clock import HandLoop
from tests.service.harness import Question, ServiceHarness, a_link, an_object, an_operation
from tests.service.oracle import DOOR, HATCH, PRESS, WAY, Expected, Oracle, spans

HOLD = timedelta(seconds=60)
AGAIN = timedelta(seconds=45)
STATES = ("open", "ajar", "shut")
SLACK = timedelta(seconds=35)
"""So long after a start or a reconnect deadlines may wait for quiet (behaviour 2)."""
WRITING = timedelta(seconds=5)
"""So long writing may take with a slow store."""
CALM_S = 40.0

TELLS = "{{ payload.n }} {{ job.id }}"

CONFIG: dict[str, Any] = {
    "service": {"timeout": "1d"},
    "objects": {
        "door": an_object("home/door", attributes={"press": {"value": "press", "event": True}}),
        "hatch": an_object(state={"retained": "init"}),
    },
    "links": {"way": a_link("hatch", "door")},
    "operations": {
        "every": an_operation([{"object": "door"}, {"link": "way"}], message=TELLS, triggers=[{}]),
        "by_hand": an_operation(),
        "open": an_operation("door", message=TELLS, triggers=[{"states": ["open"]}]),
        "press": an_operation("door", message=TELLS, triggers=[{"attribute": "press"}]),
        "held": an_operation(
            [{"object": "door"}, {"link": "way"}],
            message=TELLS,
            triggers=[{"states": ["open", "ajar"], "duration": HOLD.seconds}],
        ),
        "nag": an_operation(
            "door",
            message=TELLS,
            triggers=[{"states": ["open"], "duration": HOLD.seconds, "periodicity": AGAIN.seconds}],
        ),
    },
}
MORE = CONFIG | {"operations": {**CONFIG["operations"], "unused": an_operation("hatch")}}

AT_ONCE = {DOOR: ("every", "open"), PRESS: ("press",), HATCH: (), WAY: ("every",)}
"""Which operations a change of a value may start at once."""


class Walk(RuleBasedStateMachine):
    """One installation, one walk."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=HandLoop)
        self.oracle = Oracle()
        self.number = 0
        self.failed = False
        self.asked: dict[int, list[Question]] = {}

    def teardown(self) -> None:
        try:
            if hasattr(self, "harness") and not self.failed:
                self.become_calm()
                self.check_promises()
        finally:
            if hasattr(self, "harness"):
                self._do(self.harness.crash())
            self.runner.close()

    def _do(self, what: Any) -> Any:
        try:
            return self.runner.run(what)
        except BaseException:
            self.failed = True
            raise

    @initialize(latency_s=st.sampled_from([0.0, 0.0, 0.3]))
    def build(self, latency_s: float) -> None:
        async def built() -> ServiceHarness:
            harness = ServiceHarness(CONFIG)
            harness.latency_s = latency_s
            return await harness.start()

        self.harness = self._do(built())

    # -- what the world does -------------------------------------------------------------------------------------

    @rule(text=st.none() | st.sampled_from(STATES), press=st.booleans(), times=st.integers(1, 3), settle=st.booleans())
    def the_door_reports(self, *, text: str | None, press: bool, times: int, settle: bool) -> None:
        """Report, maybe several times the same, maybe many before the service gets to run."""
        for _ in range(times):
            self.number += 1
            payload = {"state": text, "press": "down" if press else None, "n": self.number}
            self.harness.send("home/door", {key: value for key, value in payload.items() if value is not None})
            self.oracle.door(text, self.number, self.harness.clock.now(), press=press)
        self._do(self.harness.settle() if settle else asyncio.sleep(0))

    @rule(text=st.sampled_from(STATES), repeat=st.booleans())
    def the_hatch_reports(self, *, text: str, repeat: bool) -> None:
        """Report retained, with an event id that comes twice if `repeat`."""
        self.number += 1
        payload = {"state": text, "n": self.number, "event_id": f"e{self.number}"}
        for _ in range(1 + repeat):
            self.harness.send("mqttjobs/state/objects/hatch", payload, retain=True)
        self.oracle.hatch(text, self.number, self.harness.clock.now())
        self._do(self.harness.settle())

    @rule(lost=st.lists(st.sampled_from(STATES), max_size=3), kept=st.lists(st.sampled_from(STATES), max_size=3))
    def the_broker_loses_the_session(self, lost: list[str], kept: list[str]) -> None:
        """What is published before the next one is lost, but for what is retained: of that the last comes."""
        self.become_calm()
        self.harness.broker.forget("mqttjobs")
        for text in lost:
            self.harness.send("home/door", {"state": text, "n": 0})
        for text in kept:
            self.number += 1
            payload = {"state": text, "n": self.number, "event_id": f"e{self.number}"}
            self.harness.send("mqttjobs/state/objects/hatch", payload, retain=True)
        if kept:
            self.oracle.hatch(kept[-1], self.number, self.harness.clock.now(), replayed=True)
        self._do(self.harness.advance(2))

    @rule(times=st.integers(1, 3), kill=st.booleans(), seconds=st.sampled_from([0.0, 0.2, 1.0]))
    def somebody_asks_again_and_again(self, *, times: int, kill: bool, seconds: float) -> None:
        """Ask for the same with the same transaction; whatever happens between, it is done once."""
        self.number += 1
        self.asked[self.number] = []

        async def ask() -> None:
            harness = self.harness
            for _ in range(times):
                question = harness.put("operations/execute", id="by_hand", params={"n": self.number}, transaction="t")
                self.asked[self.number].append(question)
                await harness.advance(seconds)
                if kill and not harness.store.broken:
                    await harness.crash()
                    await harness.start()

        self._do(ask())

    @rule(payload=st.sampled_from([b"", b"\xff", b'{"state": NaN}', b'{"other": 1}', b"unavailable", b'{"state": []}']))
    def something_unusable_comes(self, payload: bytes) -> None:
        self.harness.send("home/door", payload)
        self._do(self.harness.settle())

    @rule(seconds=st.sampled_from([0.2, 1.0, 5.0, 20.0, 59.0, 61.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self._do(self.harness.advance(seconds))

    @precondition(lambda self: self.harness.running)
    @rule()
    def the_connection_is_cut(self) -> None:
        self._do(self.harness.disconnect())

    @rule(up=st.booleans())
    def the_broker_goes_or_comes(self, *, up: bool) -> None:
        if up:
            self.harness.broker.up()
        else:
            self.harness.broker.down()
        self._do(self.harness.settle())

    @rule(broken=st.booleans())
    def the_store_breaks_or_mends(self, *, broken: bool) -> None:
        self.harness.store.broken = broken

    @precondition(lambda self: self.harness.running)
    @rule()
    def the_service_is_killed(self) -> None:
        self._do(self.harness.crash())

    @precondition(lambda self: self.harness.running)
    @rule(
        moment=st.sampled_from(
            [
                "before record", "after record", "before acknowledge", "after acknowledge", "before publish",
                "after publish", "before claim", "after claim",
            ]
        ),
        times=st.integers(1, 4),
    )  # fmt: skip
    def the_service_is_killed_at(self, moment: str, times: int) -> None:
        self.harness.die_at(moment, times)

    @precondition(lambda self: not self.harness.running and not self.harness.store.broken)
    @rule(quiet=st.booleans())
    def the_service_starts(self, *, quiet: bool) -> None:
        self._do(self.harness.start(quiet=quiet))

    @precondition(lambda self: self.harness.running)
    @rule()
    def the_service_is_stopped(self) -> None:
        async def stopped() -> None:
            if self.harness.running:
                await self.harness.stop()

        self._do(stopped())

    @precondition(lambda self: self.harness.running)
    @rule(more=st.booleans())
    def the_configuration_is_loaded_anew(self, *, more: bool) -> None:
        self.harness.configure(**(MORE if more else CONFIG))
        self._do(self.harness.reload())

    # -- what must be true ---------------------------------------------------------------------------------------

    @invariant()
    def every_change_has_exactly_its_jobs(self) -> None:
        if hasattr(self, "harness"):
            self._do(self.check_history())

    async def check_history(self) -> dict[ValueKey, list[Any]]:
        """What is stored is a beginning of what was promised, and each change of it has its jobs, always."""
        jobs = await self.harness.jobs()
        found: dict[ValueKey, list[Any]] = {}
        for key in (DOOR, PRESS, HATCH, WAY):
            expected = self.oracle.changes[key]
            page = await self.harness.store.history(key, None, None, 1_000_000, 0)
            entries = list(reversed(page.entries))
            assert [each.state for each in entries] == [each.text for each in expected[: len(entries)]], key
            for entry, promised in zip(entries, expected, strict=False):
                assert promised.published_at <= entry.at <= self.harness.clock.now()
            found[key] = entries
            self.check_jobs_at_once(key, expected[: len(entries)], jobs)
        done = Counter(job.params["n"] for job in jobs if job.operation_id == "by_hand")
        assert all(count == 1 for count in done.values()), "a request was carried out twice"
        self.check_held(DOOR, found[DOOR], jobs)
        self.check_held(WAY, found[WAY], jobs)
        return found

    def check_jobs_at_once(self, key: ValueKey, changes: list[Expected], jobs: list[Job]) -> None:
        for operation in AT_ONCE[key]:
            loud = [each for each in changes if not each.silent and (operation != "open" or each.text == "open")]
            wanted = Counter(each.number for each in loud)
            mine = [job for job in jobs if job.operation_id == operation and job.owner == key.entity]
            assert Counter(job.inputs["payload"]["n"] for job in mine) == wanted, (operation, key)

    def check_held(self, key: ValueKey, entries: list[Any], jobs: list[Job]) -> None:
        """A hold fires once for each time that it was satisfied long enough, and never early or late."""
        held = [job for job in jobs if job.operation_id == "held" and job.owner == key.entity]
        for begin, end in spans(entries, {"open", "ajar"}):
            inside = [job for job in held if begin <= job.created_at and (end is None or job.created_at <= end)]
            assert all(job.created_at >= begin + HOLD for job in inside), "early"
            assert len(inside) <= 1, "twice"
            for job in inside:
                held.remove(job)
        assert held == [], "a hold fired that was not satisfied"
        if key == DOOR:
            self.check_nagging(entries, [job for job in jobs if job.operation_id == "nag"])

    def check_nagging(self, entries: list[Any], nags: list[Job]) -> None:
        for begin, end in spans(entries, {"open"}):
            inside = [job for job in nags if begin <= job.created_at and (end is None or job.created_at <= end)]
            slots = [(job.created_at - begin - HOLD) // AGAIN for job in inside]
            assert all(slot >= 0 for slot in slots), "early"
            assert len(set(slots)) == len(slots), "twice in one interval"
            for job in inside:
                nags.remove(job)
        assert nags == [], "a repeat fired that was not satisfied"

    def become_calm(self) -> None:
        """Everything works again, and there is time."""

        async def calm() -> None:
            harness = self.harness
            harness.store.broken = False
            harness.broker.up()
            for _ in range(3):
                if harness.running:
                    harness.die_at("never")
                    await harness.advance(CALM_S)
                if not harness.running:
                    await harness.start()
            await harness.advance(CALM_S)
            assert harness.connected

        self._do(calm())

    @rule()
    def all_is_calm(self) -> None:
        self.become_calm()
        self.check_promises()

    def check_promises(self) -> None:
        """Nothing is lost: every change is there, every hold that was due has fired, every job ended and was told."""
        found = self._do(self.check_history())
        for key, entries in found.items():
            assert len(entries) == len(self.oracle.changes[key]), f"a change of {key} was lost"
        jobs = self._do(self.harness.jobs())
        now = self.harness.clock.now()
        for key in (DOOR, WAY):
            held = [job for job in jobs if job.operation_id == "held" and job.owner == key.entity]
            for begin, end in spans(found[key], {"open", "ajar"}):
                if end is None and begin + HOLD + SLACK < now:
                    assert any(job.created_at >= begin for job in held), "a hold was lost"
        for begin, end in spans(found[DOOR], {"open"}):
            if end is None and begin + HOLD + SLACK < now:
                nags = [job for job in jobs if job.operation_id == "nag" and job.created_at >= begin]
                assert nags[-1].created_at + AGAIN + WRITING >= now, "a repeat was lost"
        assert {job.status.value for job in jobs if job.created_at + WRITING < now} <= {"completed"}
        self.check_publishes(jobs, now)
        for number, questions in self.asked.items():
            made = [job.id for job in jobs if job.params.get("n") == number]
            reported = [
                each["data"]["id"] for question in questions for each in question.answers if each["code"] == 201
            ]
            assert set(reported) <= set(made), "an answer tells of another job"
        self._do(self.harness.counters())

    def check_publishes(self, jobs: list[Job], now: datetime) -> None:
        """Every job was published, in row order for each owner, and its end was told and never retained."""
        young = {job.id for job in jobs if job.created_at + WRITING >= now}
        for topic in ("out/door", "out/way"):
            sent = [text.split()[1] for text in self.harness.texts(topic)]
            rows = [job.id for job in jobs if job.owner and f"out/{job.owner.id}" == topic]
            first = list(dict.fromkeys(sent))
            assert first == rows[: len(first)]
            assert set(rows[len(first) :]) <= young
            assert list(dict.fromkeys(reversed(sent)))[::-1] == first, "an older publish overtook a newer one"
        ends = self.harness.sent("mqttjobs/event/job/completed/#")
        assert not any(each.retain for each in self.harness.sent("mqttjobs/event/#"))
        untold = {job.id for job in jobs} - {json.loads(each.payload)["id"] for each in ends}
        assert untold <= young, "an end was not told"


Walk.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, derandomize=True, deadline=None, print_blob=True
)
TestWalk = Walk.TestCase
