"""Staged checkpoints: training goes on while they are copied, and a kill meanwhile loses no earlier one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml
from safetensors.torch import load_file

from mvl_assets.lake.lake import Lake
from mvl_training.trainer.export_main import export_stage
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

# The checkpoint of step 4 is copied only when it is told to be, which here it never is.
NEVER_COPIED = """
import sys, time
from mvl_training.trainer import checkpoint_writer, main
from mvl_training.trainer.export_main import export_stage

copy_files = checkpoint_writer._copy_files

def copy_others(staging_dir, building_dir, machine):
    while building_dir.name.endswith("4"):
        time.sleep(0.01)
    copy_files(staging_dir, building_dir, machine)

checkpoint_writer._copy_files = copy_others
raise SystemExit(main.main(sys.argv[1:]))
"""
FULL_DISK = """
import errno, sys
from mvl_training.trainer import checkpoint_writer, main

copy_files = checkpoint_writer._copy_files

def copy_until_full(staging_dir, building_dir, machine):
    if building_dir.name.endswith("4"):
        raise OSError(errno.ENOSPC, "No space left on device")
    copy_files(staging_dir, building_dir, machine)

checkpoint_writer._copy_files = copy_until_full
raise SystemExit(main.main(sys.argv[1:]))
"""
TRAINER = ["-m", "mvl_training.trainer.main"]


def build_command(program: list[str], recipe: Path, lake: Lake, out: Path, n_ranks: int) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n_ranks)]
    return [
        sys.executable,
        *torchrun,
        *program,
        *["--recipe", str(recipe), "--stage", "single_image", "--lake", lake.root, "--out", str(out)],
    ]


def write_recipe(path: Path, tokenizer: Path, *, staged: bool) -> Path:
    data = small.build_recipe_data(tokenizer, staged_checkpoints=staged)
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def run(command: list[str], scratch: Path) -> subprocess.CompletedProcess[str]:
    environment = small.build_environment() | {"MVL_SCRATCH": str(scratch)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_steps_go_on_while_a_checkpoint_is_copied_and_a_kill_leaves_the_one_before(
    tmp_path: Path, tokenizer: Path, lake: Lake
) -> None:
    plain, staged = (write_recipe(tmp_path / f"{name}.yaml", tokenizer, staged=name == "s") for name in ("p", "s"))
    out, script, scratch = tmp_path / "out", tmp_path / "never_copied.py", tmp_path / "scratch"
    script.write_text(NEVER_COPIED, encoding="utf-8")
    command = build_command([str(script)], staged, lake, out, n_ranks=2)
    environment = small.build_environment() | {"MVL_SCRATCH": str(scratch)}
    with (tmp_path / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline, metrics = time.monotonic() + PATIENCE_S, out / "metrics.jsonl"
        # Steps 5 and 6 come after that checkpoint was begun, and before it is copied.
        while not metrics.is_file() or metrics.read_text("utf-8").count("\n") < 6:
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log.txt").read_text()[-3000:]
            time.sleep(0.02)
        assert [path.name for path in (out / "checkpoints").glob("step-*")] == ["step-00000002"]
        assert list(scratch.glob("checkpoints-*/zero/*.pt"))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    for recipe, folder in ((staged, out), (plain, tmp_path / "plain")):
        done = run(build_command(TRAINER, recipe, lake, folder, n_ranks=2), scratch)
        assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((out / "result.json").read_text("utf-8"))["resumed_from"] == 2
    names = [
        sorted(str(p.relative_to(o / "checkpoints")) for p in (o / "checkpoints").rglob("*"))
        for o in (out, tmp_path / "plain")
    ]
    assert names[0] == names[1] and not list(scratch.glob("checkpoints-*"))
    for folder in (out, tmp_path / "plain"):
        export_stage(folder)
    weights = [load_file(o / "export" / "model.safetensors") for o in (out, tmp_path / "plain")]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[1])


def test_a_copy_that_fails_ends_the_run_with_its_reason_and_the_run_resumes(
    tmp_path: Path, tokenizer: Path, lake: Lake
) -> None:
    recipe, script, scratch = tmp_path / "s.yaml", tmp_path / "full_disk.py", tmp_path / "scratch"
    write_recipe(recipe, tokenizer, staged=True)
    script.write_text(FULL_DISK, encoding="utf-8")
    arguments = (recipe, lake, tmp_path / "out", 1)
    failed = run(build_command([str(script)], *arguments), scratch)
    assert failed.returncode != 0
    assert "the checkpoint could not be written" in failed.stderr, failed.stderr[-3000:]
    assert "No space left on device" in failed.stderr
    done = run(build_command(TRAINER, *arguments), scratch)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))["resumed_from"] == 2
