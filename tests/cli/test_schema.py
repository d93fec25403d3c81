"""`mqttjobs schema`: the JSON Schema of configurations on standard output, with the types that are installed."""

from __future__ import annotations

import json
from pathlib import Path

from jsonschema import Draft202012Validator

from mqttjobs.config.schema import configuration_schema
from tests.running import mqttjobs

PLUGIN = '''
"""siren: sounds a siren."""

from typing import ClassVar

from pydantic import Field

from mqttjobs.domain.jobs import Outcome
from mqttjobs.executors.base import Executor, RunContext


class Siren(Executor):
    """Sounds a siren."""

    kind: ClassVar[str] = "siren"
    level: int = Field(ge=1, le=5, description="How loud.")
    handler: type = dict

    async def run(self, context: RunContext) -> Outcome:
        return Outcome(ok=True)
'''


def test_the_schema_is_printed_as_json_and_nothing_else() -> None:
    printed = mqttjobs("schema")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert json.loads(printed.stdout) == configuration_schema()


def test_the_command_is_listed_and_says_what_it_is_for() -> None:
    assert "schema" in mqttjobs("--help").stdout
    assert "JSON Schema" in mqttjobs("schema", "--help").stdout


def test_the_types_of_an_installed_package_are_in_the_schema(tmp_path: Path) -> None:
    (tmp_path / "mqttjobs_siren.py").write_text(PLUGIN)
    folder = tmp_path / "mqttjobs_siren-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mqttjobs-siren\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[mqttjobs.executors]\nsiren = mqttjobs_siren\n")
    printed = mqttjobs("schema", PYTHONPATH=str(tmp_path))
    assert printed.returncode == 0, printed.stderr
    validator = Draft202012Validator(json.loads(printed.stdout))

    def is_valid(**keys: object) -> bool:
        return validator.is_valid({"operations": {"op": {"type": "siren", **keys}}})

    assert is_valid(level=3, priority=2, handler="anything")
    assert not is_valid()
    assert not is_valid(level=9)
    assert not is_valid(level=3, topic="a")
