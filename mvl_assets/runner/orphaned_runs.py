"""Runs whose process was killed: Dagster would show them as running, and keep their places in the pools, for ever."""

from __future__ import annotations

import socket
from functools import cache

import dagster as dg
import psutil

DRIVER = {"mvl/driver": "mvl run"}
PROCESS = "mvl/process"
UNFINISHED = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


@cache
def tags_of_this_process() -> dict[str, str]:
    """The tags by which runs of this command are known, and their process found."""
    return {**DRIVER, PROCESS: f"{socket.gethostname()} {_name(psutil.Process())}"}


def end_abandoned(instance: dg.DagsterInstance) -> int:
    """Marks the runs of dead processes of this machine as failed and frees their pools; returns how many."""
    ended = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED, tags=DRIVER)):
        host, _, process = run.tags.get(PROCESS, "").partition(" ")
        if host == socket.gethostname() and not _lives(process):
            instance.report_run_failed(run, "The process of this run was killed; what it had stored is kept.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            ended += 1
    return ended


def _name(process: psutil.Process) -> str:
    """Its number, and when it began: numbers are used again."""
    return f"{process.pid} {process.create_time():.0f}"


def _lives(name: str) -> bool:
    try:
        process = psutil.Process(int(name.split(" ")[0]))
        return _name(process) == name and process.status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.Error):
        return False
