"""The launcher inside a real Dagster step: its log lines arrive, a cancel leaves nothing running."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import psutil
import pytest

from mvl_training.orchestration.launch import Launcher
from mvl_training.runs.process_group import CommandFailed
from tests.patience import PATIENCE_S

CHILD = """
import os
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info(f"loss 1.25 of {pipes.asset_key}")
    print("hello from the child", flush=True)
"""

# A run of an asset that launches a stubborn group, in a process of its own so that it can be interrupted.
RUN = """
import sys
from pathlib import Path
import dagster as dg
from mvl_training.orchestration.launch import Launcher

folder = Path(sys.argv[1])

@dg.asset
def trained(context: dg.AssetExecutionContext, launcher: Launcher) -> dg.MaterializeResult:
    launcher.run(context, [sys.executable, str(folder / "child.py"), str(folder), "1"], run_dir=folder / "run")
    return dg.MaterializeResult()

if __name__ == "__main__":
    with dg.DagsterInstance.local_temp(str(folder / "instance")) as instance:
        try:
            dg.materialize([trained], instance=instance, resources={"launcher": Launcher(grace_s=0.3)})
        except BaseException as error:
            (folder / "error").write_text(type(error).__name__)
        (folder / "status").write_text(instance.get_runs()[0].status.value)
"""

STUBBORN = """
import os, signal, subprocess, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
folder, depth = Path(sys.argv[1]), int(sys.argv[2])
if depth:
    command = [sys.executable, __file__, str(folder), str(depth - 1)]
    child = subprocess.Popen(command, start_new_session=True)
(folder / f"{depth}.part").write_text(str(os.getpid()))
(folder / f"{depth}.part").rename(folder / f"{depth}.pid")
time.sleep(600)
"""


def _asset(command: list[str], folder: Path) -> dg.AssetsDefinition:
    @dg.asset
    def trained(context: dg.AssetExecutionContext, launcher: Launcher) -> dg.MaterializeResult:
        launcher.run(context, command, run_dir=folder)
        return dg.MaterializeResult()

    return trained


def test_log_lines_of_the_child_reach_the_event_log_and_its_output_the_log_file(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance:
        asset = _asset([sys.executable, "-c", CHILD], tmp_path)
        result = dg.materialize([asset], instance=instance, resources={"launcher": Launcher()})
        assert result.success
        lines = [entry.user_message for entry in instance.all_logs(result.run_id)]
        assert any("loss 1.25 of trained" in line for line in lines)
    assert "hello from the child" in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_a_failed_command_fails_the_step_with_its_last_words(tmp_path: Path) -> None:
    asset = _asset([sys.executable, "-c", "raise SystemExit('recipe demo has no stage x')"], tmp_path)
    with dg.instance_for_test() as instance, pytest.raises(CommandFailed, match="recipe demo has no stage x"):
        dg.materialize([asset], instance=instance, resources={"launcher": Launcher()})


def test_a_cancelled_run_leaves_no_process_and_is_recorded_as_cancelled(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(STUBBORN, encoding="utf-8")
    (tmp_path / "run.py").write_text(RUN, encoding="utf-8")
    (tmp_path / "instance").mkdir()
    run = subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while len(list(tmp_path.glob("*.pid"))) < 2:
            assert time.monotonic() < deadline and run.poll() is None, "the group did not start"
            time.sleep(0.05)
        pids = [int(file.read_text()) for file in tmp_path.glob("*.pid")]
        # What the UI's "terminate" does: it says that a person wants it, then interrupts the worker.
        with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as instance:
            instance.report_run_canceling(instance.get_runs()[0])
        run.send_signal(signal.SIGINT)
        run.wait(timeout=PATIENCE_S)
    finally:
        run.kill()
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
    assert (tmp_path / "error").read_text() == "DagsterExecutionInterruptedError"
    assert (tmp_path / "status").read_text() == "CANCELED"
    assert not (tmp_path / "run" / "process_group.json").exists()


def test_the_group_file_in_the_run_folder_names_the_group_and_its_supervisor(tmp_path: Path) -> None:
    code = f"import pathlib; print(pathlib.Path({str(tmp_path)!r}, 'process_group.json').read_text())"
    with dg.instance_for_test() as instance:
        asset = _asset([sys.executable, "-c", code], tmp_path)
        dg.materialize([asset], instance=instance, resources={"launcher": Launcher()})
    remembered = json.loads((tmp_path / "log.txt").read_text(encoding="utf-8"))
    assert remembered["supervisor_pid"] == os.getpid()
    assert len(remembered["group_id"]) == 32
