"""The base of operation types that run a command: arguments, environment, output and outcome (behaviour 3.11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import ClassVar

from pydantic import Field

from mqttjobs.domain.jobs import Outcome, changed_something, result_of_output, timed_out
from mqttjobs.domain.model import Json
from mqttjobs.domain.templates import Template
from mqttjobs.executors.base import Executor, Limits, RunContext
from mqttjobs.executors.environment import SecretResolver, environment, standard_input, variables_of
from mqttjobs.executors.masking import Masking
from mqttjobs.executors.output import Capture
from mqttjobs.executors.process import Command, Finished, ProcessGroup

WRONG_INPUT = (64, 65)
"""EX_USAGE and EX_DATAERR of sysexits.h: the input was wrong (contract 4, jobs/send)."""
ERROR_LENGTH = 1000


class CommandExecutor(Executor):
    """Runs a command with `args` and `env`, which are templates, until it ends or its time limit has passed."""

    own_timeout: ClassVar[bool] = True
    no_description: ClassVar[Mapping[str, Json]] = {"exitCode": None, "stdout": None}

    args: tuple[str, ...] = Field(default=(), description="Arguments: templates, which no shell ever sees.")
    env: dict[str, str] = Field(default_factory=dict, description="Further environment variables: templates.")

    @cached_property
    def _args(self) -> tuple[Template, ...]:
        return tuple(Template.of(each) for each in self.args)

    @cached_property
    def _env(self) -> dict[str, Template]:
        return {name: Template.of(each) for name, each in self.env.items()}

    def problems(self, limits: Limits) -> Mapping[str, str]:
        """See Executor: the problems of `args` and `env`."""
        del limits
        found: dict[str, str] = {}
        for key, texts in (("args", list(self.args)), ("env", list(self.env.values()))):
            for text in texts:
                try:
                    Template.of(text)
                except ValueError as error:
                    found[key] = str(error)
        for name in self.env:
            if not name or "=" in name or "\0" in name:
                found["env"] = "a variable's name has no = and is not empty"
        return found

    def shown_args(self, variables: Mapping[str, Json]) -> list[str]:
        """Return the arguments of a run, with every `${…}` kept.

        Raises:
            TemplateError: a variable that is unknown.
        """
        return [each.render(variables).shown_text for each in self._args]

    async def execute(self, command: Sequence[str], context: RunContext, pass_fds: tuple[int, ...] = ()) -> Outcome:
        """Run a command with the arguments behind it, and return its outcome, in which secrets are masked.

        Args:
            command: the program, and what stands before `args`.
            context: of the run.
            pass_fds: file descriptors that the program may use too.

        Raises:
            TemplateError: a variable in `args` or `env` that is unknown.
        """
        reveal = SecretResolver(context)
        variables = variables_of(context, reveal)
        args = [each.render(context.variables, context.secret_templates, reveal).text for each in self._args]
        env = environment(context, variables, self._env, reveal)
        stdin = standard_input(context, variables, reveal)
        masking = Masking(reveal.given_secrets)
        stdout = Capture(context.limits.output_bytes, masking, context.progress)
        stderr = Capture(context.limits.output_bytes, masking)
        group = ProcessGroup(Command([*command, *args], env, stdin, pass_fds=pass_fds), stdout, stderr)
        finished = await group.run(context.timeout, context.grace)
        return _outcome(finished, context.timeout, changes=self.changes)


def _outcome(finished: Finished, timeout: timedelta, *, changes: bool) -> Outcome:
    stdout = finished.stdout.text()
    stderr = finished.stderr.text()
    truncated = finished.stdout.left_out
    result = None if truncated else result_of_output(stdout)
    error = ""
    if finished.timed_out:
        error = timed_out(timeout)
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
        changed=changed_something(result, otherwise=changes),
        description={"exitCode": finished.code, "stdout": stdout},
        exit_code=finished.code,
        stderr=stderr,
        user_error=finished.code in WRONG_INPUT and not finished.timed_out,
    )
