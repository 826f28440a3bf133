"""How evenly the packs of `paper-7b` load the ranks, what a micro-step costs, and what packing costs."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np

from mvl_assets.common.training_stages import TrainingStage
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.step_packs import PackLimits, StepPacker
from mvl_training.model.cost_model import (
    GIB,
    PEAK_TFLOPS_BY_DEVICE,
    ModelSizes,
    build_sample_flops,
    compute_recipe_sizes,
)
from mvl_training.recipe import Recipe, load_recipe, parse_recipe
from mvl_training.runs.lockstep import REPORTED_WORLD_SIZES, LockstepForecast, forecast_lockstep
from mvl_training.runs.sample_shapes import DrawnCounts, draw_stage_counts
from training_parts.common import SEED, STAGE, BenchmarkSize

VIDEO_SHARE = 0.125
"""Share of videos at which the mean of one_vision's samples is the recipe's 2,900 tokens."""

MFU = 0.4
NVLINK_GB_PER_S, NETWORK_GB_PER_S = 450, 50
"""What a GPU receives per second from those of its machine (H100, one direction), and over a 400 Gbit/s adapter."""


def measure_packing(size: BenchmarkSize) -> dict[str, Any]:
    """Pack samples of every stage as training packs them."""
    recipe = load_recipe("paper-7b")
    sizes = compute_recipe_sizes(recipe)
    drawn = {stage: draw_stage_counts(recipe, stage, size.n_samples, SEED) for stage in recipe.stages}
    forecasts = {stage: forecast_sizes(recipe, stage, sizes, counts) for stage, counts in drawn.items()}
    with_videos = draw_stage_counts(recipe, "one_vision", size.n_samples, SEED, video_share=VIDEO_SHARE)
    efficiency = {stage: select_field(forecasts[stage], "efficiency") for stage in forecasts}
    return {
        "samples": size.n_samples,
        "lockstep_efficiency": efficiency,
        "lockstep_efficiency_worst_step": {s: select_field(f, "worst_step_efficiency") for s, f in forecasts.items()},
        "lockstep_efficiency_one_sample_per_pack": {
            stage: select_field(forecasts[stage], "unpacked_efficiency") for stage in forecasts
        },
        "lockstep_efficiency_one_vision_with_videos": select_field(
            forecast_sizes(recipe, "one_vision", sizes, with_videos), "efficiency"
        ),
        "lockstep_8": min(stage_efficiency["8"] for stage_efficiency in efficiency.values()),
        "lockstep_64": min(stage_efficiency["64"] for stage_efficiency in efficiency.values()),
        "lockstep_128": min(stage_efficiency["128"] for stage_efficiency in efficiency.values()),
        "micro_step_cost": {
            stage: {
                str(forecast.world_size): describe_micro_step(recipe, stage, sizes, drawn[stage], forecast)
                for forecast in forecasts[stage]
            }
            for stage in forecasts
        },
        **measure_fill(recipe, sizes, drawn[STAGE]),
        "mean_tokens": round(float(drawn[STAGE].counts.n_tokens.mean()), 1),
        "p99_tokens": int(np.percentile(drawn[STAGE].counts.n_tokens, 99)),
    }


def forecast_sizes(
    recipe: Recipe, stage: TrainingStage, sizes: ModelSizes, counts: DrawnCounts
) -> list[LockstepForecast]:
    return [
        forecast_lockstep(recipe, stage, sizes, counts, len(counts), world_size) for world_size in REPORTED_WORLD_SIZES
    ]


def select_field(forecasts: list[LockstepForecast], name: str) -> dict[str, float]:
    return {str(forecast.world_size): round(asdict(forecast)[name], 4) for forecast in forecasts}


def describe_micro_step(
    recipe: Recipe, stage: TrainingStage, sizes: ModelSizes, drawn: DrawnCounts, forecast: LockstepForecast
) -> dict[str, float]:
    """Return what the mean pack of a micro-step costs a GPU: seconds of work on an H100, and of receiving weights.

    The work hides what is received, as far as it takes longer.
    """
    flops_per_token = (
        build_sample_flops(sizes, recipe.get_stage(stage))(drawn.counts).sum() / drawn.counts.n_tokens.sum()
    )
    received_gb = forecast.micro_step_gib * GIB / 1e9
    return {
        "micro_steps": round(forecast.grad_accum_steps, 2),
        "pack_tokens": round(forecast.pack_tokens),
        "work_seconds": round(forecast.pack_tokens * flops_per_token / (MFU * PEAK_TFLOPS_BY_DEVICE["H100"] * 1e12), 3),
        "received_gb": round(received_gb, 1),
        "nvlink_seconds": round(received_gb / NVLINK_GB_PER_S, 3),
        "network_seconds": round(received_gb / NETWORK_GB_PER_S, 3),
    }


def measure_fill(recipe: Recipe, sizes: ModelSizes, drawn: DrawnCounts) -> dict[str, Any]:
    """Pack every step for eight ranks, with packs of 8,192 and 16,384 tokens; a pack need not be full."""
    results: dict[str, Any] = {}
    for name, max_tokens in (("8k", 8192), ("16k", 16384)):
        data = recipe.to_dict()
        data["stages"][STAGE]["max_pack_tokens"] = max_tokens
        own_recipe = parse_recipe(data)
        order = BatchOrder(len(drawn), own_recipe.get_stage(STAGE).global_batch_size, recipe.seed)
        limits = PackLimits.for_stage(own_recipe, STAGE)
        packer = StepPacker(drawn, order, build_sample_flops(sizes, own_recipe.get_stage(STAGE)), limits, world_size=8)
        cpu_start = time.process_time()
        n_packs = sum(8 * packer.pack_step(step).grad_accum_steps for step in range(order.steps_per_epoch))
        cpu_s = time.process_time() - cpu_start
        results[f"fill_{name}"] = round(float(drawn.counts.n_tokens.sum()) / (n_packs * max_tokens), 5)
        results[f"max_tiles_{name}"] = limits.max_tiles
        results[f"pack_seconds_{name}"] = round(cpu_s, 2)
        results["packing_rows_per_second_and_core"] = round(len(drawn) / cpu_s)
    return results
