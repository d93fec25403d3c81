"""program: run a program and record its exit code and output (behaviour 3.11)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from mqttjobs.domain.fields import FilePath
from mqttjobs.domain.jobs import Outcome
from mqttjobs.domain.model import Json
from mqttjobs.executors.base import Limits, RunContext
from mqttjobs.executors.command import CommandExecutor


class Program(CommandExecutor):
    """Runs the program at `path` with `args`; no shell is involved."""

    kind: ClassVar[str] = "program"

    path: FilePath = Field(
        min_length=1, json_schema_extra={"pattern": "^/"}, description="The program: an absolute path."
    )

    def problems(self, limits: Limits) -> Mapping[str, str]:
        """See Executor."""
        found = dict(super().problems(limits))
        if not os.path.isabs(self.path):  # noqa: PTH117 - a test of the text, not of a file
            found["path"] = "must be absolute"
        elif not _inside(self.path, limits.program_dirs):
            found["path"] = f"must be in one of service.program_dirs: {', '.join(limits.program_dirs)}"
        return found

    def title(self, operation_id: str) -> tuple[str, str]:
        """See Executor."""
        del operation_id
        return (Path(self.path).name, self.path)

    def preview(self, variables: Mapping[str, Json], base_topic: str) -> Mapping[str, Json]:
        """See Executor."""
        del base_topic
        return {"path": self.path, "args": self.shown_args(variables)}

    async def run(self, context: RunContext) -> Outcome:
        """See Executor."""
        if not _inside(self.path, context.limits.program_dirs):
            return Outcome(ok=False, error="the program is not in service.program_dirs", repeatable=False)
        return await self.execute([self.path], context)


def _inside(path: str, folders: Sequence[str]) -> bool:
    """Whether a path, symbolic links followed, is in one of the folders; no folders means anywhere."""
    real = Path(path).resolve()
    return not folders or any(real.is_relative_to(Path(each).resolve()) for each in folders)
