"""A database of an earlier version in the service: what was pending under the old program goes on under this one."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mqttjobs.store.base import Changes, Snapshot, create_store
from tests.service.harness import ServiceHarness

Build = Callable[..., ServiceHarness]

FILES = Path(__file__).parents[1] / "contracts" / "files"
WRITTEN_AT = datetime(2026, 3, 1, 12, 2, 15, 750_000, tzinfo=UTC)
"""When the old program was killed."""
SENSOR = {"object": "sensor"}


def operation(*triggers: Mapping[str, Any], attach: Mapping[str, str] = SENSOR) -> dict[str, Any]:
    """Return an operation as it was written then: with another definition it would be another operation."""
    published = {"topic": "out/{{ id }}", "message": "{{ job.id }}"}
    return {"type": "mqtt", "attach": dict(attach), **published, "triggers": list(triggers)}


CONFIG: dict[str, Any] = {
    "objects": {
        "sensor": {
            "state": {"topic": "home/sensor", "value": "state"},
            "attributes": {"battery": {}, "power": {}, "press": {"topic": "home/press", "event": True}},
            "availability": {"topic": "home/sensor/availability"},
        },
        "quiet": {"state": {"topic": "home/quiet"}},
        "lamp": {"state": {"topic": "home/lamp"}},
    },
    "links": {"way": {"source": "sensor", "target": "lamp"}},
    "operations": {
        "pending": operation({"states": ["on"], "duration": "1h"}),
        "fired": operation({"states": ["on"], "duration": "10s"}),
        "again": operation({"states": ["on"], "periodicity": "50s"}),
        "later_again": operation({"states": ["on"], "duration": "10s", "periodicity": "50s"}),
        "low": operation({"attribute": "battery", "below": 20, "hysteresis": 5}),
        "long_low": operation({"attribute": "battery", "below": 20, "hysteresis": 5, "duration": "1h"}),
        "no_number": operation({"attribute": "power", "above": 5, "duration": "1h"}),
        "quiet_press": operation({"attribute": "press", "debounce": "1h"}),
        "settled": operation({"states": ["on"], "duration": "30s", "debounce": "1h"}),
        "throttled": operation({"states": ["on"], "throttle": "1h"}),
        "everything": operation(
            {},
            {"attribute": "power", "above": 5, "hysteresis": 2, "throttle": "2h", "periodicity": "45s", "from": ["1"]},
        ),
        "silent": operation({"entity": "quiet", "silence": "60s", "throttle": "1h"}),
        "silent_again": operation({"silence": "60s", "periodicity": "40s"}, attach={"object": "quiet"}),
        "offline": operation({"availability": "offline", "duration": "1h"}),
        "restarted": operation({"states": ["on"], "duration": "1h", "on_restart": "restart"}),
        "dropped": operation({"states": ["on"], "duration": "1h", "on_restart": "drop"}),
        "of_the_link": operation({"entity": "source", "states": ["on"], "duration": "1h"}, attach={"link": "way"}),
        "evening": operation({"at": "sunset"}),
    },
}


@pytest.fixture
def stored(tmp_path: Path) -> Snapshot:
    """Return what the file of the old program has in it."""
    path = tmp_path / "jobs.db"
    path.write_bytes(gzip.decompress((FILES / "schema-6.db.gz").read_bytes()))

    async def read() -> Snapshot:
        store = create_store(f"sqlite:///{path}")
        await store.open()
        try:
            return await store.load()
        finally:
            await store.close()

    return asyncio.run(read())


async def test_every_trigger_goes_on_where_the_old_program_left_it(build: Build, stored: Snapshot) -> None:
    harness = build(**CONFIG)
    await harness.store.record(
        Changes(
            values={each.key: each for each in stored.values},
            trigger_states={each.name: each for each in stored.trigger_states},
            operation_states={each.id: each for each in stored.operation_states},
            metadata=dict(stored.metadata),
        )
    )
    await harness.advance((WRITTEN_AT - harness.clock.now()).total_seconds())
    await harness.start()

    async def fired() -> dict[str, list[str]]:
        """Return when each operation ran under this program; those that repeat, at first."""
        found: dict[str, list[str]] = {}
        for job in await harness.jobs():
            found.setdefault(str(job.operation_id), []).append(f"{job.created_at:%H:%M:%S.%f}"[:-3])
        return {name: times[:2] for name, times in found.items()}

    await harness.advance(55)
    assert await fired() == {
        "again": ["12:02:33.250"],
        "later_again": ["12:02:43.250"],
        "silent_again": ["12:02:22.000", "12:03:02.000"],
    }
    await harness.report("home/sensor", {"state": "on", "battery": 19, "power": "unknown?"})
    await harness.advance(3600)
    late = {name: times for name, times in (await fired()).items() if name not in ("again", "later_again")}
    assert late == {
        "silent_again": ["12:02:22.000", "12:03:02.000"],
        "pending": ["13:00:03.250"],
        "long_low": ["13:00:03.250"],
        "settled": ["13:00:03.250"],
        "offline": ["13:00:03.250"],
        "of_the_link": ["13:00:03.250"],
        "quiet_press": ["13:01:45.750"],
        "restarted": ["13:02:15.750"],
    }
    assert (await harness.counters())["skipped_by_reason"] == {}
    await harness.report("home/sensor", {"state": "on", "battery": 25, "power": 2})
    await harness.report("home/sensor", {"state": "on", "battery": 19, "power": 1})
    await harness.report("home/sensor", {"state": "on", "power": 6})
    assert (await harness.counters())["skipped_by_reason"] == {"throttled": 1}, "everything ran less than 2h ago"
    assert "low" in await fired(), "it was beyond, has come back by the hysteresis, and is beyond again"
