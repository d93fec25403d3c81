"""Runs a program as a process group, with bounded time and output, until its last process ends (behaviour 3.11)."""

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
from typing import Any

from mqttjobs.executors.output import Capture

TIMED_OUT = 124
NOT_EXECUTABLE = 126
NOT_FOUND = 127
READ_AT_ONCE = 64 * 1024
FINAL_OUTPUT_S = 0.5
"""How long to wait for more output after the leader of the group has ended."""
ORPHANS_S = 0.5
"""How long to wait for the killed processes of a group to be gone."""
PR_SET_PDEATHSIG = 1

_prctl = ctypes.CDLL(None).prctl if os.uname().sysname == "Linux" else None


def _die_with_parent() -> None:
    """Run in the child before its program starts: a SIGKILL of the service then kills the program too."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a process ended.

    Attributes:
        code: the exit code as of a shell: 124 for a time-out, 126 or 127 if not started, 128 + signal if killed.
        timed_out: whether the time limit ended the process.
        not_started: why the program could not be started; empty if it was.
    """

    code: int
    stdout: Capture
    stderr: Capture
    timed_out: bool = False
    not_started: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """What to start: argument list, environment, standard input, and inherited file descriptors."""

    argv: Sequence[str]
    env: Mapping[str, str]
    stdin: bytes
    pass_fds: tuple[int, ...] = ()


class ProcessGroup:
    """One process group, from the start of its leader to the end of its last process."""

    def __init__(self, command: Command, stdout: Capture, stderr: Capture) -> None:
        self._command = command
        self._stdout = stdout
        self._stderr = stderr
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._output_closed = asyncio.Event()
        self._open: set[int] = set()
        self._input = memoryview(command.stdin)

    async def run(self, limit: timedelta, grace: timedelta) -> Finished:
        """Start the program and wait for its end, at most `limit`; a cancellation ends the group first.

        At the limit and at a cancellation the group gets TERM, and KILL after `grace`.
        """
        try:
            process = self._start()
        except FileNotFoundError:
            return self._not_started(NOT_FOUND, "not found")
        except (OSError, ValueError) as error:
            return self._not_started(NOT_EXECUTABLE, f"cannot be executed: {getattr(error, 'strerror', error)}")
        timed_out = False
        try:
            async with asyncio.timeout(limit / timedelta(seconds=1)):
                await asyncio.shield(self._exited)
        except TimeoutError:
            timed_out = not _has_ended(process)  # after a freeze of this process, the end and the limit come at once
            if timed_out:
                await self._end(process, grace)
            await asyncio.wait([self._exited])
        except asyncio.CancelledError:
            await _uncancelled(self._end(process, grace))
            raise
        finally:
            try:
                await _uncancelled(self._wait_for_output())
            finally:
                self._close(process)
            await _uncancelled(_reap_group(process.pid))
        code = process.returncode
        shell_code = TIMED_OUT if timed_out else 128 - code if code < 0 else code
        return Finished(shell_code, self._stdout, self._stderr, timed_out)

    def _not_started(self, code: int, message: str) -> Finished:
        return Finished(code, self._stdout, self._stderr, not_started=f"{self._command.argv[0]} {message}")

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
                    self._output_closed.set()

        self._loop.add_reader(fileno, ready)

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        """Write standard input as far as the program reads it; a program need not read it."""
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
        """Send TERM, then KILL: once the leader has ended and no child holds the output, or after `grace`."""
        _signal(process, signal.SIGTERM)
        closed: asyncio.Future[Any] = asyncio.ensure_future(self._output_closed.wait())
        try:
            await asyncio.wait((self._exited, closed), timeout=grace / timedelta(seconds=1))
        finally:
            closed.cancel()
        _signal(process, signal.SIGKILL)
        await asyncio.wait([self._exited])

    async def _wait_for_output(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(FINAL_OUTPUT_S):
                await self._output_closed.wait()

    def _close(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the processes that outlive their leader, and close everything; cannot be cancelled."""
        _signal(process, signal.SIGKILL)  # the leader is not yet reaped, so no other group can have its number
        process.wait()
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


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def _reap_group(group: int) -> None:
    """Reap the killed processes of a group that are children of this process, as orphans are in a container."""
    deadline_s = asyncio.get_running_loop().time() + ORPHANS_S
    with suppress(ChildProcessError):
        while asyncio.get_running_loop().time() < deadline_s:
            if os.waitpid(-group, os.WNOHANG) == (0, 0):  # noqa: ASYNC222 - WNOHANG: it does not wait
                await asyncio.sleep(0.01)


async def _uncancelled(ending: Coroutine[Any, Any, None]) -> None:
    """Await a coroutine to its end, even if cancelled meanwhile, and then raise the cancellation."""
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
