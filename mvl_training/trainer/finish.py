"""The end of a stage: the last checkpoint exported, compared with the trained model, and reported."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
import torch.distributed as dist

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_training.data.pack_loader import PackedBatch, PackLoader
from mvl_training.model.student_model import Student
from mvl_training.model.students.choose import load_student
from mvl_training.trainer.collective import wait_for_all_ranks
from mvl_training.trainer.export import DTYPE_BY_PRECISION, export_checkpoint
from mvl_training.trainer.job import TrainingJob, build_provenance
from mvl_training.trainer.metrics import read_metrics
from mvl_training.trainer.run_files import (
    CHECKPOINTS_DIR,
    EXPORT_DIR,
    METRICS_FILE,
    RESULT_FILE,
    format_checkpoint_name,
)
from mvl_training.trainer.zero3 import gather_own_parameters

MAX_PROBED_SAMPLES = 64


def export_and_report(job: TrainingJob, engine: Any, loader: PackLoader, start_step: int, wall_time_s: float) -> None:
    """Export the last checkpoint, compare it with the trained model, write result.json. Collective."""
    probe_batch = _load_probe_batch(loader).to(engine.device)
    engine.eval()
    with torch.no_grad(), gather_own_parameters(engine.module):
        trained_logits = compute_probe_logits(engine.module, probe_batch)
    if dist.get_rank() == 0:
        last_checkpoint = job.output_dir / CHECKPOINTS_DIR / format_checkpoint_name(job.n_steps)
        export_dir = export_checkpoint(last_checkpoint, job.output_dir / EXPORT_DIR)
        reloaded = (
            load_student(job.recipe, export_dir, DTYPE_BY_PRECISION[job.stage_config.precision])
            .to(engine.device)
            .eval()
        )
        with torch.no_grad():
            differences = (compute_probe_logits(reloaded, probe_batch) - trained_logits).abs()
            max_difference = float(differences.max()) if differences.numel() else math.nan
        step_metrics = read_metrics(job.output_dir / METRICS_FILE)
        n_loss_tokens = sum(step["loss_tokens"] for step in step_metrics)
        train_time_s = sum(step["step_time_s"] for step in step_metrics)
        result = {
            "stage": job.stage,
            "run_hash": job.run_hash,
            "n_steps": job.n_steps,
            "first_loss": step_metrics[0]["loss"],
            "last_loss": step_metrics[-1]["loss"],
            "samples": sum(step["samples"] for step in step_metrics),
            "skipped_samples": sum(step.get("skipped_samples", 0) for step in step_metrics),
            "tokens": sum(step["tokens"] for step in step_metrics),
            "loss_tokens": n_loss_tokens,
            "train_time_s": train_time_s,
            "loss_tokens_per_s": n_loss_tokens / train_time_s,
            "wall_time_s": wall_time_s,
            "checkpoint_dir": str(last_checkpoint),
            "export_dir": str(export_dir),
            "export_max_difference": max_difference,
            "plan_version": job.plan.version,
            "resumed_from": start_step or None,
            "world_size": dist.get_world_size(),
            **build_provenance(job),
        }
        write_text_atomic(job.output_dir / RESULT_FILE, json.dumps(result, indent=1) + "\n", unique=False)
    wait_for_all_ranks()


def _load_probe_batch(loader: PackLoader) -> PackedBatch:
    """Return the first pack of one sample that can be decoded; an empty one if none of the first can."""
    batches = (loader.load([position]) for position in range(min(len(loader.plan), MAX_PROBED_SAMPLES)))
    return next((batch for batch in batches if batch.row_ids), loader.load([]))


def compute_probe_logits(student: Student, batch: PackedBatch) -> torch.Tensor:
    """Return the logits at the loss tokens of a pack, float32 (loss tokens, vocabulary)."""
    logits: torch.Tensor = student.vlm.lm_head(student.compute_last_hidden(batch)[batch.loss_positions_K]).float()
    return logits
