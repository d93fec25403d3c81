"""Processes that outlived whoever started them: found by the job in their environment, and ended with their group."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
VARIABLE = b"MQTTJOBS_JOB_ID="


def end_orphans(job_ids: Collection[str]) -> int:
    """Kill the process groups that still work on these jobs; return how many there were.

    Call it before any of them is run again. Where there is no /proc nothing is found.
    """
    marks = {VARIABLE + job_id.encode() for job_id in job_ids}
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
