"""Processes that outlived a killed service or agent: found by the job id in their environment, and killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from mqttjobs.executors.environment import JOB_ID

PROC = Path("/proc")


def end_orphans(job_ids: Collection[str]) -> int:
    """Kill the process groups that still work on these jobs; return how many there were.

    Call this before one of the jobs runs again. Without /proc nothing is found.
    """
    marks = {f"{JOB_ID}={job_id}".encode() for job_id in job_ids}
    groups = set()
    for entry in PROC.iterdir() if marks and PROC.is_dir() else ():
        if entry.name.isdigit():
            with suppress(OSError):
                if marks & set((entry / "environ").read_bytes().split(b"\0")):
                    groups.add(os.getpgid(int(entry.name)))
    groups.discard(os.getpgrp())
    for group in groups:
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    return len(groups)
