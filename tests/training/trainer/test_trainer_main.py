"""The launched process: what survives kill -9, signals, foreign checkpoints and a loss that is no number."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.recipe import load_recipe
from mvl_training.runs import training_run
from mvl_training.runs.step_rows import read_step_rows
from mvl_training.runs.training_run import Checkpoint
from mvl_training.trainer import checkpoint
from mvl_training.trainer.checkpoint import CheckpointError
from mvl_training.trainer.checkpoint_loader import load_checkpoint
from mvl_training.trainer.export import export_checkpoint
from mvl_training.trainer.export_main import export_stage
from mvl_training.trainer.run_files import list_checkpoints
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

ZERO_THREE_TOLERANCE = 1e-3

# Trains, and waits before its 7th step for a file: a busy machine could be through before the signal came.
HOLDING = """
import sys, time
from pathlib import Path
from mvl_training.trainer import loop, main

released, *arguments = sys.argv[1:]
run_step, calls = loop._run_step, []

def hold_and_run_step(*rest):
    calls.append(1)
    while len(calls) == 7 and not Path(released).exists():
        time.sleep(0.01)
    return run_step(*rest)

loop._run_step = hold_and_run_step
raise SystemExit(main.main(arguments))
"""

INFINITE_IN_STEP_TWO = """
import sys
from mvl_training.trainer import loop, main

run_step, calls = loop._run_step, []

def run_step_with_infinite_gradient(engine, *rest):
    calls.append(1)
    if len(calls) == 2:
        weight = engine.module.llava.model.multi_modal_projector.linear_1.weight
        weight.register_hook(lambda gradient: gradient * float("inf"))
    return run_step(engine, *rest)

loop._run_step = run_step_with_infinite_gradient
raise SystemExit(main.main(sys.argv[1:]))
"""


@pytest.fixture
def recipe_file(tmp_path: Path, tokenizer: Path) -> Path:
    return write_recipe(tmp_path / "tiny.yaml", tokenizer)


def write_recipe(file: Path, tokenizer: Path, **stage: Any) -> Path:
    file.write_text(yaml.safe_dump(small.build_recipe_data(tokenizer, **stage)), encoding="utf-8")
    return file


def command(recipe: Path, lake: Lake, out: Path, *more: str, ranks: int = 1) -> list[str]:
    launcher = [sys.executable, "-m"]
    if ranks > 1:
        launcher += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks), "-m"]
    options = ["--recipe", str(recipe), "--stage", "single_image", "--lake", lake.root, "--out", str(out)]
    return [*launcher, "mvl_training.trainer.main", *options, *more]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, env=small.build_environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def steps_of(out: Path) -> list[dict[str, Any]]:
    file = out / "metrics.jsonl"
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


class Started:
    """A run in a process group of its own, to be hit at a chosen step."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                arguments,
                env=small.build_environment(),
                start_new_session=True,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def hit(self, out: Path, step: int, signum: int, released: Path) -> int:
        """Sends the signal to the launcher's group once this run has written `step`; returns the exit code.

        A run that the signal does not end at once goes on when the file `released` is there.
        """
        deadline = time.monotonic() + PATIENCE_S
        # Its first line comes after it cut the metrics back to the checkpoint it goes on from.
        while "samples, " not in self.log.read_text() or not any(line["step"] >= step for line in steps_of(out)):
            assert self.process.poll() is None, f"ended before it could be hit: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(self.process.pid, signum)
        if signum != signal.SIGKILL:
            released.touch()
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    begun: list[Started] = []

    def starter(arguments: list[str]) -> Started:
        begun.append(Started(arguments, tmp_path / f"log-{len(begun)}.txt"))
        return begun[-1]

    yield starter
    for one in begun:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path, lake: Lake) -> tuple[Path, list[str]]:
    """A finished run of 30 steps on two ranks, over more than four epochs: its folder and its command."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    recipe = write_recipe(folder / "tiny.yaml", tokenizer)
    again = command(recipe, lake, folder / "out", "--steps", "30", ranks=2)
    done = run(again)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out", again


def test_two_ranks_killed_and_interrupted_end_bit_for_bit_like_an_uninterrupted_run(
    tmp_path: Path, recipe_file: Path, lake: Lake, start: Any, uninterrupted: tuple[Path, list[str]]
) -> None:
    """ZeRO-2: kill -9 first, then SIGTERM, then to the end."""
    out = tmp_path / "out"
    again = command(recipe_file, lake, out, "--steps", "30", ranks=2)
    script, released = tmp_path / "holding.py", tmp_path / "released"
    script.write_text(HOLDING, encoding="utf-8")
    module = again.index("mvl_training.trainer.main")
    holding = [*again[: module - 1], str(script), str(released), *again[module + 1 :]]
    assert start(holding).hit(out, 5, signal.SIGKILL, released) == -signal.SIGKILL
    killed_after = steps_of(out)[-1]["step"]
    stopped = start(holding)
    assert stopped.hit(out, killed_after + 2, signal.SIGTERM, released) != 0
    stopped_after = steps_of(out)[-1]["step"]
    assert stopped_after < 30, "the run was over before the signal came"
    # The signal left a checkpoint of the very step it came in, though only every second step is saved.
    assert (out / "checkpoints" / f"step-{stopped_after:08d}" / "state.json").is_file(), stopped.log.read_text()
    done = run(again)
    assert done.returncode == 0, done.stderr[-3000:]

    assert json.loads((out / "result.json").read_text())["resumed_from"] == stopped_after
    exact = ("step", "loss", "lr", "grad_norm", "samples", "loss_tokens", "epoch")
    assert [{k: s[k] for k in exact} for s in steps_of(out)] == [
        {k: s[k] for k in exact} for s in steps_of(uninterrupted[0])
    ]
    weights = []
    for folder in (uninterrupted[0], out):
        assert export_stage(folder).is_within_tolerance
        weights.append(load_file(folder / "export" / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert len(list((out / "checkpoints").glob("step-*"))) == 2  # keep_checkpoints: 2


def test_one_rank_trains_like_two(
    tmp_path: Path, recipe_file: Path, lake: Lake, uninterrupted: tuple[Path, list[str]]
) -> None:
    out = tmp_path / "alone"
    done = run(command(recipe_file, lake, out, "--steps", "30"))
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [[s["loss"] for s in steps_of(o)] for o in (out, uninterrupted[0])]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < losses[0][0]
    result = json.loads((out / "result.json").read_text())
    assert (result["n_steps"], result["world_size"]) == (30, 1)


def test_another_number_of_ranks_resumes_with_the_same_data_and_loss(
    tmp_path: Path, recipe_file: Path, lake: Lake, uninterrupted: tuple[Path, list[str]]
) -> None:
    out = tmp_path / "out"
    saved = uninterrupted[0] / "checkpoints" / "step-00000028"
    shutil.copytree(saved, out / "checkpoints" / saved.name)
    lines = (uninterrupted[0] / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(lines[:28]), encoding="utf-8")
    done = run(command(recipe_file, lake, out, "--steps", "30"))
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((out / "result.json").read_text())
    assert (result["resumed_from"], result["world_size"]) == (28, 1)
    ours, theirs = steps_of(out), steps_of(uninterrupted[0])
    for name in ("step", "lr", "samples", "loss_tokens", "epoch"):
        assert [s[name] for s in ours] == [s[name] for s in theirs]
    assert [s["loss"] for s in ours[28:]] == pytest.approx([s["loss"] for s in theirs[28:]], rel=1e-5)
    assert not list((out / "checkpoints").glob(".universal-*"))


def test_read_step_rows_returns_the_rows_that_each_step_trained_on(
    lake: Lake, uninterrupted: tuple[Path, list[str]]
) -> None:
    trained = Checkpoint("single_image", uninterrupted[0], "v", 256)
    for line in steps_of(uninterrupted[0]):
        rows = read_step_rows(lake, trained, line["step"])
        assert (len(rows), sum(r["tokens"] for r in rows)) == (line["samples"], line["tokens"])
    known = {row["row_id"] for row in lake.get_table("mixture/single_image").iter_rows(["row_id"])}
    first_epoch = [r["row_id"] for n in range(1, 8) for r in read_step_rows(lake, trained, n)]
    assert set(first_epoch) <= known
    with pytest.raises(MvlError, match="was trained for 30 steps"):
        read_step_rows(lake, trained, 31)


def test_a_finished_run_is_not_repeated(uninterrupted: tuple[Path, list[str]]) -> None:
    from mvl_training.trainer.main import main

    out, again = uninterrupted
    before = (out / "result.json").stat().st_mtime_ns
    assert main(again[again.index("mvl_training.trainer.main") + 1 :]) == 0
    assert (out / "result.json").stat().st_mtime_ns == before


def test_frozen_parts_stay_and_the_next_stage_starts_from_the_export(
    tmp_path: Path, tokenizer: Path, lake: Lake
) -> None:
    first = write_recipe(tmp_path / "one.yaml", tokenizer, learning_rates={"projector": 1e-2}, zero_stage=1, steps=3)
    done = run(command(first, lake, tmp_path / "one"))
    assert done.returncode == 0, done.stderr[-3000:]
    export_stage(tmp_path / "one")
    second = write_recipe(tmp_path / "two.yaml", tokenizer, learning_rates={"vision": 1e-2}, zero_stage=2, steps=3)
    done = run(command(second, lake, tmp_path / "two", "--init-from", str(tmp_path / "one" / "export")))
    assert done.returncode == 0, done.stderr[-3000:]
    export_stage(tmp_path / "two")
    one, two = (load_file(tmp_path / n / "export" / "model.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys()
    moved = {name.split(".")[0] for name in one if (one[name] != two[name]).any()}
    assert moved == {"vision_tower"}
    about = json.loads((tmp_path / "two" / "export" / "mvl.json").read_text())
    assert about["initial_weights"] == {
        "run": json.loads((tmp_path / "one" / "result.json").read_text())["run_hash"],
        "step": 3,
    }


def test_a_loss_that_is_not_finite_stops_the_run_names_the_rows_and_keeps_the_last_checkpoint(
    tmp_path: Path, tokenizer: Path, lake: Lake
) -> None:
    wild = write_recipe(
        tmp_path / "wild.yaml", tokenizer, learning_rates={"language": 1e30}, warmup=0.0, save_interval=1
    )
    out = tmp_path / "out"
    done = run(command(wild, lake, out))
    assert done.returncode == 3, done.stderr[-3000:]
    assert "the loss is not a finite number in step 2; mixture rows: " in done.stderr
    rows = {r["row_id"] for r in lake.get_table("mixture/single_image").iter_rows(["row_id"])}
    named = done.stderr.split("mixture rows: ")[1].split(" ")[0].strip(",")
    assert named in rows
    assert (out / "checkpoints" / "step-00000001" / "state.json").is_file()


def test_foreign_and_damaged_checkpoints_are_refused_with_the_reason(
    tmp_path: Path, uninterrupted: tuple[Path, list[str]]
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(uninterrupted[0] / "checkpoints", folder)
    whole, state = checkpoint.find_newest(
        folder, checkpoint.read_state(list_checkpoints(folder)[-1]).run_hash
    ) or pytest.fail("none")
    assert (whole.name, state.step, state.world_size) == ("step-00000030", 30, 2)
    with pytest.raises(CheckpointError, match="belongs to another run"):
        checkpoint.find_newest(folder, "0" * 32)
    with pytest.raises(CheckpointError, match="saved with ZeRO-2; this run has ZeRO-3"):
        load_checkpoint(None, whole, state, world_size=2, zero_stage=3)

    shard = next(whole.rglob("*optim_states.pt"))
    os.truncate(shard, 100)
    with pytest.raises(CheckpointError, match=f"is damaged: zero/{shard.name}"):
        checkpoint.read_state(whole)
    with pytest.raises(CheckpointError, match="is damaged"):
        export_checkpoint(whole, tmp_path / "export")
    older = checkpoint.find_newest(folder, state.run_hash)
    assert older is not None
    assert older[0].name == "step-00000028"
    (older[0] / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        checkpoint.find_newest(folder, state.run_hash)
    assert "--resume never" in (caught.value.hint or "")
    assert checkpoint.find_newest(tmp_path / "nothing", state.run_hash) is None


def test_a_checkpoint_with_changed_bytes_is_refused_and_removed_once_the_run_has_passed_it(
    tmp_path: Path, tokenizer: Path, lake: Lake
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", tokenizer, save_interval=1, keep_checkpoints=2)
    out = tmp_path / "out"
    assert run(command(recipe, lake, out, "--steps", "4")).returncode == 0
    folder = out / "checkpoints"
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    *_, older, newer = list_checkpoints(folder)
    for damaged in (older, newer):
        shard = next(damaged.rglob("*optim_states.pt"))
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
        with pytest.raises(CheckpointError, match=f"is damaged: zero/{shard.name}, "):
            checkpoint.read_state(damaged)

    # As if an earlier one had been kept, whole.
    shutil.copytree(whole / older.name, folder / "step-00000002")
    state = json.loads((folder / "step-00000002" / "state.json").read_text())
    (folder / "step-00000002" / "state.json").write_text(json.dumps(state | {"step": 2}))
    (out / "result.json").unlink()
    assert run(command(recipe, lake, out, "--steps", "4")).returncode == 0
    assert json.loads((out / "result.json").read_text())["resumed_from"] == 2
    assert [p.name for p in list_checkpoints(folder)] == ["step-00000003", "step-00000004"]
    for path in list_checkpoints(folder):
        checkpoint.read_state(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "nonsense"], "no recipe 'nonsense'"),
        (["--lake", "/nowhere"], "there is no pack_plan/single_image"),
        (["--init-from", "/nowhere"], "/nowhere is not an export"),
        (["--stage", "one_vision"], "has no stage 'one_vision'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    tmp_path: Path, recipe_file: Path, lake: Lake, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    from mvl_training.trainer.main import main

    # The last of two equal options counts.
    assert main(command(recipe_file, lake, tmp_path / "out")[3:] + options) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("allowed", [None, "", "0"])
def test_a_recipe_that_is_not_a_demo_refuses_to_train_without_cuda(
    tmp_path: Path,
    recipe_file: Path,
    lake: Lake,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    allowed: str | None,
) -> None:
    from mvl_training.trainer.job import ALLOW_CPU_ENV
    from mvl_training.trainer.main import main

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv(ALLOW_CPU_ENV, raising=False)
    if allowed is not None:
        monkeypatch.setenv(ALLOW_CPU_ENV, allowed)
    assert main(command(recipe_file, lake, tmp_path / "out")[3:]) == 2
    err = capsys.readouterr().err
    assert err.startswith("recipe tiny would train on the CPU: torch ")
    assert "pass --allow-cpu or set MVL_ALLOW_CPU=1" in err
    assert not (tmp_path / "out").exists()


def test_the_allow_cpu_option_counts_as_the_variable(
    tmp_path: Path, recipe_file: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvl_training.trainer import main

    allowed: list[bool] = []
    monkeypatch.setattr(main, "_run_job", lambda job: allowed.append(job.allow_cpu) or 0)
    monkeypatch.setenv(main.ALLOW_CPU_ENV, "0")
    arguments = command(recipe_file, lake, tmp_path / "out")[3:]
    assert (main.main(arguments), main.main([*arguments, "--allow-cpu"])) == (0, 0)
    assert allowed == [False, True]


@pytest.mark.parametrize(
    ("name", "has_cuda", "allow_cpu"), [("demo", False, False), ("paper-7b", False, True), ("paper-7b", True, False)]
)
def test_a_demo_an_allowed_recipe_and_one_with_cuda_may_train(
    monkeypatch: pytest.MonkeyPatch, name: str, has_cuda: bool, allow_cpu: bool
) -> None:
    from mvl_training.trainer.main import check_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_device(load_recipe(name), allow_cpu=allow_cpu)


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from mvl_training.trainer.main import check_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(MvlError, match="8 ranks would share 4 GPUs of this machine"):
        check_device(load_recipe("paper-7b"), allow_cpu=False)


@pytest.fixture(scope="module")
def zero_three(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path, lake: Lake) -> tuple[Path, Path]:
    """A finished run of 12 steps on two ranks with ZeRO-3 in bf16, every part at a rate of its own: folder, recipe."""
    folder = tmp_path_factory.mktemp("zero-three")
    recipe = write_recipe(
        folder / "tiny.yaml",
        tokenizer,
        learning_rates={"language": 3e-3, "projector": 1e-2, "vision": 3e-4},
        zero_stage=3,
        offload=True,
        precision="bf16",
        gradient_checkpointing=True,
        steps=12,
        save_interval=6,
    )
    done = run(command(recipe, lake, folder / "out", ranks=2))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out", recipe


def test_zero3_in_bf16_with_offload_and_gradient_checkpointing_starts_from_the_same_weights_and_learns(
    zero_three: tuple[Path, Path], uninterrupted: tuple[Path, list[str]]
) -> None:
    losses = [s["loss"] for s in steps_of(zero_three[0])]
    whole = steps_of(uninterrupted[0])[0]["loss"]
    assert losses[0] == pytest.approx(whole, rel=3e-3)
    assert losses[0] != pytest.approx(whole, rel=1e-7), "trained in float32"
    assert losses[-1] < losses[0]
    assert export_stage(zero_three[0]).is_within_tolerance


def test_zero3_resumes_with_the_same_loss_on_another_number_of_ranks(
    tmp_path: Path, lake: Lake, zero_three: tuple[Path, Path]
) -> None:
    """Equal within bf16, with every part's own rate and every state's own step count."""
    done_before, recipe = zero_three
    out = tmp_path / "out"
    shutil.copytree(done_before / "checkpoints" / "step-00000006", out / "checkpoints" / "step-00000006")
    shutil.copy(done_before / "metrics.jsonl", out)
    done = run(command(recipe, lake, out))
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((out / "result.json").read_text())["resumed_from"] == 6
    ours, theirs = ([s["loss"] for s in steps_of(o)] for o in (out, done_before))
    assert ours == pytest.approx(theirs, rel=ZERO_THREE_TOLERANCE)


@pytest.mark.parametrize(
    ("zero", "precision"),
    [
        pytest.param(0, "fp32", marks=pytest.mark.soak),
        pytest.param(1, "fp32", marks=pytest.mark.soak),
        pytest.param(2, "bf16", marks=pytest.mark.soak),
        pytest.param(3, "fp32", marks=pytest.mark.soak),
        pytest.param(3, "bf16", marks=pytest.mark.soak),
    ],
)
def test_what_two_ranks_trained_is_exported_and_resumed_on_one_rank(
    tmp_path: Path, tokenizer: Path, lake: Lake, zero: int, precision: str
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", tokenizer, zero_stage=zero, precision=precision, keep_checkpoints=3)
    out = tmp_path / "out"
    done = run(command(recipe, lake, out, ranks=2))
    assert done.returncode == 0, done.stderr[-3000:]
    assert export_stage(out).is_within_tolerance
    before = [s["loss"] for s in steps_of(out)]
    for step in (4, 6):
        shutil.rmtree(out / "checkpoints" / f"step-{step:08d}")
    (out / "result.json").unlink()
    done = run(command(recipe, lake, out))
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((out / "result.json").read_text())["resumed_from"] == 2
    tolerance = 1e-5 if precision == "fp32" else ZERO_THREE_TOLERANCE
    assert [s["loss"] for s in steps_of(out)] == pytest.approx(before, rel=tolerance)


@pytest.mark.parametrize(("zero", "precision"), [(2, "bf16"), pytest.param(0, "fp32", marks=pytest.mark.soak)])
def test_an_infinite_gradient_stops_before_the_checkpoint_and_a_resume_knows_the_earlier_losses(
    tmp_path: Path, tokenizer: Path, lake: Lake, zero: int, precision: str
) -> None:
    recipe = write_recipe(
        tmp_path / "tiny.yaml", tokenizer, zero_stage=zero, precision=precision, loss_spike_factor=2.0, save_interval=1
    )
    out = tmp_path / "out"
    arguments = command(recipe, lake, out)
    done = run([sys.executable, "-c", INFINITE_IN_STEP_TWO, *arguments[3:]])
    assert done.returncode == 3, done.stderr[-3000:]
    assert "the gradient norm is not a finite number in step 2; mixture rows: " in done.stderr
    named = done.stderr.split("mixture rows: ")[1].split(" ")[0].strip(",")
    assert named in {r["row_id"] for r in lake.get_table("mixture/single_image").iter_rows(["row_id"])}
    assert [p.name for p in list_checkpoints(out / "checkpoints")] == ["step-00000001"]
    assert [s["step"] for s in steps_of(out)] == [1] and all(training_run.has_finite_values(s) for s in steps_of(out))

    # As if the run had been going for fifty steps, far below the loss that comes next.
    lines = [json.dumps({"step": step, "loss": 0.001}) + "\n" for step in range(-48, 2)]
    (out / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    done = run(arguments)
    assert done.returncode == 3, done.stderr[-3000:]
    assert "above 0.002 in step 2; mixture rows: " in done.stderr
