"""The contract of Executor that holds for every operation type, over one operation of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from mqttjobs.domain.jobs import Outcome
from mqttjobs.domain.operations import COMMON_KEYS
from mqttjobs.domain.protocol import encode
from mqttjobs.executors.attempt import attempt
from mqttjobs.executors.base import Executor, Limits, executor_types, make_executor
from mqttjobs.executors.shared import SharedResources
from mqttjobs.transport.base import Publication
from tests.contracts.contexts import VARIABLES, a_context
from tests.contracts.members import OPERATIONS

Definition = Mapping[str, Any]


async def publish(publication: Publication) -> int:
    del publication
    return 0


def executor_of(definition: Definition) -> Executor:
    """Return the executor of a definition that comes from JSON, as an agent's and a recorded one do."""
    return make_executor(json.loads(json.dumps(definition)))


async def run(executor: Executor, resources: SharedResources) -> Outcome:
    return await attempt(executor, a_context(publish=publish), resources)


def test_each_of_mqttjobs_own_types_is_under_test() -> None:
    own = {name for name, kind in executor_types().items() if kind.__module__.startswith("mqttjobs.executors.types.")}
    assert own == OPERATIONS.keys()


def test_it_is_found_by_its_name(definition: Definition) -> None:
    kind = executor_types()[definition["type"]]
    assert kind.kind == definition["type"]
    assert type(executor_of(definition)) is kind


def test_none_of_its_keys_is_one_that_all_operations_have(definition: Definition) -> None:
    assert not COMMON_KEYS & executor_types()[definition["type"]].model_fields.keys()


def test_a_key_that_it_does_not_have_is_refused(definition: Definition) -> None:
    kind = executor_types()[definition["type"]]
    own = {name: value for name, value in definition.items() if name in kind.model_fields}
    with pytest.raises(ValueError, match="no_such_key"):
        kind.model_validate({**own, "no_such_key": 1})


def test_it_finds_nothing_wrong_with_a_good_operation(definition: Definition) -> None:
    assert dict(executor_of(definition).problems(Limits())) == {}


def test_it_names_the_variables_that_it_needs(definition: Definition) -> None:
    names = executor_of(definition).inputs()
    assert names is None or all(isinstance(name, str) for name in names)


def test_its_title_is_two_texts(definition: Definition) -> None:
    name, long_name = executor_of(definition).title("nightly")
    assert name
    assert long_name


def test_its_preview_can_be_shown_as_json(definition: Definition) -> None:
    assert encode(dict(executor_of(definition).preview(VARIABLES, "mqttjobs")))


def test_it_can_be_sent_to_another_host(definition: Definition, tmp_path: Any) -> None:
    portable = executor_of(definition).portable(Limits())
    sent = executor_of({"type": definition["type"], **portable.model_dump(mode="json", exclude_unset=True)})
    assert sent == portable
    assert dict(sent.problems(Limits(config_dir=str(tmp_path)))) == {}


async def test_every_run_ends_in_an_outcome_that_can_be_recorded(definition: Definition) -> None:
    executor, resources = executor_of(definition), SharedResources()
    for _ in range(2):
        outcome = await run(executor, resources)
        assert "internal error" not in outcome.error
        assert encode(outcome.report())
        assert outcome.ok is not bool(outcome.error)
        assert isinstance(outcome.changed, bool) or not outcome.ok
    await resources.close()


async def test_a_completed_run_fills_in_the_description_that_the_type_promises(definition: Definition) -> None:
    executor, resources = executor_of(definition), SharedResources()
    outcome = await run(executor, resources)
    await resources.close()
    assert outcome.ok or definition not in OPERATIONS.values()
    assert not outcome.ok or set(outcome.description) == set(type(executor).no_description)


async def test_runs_side_by_side_do_not_disturb_each_other(definition: Definition) -> None:
    executor, resources = executor_of(definition), SharedResources()
    alone = await run(executor, resources)
    together = await asyncio.gather(*(run(executor, resources) for _ in range(10)))
    await resources.close()
    assert [each.ok for each in together] == [alone.ok] * 10


async def test_a_run_that_is_cancelled_ends_and_lets_the_cancellation_pass(definition: Definition) -> None:
    executor, resources = executor_of(definition), SharedResources()
    context = a_context(publish=publish, grace=timedelta(seconds=1))
    for steps in range(5):
        running = asyncio.create_task(attempt(executor, context, resources))
        for _ in range(steps):
            await asyncio.sleep(0)
        ended_before = running.done()
        running.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait([running])
        assert running.cancelled() or ended_before
    await resources.close()
