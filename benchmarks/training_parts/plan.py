"""A plan of `paper-7b` from counted samples to packs, by the number of samples: seconds and memory of a new process.

The samples are drawn, since counting needs their texts: part `planning` measures how fast they are counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from peak_memory import read_peak_rss_mb

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.lake import Lake
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.planning import publish_pack_plan
from mvl_training.data.processing import SampleCost
from mvl_training.data.step_packs import PackLimits, StepPacker
from mvl_training.data.token_counts import CHUNK_ROWS, CountedChunk, CountedSample
from mvl_training.model.cost_model import ModelSizes, build_sample_flops, compute_recipe_sizes
from mvl_training.recipe import load_recipe
from mvl_training.runs.sample_shapes import draw_samples
from training_parts.common import SEED, STAGE, BenchmarkSize

WORLD_SIZE = 8
COUNTS_FILE, SIZES_FILE = "counts.npy", "sizes.json"


def measure_plan(size: BenchmarkSize, folder: Path) -> dict[str, Any]:
    """Plan and pack a hundredth, a tenth and all of the samples, each in a new process."""
    recipe = load_recipe("paper-7b")
    max_tokens = recipe.get_stage(STAGE).max_seq_len
    shapes = draw_samples(size.n_samples, recipe.towers.grid.to_tile_grid(), SEED, max_tokens)
    counts = np.stack([shapes.tokens_N, shapes.tiles_N, shapes.loss_tokens_N, shapes.tokens_N - shapes.text_tokens_N])
    np.save(folder / COUNTS_FILE, counts.astype(np.int32))
    # Computing the sizes loads torch, which planning does without.
    sizes = compute_recipe_sizes(recipe)
    sizes_text = json.dumps({field.name: getattr(sizes, field.name) for field in fields(sizes)})
    (folder / SIZES_FILE).write_text(sizes_text, encoding="utf-8")
    by_samples = {}
    for n_samples in (size.n_samples // 100, size.n_samples // 10, size.n_samples):
        with tempfile.TemporaryDirectory(dir=folder) as lake_root:
            by_samples[str(n_samples)] = _plan_in_new_process(lake_root, folder, n_samples)
    last, tenth = by_samples[str(size.n_samples)], by_samples[str(size.n_samples // 10)]
    return {
        "plan": by_samples,
        "plan_minutes": round(last["seconds"] / 60, 2),
        "plan_peak_mb": last["peak_mb"],
        "plan_growth": {name: round(last[name] / tenth[name], 2) for name in ("seconds", "peak_mb")},
    }


def _plan_in_new_process(lake_root: str, folder: Path, n_samples: int) -> dict[str, float]:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "benchmarks")])}
    code = (
        "import json, sys; from training_parts import plan;"
        " print(json.dumps(plan.plan_and_pack(sys.argv[1], sys.argv[2], int(sys.argv[3]))))"
    )
    command = [sys.executable, "-c", code, lake_root, str(folder), str(n_samples)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def plan_and_pack(lake_root: str, folder: str, n_samples: int) -> dict[str, float]:
    """Publish a plan, open it as a rank does and pack all of its steps; return seconds and peaks of memory in MB."""
    recipe = load_recipe("paper-7b")
    stage_config = recipe.get_stage(STAGE)
    sizes = ModelSizes(**json.loads((Path(folder) / SIZES_FILE).read_text(encoding="utf-8")))
    lake = Lake(lake_root)
    imports_mb = read_peak_rss_mb()
    started_at = time.perf_counter()
    publish_pack_plan(
        lake, STAGE, "drawn", iter_counted_chunks(Path(folder) / COUNTS_FILE, n_samples), run_id="benchmark"
    )
    published_at, published_mb = time.perf_counter(), read_peak_rss_mb()
    plan = PackPlan(lake, STAGE)
    opened_at = time.perf_counter()
    order = BatchOrder(len(plan), stage_config.global_batch_size, recipe.seed)
    limits = PackLimits.for_stage(recipe, STAGE)
    packer = StepPacker(plan, order, build_sample_flops(sizes, stage_config), limits, WORLD_SIZE)
    n_packed = sum(
        len(pack)
        for step in range(order.steps_per_epoch)
        for packs in packer.pack_step(step).packs_by_rank
        for pack in packs
    )
    packed_at = time.perf_counter()
    assert n_packed == order.count_samples(order.steps_per_epoch)
    return {
        "publish_seconds": round(published_at - started_at, 2),
        "open_seconds": round(opened_at - published_at, 2),
        "pack_seconds": round(packed_at - opened_at, 2),
        "seconds": round(packed_at - started_at, 2),
        "imports_mb": round(imports_mb),
        "publish_peak_mb": round(published_mb),
        "peak_mb": round(read_peak_rss_mb()),
    }


def iter_counted_chunks(counts_file: Path, n_samples: int) -> Iterator[CountedChunk]:
    """Yield drawn samples as counting a mixture yields them."""
    counts = np.load(counts_file, mmap_mode="r")
    for start in range(0, n_samples, CHUNK_ROWS):
        columns = counts[:, start : min(start + CHUNK_ROWS, n_samples)].T.tolist()
        samples = [
            CountedSample(
                compute_digest("drawn", position),
                SampleCost(n_tokens, n_tiles, n_loss_tokens, n_visual_tokens, compute_digest("content", position)),
                "general",
                "single_image" if n_tiles else "text_only",
            )
            for position, (n_tokens, n_tiles, n_loss_tokens, n_visual_tokens) in enumerate(columns, start)
        ]
        yield CountedChunk(start, samples, [])
