"""The end of a stage: what its export will be compared with, and its result."""

from __future__ import annotations

import json
from typing import Any

import torch.distributed as dist

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_training.data.pack_loader import PackLoader
from mvl_training.trainer.job import TrainingJob, build_provenance
from mvl_training.trainer.metrics import read_metrics
from mvl_training.trainer.probe import save_probe
from mvl_training.trainer.run_files import (
    CHECKPOINTS_DIR,
    EXPORT_REPORT_FILE,
    METRICS_FILE,
    PROBE_FILE,
    RESULT_FILE,
    format_checkpoint_name,
)


def finish_stage(job: TrainingJob, engine: Any, loader: PackLoader, start_step: int, wall_time_s: float) -> None:
    """Store the probe and write result.json; an export of earlier weights counts no more. Collective."""
    save_probe(job.output_dir / PROBE_FILE, engine, loader)
    if dist.get_rank() != 0:
        return
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
        "checkpoint_dir": str(job.output_dir / CHECKPOINTS_DIR / format_checkpoint_name(job.n_steps)),
        "plan_version": job.plan.version,
        "resumed_from": start_step or None,
        "world_size": dist.get_world_size(),
        **build_provenance(job),
    }
    (job.output_dir / EXPORT_REPORT_FILE).unlink(missing_ok=True)
    write_text_atomic(job.output_dir / RESULT_FILE, json.dumps(result, indent=1) + "\n", unique=False)
