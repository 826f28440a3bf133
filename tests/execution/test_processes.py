"""Tasks on processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mvl_assets.config.profile import ExecutorConfig
from mvl_assets.errors import SourceError
from mvl_assets.execution.create import create_executor
from mvl_assets.execution.executor import MAX_ATTEMPTS, TaskFailed, WorkerDied, count_cpus
from mvl_assets.execution.processes import ProcessExecutor
from tests.execution import tasks
from tests.execution.tasks import Job, make_jobs


def read_pids(folder: Path) -> set[str]:
    return {pid for log in folder.glob("*.log") for pid in log.read_text().split()}


def test_processes_one_per_cpu_are_the_default_of_a_profile() -> None:
    executor = create_executor(ExecutorConfig())
    assert isinstance(executor, ProcessExecutor)
    assert executor.n_processes == count_cpus()


def test_all_results_arrive_from_no_more_processes_than_asked_for(tmp_path: Path) -> None:
    results = ProcessExecutor(2).run(tasks.square_beside_another, make_jobs(tmp_path, 6))
    assert sorted(results) == [0, 1, 4, 9, 16, 25]
    pids = read_pids(tmp_path)
    assert len(pids) == 2 and str(os.getpid()) not in pids


def test_the_next_task_is_made_while_the_workers_are_busy(tmp_path: Path) -> None:
    def iter_jobs() -> Iterator[Job]:
        for job in make_jobs(tmp_path, 3):
            if job.number == 2:
                (tmp_path / "third").touch()
            yield job

    assert list(ProcessExecutor(2).run(tasks.wait_for_third_job, iter_jobs())) == [True] * 3


@pytest.mark.parametrize(("n_processes", "n_jobs"), [(1, 3), (4, 1), (4, 0)])
def test_one_process_or_one_task_runs_in_the_calling_process(tmp_path: Path, n_processes: int, n_jobs: int) -> None:
    results = list(ProcessExecutor(n_processes).run(tasks.square, make_jobs(tmp_path, n_jobs)))
    assert results == [n**2 for n in range(n_jobs)]
    assert read_pids(tmp_path) <= {str(os.getpid())}


def test_a_task_whose_worker_is_killed_is_started_again_and_no_other(tmp_path: Path) -> None:
    results = ProcessExecutor(2).run(tasks.die_at_first, make_jobs(tmp_path, 5))
    assert sorted(results) == [0, 1, 4, 9, 16]
    starts = [job.count_starts() for job in make_jobs(tmp_path, 5)]
    assert starts == [1, 2, 1, 1, 1]


def test_a_task_that_always_loses_its_worker_is_given_up_with_the_signal_and_its_name(tmp_path: Path) -> None:
    with pytest.raises(WorkerDied, match=r"number=1.*SIGKILL") as error:
        list(ProcessExecutor(2).run(tasks.die_always, make_jobs(tmp_path, 3)))
    assert "executor.processes" in (error.value.hint or "")
    assert Job(tmp_path, 1).count_starts() == MAX_ATTEMPTS


@pytest.mark.parametrize("n_processes", [1, 2])
def test_an_error_keeps_its_type_and_names_its_task(tmp_path: Path, n_processes: int) -> None:
    jobs = [Job(tmp_path, 1), Job(tmp_path, 2)]
    with pytest.raises(SourceError, match="row 7 is missing") as error:
        list(ProcessExecutor(n_processes).run(tasks.fail, jobs))
    assert (error.value.file, error.value.hint) == ("a.json", "fetch it again")
    (note,) = error.value.__notes__
    assert "number=1" in note and "in fail" in note


def test_an_error_that_cannot_be_sent_arrives_as_text(tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match="the cause is a lambda"):
        list(ProcessExecutor(2).run(tasks.fail_unpicklably, make_jobs(tmp_path, 2)))


@pytest.mark.parametrize("n_processes", [1, 2])
def test_messages_arrive_with_their_task(tmp_path: Path, n_processes: int) -> None:
    messages: list[tuple[int, object]] = []
    executor = ProcessExecutor(n_processes)
    results = executor.run_reporting(
        tasks.report_steps, make_jobs(tmp_path, 2), lambda job, message: messages.append((job.number, message))
    )
    assert sorted(results) == [0, 1]
    assert sorted(messages) == [(number, step) for number in range(2) for step in range(3)]


def test_closing_interrupts_the_running_tasks_and_starts_no_more(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 4)
    results = ProcessExecutor(2).run(tasks.run_until_interrupted, jobs)
    # It yields nothing, so it is interrupted as Ctrl-C would do it.
    timer = threading.Thread(
        target=lambda: (
            tasks.wait_until(lambda: jobs[0].count_starts() and jobs[1].count_starts()),
            os.kill(os.getpid(), signal.SIGINT),
        )
    )
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(results)
    timer.join()
    assert sorted(path.name for path in tmp_path.glob("*.interrupted")) == ["0.interrupted", "1.interrupted"]
    assert jobs[2].count_starts() == 0
    assert not any(psutil.pid_exists(int(pid)) for pid in read_pids(tmp_path))


def test_workers_leave_the_terminals_process_group(tmp_path: Path) -> None:
    for pid, group in ProcessExecutor(2).run(tasks.get_process_group, make_jobs(tmp_path, 2)):
        assert pid == group


def test_workers_end_with_their_parent_even_if_it_is_killed(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from mvl_assets.execution.processes import ProcessExecutor;"
        "from tests.execution import tasks;"
        f"list(ProcessExecutor(2).run(tasks.run_until_interrupted, tasks.make_jobs(Path({str(tmp_path)!r}), 2)))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    tasks.wait_until(lambda: len(read_pids(tmp_path)) == 2)
    parent.kill()
    parent.wait()
    tasks.wait_until(lambda: not any(is_running(int(pid)) for pid in read_pids(tmp_path)))


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
