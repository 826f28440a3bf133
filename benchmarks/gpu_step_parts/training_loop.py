"""Steps through DeepSpeed: ours by the training loop from the loader, the reference's sample by sample."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from training_parts.common import STAGE
from training_parts.data import CATEGORY

from gpu_step_parts.common import Ceilings, RunSize, StepWork, summarize_steps
from gpu_step_parts.data import StepData, build_step_packer
from gpu_step_parts.machine import read_peak_memory_gib, read_synchronized_clock, reset_memory
from gpu_step_parts.model import build_student
from gpu_step_parts.reference import (
    ModelInputs,
    compute_reference_loss,
    load_reference_samples,
    move_inputs,
    use_reference_attention,
)
from mvl_training.data.pack_loader import Prefetcher
from mvl_training.data.pack_plan import SampleCounts
from mvl_training.data.step_packs import StepPacker
from mvl_training.model.cost_model import ModelSizes, build_sample_flops
from mvl_training.model.students.llava_onevision import LlavaOnevisionStudent
from mvl_training.recipe import Recipe, StageConfig
from mvl_training.trainer.engine import build_deepspeed_config, build_engine, count_head_chunks
from mvl_training.trainer.export import DTYPE_BY_PRECISION
from mvl_training.trainer.loop import StepSchedule, StopSignals, train
from mvl_training.trainer.mfu import ThroughputMeter
from mvl_training.trainer.zero3 import build_student_zero3


class StepRecorder:
    """Keeps the numbers of each step of the loop, and when the device had finished it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.metrics: list[dict[str, Any]] = []
        self.finished_at: list[float] = []

    def record(self, metrics: dict[str, Any]) -> None:
        self.finished_at.append(read_synchronized_clock(self.device))
        self.metrics.append(metrics)


def build_training_engine(recipe: Recipe, device: torch.device) -> tuple[Any, ModelSizes]:
    """Return DeepSpeed's engine, built as `trainer.main` builds it under ZeRO-3, and the sizes of the model."""
    stage_config = recipe.get_stage(STAGE)
    dtype = DTYPE_BY_PRECISION[stage_config.precision]
    deepspeed_config = build_deepspeed_config(stage_config, load_universal=False)
    student, sizes = build_student_zero3(lambda: build_student(recipe, device, dtype), deepspeed_config, dtype)
    return build_engine(student, stage_config), sizes


def measure_loop(
    engine: Any, sizes: ModelSizes, data: StepData, recipe: Recipe, run_size: RunSize, ceilings: Ceilings
) -> dict[str, Any]:
    """Measure steps of `loop.train`: from the end of one to the end of the next, with all that happens between."""
    stage_config = recipe.get_stage(STAGE)
    packer = build_step_packer(data, recipe, sizes)
    recorder = StepRecorder(engine.device)
    engine.module.n_head_chunks = count_head_chunks(stage_config)
    reset_memory(engine.device)
    schedule = StepSchedule(
        stage_config,
        recipe.loss_weighting,
        ThroughputMeter(sizes, stage_config, world_size=1),
        packer,
        start_step=0,
        total_steps=run_size.n_warmup_steps + run_size.n_steps,
        categories=(CATEGORY,),
    )
    with restore_signal_handlers():
        train(engine, data.loader, schedule, StopSignals(), recorder.record, lambda step: None)
    measured = []
    for step in range(run_size.n_warmup_steps, run_size.n_warmup_steps + run_size.n_steps):
        seconds = recorder.finished_at[step] - recorder.finished_at[step - 1]
        measured.append(compute_step_work(seconds, packer.pack_step(step).counts, sizes, stage_config))
    metrics = recorder.metrics[run_size.n_warmup_steps :]
    n_packs = sum(step["packs"] for step in metrics)
    return summarize_steps(measured, ceilings) | {
        "peak_gib": read_peak_memory_gib(engine.device),
        "packs_per_step": round(n_packs / len(metrics), 2),
        "samples_per_pack": round(sum(step["samples"] for step in metrics) / n_packs, 2),
        "fill": round(sum(step["tokens"] for step in metrics) / n_packs / stage_config.pack_tokens, 4),
        "loader_wait_share": round(sum(s["data_time_s"] for s in metrics) / sum(w.seconds for w in measured), 5),
        "losses": [round(step["loss"], 4) for step in recorder.metrics],
    }


def measure_reference(
    engine: Any, sizes: ModelSizes, data: StepData, recipe: Recipe, run_size: RunSize, ceilings: Ceilings
) -> dict[str, Any]:
    """Measure steps on the same samples, one at a time, through the same engine; their loading is not counted."""
    stage_config = recipe.get_stage(STAGE)
    packer = build_step_packer(data, recipe, sizes)
    student = engine.module
    reset_memory(engine.device)
    measured, losses = [], []
    with use_reference_attention(student), replace_forward(student, partial(compute_reference_loss, student)):
        for step in range(run_size.n_warmup_steps + run_size.n_steps):
            samples = load_reference_samples(data, packer.batch_order.list_step_samples(step))
            started_at = read_synchronized_clock(engine.device)
            losses.append(run_reference_step(engine, samples))
            seconds = read_synchronized_clock(engine.device) - started_at
            if step >= run_size.n_warmup_steps:
                measured.append(compute_step_work(seconds, packer.pack_step(step).counts, sizes, stage_config))
    peak_gib = read_peak_memory_gib(engine.device)
    return summarize_steps(measured, ceilings) | {"peak_gib": peak_gib, "losses": [round(loss, 4) for loss in losses]}


@contextmanager
def restore_signal_handlers() -> Iterator[None]:
    """Undo what `StopSignals` installs, so that later parts can be stopped."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


@contextmanager
def replace_forward(student: LlavaOnevisionStudent, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
    """Let the student compute something else: ZeRO-3 gathers weights for calls of the engine's module alone."""
    student.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del student.forward


def run_reference_step(engine: Any, samples: Sequence[ModelInputs]) -> float:
    """Take one optimizer step, and return the mean loss over its samples."""
    losses = []
    for index, inputs in enumerate(samples):
        engine.set_gradient_accumulation_boundary(index + 1 == len(samples))
        loss = engine(move_inputs(inputs, engine.device)) / len(samples)
        losses.append(loss.detach())
        engine.backward(loss)
        engine.step()
    return float(torch.stack(losses).sum())


def compute_step_work(seconds: float, counts: SampleCounts, sizes: ModelSizes, stage_config: StageConfig) -> StepWork:
    return StepWork(
        seconds,
        float(build_sample_flops(sizes, stage_config)(counts).sum()),
        int(counts.n_loss_tokens.sum()),
        int(counts.n_tokens.sum()),
        len(counts.n_tokens),
    )


def measure_loader(data: StepData, packer: StepPacker, n_steps: int, device: torch.device) -> dict[str, Any]:
    """Measure the loop's loader, in the threads that training gives it, with nobody who trains."""
    packs = [pack for step in range(n_steps) for pack in packer.pack_step(step).packs_by_rank[0]]
    prefetch = Prefetcher(data.loader, iter(packs), device=device)
    started_at = time.perf_counter()
    n_samples = n_tiles = 0
    try:
        for batch in prefetch:
            n_samples += len(batch.row_ids)
            n_tiles += len(batch.tiles_T3PP)
    finally:
        prefetch.close()
    seconds = time.perf_counter() - started_at
    return {"samples_per_s": round(n_samples / seconds, 2), "tiles_per_s": round(n_tiles / seconds, 2)}
