"""An operation type for tests: `work` goes on until the test says how it ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mqttjobs.domain.jobs import Outcome
from mqttjobs.executors.base import Executor, RunContext, executor_types


@dataclass(eq=False)
class Run:
    """One attempt that is being made, or was; `cancelled` when it was ended from outside."""

    label: str
    context: RunContext
    ending: asyncio.Future[Outcome] = field(repr=False)
    cancelled: bool = False

    @staticmethod
    def closed() -> None:
        """Let there be no type `work` any more."""
        executor_types().pop("work", None)  # type: ignore[attr-defined]

    @property
    def going(self) -> bool:
        """Whether it has not ended."""
        return not self.ending.done()

    def complete(self, result: Any = None, **more: Any) -> None:
        """End it well."""
        self.ending.set_result(Outcome(ok=True, result=result, **more))

    def fail(self, error: str = "it broke", **more: Any) -> None:
        """End it badly."""
        self.ending.set_result(Outcome(ok=False, error=error, **more))


class FakeJobs:
    """Where the runs of `work` lie, in the order in which they began."""

    current: ClassVar[FakeJobs]

    def __init__(self) -> None:
        self.runs: list[Run] = []

    @classmethod
    def opened(cls) -> FakeJobs:
        """Return a new desk, on which every run lies from now on; `closed` takes the type away again."""
        executor_types()["work"] = Work  # type: ignore[index]
        cls.current = cls()
        return cls.current

    @staticmethod
    def closed() -> None:
        """Let there be no type `work` any more."""
        executor_types().pop("work", None)  # type: ignore[attr-defined]

    @property
    def going(self) -> list[Run]:
        """The runs that have not ended."""
        return [run for run in self.runs if run.going]

    def labels(self) -> list[str]:
        """Return what began, in order."""
        return [run.label for run in self.runs]

    def burn(self, hostname: str) -> None:
        """End what went on in a process that died."""
        for run in self.going:
            if run.context.hostname == hostname:
                run.ending.cancel()


class Work(Executor):
    """Goes on until its run on the desk is completed or failed."""

    kind: ClassVar[str] = "work"
    no_description: ClassVar[dict[str, Any]] = {"exitCode": None, "stdout": None}

    label: str = "work"

    async def run(self, context: RunContext) -> Outcome:
        """See Executor."""
        run = Run(self.label, context, asyncio.get_running_loop().create_future())
        FakeJobs.current.runs.append(run)
        try:
            return await run.ending
        except asyncio.CancelledError:
            run.cancelled = True
            raise
