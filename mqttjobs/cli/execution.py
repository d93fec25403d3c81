"""Running an operation by hand: its parameters, waiting for the end of the job, and printing the outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import orjson
import typer

from mqttjobs.cli.access import Access
from mqttjobs.cli.client import Client, Refused, connected
from mqttjobs.cli.job_views import ENDED, job_detail, started_line
from mqttjobs.cli.progress import Show, showing_progress
from mqttjobs.cli.terminal import brief, output, print_json, print_note
from mqttjobs.domain.model import Json
from mqttjobs.errors import TransportError

FIRST_POLL_S = 0.05
LONGEST_POLL_S = 1.0
PAUSE_S = 1.0


def parse_params(given: Sequence[str]) -> dict[str, Json]:
    """Return `k=v` texts as parameters; a value is JSON where it parses as JSON, otherwise text."""
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
    """Send operations/execute and return its data: the id, uid and status of the new job."""
    async with connected(access) as client:
        return _mapping(await client.ask("operations/execute", request))


async def run_and_wait(access: Access, request: Mapping[str, Json]) -> Mapping[str, Json]:
    """Start the operation, show its progress, and return the job's document once the job has ended.

    Polls rather than letting the service wait: polling survives a lost broker, and need not know the time limit of
    the operation.

    Raises:
        Refused: nothing was started, or the caller may not read jobs.
        TransportError: nothing was started; after the start, lost connections are made again.
    """
    with showing_progress(quiet=access.as_json) as show:
        job: Mapping[str, Json] = {}
        while True:
            try:
                async with connected(access) as client:
                    if not job:
                        job = _mapping(await client.ask("operations/execute", request))
                    return await _poll(client, job, show)
            except TransportError as error:
                if not job:
                    raise
                print_note(f"{error}; job {brief(job.get('uid'))} may go on, trying again", "yellow")
                await asyncio.sleep(PAUSE_S)


async def _poll(client: Client, job: Mapping[str, Json], show: Show) -> Mapping[str, Json]:
    pause_s = FIRST_POLL_S
    started = job
    while job.get("status") not in ENDED or job is started:
        show(job)
        await asyncio.sleep(pause_s)
        pause_s = min(LONGEST_POLL_S, pause_s * 1.5)
        try:
            job = _mapping(await client.ask("jobs/get", {"id": started["id"]}))
        except Refused:
            print_note(f"job {brief(started.get('uid'))} was started, but how it ends cannot be seen:", "yellow")
            raise
    show(job)
    return job


def print_outcome(access: Access, job: Mapping[str, Json]) -> int:
    """Print the job, and return the exit code: 1 for a job that has ended in any way but `completed`, else 0."""
    if access.as_json:
        print_json(job)
    elif "timeline" in job:
        output().print(job_detail(job))
    else:
        output().print(started_line(job))
    return 1 if job.get("status") in ENDED - {"completed"} else 0


def _mapping(data: Json) -> Mapping[str, Json]:
    return data if isinstance(data, Mapping) else {}
