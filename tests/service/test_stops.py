"""A stop and an end that come at the same time: the record and the events agree on which of them it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from house import House, an_object, an_operation

Build = Callable[..., House]
ENDS = ("completed", "failed", "stopped")
QUARTERS = range(32)
"""Each access to the store takes a second; the end falls into every gap of the stop."""


async def raced(build: Build, method: str, quarters: int, *, fails: bool, **keys: Any) -> tuple[House, Any, list[str]]:
    """Let a job end so many quarters of a second after it is asked to stop; return the answer and the ends told."""
    operations = {
        "dig": an_operation("lamp", type="work", timeout="1h", on_failure="mend", **keys),
        "mend": an_operation("lamp", type="work"),
    }
    house = await build(objects={"lamp": an_object("lamp")}, operations=operations).start()
    job_id = (await house.data("operations/execute", id="dig"))["id"]
    [run] = house.desk.going
    house.latency_s = 1.0
    question = house.put(method, id="dig" if method == "operations/execute" else job_id)
    await house.advance(quarters / 4)
    if run.going:
        if fails:
            run.fail()
        else:
            run.complete()
    await house.advance(30)
    house.latency_s = 0.0
    told = [each["status"] for each in house.documents("mqttjobs/event/job/+/dig/#") if each["id"] == job_id]
    return house, question.answer, [each for each in told if each in ENDS]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("quarters", QUARTERS)
async def test_whenever_a_job_ends_while_it_is_stopped_one_end_is_told_and_it_is_the_one_on_record(
    build: Build, quarters: int, fails: bool
) -> None:
    house, answer, told = await raced(build, "jobs/stop", quarters, fails=fails)
    [job] = await house.jobs("dig")
    assert told == [job.status.value]
    assert answer["code"] == (200 if told == ["stopped"] else 409)
    assert len(await house.jobs("mend")) == (told == ["failed"])


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("quarters", QUARTERS)
async def test_whenever_a_job_ends_while_another_takes_its_place_one_end_is_told_and_it_is_the_one_on_record(
    build: Build, quarters: int, fails: bool
) -> None:
    house, answer, told = await raced(build, "operations/execute", quarters, fails=fails, mode="restart")
    first, second = await house.jobs("dig")
    assert told == [first.status.value]
    assert (answer["code"], answer["data"]["id"]) == (201, second.id)
    going = {run.context.job_id for run in house.desk.going}
    assert going & {first.id, second.id} == {second.id}
    assert len(await house.jobs("mend")) == (told == ["failed"])


@pytest.mark.parametrize("quarters", QUARTERS)
async def test_whenever_a_job_ends_while_it_is_deleted_it_is_gone_and_one_end_is_told_at_most(
    build: Build, quarters: int
) -> None:
    house, answer, told = await raced(build, "jobs/delete", quarters, fails=False)
    assert answer["code"] == 204
    assert await house.jobs("dig") == []
    assert len(told) <= 1
    assert house.desk.going == []
