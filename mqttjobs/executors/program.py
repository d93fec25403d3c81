"""program: run a program, bounded in time and output, and end its whole process group (behaviour 3.11)."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from mqttjobs.domain.jobs import Outcome, duration_text
from mqttjobs.domain.model import Json
from mqttjobs.domain.protocol import decode_json
from mqttjobs.domain.templates import Template
from mqttjobs.errors import InvalidJson
from mqttjobs.executors.base import Executor, Limits, RunContext
from mqttjobs.executors.masking import Masking
from mqttjobs.executors.output import Capture
from mqttjobs.executors.surroundings import Revealer, environment, standard_input, variables_of

TIMED_OUT = 124
NOT_EXECUTABLE = 126
NOT_FOUND = 127
WRONG_INPUT = (64, 65)
"""EX_USAGE and EX_DATAERR of sysexits.h: the input was wrong (contract 4, jobs/send)."""
READ_AT_ONCE = 64 * 1024
LAST_WORDS_S = 0.5
"""How long output is still awaited from a group whose leader has ended."""
ORPHANS_S = 0.5
"""How long is waited for the killed members of a group to be gone."""
ERROR_LENGTH = 1000
PR_SET_PDEATHSIG = 1

_prctl = ctypes.CDLL(None).prctl if os.uname().sysname == "Linux" else None


def _die_with_parent() -> None:
    """Runs in the child before its program: a SIGKILL of the service ends what it started."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a process ended; `code` as a shell would say it."""

    code: int
    stdout: Capture
    stderr: Capture
    timed_out: bool = False
    not_started: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """What to start: argument list, environment, standard input, and descriptors that it inherits."""

    argv: Sequence[str]
    env: Mapping[str, str]
    stdin: bytes
    pass_fds: tuple[int, ...] = ()


class Program(Executor):
    """Runs the program at `path` with `args`; no shell is involved. `args` and `env` are templates."""

    kind: ClassVar[str] = "program"
    own_timeout: ClassVar[bool] = True
    no_description: ClassVar[Mapping[str, Json]] = {"exitCode": None, "stdout": None}

    path: str = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)

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

    async def run(self, context: RunContext) -> Outcome:
        """See Executor."""
        if not _inside(self.path, context.limits.program_dirs):
            return Outcome(ok=False, error="the program is not in service.program_dirs", repeatable=False)
        reveal = Revealer(context)
        variables = variables_of(context, reveal)
        argv = [self.path, *(each.render(context.variables, context.hidden, reveal).text for each in self._args)]
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


async def run_command(command: Command, context: RunContext, reveal: Revealer) -> Outcome:
    """Run a command to its end and return what it brought; secrets given until now are masked in it."""
    masking = Masking(reveal.hidden)
    stdout = Capture(context.limits.output_bytes, masking, context.progress)
    stderr = Capture(context.limits.output_bytes, masking)
    finished = await _Process(command, stdout, stderr).run(context.timeout, context.grace)
    return _outcome(finished, context.timeout)


def _outcome(finished: Finished, timeout: timedelta) -> Outcome:
    stdout = finished.stdout.text()
    stderr = finished.stderr.text()
    truncated = finished.stdout.left_out
    if truncated:
        stderr = f"{stderr}\noutput truncated: {truncated} bytes of standard output left out".lstrip()
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
    own = result.get("changed") if isinstance(result, dict) else None
    return Outcome(
        ok=not error,
        error=error,
        result=result,
        changed=own if isinstance(own, bool) else False,
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


class _Process:
    """One process group, from start to the end of its last member."""

    def __init__(self, command: Command, stdout: Capture, stderr: Capture) -> None:
        self._command = command
        self._stdout = stdout
        self._stderr = stderr
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._silent = asyncio.Event()
        self._open: set[int] = set()
        self._input = memoryview(command.stdin)

    async def run(self, limit: timedelta, grace: timedelta) -> Finished:
        """Start it and wait for its end; a cancellation ends the group first."""
        try:
            process = self._start()
        except FileNotFoundError:
            return self._unstarted(NOT_FOUND, "not found")
        except (OSError, ValueError) as error:
            return self._unstarted(NOT_EXECUTABLE, f"cannot be executed: {getattr(error, 'strerror', error)}")
        timed_out = False
        try:
            async with asyncio.timeout(limit / timedelta(seconds=1)):
                await asyncio.shield(self._exited)
        except TimeoutError:
            timed_out = True
            await self._end(process, grace)
        except asyncio.CancelledError:
            await _whole(self._end(process, grace))
            raise
        finally:
            await _whole(self._finish(process))
        code = process.returncode
        shell_code = TIMED_OUT if timed_out else 128 - code if code < 0 else code
        return Finished(shell_code, self._stdout, self._stderr, timed_out)

    def _unstarted(self, code: int, words: str) -> Finished:
        return Finished(code, self._stdout, self._stderr, not_started=f"{self._command.argv[0]} {words}")

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 - running programs is what this module is for; no shell
            list(self._command.argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(self._command.env),
            start_new_session=True,
            pass_fds=self._command.pass_fds,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call; nothing else ends orphans after SIGKILL
            bufsize=0,
        )
        self._watch_exit(process)
        for stream, capture in ((process.stdout, self._stdout), (process.stderr, self._stderr)):
            if stream is not None:
                self._watch_output(stream.fileno(), capture)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._loop.add_writer(process.stdin.fileno(), self._feed, process)
        return process

    def _watch_exit(self, process: subprocess.Popen[bytes]) -> None:
        handle = os.pidfd_open(process.pid)

        def exited() -> None:
            self._loop.remove_reader(handle)
            os.close(handle)
            self._exited.set_result(None)

        self._loop.add_reader(handle, exited)

    def _watch_output(self, fileno: int, capture: Capture) -> None:
        os.set_blocking(fileno, False)
        self._open.add(fileno)

        def ready() -> None:
            try:
                data = os.read(fileno, READ_AT_ONCE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                capture.feed(data)
            else:
                self._loop.remove_reader(fileno)
                self._open.discard(fileno)
                if not self._open:
                    self._silent.set()

        self._loop.add_reader(fileno, ready)

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        """Write the standard input as it is taken; a program that does not read it may end all the same."""
        stdin = process.stdin
        if stdin is None or stdin.closed:
            return
        try:
            written = os.write(stdin.fileno(), self._input[:READ_AT_ONCE])
        except BlockingIOError:
            return
        except OSError:
            written = len(self._input)
        self._input = self._input[written:]
        if not self._input:
            self._loop.remove_writer(stdin.fileno())
            stdin.close()

    async def _end(self, process: subprocess.Popen[bytes], grace: timedelta) -> None:
        """TERM, grace, KILL of the group; children that tidy up and hold the output have the grace too."""
        _signal(process, signal.SIGTERM)
        silent: asyncio.Future[Any] = asyncio.ensure_future(self._silent.wait())
        try:
            await asyncio.wait((self._exited, silent), timeout=grace / timedelta(seconds=1))
        finally:
            silent.cancel()
        _signal(process, signal.SIGKILL)
        await asyncio.wait([self._exited])

    async def _finish(self, process: subprocess.Popen[bytes]) -> None:
        """Collect the last words, end what outlives its leader, and leave nothing behind."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._silent.wait()
        _signal(process, signal.SIGKILL)  # the leader is not yet reaped: its group's number is still its own
        process.wait()
        await _take_orphans(process.pid)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                self._loop.remove_reader(stream.fileno())
                stream.close()
        if process.stdin is not None and not process.stdin.closed:
            self._loop.remove_writer(process.stdin.fileno())
            with suppress(OSError):
                process.stdin.close()
        self._stdout.close()
        self._stderr.close()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def _take_orphans(group: int) -> None:
    """Take what became of a killed group's members off the process table, where they are ours: as in a container."""
    deadline_s = asyncio.get_running_loop().time() + ORPHANS_S
    with suppress(ChildProcessError):
        while asyncio.get_running_loop().time() < deadline_s:
            if os.waitpid(-group, os.WNOHANG) == (0, 0):
                await asyncio.sleep(0.01)


async def _whole(ending: Coroutine[Any, Any, None]) -> None:
    """Await to the end even if cancelled meanwhile, and then let the cancellation go on."""
    task = asyncio.ensure_future(ending)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
