"""Logits of a trained model on one pack, stored when its stage ends, with which its export is compared later."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mvl_assets.errors import MvlError
from mvl_training.data.pack_loader import PackedBatch, PackLoader
from mvl_training.model.student_model import Student
from mvl_training.trainer.zero3 import gather_own_parameters

MAX_PROBED_SAMPLES = 64


def save_probe(path: Path, engine: Any, loader: PackLoader) -> None:
    """Store a pack of the plan and the model's logits on it. Collective; rank 0 writes.

    Args:
        path: The file.
        engine: DeepSpeed's, after the last step.
        loader: Loads the pack.
    """
    batch = _load_probe_batch(loader)
    engine.eval()
    with torch.no_grad(), gather_own_parameters(engine.module):
        logits_KV = compute_probe_logits(engine.module, batch.to(engine.device))
    if dist.get_rank() == 0:
        torch.save({"batch": batch, "logits_KV": logits_KV.cpu()}, path)


def measure_probe_difference(path: Path, student: Student, device: torch.device) -> float:
    """Return the largest difference of a logit between a model and the trained one; NaN for a pack without loss tokens.

    Args:
        path: What `save_probe` has stored.
        student: Computes on `device`.
        device: The kind that it was trained on: other kernels round otherwise.

    Raises:
        MvlError: The file is missing.
    """
    if not path.is_file():
        raise MvlError(
            f"{path} is missing",
            hint="the command that trained the stage goes on from its last checkpoint and writes it",
        )
    # Layouts in the pack are objects of the student's own class, and nobody but the trainer writes this file.
    probe = torch.load(path, map_location="cpu", weights_only=False)
    with torch.no_grad():
        logits_KV = compute_probe_logits(student, probe["batch"].to(device)).cpu()
    differences_KV = (logits_KV - probe["logits_KV"]).abs()
    return float(differences_KV.max()) if differences_KV.numel() else math.nan


def _load_probe_batch(loader: PackLoader) -> PackedBatch:
    """Return the first pack of one sample that can be decoded; an empty one if none of the first can."""
    batches = (loader.load([position]) for position in range(min(len(loader.plan), MAX_PROBED_SAMPLES)))
    return next((batch for batch in batches if batch.row_ids), loader.load([]))


def compute_probe_logits(student: Student, batch: PackedBatch) -> torch.Tensor:
    """Return the logits at the loss tokens of a pack, float32 (loss tokens, vocabulary)."""
    logits_KV: torch.Tensor = student.vlm.lm_head(student.compute_last_hidden(batch)[batch.loss_positions_K]).float()
    return logits_KV
