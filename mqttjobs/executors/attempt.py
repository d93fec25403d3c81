"""One attempt of a job: runs an executor once, and returns every error as an outcome."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import structlog

from mqttjobs.domain.jobs import Outcome, changed_something, timed_out
from mqttjobs.errors import TemplateError
from mqttjobs.executors.base import Executor, RunContext
from mqttjobs.executors.shared import NotOpened, SharedResources, shares

log = structlog.get_logger(__name__)


async def attempt(executor: Executor, context: RunContext, resources: SharedResources) -> Outcome:
    """Run an executor within the time limit of the attempt and return its outcome; only a cancellation is raised.

    A TemplateError is an outcome that no retry can change. Any other exception is logged as `executor-failed`.

    Args:
        executor: the operation type with the operation's own keys.
        context: what the run is given, without `shared`.
        resources: the shared resources of this process; opened here where the type has one.
    """
    timeout_s = context.timeout / timedelta(seconds=1)
    try:
        async with asyncio.timeout(None if executor.own_timeout else timeout_s):
            if not shares(type(executor)):
                return _complete(executor, await executor.run(context))
            async with resources.use(type(executor), timeout_s) as shared:
                return _complete(executor, await executor.run(replace(context, shared=shared)))
    except NotOpened as error:
        return Outcome(ok=False, error=f"{executor.kind}: {error}")
    except TemplateError as error:
        return Outcome(ok=False, error=error.details, repeatable=False)
    except TimeoutError:
        return Outcome(ok=False, error=timed_out(context.timeout))
    except Exception as error:
        log.exception("executor-failed", job=context.job_id, type=executor.kind)
        return Outcome(ok=False, error=f"internal error ({type(error).__name__})")


def _complete(executor: Executor, outcome: Outcome) -> Outcome:
    """Return an outcome in which a completed run says whether it changed something (behaviour 3.4)."""
    if not outcome.ok or outcome.changed is not None:
        return outcome
    return replace(outcome, changed=changed_something(outcome.result, otherwise=executor.changes))
