"""Training steps of this project and of Hugging Face's Trainer on the same data."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from mvl_assets.lake.lake import Lake
from mvl_training.data.planning import build_pack_plan
from mvl_training.recipe import Recipe
from training_parts.common import STAGE, BenchmarkSize, summarize_values

N_RANKS, SAMPLES_PER_RANK, N_WARMUP_STEPS = 2, 8, 3
HF_TRAINER_VARIANTS = {
    "hf_trainer": ["--order", "random"],
    "hf_trainer_length_grouped": ["--order", "group_by_length"],
    "hf_trainer_head_on_loss_tokens": ["--order", "random", "--head", "loss_tokens"],
}


def measure_step(size: BenchmarkSize, recipe: Recipe, lake: Lake, folder: Path) -> dict[str, Any]:
    """Measure our process and Hugging Face's one after the other; every second repetition in reverse order."""
    sample_plan = build_pack_plan(lake, STAGE, recipe, run_id="benchmark")
    data = recipe.to_dict()
    settings = data["stages"][STAGE]
    # Hugging Face's default is 8 samples per rank in one forward pass.
    pack_length = max(settings["max_seq_len"], round(SAMPLES_PER_RANK * sample_plan.n_tokens / sample_plan.n_samples))
    settings |= {"steps": size.n_steps, "global_batch_size": N_RANKS * SAMPLES_PER_RANK, "max_pack_tokens": pack_length}
    settings |= {"save_interval": 10**6, "loss_spike_factor": None, "zero_stage": 1}
    recipe_file = folder / "recipe.yaml"
    recipe_file.write_text(yaml.safe_dump(data), encoding="utf-8")
    speeds: dict[str, list[float]] = {name: [] for name in ("ours", *HF_TRAINER_VARIANTS)}
    first_loss: dict[str, float] = {}
    data_wait_fractions = []
    for repetition in range(size.repetitions):
        for name in list(speeds)[:: -1 if repetition % 2 else 1]:
            out = folder / f"{name}-{repetition}"
            if name == "ours":
                metric_rows = run_student(recipe_file, lake, out)
                measured_rows = metric_rows[N_WARMUP_STEPS:]
                seconds = sum(metric_row["step_time_s"] for metric_row in measured_rows)
                speeds[name].append(sum(line["loss_tokens"] for line in measured_rows) / seconds)
                data_wait_fractions.append(sum(line["data_time_s"] for line in measured_rows) / seconds)
                first_loss[name] = metric_rows[0]["loss"]
            else:
                trainer_results = run_hf_trainer(
                    recipe_file, lake, out.with_suffix(".json"), size.n_steps, HF_TRAINER_VARIANTS[name]
                )
                speeds[name].append(
                    sum(trainer_results["loss_tokens"][N_WARMUP_STEPS:])
                    / sum(trainer_results["seconds"][N_WARMUP_STEPS:])
                )
                first_loss[name] = trainer_results["losses"][0]
    ratios = {name: [a / b for a, b in zip(speeds["ours"], speeds[name], strict=True)] for name in HF_TRAINER_VARIANTS}
    return {
        "ranks": N_RANKS,
        "mean_tokens": round(sample_plan.n_tokens / sample_plan.n_samples, 1),
        "pack_length": pack_length,
        "samples_per_step": settings["global_batch_size"],
        "loss_tokens_per_s": {name: summarize_values(values) for name, values in speeds.items()},
        "first_loss": {name: round(loss, 4) for name, loss in first_loss.items()},
        "speedup": {name: summarize_values(values) for name, values in ratios.items()},
        "loader_share": summarize_values(data_wait_fractions),
        "speedup_vs_hf_trainer": round(statistics.median(ratios["hf_trainer"]), 3),
        "speedup_vs_length_grouped": round(statistics.median(ratios["hf_trainer_length_grouped"]), 3),
        "speedup_vs_head_on_loss_tokens": round(statistics.median(ratios["hf_trainer_head_on_loss_tokens"]), 3),
    }


def run_student(recipe: Path, lake: Lake, out: Path) -> list[dict[str, Any]]:
    """Return the metrics of a training process; no step's time includes a checkpoint."""
    command = ["-m", "mvl_training.trainer.main", "--recipe", str(recipe), "--stage", STAGE, "--lake", lake.root]
    run_on_ranks([*command, "--out", str(out), "--allow-cpu"])
    return [json.loads(row_line) for row_line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def run_hf_trainer(recipe: Path, lake: Lake, out: Path, n_steps: int, extra_arguments: list[str]) -> dict[str, Any]:
    command = [str(Path(__file__).parents[1] / "hf_trainer.py"), "--recipe", str(recipe), "--lake", lake.root]
    run_on_ranks([*command, "--out", str(out), "--steps", str(n_steps), *extra_arguments])
    results: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return results


def run_on_ranks(command: list[str]) -> None:
    n_threads = max(1, len(os.sched_getaffinity(0)) // N_RANKS)
    python_path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads), "TOKENIZERS_PARALLELISM": "false"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(N_RANKS)]
    process = subprocess.run(
        [*launcher, *command],
        env=environment | {"PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{process.stderr[-3000:]}")
