"""A lost rank is started again and the run goes on; what would fail again is not tried again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.trainer.run_files import FAILURE_FILE, SAVE_GRACE_ENV, read_save_grace_s
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

# The ranks of the first start wait in their fourth step until they are killed.
WAITING = """
import os, sys, time
from mvl_training.trainer import loop, main

run_step, calls = loop._run_step, []

def wait_and_run_step(*rest):
    calls.append(1)
    while len(calls) == 4 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        time.sleep(0.01)
    return run_step(*rest)

loop._run_step = wait_and_run_step
raise SystemExit(main.main(sys.argv[1:]))
"""


def test_a_killed_rank_is_started_again_and_goes_on_from_the_checkpoint(
    tmp_path: Path, tokenizer: Path, lake: Lake
) -> None:
    recipe, script, out = tmp_path / "tiny.yaml", tmp_path / "waiting.py", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(small.build_recipe_data(tokenizer)), encoding="utf-8")
    script.write_text(WAITING, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", "1"]
    command += ["--shutdown-timeout", "2"]
    command += ["--nproc_per_node", "2", str(script), "--recipe", str(recipe), "--stage", "single_image"]
    command += ["--lake", lake.root, "--out", str(out)]
    with (tmp_path / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, env=small.build_environment(), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE_S
        metrics = out / "metrics.jsonl"
        while not metrics.is_file() or metrics.read_text("utf-8").count("\n") < 3:
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log.txt").read_text()[-3000:]
            time.sleep(0.05)
        ranks = {child.environ().get("RANK"): child for child in psutil.Process(process.pid).children(recursive=True)}
        ranks["1"].send_signal(signal.SIGKILL)
        assert process.wait(PATIENCE_S) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    finally:
        process.kill()
    steps = [json.loads(line)["step"] for line in metrics.read_text("utf-8").splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert json.loads((out / "result.json").read_text("utf-8"))["resumed_from"] == 2


def test_what_would_fail_again_is_not_tried_again(
    tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mvl_training.trainer.main import main

    arguments = ["--recipe", "nowhere", "--stage", "single_image", "--lake", lake.root, "--out", str(tmp_path)]
    assert main(arguments) == 2
    first = json.loads((tmp_path / FAILURE_FILE).read_text("utf-8"))
    assert first["exit_code"] == 2 and "no recipe 'nowhere'" in first["message"]
    (tmp_path / FAILURE_FILE).write_text(json.dumps({"message": "loss rose", "exit_code": 3}), encoding="utf-8")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    capsys.readouterr()
    assert main(arguments) == 3 and capsys.readouterr().err == "loss rose\n"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert main(arguments) == 2, "a person who starts it again may have mended it"


def test_one_variable_says_how_long_a_cancelled_run_may_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SAVE_GRACE_ENV, raising=False)
    assert read_save_grace_s() == 270
    monkeypatch.setenv(SAVE_GRACE_ENV, "900")
    assert read_save_grace_s() == 900
    for text in ("0", "-1", "soon", ""):
        monkeypatch.setenv(SAVE_GRACE_ENV, text)
        with pytest.raises(MvlError, match=SAVE_GRACE_ENV):
            read_save_grace_s()
