"""Logits of a trained model on one pack, stored when its stage ends, with which its export is compared later."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mvl_assets.common.atomic_write import replace_file
from mvl_assets.common.text import format_exception_line
from mvl_assets.errors import MvlError
from mvl_training.data.pack_loader import PackedBatch, PackLoader
from mvl_training.model.student_model import Student
from mvl_training.trainer.zero3 import gather_own_parameters

MAX_PROBED_SAMPLES = 64

MAX_PROBED_TOKENS = 256
"""Positions whose logits are kept: 150,000 numbers each."""


@dataclass(frozen=True, slots=True)
class ProbeDifference:
    """How far a model is from the trained one.

    Attributes:
        relative: Largest difference of a logit, as a share of the largest logit of the trained model; NaN for a pack
            without loss tokens.
        trained_on: Name of the device on which the trained model computed.
        measured_on: Name of the device on which the other one did.
    """

    relative: float
    trained_on: str
    measured_on: str


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
        with replace_file(path, fsync=True, unique=False) as temp_path:
            probe = {"batch": batch, "logits_KV": logits_KV.cpu(), "device": get_device_name(engine.device)}
            torch.save(probe, temp_path)


def measure_probe_difference(path: Path, student: Student, device: torch.device) -> ProbeDifference:
    """Compare a model with the trained one.

    Args:
        path: What `save_probe` has stored.
        student: Computes on `device`.
        device: Another one than that of the training rounds otherwise.

    Raises:
        MvlError: The file is missing or damaged.
    """
    try:
        # Layouts in the pack are objects of the student's own class, and nobody but the trainer writes this file.
        probe = torch.load(path, map_location="cpu", weights_only=False)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise MvlError(
            f"{path} cannot be read ({format_exception_line(error)})",
            hint="remove it, and the command that trained the stage writes it anew",
        ) from error
    with torch.no_grad():
        logits_KV = compute_probe_logits(student, probe["batch"].to(device)).cpu()
    trained_KV = probe["logits_KV"]
    relative = float((logits_KV - trained_KV).abs().max() / trained_KV.abs().max()) if trained_KV.numel() else math.nan
    return ProbeDifference(relative, probe["device"], get_device_name(device))


def get_device_name(device: torch.device) -> str:
    """Return the name of a GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _load_probe_batch(loader: PackLoader) -> PackedBatch:
    """Return the first pack of one sample that can be decoded; an empty one if none of the first can."""
    batches = (loader.load([position]) for position in range(min(len(loader.plan), MAX_PROBED_SAMPLES)))
    return next((batch for batch in batches if batch.row_ids), loader.load([]))


def compute_probe_logits(student: Student, batch: PackedBatch) -> torch.Tensor:
    """Return the logits at the first loss tokens of a pack, float32 (at most `MAX_PROBED_TOKENS`, vocabulary)."""
    positions_K = batch.loss_positions_K[:MAX_PROBED_TOKENS]
    logits_KV: torch.Tensor = student.vlm.lm_head(student.compute_last_hidden(batch)[positions_K]).float()
    return logits_KV
