"""Running an operation by hand: its parameters, the wait for its end, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import orjson
import typer

from mqttjobs.cli.access import Access
from mqttjobs.cli.client import Client, Refused, connected
from mqttjobs.cli.job_views import ENDED, job_detail
from mqttjobs.cli.progress import Show, following
from mqttjobs.cli.terminal import brief, output, print_json, print_note
from mqttjobs.domain.model import Json
from mqttjobs.errors import TransportError

FIRST_LOOK_S = 0.05
LONGEST_LOOK_S = 1.0
PAUSE_S = 1.0


def parse_params(given: Sequence[str]) -> dict[str, Json]:
    """Return `k=v` texts as parameters: a value that is JSON is that JSON, any other is its text."""
    params: dict[str, Json] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"write it as name=value: {each!r}", param_hint="--param")
        if name in params:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--param")
        try:
            params[name] = orjson.loads(text)
        except orjson.JSONDecodeError:
            params[name] = text
    return params


async def start(access: Access, request: Mapping[str, Json]) -> Mapping[str, Json]:
    """Start the operation; return the new job's id, uid and status."""
    async with connected(access) as client:
        return _mapping(await client.ask("operations/execute", request))


async def run_and_wait(access: Access, request: Mapping[str, Json]) -> Mapping[str, Json]:
    """Start the operation, show how it goes on, and return the job's document once it has ended.

    Looks again and again rather than asking the service to wait: this outlives a broker that goes away, and a time
    limit of the operation that we do not know.

    Raises:
        Refused: nothing was started, or who asks may not read jobs.
        TransportError: nothing was started; once it is, this waits for the service to be back.
    """
    with following(quiet=access.as_json) as show:
        job: Mapping[str, Json] = {}
        while True:
            try:
                async with connected(access) as client:
                    if not job:
                        job = _mapping(await client.ask("operations/execute", request))
                    return await _follow(client, job, show)
            except TransportError as error:
                if not job:
                    raise
                print_note(f"{error}; job {brief(job.get('uid'))} may go on, trying again", "yellow")
                await asyncio.sleep(PAUSE_S)


async def _follow(client: Client, job: Mapping[str, Json], show: Show) -> Mapping[str, Json]:
    pause_s = FIRST_LOOK_S
    started = job
    while job.get("status") not in ENDED or job is started:
        show(job)
        await asyncio.sleep(pause_s)
        pause_s = min(LONGEST_LOOK_S, pause_s * 1.5)
        try:
            job = _mapping(await client.ask("jobs/get", {"id": started["id"]}))
        except Refused:
            print_note(f"job {brief(started.get('uid'))} was started, but how it ends cannot be seen:", "yellow")
            raise
    show(job)
    return job


def report(access: Access, job: Mapping[str, Json]) -> int:
    """Print what came of it, and return the exit code: 1 when the job ended in any way but well."""
    if access.as_json:
        print_json(job)
    elif "timeline" in job:
        output().print(job_detail(job))
    else:
        output().print(f"Job {brief(job.get('uid'))} {brief(job.get('status'))}: {brief(job.get('id'))}")
    return 1 if job.get("status") in ENDED - {"completed"} else 0


def _mapping(data: Json) -> Mapping[str, Json]:
    return data if isinstance(data, Mapping) else {}
