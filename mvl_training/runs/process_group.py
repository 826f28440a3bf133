"""A command and everything it starts, supervised as one: it ends whole, or is taken down whole.

Belongs here: starting, following, stopping and reaping processes, with no Dagster in it. What is started, and what its
messages mean, belongs to the callers.

A process group alone is not enough: torchrun puts each of its workers into a session of its own, so `killpg` on the
launcher does not reach them, and after a kill -9 of the launcher nobody remembers them. Every process of a group
therefore inherits a mark in its environment (`MVL_PROCESS_GROUP`), which survives new sessions, re-parenting and pid
reuse.
"""

from __future__ import annotations

import fcntl
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

from mvl_assets.errors import MvlError

# How old a process may be to count as just being started.
STARTING_S = 1.0
MARK = "MVL_PROCESS_GROUP"
GROUP_FILE = "process_group.json"
LOCK_FILE = "process_group.lock"
LOG_FILE = "log.txt"

# Where torchrun begins to report a worker's failure: thirty lines behind what the worker itself said.
_TORCHRUN_REPORT = re.compile(r"^[EW]\d{4} .*torch/distributed/elastic/multiprocessing/api\.py.*failed", re.MULTILINE)


class FolderBusy(MvlError):
    """A living process already supervises a command in this folder."""


class CommandFailed(MvlError):
    """The command ended with another code than 0. `code` is negative for a signal; `tail` holds its last lines."""

    def __init__(self, command: Sequence[str], code: int, log: Path) -> None:
        self.code = code
        self.tail = _tail(log)
        ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        said = self.tail.splitlines()
        # One line first, for places that show one: the last words of a program usually say why it ended.
        line = f"{said[-1]} ({_short(command)} {ended})" if said else f"{_short(command)} {ended}"
        super().__init__("\n".join([line, *said[:-1]]), hint=f"the whole log is in {log}")


def supervise(
    command: Sequence[str],
    *,
    folder: Path,
    env: Mapping[str, str] | None = None,
    echo: Callable[[str], None],
    grace: float = 60.0,
    poll: float = 0.2,
) -> None:
    """Runs `command` until it ends and leaves no process of it behind, however this call ends.

    `folder` is the run folder: it gets the log, and the file by which the next start finds a group that a kill -9 of
    this process orphaned. `echo` receives what the command writes (stdout and stderr, decoded), as it appears. On an
    exception (a cancel arrives as one) the group is stopped: SIGINT, SIGTERM, SIGKILL, with up to `grace` seconds
    after each.

    Raises `FolderBusy` when another living process supervises this folder, `CommandFailed` when the command fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        reap(folder)
        mark = uuid.uuid4().hex
        log = folder / LOG_FILE
        with log.open("wb") as sink, log.open(encoding="utf-8", errors="replace") as source:
            # The file comes first: a kill -9 between the two lines leaves a mark that nobody carries.
            _remember(folder, mark, command)
            process = subprocess.Popen(
                list(command),
                env={**os.environ, **(env or {}), MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    _forward(source, echo)
                    time.sleep(poll)
            finally:
                stop(mark, process, grace=grace if process.poll() is None else 0.0)
                (folder / GROUP_FILE).unlink(missing_ok=True)
                _forward(source, echo)
    if process.returncode:
        raise CommandFailed(command, process.returncode, log)


def stop(mark: str, leader: subprocess.Popen[bytes] | None, *, grace: float) -> None:
    """Ends every process that carries `mark`, politely first. Returns when none is left.

    A second interrupt while waiting skips the politeness. `leader` is waited for, so that it leaves no zombie.
    """
    try:
        if grace > 0:
            _signal(_asked_first(members(mark), leader), signal.SIGINT)
            if not _gone(mark, leader, grace):
                _signal(members(mark), signal.SIGTERM)
                _gone(mark, leader, grace)
    finally:
        # Again and again: a process that forks while it is being listed is caught in the next round.
        while living := members(mark):
            _signal(living, signal.SIGKILL)
            _gone(mark, leader, 1.0)
        if leader is not None:
            leader.wait()


def reap(folder: Path, *, grace: float = 5.0) -> int:
    """Ends what an earlier, killed supervisor left running for this folder; returns how many processes that were."""
    file = folder / GROUP_FILE
    if not file.exists():
        return 0
    with suppress(ValueError, KeyError, TypeError):  # a half-written file names nobody
        mark = json.loads(file.read_text(encoding="utf-8"))["mark"]
        orphans = members(mark)
        stop(mark, None, grace=grace)
        file.unlink()
        return len(orphans)
    file.unlink()
    return 0


def members(mark: str) -> list[psutil.Process]:
    """The living processes of this user that carry `mark` in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if _environment(process).get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _environment(process: psutil.Process) -> dict[str, str]:
    """Read again for a moment while it is empty: the kernel shows none of a program that is just being started."""
    while not (found := process.environ()) and time.time() - process.create_time() < STARTING_S:
        time.sleep(0.005)
    return found


def _asked_first(living: Sequence[psutil.Process], leader: subprocess.Popen[bytes] | None) -> list[psutil.Process]:
    """Whom to ask with SIGINT: the leaders of the sessions inside the group, the launcher itself only when it is alone.

    The workers' own helpers (data loaders) must live until the worker has saved its checkpoint, and torchrun, once it
    is interrupted, gives its workers only 30 seconds; it ends by itself when they have ended.
    """
    leaders = [process for process in living if _session(process.pid) == process.pid]
    workers = [process for process in leaders if leader is None or process.pid != leader.pid]
    return workers or leaders or list(living)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def _gone(mark: str, leader: subprocess.Popen[bytes] | None, seconds: float) -> bool:
    """Waits up to `seconds` for the group to end; True when it has."""
    deadline = time.monotonic() + seconds
    while True:
        if leader is not None:
            leader.poll()
        if not members(mark):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; the kernel drops it when this process ends, however it ends."""
    with (folder / LOCK_FILE).open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderBusy(
                f"another run is at work in {folder}", hint="wait for it, or cancel it in the UI, then start again"
            ) from None
        yield


def _remember(folder: Path, mark: str, command: Sequence[str]) -> None:
    text = json.dumps({"mark": mark, "supervisor": os.getpid(), "command": list(command)}, indent=1)
    (folder / GROUP_FILE).write_text(text, encoding="utf-8")


def _forward(source: TextIO, echo: Callable[[str], None]) -> None:
    if text := source.read():
        echo(text)


def _tail(log: Path, lines: int = 15) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - (1 << 14)))
        text = file.read().decode("utf-8", errors="replace")
    said = _TORCHRUN_REPORT.split(text, maxsplit=1)[0]
    return "\n".join((said.strip() or text).splitlines()[-lines:])


def _short(command: Sequence[str]) -> str:
    return " ".join(Path(part).name if "/" in part else part for part in command[:6])
