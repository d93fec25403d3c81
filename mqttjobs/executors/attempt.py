"""One attempt of a job: an executor run once, and whatever goes wrong with it as an outcome."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import structlog

from mqttjobs.domain.jobs import Outcome, changed_something, duration_text
from mqttjobs.errors import TemplateError
from mqttjobs.executors.base import Executor, RunContext
from mqttjobs.executors.shared import NotOpened, SharedResources, shares

log = structlog.get_logger(__name__)


async def attempt(executor: Executor, context: RunContext, resources: SharedResources) -> Outcome:
    """Run an executor within the attempt's time limit and return how it ended; only a cancellation is raised.

    Args:
        executor: what is run.
        context: what it is given, but for `shared`.
        resources: what the jobs of this process share; opened here where the type shares something.
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
        return Outcome(ok=False, error=f"timed out after {duration_text(context.timeout)}")
    except Exception as error:
        log.exception("executor-failed", job=context.job_id, type=executor.kind)
        return Outcome(ok=False, error=f"internal error ({type(error).__name__})")


def _complete(executor: Executor, outcome: Outcome) -> Outcome:
    """Return an outcome in which a completed run says whether it changed something (behaviour 3.4)."""
    if not outcome.ok or outcome.changed is not None:
        return outcome
    return replace(outcome, changed=changed_something(outcome.result, otherwise=executor.changes))
