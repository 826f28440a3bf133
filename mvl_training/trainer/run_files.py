"""What the trainer and those who launch it agree on: files and folders of a run, and the time to save.

No torch: the asset definitions read these files too.
"""

from __future__ import annotations

import os
from pathlib import Path

from mvl_assets.errors import MvlError

METRICS_FILE = "metrics.jsonl"
RESULT_FILE = "result.json"
EXPORT_REPORT_FILE = "export.json"
PROBE_FILE = "probe.pt"
"""Logits of the trained model on one pack, with which its export is compared."""
FAILURE_FILE = "failure.json"
"""Says why a run failed where starting it again would not help: bad input, a loss that diverged."""

CHECKPOINTS_DIR = "checkpoints"
EXPORT_DIR = "export"
TENSORBOARD_DIR = "tensorboard"

HELD_OUT_DIR = "held_out"
BENCHMARKS_DIR = "benchmarks"
"""Answers of the trained model to held-out questions and to benchmarks, by those who asked it."""

PROVENANCE_FILE = "mvl.json"
"""In an export: the run, recipe, plan and package versions that it comes from."""

SAVE_GRACE_ENV = "MVL_SAVE_GRACE_S"
"""Environment variable: seconds that a cancelled run gets to save its checkpoint; torchrun, the launcher, Slurm and
Kubernetes wait as long."""

DEFAULT_SAVE_GRACE_S = 270


def list_checkpoints(checkpoints_dir: Path) -> list[Path]:
    """Return the published checkpoints, oldest first."""
    return sorted(path for path in checkpoints_dir.glob("step-*") if path.is_dir())


def parse_step(checkpoint: Path) -> int:
    """Return the step of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix("step-"))


def format_checkpoint_name(step: int) -> str:
    """Return the name of a checkpoint's folder."""
    return f"step-{step:08d}"


def get_scratch_export_dir(checkpoint: Path) -> Path:
    """Return the folder beside a checkpoint that it is exported to where somebody asks it."""
    return checkpoint.with_name(f"{EXPORT_DIR}-{checkpoint.name}")


def read_save_grace_s() -> int:
    """Return the seconds that a cancelled run gets to save its checkpoint.

    Raises:
        MvlError: `MVL_SAVE_GRACE_S` is no number of seconds.
    """
    text = os.environ.get(SAVE_GRACE_ENV, str(DEFAULT_SAVE_GRACE_S))
    if not text.isdecimal() or not int(text):
        raise MvlError(f"{SAVE_GRACE_ENV} is {text!r}", hint="set it to a whole number of seconds above 0")
    return int(text)
