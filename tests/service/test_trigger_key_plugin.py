"""A trigger key that is one file, the example of docs/extending.md, in a service that is killed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mqttjobs.domain.triggers.base import TRIGGER_KEYS
from tests.plugins.examples import source
from tests.service.harness import ServiceHarness, an_object, an_operation

Build = Callable[..., ServiceHarness]


@pytest.fixture(autouse=True)
def _every(tmp_path: Path) -> Iterator[None]:
    """Put the key `every` into the folder of the keys, as far as imports can tell."""
    (tmp_path / "every.py").write_text(source("mqttjobs_every"))
    path: Any = importlib.import_module(TRIGGER_KEYS.folder).__path__
    path.append(str(tmp_path))
    TRIGGER_KEYS.forget()
    yield
    path.remove(str(tmp_path))
    sys.modules.pop(f"{TRIGGER_KEYS.folder}.every", None)
    TRIGGER_KEYS.forget()


def gate(**trigger: Any) -> dict[str, Any]:
    return {"objects": {"gate": an_object("home/gate")}, "operations": {"op": an_operation("gate", triggers=[trigger])}}


async def test_a_key_that_is_one_file_is_stored_survives_a_kill_and_is_explained(build: Build) -> None:
    harness = await build(**gate(states=["open"], every=3)).start()

    async def explained() -> tuple[str, str]:
        [trigger] = (await harness.data("operations/explain", id="op"))["triggers"]
        return trigger["told"], trigger["waiting_for"]

    told = "watches the state of gate, and runs when it becomes open, at each 3. time"
    assert await explained() == (told, "that it becomes open, at each 3. time")
    for state in ("open", "closed", "open"):
        await harness.report("home/gate", state)
    assert await explained() == (told, "change 3 of 3")
    [state] = (await harness.store.load()).trigger_states
    assert dict(state.memory) == {"every": 2}
    await harness.restart()
    assert await explained() == (told, "change 3 of 3")
    harness.die_at("before record")
    await harness.report("home/gate", "closed")
    assert not harness.running
    await harness.start()
    assert len(await harness.jobs()) == 0
    harness.die_at("after record")
    await harness.report("home/gate", "open")
    assert not harness.running
    await harness.start()
    assert len(await harness.jobs()) == 1
    assert (await harness.store.load()).trigger_states == []
    for state_text in ("closed", "open", "closed", "open"):
        await harness.report("home/gate", state_text)
    assert len(await harness.jobs()) == 1
    await harness.report("home/gate", "closed")
    await harness.report("home/gate", "open")
    assert len(await harness.jobs()) == 2


async def test_a_key_that_is_one_file_is_simulated(build: Build) -> None:
    harness = await build(**gate(every=2)).start()
    reports = [{"object": "gate", "state": state} for state in ("open", "closed")]
    first, second = (await harness.data("operations/simulate", reports=reports))["steps"]
    [seen] = first["seen"]
    assert seen["waiting"] == [{"operation_id": "op", "object": "gate", "waiting_for": "change 2 of 2", "until": None}]
    assert (seen["runs"], [run["operation_id"] for run in second["seen"][0]["runs"]]) == ([], ["op"])
    assert second["seen"][0]["given_up"] == []
    assert (await harness.store.load()).trigger_states == []
