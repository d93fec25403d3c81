"""One attempt of a job: runs an executor once, and returns every error as an outcome."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from mqttjobs.domain.jobs import Outcome, duration_text
from mqttjobs.errors import TemplateError
from mqttjobs.executors.base import Executor, RunContext

log = structlog.get_logger(__name__)


async def attempt(executor: Executor, context: RunContext) -> Outcome:
    """Run an executor within the time limit of the attempt and return its outcome; only a cancellation is raised.

    A TemplateError is an outcome that no retry can change. Any other exception is logged as `executor-failed`.
    """
    limit_s = None if executor.own_timeout else context.timeout / timedelta(seconds=1)
    try:
        async with asyncio.timeout(limit_s):
            return await executor.run(context)
    except TemplateError as error:
        return Outcome(ok=False, error=error.details, repeatable=False)
    except TimeoutError:
        return Outcome(ok=False, error=f"timed out after {duration_text(context.timeout)}")
    except Exception as error:
        log.exception("executor-failed", job=context.job_id, type=executor.kind)
        return Outcome(ok=False, error=f"internal error ({type(error).__name__})")
