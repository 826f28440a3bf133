"""Functions that workers of the executor tests import, and what they leave behind."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from mvl_assets.errors import SourceError
from mvl_assets.execution.executor import Report
from tests.patience import PATIENCE_S


@dataclass(frozen=True)
class Job:
    """A task that appends a line with its process to the file of its name each time it starts."""

    folder: Path
    number: int

    @property
    def log(self) -> Path:
        return self.folder / f"{self.number}.log"

    def mark_start(self) -> int:
        """Return how often it has started, this time included."""
        with self.log.open("a") as log:
            log.write(f"{os.getpid()}\n")
        return self.count_starts()

    def count_starts(self) -> int:
        """Return how many starts are written down: a log is made empty, and its line follows."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


def make_jobs(folder: Path, n_jobs: int) -> list[Job]:
    return [Job(folder, number) for number in range(n_jobs)]


def wait_for_third_job(job: Job) -> bool:
    """Return whether the third task is made."""
    deadline = time.monotonic() + PATIENCE_S
    while not (job.folder / "third").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return (job.folder / "third").exists()


def square(job: Job) -> int:
    job.mark_start()
    return job.number**2


def square_beside_another(job: Job) -> int:
    """Wait until tasks have started in two processes."""
    job.mark_start()
    wait_until(lambda: len({pid for log in job.folder.glob("*.log") for pid in log.read_text().split()}) > 1)
    return job.number**2


def die_at_first(job: Job) -> int:
    """The first start of job 1 is killed."""
    if job.mark_start() == 1 and job.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return job.number**2


def die_always(job: Job) -> int:
    if job.number == 1:
        job.mark_start()
        os.kill(os.getpid(), signal.SIGKILL)
    return job.number**2


def fail(job: Job) -> int:
    if job.number == 1:
        raise SourceError("chartqa", "row 7 is missing", file="a.json", hint="fetch it again")
    sleep_interruptibly()
    return 0


def sleep_interruptibly() -> None:
    """Sleep in pieces: Ray's interrupt, unlike a signal, does not end a sleep."""
    for _ in range(6000):
        time.sleep(0.1)


class UnpicklableError(Exception):
    def __reduce__(self) -> str:
        raise TypeError("this error stays where it is")


def fail_unpicklably(job: Job) -> int:
    raise UnpicklableError("the cause is a lambda")


def report_steps(job: Job, report: Report) -> int:
    for step in range(3):
        report(step)
    return job.number


def report_until_read(job: Job, report: Report) -> int:
    """Report until the driver has left a file of the job's name."""

    def is_read() -> bool:
        report(job.number)
        return job.count_starts() > 0

    wait_until(is_read)
    return job.number


def run_until_interrupted(job: Job) -> int:
    """Leave a file when the task is interrupted."""
    job.mark_start()
    try:
        sleep_interruptibly()
    except KeyboardInterrupt:
        (job.folder / f"{job.number}.interrupted").touch()
        raise
    return 0


def run_first_at_once(job: Job) -> int:
    return 0 if job.number == 0 else run_until_interrupted(job)


def wait_until(condition: object, seconds: float = PATIENCE_S) -> None:
    """Return once the condition, a function, holds."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def wait_for_file(job: Job) -> int:
    """Wait for the file `go` of the folder."""
    job.mark_start()
    wait_until((job.folder / "go").exists)
    return job.number**2


def get_process_group(job: Job) -> tuple[int, int]:
    return os.getpid(), os.getpgid(0)


def read_settings(job: Job) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in ("MVL_HOME", "MVL_LAKE", "MVL_PROFILE", "MVL_API_KEY")}
