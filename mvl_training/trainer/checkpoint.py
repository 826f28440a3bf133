"""Checkpoints of a run: published whole, the newest few kept, rejected if damaged or of another run.

Layout: `checkpoints/step-00000120/` holds `zero/` (DeepSpeed's files), `model/` (config and tokenizer, which an
export needs besides weights) and `state.json`, which is written last and lists every file with its size.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist

from mvl_assets.common.atomic_write import fsync_path, fsync_tree
from mvl_assets.common.text import format_exception_line
from mvl_assets.errors import MvlError
from mvl_training.recipe import StageConfig
from mvl_training.trainer.collective import wait_for_all_ranks
from mvl_training.trainer.run_files import format_checkpoint_name, list_checkpoints, parse_step

STATE_FILE = "state.json"
MODEL_DIR = "model"
DEEPSPEED_TAG = "zero"
UNIVERSAL_PREFIX = ".universal-"
"""Of the folder that a checkpoint is converted into for another number of ranks."""
FORMAT_VERSION = 2
N_VERIFY_THREADS = 8


class CheckpointError(MvlError):
    """A checkpoint cannot be written, read or used."""


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """Content of a checkpoint's `state.json`.

    Data order and learning rates are functions of the step, so nothing else is needed to resume.

    Attributes:
        run_hash: Identity of the run (recipe of the stage, data, initial weights, steps).
        step: Finished optimizer steps.
        world_size: Number of ranks that saved it.
        zero_stage: ZeRO stage that it was saved with.
        stage: The training stage.
        recipe: The whole recipe, as plain data.
        plan_version: Data version of the pack plan.
        parameter_names: Names of the model's parameters.
        provenance: Recipe, initial weights and package versions, for the export.
        format_version: Version of this format.
        file_sizes: Bytes of every file of the checkpoint, by relative path.
    """

    run_hash: str
    step: int
    world_size: int
    zero_stage: int
    stage: str
    recipe: dict[str, Any]
    plan_version: str
    parameter_names: list[str]
    provenance: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    file_sizes: dict[str, int] = field(default_factory=dict)


def create_building_dir(checkpoints_dir: Path, step: int) -> Path:
    """Make the folder that a checkpoint grows in, without leftovers of earlier ones, and return it. Collective.

    Not by `replace_dir`: all ranks write into this folder, and only rank 0 makes, completes and renames it.
    """
    building_dir = checkpoints_dir / f".building-{format_checkpoint_name(step)}"
    if dist.get_rank() == 0:
        for pattern in (".building-*", f"{UNIVERSAL_PREFIX}*"):
            for leftover in checkpoints_dir.glob(pattern):
                shutil.rmtree(leftover)
        building_dir.mkdir(parents=True)
    wait_for_all_ranks()
    return building_dir


def write_shards(engine: Any, folder: Path) -> None:
    """Write weights and optimizer states on all ranks. Collective.

    Args:
        engine: DeepSpeed's.
        folder: Gets the folder of DeepSpeed's files.

    Raises:
        CheckpointError: They could not be written, for example because the disk is full.
    """
    try:
        engine.save_checkpoint(str(folder), tag=DEEPSPEED_TAG, save_latest=False)
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as RuntimeError
        raise build_write_error(folder, error) from error
    wait_for_all_ranks()


def publish(building_dir: Path, state: CheckpointState, model_dir: Path, stage_config: StageConfig) -> None:
    """Complete a checkpoint and publish it in one rename; then remove those not to be kept. Rank 0 only.

    A kill at any moment leaves the earlier checkpoints as they were.

    Args:
        building_dir: Holds the files of all ranks.
        state: Content of `state.json`; `file_sizes` is filled in.
        model_dir: Config and tokenizer, copied into the checkpoint.
        stage_config: Says which checkpoints stay.

    Raises:
        CheckpointError: It could not be written, for example because the disk is full.
    """
    checkpoints_dir = building_dir.parent
    try:
        _write_state_and_rename(building_dir, checkpoints_dir / format_checkpoint_name(state.step), state, model_dir)
    except OSError as error:
        raise build_write_error(building_dir, error) from error
    steps = {parse_step(checkpoint): checkpoint for checkpoint in list_checkpoints(checkpoints_dir)}
    # Later ones were unusable, or the run would have resumed from them.
    kept = select_kept_steps([step for step in steps if step <= state.step], stage_config)
    for step in steps.keys() - kept:
        shutil.rmtree(steps[step])


def _write_state_and_rename(building_dir: Path, target_dir: Path, state: CheckpointState, model_dir: Path) -> None:
    """Complete a checkpoint, flush it to disk and rename it."""
    shutil.copytree(model_dir, building_dir / MODEL_DIR)
    file_sizes = {
        str(path.relative_to(building_dir)): path.stat().st_size
        for path in sorted(building_dir.rglob("*"))
        if path.is_file()
    }
    content = asdict(state) | {"file_sizes": file_sizes}
    (building_dir / STATE_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
    fsync_tree(building_dir)
    if target_dir.exists():
        shutil.rmtree(target_dir)
    building_dir.rename(target_dir)
    fsync_path(target_dir.parent)


def build_write_error(building_dir: Path, error: Exception) -> CheckpointError:
    """Return what to say of a checkpoint that could not be written."""
    free_mib = shutil.disk_usage(building_dir.parent).free >> 20
    return CheckpointError(
        f"{building_dir.parent}: the checkpoint could not be written ({format_exception_line(error, 160)})",
        hint=f"{free_mib} MiB are free there; the previous checkpoint is intact, and the same command resumes from it",
    )


def find_newest(checkpoints_dir: Path, run_hash: str) -> tuple[Path, CheckpointState] | None:
    """Return the newest usable checkpoint of this run; None if the folder holds no checkpoint.

    Raises:
        CheckpointError: None of the checkpoints can be used.
    """
    problems = []
    for checkpoint in reversed(list_checkpoints(checkpoints_dir)):
        try:
            state = read_state(checkpoint)
            if state.run_hash != run_hash:
                raise CheckpointError(
                    f"{checkpoint} belongs to another run ({state.run_hash[:12]}, not {run_hash[:12]})"
                )
            return checkpoint, state
        except CheckpointError as error:
            problems.append(error.message)
    if problems:
        raise CheckpointError("; ".join(problems), hint="start again with --resume never")
    return None


def read_state(checkpoint: Path) -> CheckpointState:
    """Return a checkpoint's state, after checking that all its files are complete and as they were written.

    Reads all the files.

    Raises:
        CheckpointError: It is not a checkpoint, has another format, or is damaged.
    """
    file = checkpoint / STATE_FILE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if (format_version := data.get("format_version")) != FORMAT_VERSION:
            raise CheckpointError(f"{checkpoint} has format {format_version}, this program reads {FORMAT_VERSION}")
        state = CheckpointState(**data)
    except FileNotFoundError:
        raise CheckpointError(f"{checkpoint} is not a checkpoint ({STATE_FILE} is missing)") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    for name, n_bytes in state.file_sizes.items():
        path = checkpoint / name
        if not path.is_file() or path.stat().st_size != n_bytes:
            raise CheckpointError(f"{checkpoint} is damaged: {name} is missing or not {n_bytes} bytes long")
    torch_files = [checkpoint / name for name in state.file_sizes if name.endswith(".pt")]
    with ThreadPoolExecutor(N_VERIFY_THREADS) as pool:
        for file, corrupt_record in zip(torch_files, pool.map(_find_corrupt_record, torch_files), strict=True):
            if corrupt_record is not None:
                raise CheckpointError(f"{checkpoint} is damaged: {file.relative_to(checkpoint)}, {corrupt_record}")
    return state


def _find_corrupt_record(file: Path) -> str | None:
    """Return the first record with a wrong checksum in a zip file of torch, which itself does not check."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return str(error)


def select_kept_steps(steps: Sequence[int], stage_config: StageConfig) -> set[int]:
    """Return which checkpoints stay: the newest, and the first after each `keep_every_samples` samples.

    Args:
        steps: Steps of the checkpoints that there are.
        stage_config: Says how many.
    """
    ordered = sorted(steps)
    kept = set(ordered[-stage_config.keep_checkpoints :])
    if (every := stage_config.keep_every_samples) is not None:
        reached = 0
        for step in ordered:
            n_intervals = step * stage_config.global_batch_size // every
            if n_intervals > reached:
                kept.add(step)
                reached = n_intervals
    return kept
