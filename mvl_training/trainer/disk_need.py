"""How much disk the checkpoints of a stage take, and how long one is written, checked before the first step."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path

from mvl_assets.errors import MvlError
from mvl_training.model.cost_model import GIB, ModelSizes, compute_weight_bytes, count_trained_params
from mvl_training.recipe import StageConfig
from mvl_training.trainer.run_files import SAVE_GRACE_ENV

MIN_TIMED_BYTES = GIB
"""Of a checkpoint: smaller ones are written in time by any disk."""

PROBE_BYTES = 64 << 20


def forecast_checkpoint_bytes(sizes: ModelSizes, stage_config: StageConfig) -> int:
    """Return the bytes of a checkpoint: weights, and of what learns AdamW's moments and, with ZeRO, fp32 weights."""
    n_trained = sum(count_trained_params(sizes, stage_config).values())
    weight_bytes = compute_weight_bytes(sizes, stage_config)
    if stage_config.zero_stage == 3:
        # The weights that learn are divided, and saved in fp32 only.
        weight_bytes -= n_trained * (2 if stage_config.precision == "bf16" else 4)
    return round(weight_bytes + n_trained * (12 if stage_config.zero_stage else 8))


def count_checkpoints(stage_config: StageConfig, n_steps: int) -> int:
    """Return how many checkpoints there are at most at a time, with the one that is being written."""
    n_saves = math.ceil(n_steps / stage_config.save_interval)
    n_newest = stage_config.keep_checkpoints
    if stage_config.save_minutes is None:
        n_newest = min(n_newest, n_saves)
    every = stage_config.keep_every_samples
    n_thinned = 0 if every is None else min(n_saves, n_steps * stage_config.global_batch_size // every)
    return n_newest + n_thinned + 1


def check_disk(output_dir: Path, sizes: ModelSizes, stage_config: StageConfig, n_steps: int) -> None:
    """Refuse a run whose checkpoints and export would not fit on the disk.

    What the run has written before counts as free: it is what will be replaced.

    Raises:
        MvlError: They do not fit; with the figures.
    """
    n_bytes = forecast_checkpoint_bytes(sizes, stage_config)
    n_checkpoints = count_checkpoints(stage_config, n_steps)
    export_bytes = sum(sizes.params.values()) * (2 if stage_config.precision == "bf16" else 4)
    needed = n_checkpoints * n_bytes + export_bytes
    written = sum(path.stat().st_size for path in output_dir.rglob("*") if path.is_file())
    free = shutil.disk_usage(output_dir).free + written
    if needed > free:
        raise MvlError(
            f"{output_dir}: {n_checkpoints} checkpoints of {n_bytes / GIB:.3g} GiB and the export take"
            f" {needed / GIB:.3g} GiB, and {free / GIB:.3g} GiB are free",
            hint="lower the recipe's `keep_checkpoints`, or set MVL_HOME to a larger disk",
        )


def check_staging_disk(scratch_dir: Path, sizes: ModelSizes, stage_config: StageConfig, n_machines: int) -> None:
    """Refuse a run whose part of a staged checkpoint would not fit on this machine's scratch folder.

    Raises:
        MvlError: It does not fit; with the figures.
    """
    needed = forecast_checkpoint_bytes(sizes, stage_config) / n_machines
    free = shutil.disk_usage(scratch_dir).free
    if needed > free:
        raise MvlError(
            f"{scratch_dir}: a staged checkpoint takes {needed / GIB:.3g} GiB of each machine, and {free / GIB:.3g} GiB"
            " are free",
            hint="set MVL_SCRATCH to a larger disk, or the recipe's `staged_checkpoints` to false",
        )


def check_save_time(
    output_dir: Path, sizes: ModelSizes, stage_config: StageConfig, *, grace_s: float, n_machines: int
) -> None:
    """Refuse a run whose checkpoint takes longer to write than a cancelled run may take to save.

    The disk's speed is that of a file written now; machines are taken to write at that speed side by side.

    Raises:
        MvlError: It takes longer; with the figures.
    """
    n_bytes = forecast_checkpoint_bytes(sizes, stage_config)
    if n_bytes < MIN_TIMED_BYTES:
        return
    bytes_per_s = measure_write_speed(output_dir) * n_machines
    if (save_s := n_bytes / bytes_per_s) > grace_s:
        raise MvlError(
            f"{output_dir}: a checkpoint of {n_bytes / GIB:.3g} GiB takes about {save_s:.0f} s at"
            f" {bytes_per_s / 1e6:.0f} MB/s, and a cancelled run gets {grace_s:.0f} s to save",
            hint=f"raise {SAVE_GRACE_ENV} (and what ends runs from outside), or set MVL_HOME to a faster disk",
        )


def measure_write_speed(folder: Path) -> float:
    """Return the bytes per second at which a file is written to a folder and flushed to the disk."""
    file = folder / ".speed"
    data = os.urandom(PROBE_BYTES)  # some file systems compress
    started_at = time.monotonic()
    try:
        with file.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        return PROBE_BYTES / (time.monotonic() - started_at)
    finally:
        file.unlink(missing_ok=True)
