"""A launched command ends with all its processes: cases that leave processes running elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mvl_training.runs.process_group import (
    GROUP_ENV,
    GROUP_FILE,
    CommandFailed,
    FolderBusy,
    kill_orphans,
    list_processes,
    run_process_group,
)
from tests.patience import PATIENCE_S

# A launcher like torchrun: its worker gets a session of its own, the worker has a helper, and all of them ignore SIGINT
# and SIGTERM. Each writes its pid, so a test can look for it by name instead of trusting the code it tests.
STUBBORN = """
import os, signal, subprocess, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
folder, depth = Path(sys.argv[1]), int(sys.argv[2])
child = None
if depth:
    command = [sys.executable, __file__, str(folder), str(depth - 1)]
    child = subprocess.Popen(command, start_new_session=depth == 2)
(folder / f"{depth}.part").write_text(str(os.getpid()))
(folder / f"{depth}.part").rename(folder / f"{depth}.pid")
time.sleep(600)
"""

# Saves on SIGINT after a while and then ends by itself; a SIGTERM would end it before it has saved.
SAVING = """
import os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def save(number, frame):
    time.sleep(0.5)
    (folder / "saved").write_text("yes")
    raise SystemExit(0)
signal.signal(signal.SIGINT, save)
(folder / "0.pid").write_text(str(os.getpid()))
time.sleep(600)
"""


# Starts a model server as a benchmark does, and ends.
SERVING = """
import subprocess, sys
from pathlib import Path
from mvl_assets.inference.local_server.server_spec import ServerSpec
spec = ServerSpec(model="m", served_model_name="s", command=("sleep", "600"))
server = subprocess.Popen(spec.prepare_command(), env=spec.build_environment(), start_new_session=True)
(Path(sys.argv[1]) / "server.pid").write_text(str(server.pid))
"""


class Cancelled(BaseException):
    """Stands for the interrupt that Dagster raises in a cancelled step."""


def _script(folder: Path, text: str) -> Path:
    file = folder / "child.py"
    file.write_text(text, encoding="utf-8")
    return file


def _wait_for(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _pids(folder: Path, count: int) -> list[int]:
    def written() -> list[str]:
        return [text for file in folder.glob("*.pid") if (text := file.read_text())]

    _wait_for(lambda: len(written()) == count)
    return [int(text) for text in written()]


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _cancel_when(started: Callable[[], bool]) -> Callable[[str], None]:
    """An `echo` that raises like a cancelled step does, once `started`."""

    def echo(text: str) -> None:
        _wait_for(started)
        raise Cancelled

    return echo


def test_a_cancel_ends_launcher_workers_and_helpers_that_ignore_sigint_and_sigterm(
    tmp_path: Path,
) -> None:
    script = _script(tmp_path, "print('up', flush=True)\n" + STUBBORN)
    with pytest.raises(Cancelled):
        run_process_group(
            [sys.executable, str(script), str(tmp_path), "2"],
            run_dir=tmp_path / "run",
            on_output=_cancel_when(lambda: len(list(tmp_path.glob("*.pid"))) == 3),
            grace_s=0.3,
        )
    assert not [pid for pid in _pids(tmp_path, 3) if _alive(pid)]


def test_a_worker_that_saves_on_sigint_gets_the_time_to_save(tmp_path: Path) -> None:
    script = _script(tmp_path, "print('up', flush=True)\n" + SAVING)
    with pytest.raises(Cancelled):
        run_process_group(
            [sys.executable, str(script), str(tmp_path)],
            run_dir=tmp_path / "run",
            on_output=_cancel_when(lambda: (tmp_path / "0.pid").exists()),
            grace_s=20.0,
        )
    assert (tmp_path / "saved").read_text() == "yes"


def test_helpers_that_a_successful_command_left_running_are_ended(tmp_path: Path) -> None:
    text = """
import subprocess, sys
from pathlib import Path
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
Path(sys.argv[1], "0.pid").write_text(str(helper.pid))
"""
    run_process_group(
        [sys.executable, str(_script(tmp_path, text)), str(tmp_path)],
        run_dir=tmp_path / "run",
        on_output=lambda text: None,
    )
    assert not [pid for pid in _pids(tmp_path, 1) if _alive(pid)]


def test_the_next_start_ends_the_group_of_a_killed_supervisor(tmp_path: Path) -> None:
    run = tmp_path / "run"
    script = _script(tmp_path, STUBBORN)
    code = (
        "import sys; from pathlib import Path; from mvl_training.runs.process_group import run_process_group\n"
        "run_process_group(sys.argv[2:], run_dir=Path(sys.argv[1]), on_output=lambda text: None)"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", code, str(run), sys.executable, str(script), str(tmp_path), "2"]
    )
    pids = _pids(tmp_path, 3)
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    assert all(_alive(pid) for pid in pids), "a kill -9 of the supervisor leaves the group running"

    group_id = json.loads((run / GROUP_FILE).read_text())["group_id"]
    assert {process.pid for process in list_processes(group_id)} == set(pids)
    # The launcher alone goes first: its workers are then orphans, which a process group of the kernel loses.
    launcher = int((tmp_path / "2.pid").read_text())
    os.kill(launcher, signal.SIGKILL)
    assert kill_orphans(run, grace_s=0.2) >= 2
    assert not [pid for pid in pids if _alive(pid)]
    assert not (run / GROUP_FILE).exists()


def test_a_second_start_in_the_same_folder_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    script = _script(tmp_path, "print('up', flush=True)\n" + SAVING)
    run = tmp_path / "run"
    stop = threading.Event()
    errors: list[BaseException] = []

    def first() -> None:
        try:
            run_process_group(
                [sys.executable, str(script), str(tmp_path)],
                run_dir=run,
                on_output=_cancel_when(stop.is_set),
                grace_s=20.0,
            )
        except Cancelled as error:
            errors.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        (pid,) = _pids(tmp_path, 1)
        with pytest.raises(FolderBusy):
            run_process_group([sys.executable, "-c", "pass"], run_dir=run, on_output=lambda text: None)
        assert _alive(pid), "the refused start must not touch the living run"
    finally:
        stop.set()
        thread.join()
    assert len(errors) == 1


def test_a_failing_command_says_its_code_and_its_last_lines(tmp_path: Path) -> None:
    outputs: list[str] = []
    with pytest.raises(CommandFailed) as caught:
        run_process_group(
            [sys.executable, "-c", "print('no such recipe'); raise SystemExit(3)"],
            run_dir=tmp_path,
            on_output=outputs.append,
        )
    assert caught.value.exit_code == 3
    assert "no such recipe" in caught.value.message
    assert "no such recipe" in "".join(outputs)


def test_the_last_lines_of_a_worker_are_reported_without_the_report_of_torchrun(tmp_path: Path) -> None:
    report = "E1123 13:47:17.381000 1 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 2)"
    code = f"print('there is no pack plan'); print({report!r}); print('Traceback\\n' * 40); raise SystemExit(1)"
    with pytest.raises(CommandFailed) as caught:
        run_process_group([sys.executable, "-c", code], run_dir=tmp_path, on_output=lambda text: None)
    assert caught.value.log_tail == "there is no pack plan"
    assert caught.value.message.startswith("there is no pack plan (")
    assert len(caught.value.message.splitlines()) == 1


def test_a_model_server_outlives_the_command_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    script = _script(tmp_path, SERVING)
    run_process_group(
        [sys.executable, str(script), str(tmp_path)], run_dir=tmp_path / "run", on_output=lambda text: None
    )
    server = psutil.Process(int((tmp_path / "server.pid").read_text()))
    try:
        assert server.status() != psutil.STATUS_ZOMBIE
    finally:
        server.kill()


def test_a_half_written_group_file_does_not_stop_the_next_start(tmp_path: Path) -> None:
    (tmp_path / GROUP_FILE).write_text('{"group_id": "ab', encoding="utf-8")
    outputs: list[str] = []
    run_process_group([sys.executable, "-c", "print('ran')"], run_dir=tmp_path, on_output=outputs.append)
    assert "ran" in "".join(outputs)


def test_a_program_that_is_just_being_started_belongs_to_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while it shows neither arguments nor environment."""
    read_cmdline, read_environ, n_looks = psutil.Process.cmdline, psutil.Process.environ, Counter[int]()

    def is_early(process: psutil.Process) -> bool:
        return process.pid == helper.pid and n_looks[process.pid] < 3

    def read_late_cmdline(process: psutil.Process) -> list[str]:
        n_looks[process.pid] += 1
        return [] if is_early(process) else read_cmdline(process)

    def read_late_environ(process: psutil.Process) -> dict[str, str]:
        return {} if is_early(process) else read_environ(process)

    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command, env=os.environ | {GROUP_ENV: "just-started"}) as helper:
        monkeypatch.setattr(psutil.Process, "cmdline", read_late_cmdline)
        monkeypatch.setattr(psutil.Process, "environ", read_late_environ)
        result = [process.pid for process in list_processes("just-started")]
        helper.kill()
    assert result == [helper.pid]


def test_a_process_that_forks_and_ends_while_the_group_is_listed_leaves_no_one_unseen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parent is listed and ends before it is looked at; its child began after the listing."""
    environment = {**os.environ, GROUP_ENV: "forking"}
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    parent = subprocess.Popen(command, env=environment)
    children: list[subprocess.Popen[bytes]] = []
    list_pids = psutil.pids

    def list_pids_then_fork() -> list[int]:
        pids = list_pids()
        if not children:
            assert parent.pid in pids
            children.append(subprocess.Popen(command, env=environment))
            parent.kill()
            parent.wait()
        return pids

    monkeypatch.setattr(psutil, "pids", list_pids_then_fork)
    try:
        found = [process.pid for process in list_processes("forking")]
        assert found == [child.pid for child in children]
    finally:
        for process in (parent, *children):
            process.kill()
            process.wait()
