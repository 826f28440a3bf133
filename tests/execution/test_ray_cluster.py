"""Tasks on a Ray cluster: two nodes on the loopback interface, one of which is killed in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from mvl_assets.errors import SourceError
from mvl_assets.execution.executor import WorkerDied
from mvl_assets.execution.ray_cluster import RayExecutor, connect, is_ray_installed
from tests.execution import tasks
from tests.execution.tasks import Job, make_jobs
from tests.ray_nodes import kill_node, start_cluster

# Not `importorskip`: Ray reads its environment when it is imported.
pytestmark = pytest.mark.skipif(not is_ray_installed(), reason="Ray is not installed: pip install 'mvl[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with start_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def executor(cluster: Any) -> Iterator[RayExecutor]:
    with connect(cluster.address):  # kept by every run
        yield RayExecutor(cluster.address)


def test_all_results_arrive_from_other_processes(executor: RayExecutor, tmp_path: Path) -> None:
    assert sorted(executor.run(tasks.square, make_jobs(tmp_path, 5))) == [0, 1, 4, 9, 16]
    assert str(os.getpid()) not in {pid for log in tmp_path.glob("*.log") for pid in log.read_text().split()}


def test_an_error_keeps_its_type_and_names_its_task(executor: RayExecutor, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="row 7 is missing") as error:
        list(executor.run(tasks.fail, [Job(tmp_path, 1), Job(tmp_path, 2)]))
    assert "number=1" in error.value.__notes__[0]


def test_messages_arrive_with_their_task(executor: RayExecutor, tmp_path: Path) -> None:
    messages: set[tuple[int, Any]] = set()

    def read(job: Job, message: Any) -> None:
        messages.add((job.number, message))
        job.mark_start()

    assert sorted(executor.run_reporting(tasks.report_until_read, make_jobs(tmp_path, 2), read)) == [0, 1]
    assert messages == {(0, 0), (1, 1)}


def test_workers_have_the_settings_of_the_driver_but_no_secrets(
    executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MVL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MVL_PROFILE", "small")
    monkeypatch.setenv("MVL_API_KEY", "secret")
    (settings,) = executor.run(tasks.read_settings, make_jobs(tmp_path, 1))
    assert settings == {
        "MVL_HOME": str(tmp_path / "home"),
        "MVL_LAKE": str(tmp_path / "home" / "lake"),
        "MVL_PROFILE": "small",
        "MVL_API_KEY": None,
    }


def test_a_task_that_always_kills_its_worker_is_given_up(executor: RayExecutor, tmp_path: Path) -> None:
    with pytest.raises(WorkerDied, match="number=1"):
        list(executor.run(tasks.die_always, make_jobs(tmp_path, 2)))


def test_closing_interrupts_the_running_tasks(executor: RayExecutor, tmp_path: Path) -> None:
    results = executor.run(tasks.run_first_at_once, make_jobs(tmp_path, 3))
    assert next(results) == 0
    tasks.wait_until(Job(tmp_path, 1).count_starts)
    results.close()
    assert (tmp_path / "1.interrupted").exists()


def test_everything_listens_on_loopback_only_and_no_dashboard_runs(cluster: Any) -> None:
    ray_processes = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(name in " ".join(process.info["cmdline"] or ()) for name in ("raylet", "gcs_server", "ray::"))
    ]
    listening = set()
    for process in ray_processes:
        with suppress(psutil.NoSuchProcess):  # a worker that ends meanwhile
            connections = process.net_connections("tcp")
            listening |= {found.laddr.ip for found in connections if found.status == psutil.CONN_LISTEN}
    assert listening and listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert not any("dashboard/dashboard.py" in " ".join(process.info["cmdline"]) for process in ray_processes)


def test_tasks_of_a_node_that_is_killed_are_started_on_another(
    cluster: Any, executor: RayExecutor, tmp_path: Path
) -> None:
    jobs = make_jobs(tmp_path, 3)

    def kill_in_the_middle() -> None:
        tasks.wait_until(lambda: sum(job.count_starts() for job in jobs) >= 2)
        kill_node(cluster)
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    assert sorted(executor.run(tasks.wait_for_file, jobs)) == [0, 1, 4]
    killer.join()
    assert sorted(job.count_starts() for job in jobs) == [1, 1, 2]


def test_without_an_address_ray_is_started_on_this_machine_and_stopped(tmp_path: Path) -> None:
    program = (
        "import ray; from pathlib import Path;"
        "from mvl_assets.config.profile import ExecutorConfig; from mvl_assets.execution.create import create_executor;"
        "from tests.execution import tasks;"
        "executor = create_executor(ExecutorConfig(kind='ray', processes=1));"
        f"print(list(executor.run(tasks.square, tasks.make_jobs(Path({str(tmp_path)!r}), 2))), ray.is_initialized())"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[0, 1] False\n"
