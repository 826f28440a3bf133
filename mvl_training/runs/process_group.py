"""Supervision of a command and everything it starts, so that no process outlives the call.

A process group of the kernel is not enough: torchrun puts each of its workers into a session of its own, so `killpg` on
the launcher does not reach them, and after a kill -9 of the launcher they cannot be traced to it. Every process of a
group therefore inherits the group's id in its environment (`MVL_PROCESS_GROUP`), which survives new sessions,
re-parenting and pid reuse.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import psutil

from mvl_assets.common.file_lock import try_lock
from mvl_assets.errors import MvlError

STARTUP_GRACE_S = 10.0
"""How long a program may take to start: until then it shows neither arguments nor environment."""

KERNEL_THREADS_PID = 2
"""Parent of the kernel's threads, which never show either."""

GROUP_ENV = "MVL_PROCESS_GROUP"
GROUP_FILE = "process_group.json"
LOCK_FILE = "process_group.lock"
LOG_FILE = "log.txt"

# Where torchrun begins to report a worker's failure: thirty lines that follow the worker's own output.
_TORCHRUN_REPORT_PATTERN = re.compile(
    r"^[EW]\d{4} .*torch/distributed/elastic/multiprocessing/api\.py.*failed", re.MULTILINE
)


LaunchFn = Callable[[Sequence[str], Path], None]
"""Runs a command to its end; the folder keeps its log."""


class FolderBusy(MvlError):
    """A living process already supervises a command in this folder."""


class CommandFailed(MvlError):
    """The command ended with an exit code other than 0.

    Attributes:
        exit_code: Negative for a signal.
        log_tail: Last lines of its log.
    """

    def __init__(self, command: Sequence[str], exit_code: int, log: Path) -> None:
        self.exit_code = exit_code
        self.log_tail = _read_log_tail(log)
        outcome = (
            f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with code {exit_code}"
        )
        last_lines = self.log_tail.splitlines()
        # One line first, for places that show one: the last line of a program usually says why it ended.
        line = (
            f"{last_lines[-1]} ({_format_command(command)} {outcome})"
            if last_lines
            else f"{_format_command(command)} {outcome}"
        )
        super().__init__("\n".join([line, *last_lines[:-1]]), hint=f"the whole log is in {log}")


def run_process_group(
    command: Sequence[str],
    *,
    run_dir: Path,
    env: Mapping[str, str] | None = None,
    on_output: Callable[[str], None],
    grace_s: float = 60.0,
    poll_interval_s: float = 0.2,
) -> None:
    """Run `command` until it ends; however this call ends, all processes of the command have ended too.

    On an exception (a cancel arrives as one) the group is stopped: SIGINT, SIGTERM, SIGKILL, with up to `grace_s`
    seconds after each.

    Args:
        command: Program and arguments.
        run_dir: Folder for the log, and for the file by which the next start finds a group that was orphaned by a
            kill -9 of this process.
        env: Variables added to the environment.
        on_output: Called with the output of the command (stdout and stderr, decoded) as it appears.
        grace_s: Seconds that processes get to end after a signal.
        poll_interval_s: Seconds between polls of the command.

    Raises:
        FolderBusy: Another living process supervises this folder.
        CommandFailed: The command failed.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with _lock_run_dir(run_dir):
        kill_orphans(run_dir)
        group_id = uuid.uuid4().hex
        log = run_dir / LOG_FILE
        with log.open("wb") as sink, log.open(encoding="utf-8", errors="replace") as source:
            # The file comes first: a kill -9 between the two leaves the id of a group without processes.
            _write_group_file(run_dir, group_id, command)
            process = subprocess.Popen(
                list(command),
                env={**os.environ, **(env or {}), GROUP_ENV: group_id},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    _forward_output(source, on_output)
                    time.sleep(poll_interval_s)
            finally:
                stop_group(group_id, process, grace_s=grace_s if process.poll() is None else 0.0)
                (run_dir / GROUP_FILE).unlink(missing_ok=True)
                _forward_output(source, on_output)
    if process.returncode:
        raise CommandFailed(command, process.returncode, log)


def stop_group(group_id: str, leader: subprocess.Popen[bytes] | None, *, grace_s: float) -> None:
    """End every process of a group; return when none is left.

    A second interrupt while waiting goes on to SIGKILL at once.

    Args:
        group_id: Id of the group.
        leader: The command itself; waited for, so that it leaves no zombie.
        grace_s: Seconds after SIGINT, and again after SIGTERM; 0 sends SIGKILL at once.
    """
    try:
        if grace_s > 0:
            _send_signal(_select_sigint_targets(list_processes(group_id), leader), signal.SIGINT)
            if not _wait_until_gone(group_id, leader, grace_s):
                _send_signal(list_processes(group_id), signal.SIGTERM)
                _wait_until_gone(group_id, leader, grace_s)
    finally:
        # Repeated: a process that forks while the group is listed is caught in the next round.
        while processes := list_processes(group_id):
            _send_signal(processes, signal.SIGKILL)
            _wait_until_gone(group_id, leader, 1.0)
        if leader is not None:
            leader.wait()


def kill_orphans(run_dir: Path, *, grace_s: float = 5.0) -> int:
    """End processes that a killed supervisor of this folder left running; return their number."""
    file = run_dir / GROUP_FILE
    if not file.exists():
        return 0
    with suppress(ValueError, KeyError, TypeError):  # a half-written file names no group
        group_id = json.loads(file.read_text(encoding="utf-8"))["group_id"]
        orphans = list_processes(group_id)
        stop_group(group_id, None, grace_s=grace_s)
        file.unlink()
        return len(orphans)
    file.unlink()
    return 0


def list_processes(group_id: str) -> list[psutil.Process]:
    """Return the living processes of this user that have `group_id` in their environment.

    A process may fork and end after the pids were listed and before its own was looked at; its child is then in no
    listing yet. So pids are listed again until none is new: whoever lives by then was looked at.
    """
    processes: list[psutil.Process] = []
    seen_pids: set[int] = set()
    while new_pids := [pid for pid in psutil.pids() if pid not in seen_pids]:
        seen_pids.update(new_pids)
        for pid in new_pids:
            with suppress(psutil.Error, OSError):
                process = psutil.Process(pid)
                if _read_environment(process).get(GROUP_ENV) == group_id and process.status() != psutil.STATUS_ZOMBIE:
                    processes.append(process)
    return processes


def _read_environment(process: psutil.Process) -> dict[str, str]:
    """Return the environment; read again while the program is being started, which takes long on a busy machine."""
    deadline = time.monotonic() + STARTUP_GRACE_S
    while True:
        # The arguments first: they appear together with the environment.
        has_started = bool(process.cmdline())
        environment = process.environ()
        if environment or has_started or time.monotonic() >= deadline:
            return environment
        if process.status() == psutil.STATUS_ZOMBIE or KERNEL_THREADS_PID in (process.pid, process.ppid()):
            return environment
        time.sleep(0.005)


def _select_sigint_targets(
    processes: Sequence[psutil.Process], leader: subprocess.Popen[bytes] | None
) -> list[psutil.Process]:
    """Return the leaders of the sessions inside the group; the launcher itself only if it is alone.

    The workers' own helpers (data loaders) must live until the worker has saved its checkpoint, and torchrun, once it
    is interrupted, gives its workers only 30 seconds; it ends by itself when they have ended.
    """
    leaders = [process for process in processes if _get_session_id(process.pid) == process.pid]
    workers = [process for process in leaders if leader is None or process.pid != leader.pid]
    return workers or leaders or list(processes)


def _get_session_id(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _send_signal(processes: Sequence[psutil.Process], signum: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(signum)


def _wait_until_gone(group_id: str, leader: subprocess.Popen[bytes] | None, timeout_s: float) -> bool:
    """Wait up to `timeout_s` seconds for the group to end; True when it has."""
    deadline = time.monotonic() + timeout_s
    while True:
        if leader is not None:
            leader.poll()
        if not list_processes(group_id):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)


@contextmanager
def _lock_run_dir(run_dir: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it when this process ends, however it ends."""
    with try_lock(run_dir / LOCK_FILE) as is_locked:
        if not is_locked:
            raise FolderBusy(
                f"another run is using {run_dir}", hint="wait for it, or cancel it in the UI, then start again"
            )
        yield


def _write_group_file(run_dir: Path, group_id: str, command: Sequence[str]) -> None:
    text = json.dumps({"group_id": group_id, "supervisor_pid": os.getpid(), "command": list(command)}, indent=1)
    (run_dir / GROUP_FILE).write_text(text, encoding="utf-8")


def _forward_output(source: TextIO, on_output: Callable[[str], None]) -> None:
    if text := source.read():
        on_output(text)


def _read_log_tail(log: Path, n_lines: int = 15) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - (1 << 14)))
        text = file.read().decode("utf-8", errors="replace")
    worker_output = _TORCHRUN_REPORT_PATTERN.split(text, maxsplit=1)[0]
    return "\n".join((worker_output.strip() or text).splitlines()[-n_lines:])


def _format_command(command: Sequence[str]) -> str:
    return " ".join(Path(argument).name if "/" in argument else argument for argument in command[:6])
