"""A stop and an end that come at the same time: the record and the events agree on which of them it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.harness import ServiceHarness, an_object, an_operation

Build = Callable[..., ServiceHarness]
ENDS = ("completed", "failed", "stopped")
QUARTERS = range(32)
"""Each access to the store takes a second; the end falls into every gap of the stop."""


async def raced(
    build: Build, method: str, quarters: int, *, fails: bool, **keys: Any
) -> tuple[ServiceHarness, Any, list[str]]:
    """Let a job end so many quarters of a second after it is asked to stop; return the answer and the ends told."""
    operations = {
        "dig": an_operation("lamp", type="work", timeout="1h", on_failure="mend", **keys),
        "mend": an_operation("lamp", type="work"),
    }
    harness = await build(objects={"lamp": an_object("lamp")}, operations=operations).start()
    job_id = (await harness.data("operations/execute", id="dig"))["id"]
    [run] = harness.fake_jobs.going
    harness.latency_s = 1.0
    question = harness.put(method, id="dig" if method == "operations/execute" else job_id)
    await harness.advance(quarters / 4)
    if run.going:
        if fails:
            run.fail()
        else:
            run.complete()
    await harness.advance(30)
    harness.latency_s = 0.0
    reported = [each["status"] for each in harness.documents("mqttjobs/event/job/+/dig/#") if each["id"] == job_id]
    return harness, question.answer, [each for each in reported if each in ENDS]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("quarters", QUARTERS)
async def test_whenever_a_job_ends_while_it_is_stopped_one_end_is_reported_and_it_is_the_one_on_record(
    build: Build, quarters: int, fails: bool
) -> None:
    harness, answer, reported = await raced(build, "jobs/stop", quarters, fails=fails)
    [job] = await harness.jobs("dig")
    assert reported == [job.status.value]
    assert answer["code"] == (200 if reported == ["stopped"] else 409)
    assert len(await harness.jobs("mend")) == (reported == ["failed"])


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("quarters", QUARTERS)
async def test_whenever_a_job_ends_while_another_takes_its_place_one_end_is_reported_and_it_is_the_one_on_record(
    build: Build, quarters: int, fails: bool
) -> None:
    harness, answer, reported = await raced(build, "operations/execute", quarters, fails=fails, mode="restart")
    first, second = await harness.jobs("dig")
    assert reported == [first.status.value]
    assert (answer["code"], answer["data"]["id"]) == (201, second.id)
    going = {run.context.job_id for run in harness.fake_jobs.going}
    assert going & {first.id, second.id} == {second.id}
    assert len(await harness.jobs("mend")) == (reported == ["failed"])


@pytest.mark.parametrize("quarters", QUARTERS)
async def test_whenever_a_job_ends_while_it_is_deleted_it_is_gone_and_one_end_is_reported_at_most(
    build: Build, quarters: int
) -> None:
    harness, answer, reported = await raced(build, "jobs/delete", quarters, fails=False)
    assert answer["code"] == 204
    assert await harness.jobs("dig") == []
    assert len(reported) <= 1
    assert harness.fake_jobs.going == []
