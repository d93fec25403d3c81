"""script: run a text with an interpreter. Values come by environment and standard input, never by substitution."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import ConfigDict, Field

from mqttjobs.domain.fields import FilePath, exactly_one
from mqttjobs.domain.jobs import Outcome
from mqttjobs.domain.model import Json
from mqttjobs.executors.base import Limits, RunContext
from mqttjobs.executors.command import CommandExecutor

_VARIABLE = re.compile(
    r"\{\{\s*(?:(?:id|name|state|previous_state)|"
    r"(?:properties|attributes|payload|source|target|user|params|job)(?:\.[A-Za-z0-9_@-]+)+)\s*\}\}"
)
"""One of our variables. Other double braces are the script's own, as in `docker ps --format '{{ .Names }}'`."""


class Script(CommandExecutor):
    """Runs `text`, or the file `ref` in the configuration's folder, with `interpreter`."""

    model_config = ConfigDict(json_schema_extra=exactly_one("text", "ref"))

    kind: ClassVar[str] = "script"

    text: str | None = Field(default=None, description="The script. Give either `text` or `ref`.")
    ref: FilePath | None = Field(
        default=None,
        description="The script as a file in the folder of the configuration. Give either `text` or `ref`.",
    )
    interpreter: tuple[str, ...] = Field(
        default=("/bin/sh",), min_length=1, description="What runs the script: a program and its arguments."
    )

    def problems(self, limits: Limits) -> Mapping[str, str]:
        """See Executor."""
        found = dict(super().problems(limits))
        if (self.text is None) == (self.ref is None):
            found["text"] = "give either text or ref"
        if self.text is not None and _VARIABLE.search(self.text):
            found["text"] = "variables are not put into a script's text; use $MQTTJOBS_… or the JSON on standard input"
        if self.ref is not None and self.text is None:
            path = self._path(limits)
            if path is None:
                found["ref"] = "must be a file in the configuration's folder"
            elif not path.is_file():
                found["ref"] = "there is no such file in the configuration's folder"
        return found

    def _path(self, limits: Limits) -> Path | None:
        """Return the file of `ref`, symbolic links followed, or None where the file is outside the folder."""
        folder = Path(limits.config_dir).resolve()
        path = (folder / (self.ref or "")).resolve()
        return path if path.is_relative_to(folder) else None

    def portable(self, limits: Limits) -> Self:
        """See Executor: the text of the file takes the place of `ref`."""
        if self.ref is None:
            return self
        path = self._path(limits)
        if path is None:
            raise FileNotFoundError(f"the script {self.ref} is not in the configuration's folder")
        own = self.model_dump(exclude_unset=True, exclude={"ref"})
        return self.model_validate({**own, "text": path.read_text(encoding="utf-8")})

    def title(self, operation_id: str) -> tuple[str, str]:
        """See Executor."""
        name = self.ref or f"script:{operation_id}"
        return (name, name)

    def preview(self, variables: Mapping[str, Json], base_topic: str) -> Mapping[str, Json]:
        """See Executor."""
        del base_topic
        what = {"text": self.text} if self.ref is None else {"ref": self.ref}
        return {**what, "args": self.shown_args(variables)}

    async def run(self, context: RunContext) -> Outcome:
        """See Executor."""
        if self.ref is not None:
            path = self._path(context.limits)
            if path is None or not path.is_file():
                return Outcome(ok=False, error=f"the script {self.ref} is not in the configuration's folder")
            return await self.execute([*self.interpreter, str(path)], context)
        handle = os.memfd_create("script", 0)
        try:
            os.write(handle, (self.text or "").encode())
            os.lseek(handle, 0, os.SEEK_SET)
            return await self.execute([*self.interpreter, f"/dev/fd/{handle}"], context, pass_fds=(handle,))
        finally:
            os.close(handle)
