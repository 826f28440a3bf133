"""The training benchmarks run and report what they promise; their figures mean nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvl_training.recipe import load_recipe
from mvl_training.runs.sample_shapes import draw_samples
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

BENCHMARKS = small.PROJECT / "benchmarks"


def run_benchmark(*command: str, home: Path) -> dict[str, Any]:
    """Return the JSON in the last line that a benchmark writes."""
    environment = small.build_environment() | {"MVL_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_lengths_of_drawn_samples_follow_the_papers_distribution() -> None:
    drawn = draw_samples(50_000, load_recipe("paper-7b").grid.to_tile_grid(), 0, 8192)
    tokens = sorted(drawn.tokens_N.tolist())
    assert sum(drawn.image_index_N < 0) / 50_000 == pytest.approx(0.12, abs=0.01)
    assert sum(tokens) / 50_000 == pytest.approx(2400, rel=0.03)
    assert tokens[int(0.99 * 50_000)] == pytest.approx(4350, rel=0.03)
    assert tokens[0] > 0
    assert tokens[-1] <= 8192


def test_the_packing_benchmark_measures_ranks_in_lock_step(tmp_path: Path) -> None:
    figures = run_benchmark(str(BENCHMARKS / "training.py"), "--quick", "--json", "--parts", "packing", home=tmp_path)
    assert figures["lockstep_efficiency"].keys() == load_recipe("paper-7b").stages.keys()
    for stage, by_ranks in figures["lockstep_efficiency"].items():
        unpacked = figures["packing"]["lockstep_efficiency_one_sample_per_pack"][stage]
        assert by_ranks.keys() == {"8", "32", "64", "128"}
        assert all(unpacked[n_ranks] < efficiency <= 1 for n_ranks, efficiency in by_ranks.items())
    assert 0.8 < figures["fill_8k"] < figures["fill_16k"] <= 1


def test_the_plan_benchmark_plans_and_packs_every_size_in_a_process_of_its_own(tmp_path: Path) -> None:
    figures = run_benchmark(str(BENCHMARKS / "training.py"), "--quick", "--json", "--parts", "plan", home=tmp_path)
    assert list(figures["plan"]["plan"]) == ["200", "2000", "20000"]
    assert figures["plan_growth"].keys() == {"seconds", "peak_mb"}
    for by_size in figures["plan"]["plan"].values():
        assert by_size["imports_mb"] <= by_size["publish_peak_mb"] <= by_size["peak_mb"]
        assert by_size["seconds"] > 0


def test_the_gpu_benchmark_trains_through_deepspeed_loop_and_loader_on_a_cpu(tmp_path: Path) -> None:
    figures = run_benchmark(str(BENCHMARKS / "gpu_step.py"), "--tiny", "--json", "--steps", "1", home=tmp_path)
    for name in ("parity", "parity_fp32_two_layers"):
        parity = figures[name]
        assert parity["samples"] > 1, "a pack of one sample compares nothing"
        assert max(parity["loss"], parity["norm"], parity["gradient"]) < 1e-5
        assert parity["gradient_if_joined"] > 1e-2, "the comparison notices samples that see each other"
    names = ("alone_8k", "alone_16k", "alone_8k_no_checkpointing", "loop_8k", "loop_16k", "reference")
    assert all(figures[name]["loss_tokens_per_s"] > 0 for name in names)
    assert figures["loop_8k"]["packs_per_step"] > figures["loop_16k"]["packs_per_step"]
    # Hardly trained by then: the first steps have the same samples and all but the same weights.
    first_losses = [figures[name]["losses"][0] for name in ("loop_8k", "reference", "loop_16k")]
    assert max(first_losses) - min(first_losses) < 0.05
    assert figures["loader"]["samples_per_s"] > 0
    assert figures["met"].keys() == figures["thresholds"].keys()
    assert figures["pass"] == all(figures["met"].values())


@pytest.mark.soak
def test_the_step_benchmark_measures_us_and_hugging_face_on_the_same_data(tmp_path: Path, tokenizer: Path) -> None:
    data = small.build_recipe_data(tokenizer, max_seq_len=2048, global_batch_size=8)
    data["grid"]["tiles"] = None
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    parts = ["--parts", "step", "planning", "loader", "--recipe", str(file)]
    figures = run_benchmark(str(BENCHMARKS / "training.py"), "--quick", "--json", *parts, home=tmp_path)
    assert figures["speedup_vs_hf_trainer"] > 0
    losses = figures["step"]["first_loss"]
    assert max(losses.values()) - min(losses.values()) < 0.2, "equal weights, equal data"
    assert figures["planning"]["rows_per_second_and_core"]["median"] > 0
    assert "skipped" in figures["loader"] or figures["loader_vs_webdataset"] > 0


def test_the_start_of_a_rank_is_measured_at_every_size(tmp_path: Path) -> None:
    script = str(BENCHMARKS / "training_start.py")
    figures = run_benchmark(script, "--json", "--rows", "4000", "12000", "--repetitions", "1", home=tmp_path)
    assert list(figures["rank_start"]) == ["4000", "12000"]
    assert figures["rank_start_growth"].keys() == {"seconds", "memory_mb"}
