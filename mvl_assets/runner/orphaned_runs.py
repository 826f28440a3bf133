"""Runs whose process was killed: Dagster would show them as running, and keep their slots in the pools, forever."""

from __future__ import annotations

import socket
from functools import cache

import dagster as dg
import psutil

DRIVER_TAGS = {"mvl/driver": "mvl run"}
PROCESS_TAG = "mvl/process"
UNFINISHED_STATUSES = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


@cache
def build_process_tags() -> dict[str, str]:
    """Return the tags that mark runs of this command, and that name their process."""
    return {**DRIVER_TAGS, PROCESS_TAG: f"{socket.gethostname()} {_format_process_identity(psutil.Process())}"}


def fail_orphaned_runs(instance: dg.DagsterInstance) -> int:
    """Mark the runs of dead processes of this machine as failed, free their slots, and return how many there were."""
    n_failed = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED_STATUSES, tags=DRIVER_TAGS)):
        host, _, process_identity = run.tags.get(PROCESS_TAG, "").partition(" ")
        if host == socket.gethostname() and not _is_alive(process_identity):
            instance.report_run_failed(run, "The process of this run was killed; what it had stored is kept.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            n_failed += 1
    return n_failed


def _format_process_identity(process: psutil.Process) -> str:
    """Return the process id and when the process began, because ids are reused."""
    return f"{process.pid} {process.create_time():.0f}"


def _is_alive(process_identity: str) -> bool:
    try:
        process = psutil.Process(int(process_identity.split(" ")[0]))
        return _format_process_identity(process) == process_identity and process.status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.Error):
        return False
