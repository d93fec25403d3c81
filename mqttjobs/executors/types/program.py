"""program: run a program and tell what it brought (behaviour 3.11)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from mqttjobs.domain.jobs import Outcome, changed_something, duration_text
from mqttjobs.domain.model import Json
from mqttjobs.domain.protocol import decode_json
from mqttjobs.domain.templates import Template
from mqttjobs.errors import InvalidJson
from mqttjobs.executors.base import Executor, Limits, RunContext
from mqttjobs.executors.environment import SecretResolver, environment, standard_input, variables_of
from mqttjobs.executors.masking import Masking
from mqttjobs.executors.output import Capture
from mqttjobs.executors.process import Command, Finished, ProcessGroup

WRONG_INPUT = (64, 65)
"""EX_USAGE and EX_DATAERR of sysexits.h: the input was wrong (contract 4, jobs/send)."""
ERROR_LENGTH = 1000


class Program(Executor):
    """Runs the program at `path` with `args`; no shell is involved. `args` and `env` are templates."""

    kind: ClassVar[str] = "program"
    own_timeout: ClassVar[bool] = True
    no_description: ClassVar[Mapping[str, Json]] = {"exitCode": None, "stdout": None}

    path: str = Field(min_length=1, json_schema_extra={"pattern": "^/"}, description="The program: an absolute path.")
    args: tuple[str, ...] = Field(default=(), description="Its arguments: templates, which no shell ever sees.")
    env: dict[str, str] = Field(default_factory=dict, description="Further environment variables: templates.")

    @cached_property
    def _args(self) -> tuple[Template, ...]:
        return tuple(Template.of(each) for each in self.args)

    @cached_property
    def _env(self) -> dict[str, Template]:
        return {name: Template.of(each) for name, each in self.env.items()}

    def problems(self, limits: Limits) -> Mapping[str, str]:
        """See Executor."""
        found = template_problems(self.args, self.env)
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
        return {"path": self.path, "args": [each.render(variables).shown_text for each in self._args]}

    async def run(self, context: RunContext) -> Outcome:
        """See Executor."""
        if not _inside(self.path, context.limits.program_dirs):
            return Outcome(ok=False, error="the program is not in service.program_dirs", repeatable=False)
        reveal = SecretResolver(context)
        variables = variables_of(context, reveal)
        argv = [
            self.path,
            *(each.render(context.variables, context.secret_templates, reveal).text for each in self._args),
        ]
        env = environment(context, variables, self._env, reveal)
        return await run_command(Command(argv, env, standard_input(context, variables, reveal)), context, reveal)


def template_problems(args: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with the templates of `args` and `env`."""
    found: dict[str, str] = {}
    for key, texts in (("args", list(args)), ("env", list(env.values()))):
        for text in texts:
            try:
                Template.of(text)
            except ValueError as error:
                found[key] = str(error)
    for name in env:
        if not name or "=" in name or "\0" in name:
            found["env"] = "a variable's name has no = and is not empty"
    return found


def _inside(path: str, folders: Sequence[str]) -> bool:
    """Whether a path, symbolic links followed, is in one of the folders; no folders means anywhere."""
    real = Path(path).resolve()
    return not folders or any(real.is_relative_to(Path(each).resolve()) for each in folders)


async def run_command(command: Command, context: RunContext, reveal: SecretResolver) -> Outcome:
    """Run a command to its end and return what it brought; secrets given until now are masked in it."""
    masking = Masking(reveal.given_secrets)
    stdout = Capture(context.limits.output_bytes, masking, context.progress)
    stderr = Capture(context.limits.output_bytes, masking)
    finished = await ProcessGroup(command, stdout, stderr).run(context.timeout, context.grace)
    return _outcome(finished, context.timeout)


def _outcome(finished: Finished, timeout: timedelta) -> Outcome:
    stdout = finished.stdout.text()
    stderr = finished.stderr.text()
    truncated = finished.stdout.left_out
    result = None if truncated else _result(stdout)
    error = ""
    if finished.timed_out:
        error = f"timed out after {duration_text(timeout)}"
    elif finished.not_started:
        error = finished.not_started
    elif finished.code != 0:
        error = f"exit code {finished.code}"
        last = stderr.strip().rpartition("\n")[2]
        error = f"{error}: {last[:ERROR_LENGTH]}" if last else error
    if truncated:
        stderr = f"{stderr}\noutput truncated: {truncated} bytes of standard output left out".lstrip()
    return Outcome(
        ok=not error,
        error=error,
        result=result,
        changed=changed_something(result, otherwise=Program.changes),
        description={"exitCode": finished.code, "stdout": stdout},
        exit_code=finished.code,
        stderr=stderr,
        user_error=finished.code in WRONG_INPUT and not finished.timed_out,
    )


def _result(stdout: str) -> Json:
    """Return standard output when it is one JSON value (behaviour 3.4)."""
    try:
        return decode_json(stdout.strip().encode())
    except InvalidJson:
        return None
