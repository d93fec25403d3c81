"""What is answered when the service itself is at fault: 500 tells no internals, 503 says to ask again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.harness import ServiceHarness, an_object, an_operation

Build = Callable[..., ServiceHarness]
SHOP = {
    "objects": {"lamp": an_object("lamp")},
    "operations": {"on": an_operation("lamp"), "dig": an_operation("lamp", type="work")},
}


@pytest.mark.proves("listing", "500 error retrieving job")
async def test_an_error_of_ours_is_500_and_tells_no_internals(build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    harness = await build(**SHOP).start()

    async def breaks(*_: Any) -> Any:
        raise RuntimeError("table jobs has no column hunter2")

    harness.store.counts = breaks  # type: ignore[method-assign]
    answer = await harness.ask("jobs/list", transaction="t")
    assert answer == {
        "status": "error", "code": 500, "error": "Internal error.", "details": "", "reason": "internal",
        "retryable": False, "transaction": "t",
    }  # fmt: skip
    assert "hunter2" in capfd.readouterr().out
    assert (await harness.ask("jobs/get", id=1))["code"] == 404


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("operations/execute", {"id": "on"}),
        ("operations/execute", {"id": "on", "wait": True}),
        ("jobs/send", {"object": "lamp", "method_name": "on", "poll_result": True}),
        ("jobs/add_result", {"id": 1, "payload": {}}),
        ("jobs/stop", {"id": 1}),
        ("jobs/delete", {"id": 1}),
        ("jobs/retry", {"id": 1}),
        ("states/set", {"object": "lamp", "state": "on"}),
    ],
)
async def test_while_nothing_can_be_written_the_answer_is_503_and_asking_again_does_it_once(
    build: Build, method: str, params: dict[str, Any]
) -> None:
    harness = await build(**SHOP).start()
    await harness.data("operations/execute", id="dig")
    before = await harness.jobs()
    harness.store.broken = True
    refused = harness.put(method, **params, transaction="t")
    await harness.settle()
    assert await harness.jobs() == before
    harness.store.broken = False
    await harness.advance(5)
    assert (refused.answer["code"], refused.answer["reason"], refused.answer["retryable"]) == (
        503, "unavailable", True,
    )  # fmt: skip
    for _ in range(2):
        answer = await harness.ask(method, **params, transaction="t")
        assert answer["status"] == "ok", answer
    made = {"operations/execute": 2, "jobs/send": 2, "jobs/retry": 2, "jobs/delete": 0}
    assert len(await harness.jobs()) == made.get(method, 1)
