"""Checkpoints of a run: whole or absent, the newest few, and never someone else's.

Belongs here: the folder layout, atomic saving, finding what to resume from, refusing what does not belong. Does not:
what DeepSpeed writes inside, exporting (`export`).

Layout: `checkpoints/step-00000120/` holds `zero/` (DeepSpeed's files), `model/` (config, tokenizer: what an export
needs besides weights) and `state.json`, which is written last and lists every file with its size.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist

from mvl_assets.errors import MvlError

STATE = "state.json"
TAG = "zero"
FORMAT = 1
READERS = 8


class CheckpointError(MvlError):
    """A checkpoint that cannot be used, with the reason."""


@dataclass(frozen=True, slots=True)
class State:
    """What a checkpoint says of itself.

    `run` is the identity of the run (recipe of the stage, data, initial weights, steps); `step` counts finished
    optimizer steps, `weights` names the model's parameters. Data order and learning rates are functions of the step,
    so nothing else is needed to go on.
    """

    run: str
    step: int
    world: int
    zero: int
    stage: str
    recipe: dict[str, Any]
    plan_version: str
    weights: list[str]
    provenance: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT
    files: dict[str, int] = field(default_factory=dict)


def save(engine: Any, folder: Path, state: State, model_files: Path, keep: int) -> Path:
    """Write a checkpoint on all ranks and publish it in one rename; then remove all but the newest `keep`.

    Collective. A kill at any moment leaves the earlier checkpoints as they were.
    """
    first = dist.get_rank() == 0
    final = folder / name_of(state.step)
    building = folder / f".building-{final.name}"
    if first:
        for leftover in folder.glob(".building-*"):
            shutil.rmtree(leftover)
        building.mkdir(parents=True)
    dist.barrier()
    try:
        engine.save_checkpoint(str(building), tag=TAG, save_latest=False)
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as RuntimeError
        raise _unwritten(building, error) from error
    dist.barrier()
    if first:
        try:
            _publish(building, final, state, model_files)
        except OSError as error:
            raise _unwritten(building, error) from error
        there = all_in(folder)
        # Those behind this one could not be used, or the run would have gone on from them.
        later = [old for old in there if old.name > final.name]
        for old in (*later, *there[: -len(later) - keep]):
            shutil.rmtree(old)
    dist.barrier()
    return final


def _publish(building: Path, final: Path, state: State, model_files: Path) -> None:
    """Completes a checkpoint, brings it to the disk and gives it its name."""
    shutil.copytree(model_files, building / "model")
    files = {str(p.relative_to(building)): p.stat().st_size for p in sorted(building.rglob("*")) if p.is_file()}
    content = asdict(state) | {"files": files}
    (building / STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")
    sync_tree(building)
    if final.exists():
        shutil.rmtree(final)
    building.rename(final)
    sync(final.parent)


def _unwritten(building: Path, error: Exception) -> CheckpointError:
    room = shutil.disk_usage(building.parent).free >> 20
    return CheckpointError(
        f"{building.parent}: the checkpoint could not be written ({' '.join(str(error).split())[:160]})",
        hint=f"{room} MiB are free there; the checkpoint before it is intact, and the same command goes on from it",
    )


def load(engine: Any, checkpoint: Path, state: State, *, world: int, zero: int) -> None:
    """Put a checkpoint into the engine. Collective. Raises CheckpointError when the ZeRO stages differ.

    One saved by another number of ranks is converted to DeepSpeed's universal form first; the engine must have been
    built for that (`build_engine(universal=True)`). Weights and optimizer states are then equal, sums over ranks are
    rounded in another order.
    """
    if state.zero != zero:
        raise CheckpointError(
            f"{checkpoint} was saved with ZeRO-{state.zero}; this run has ZeRO-{zero}",
            hint=f"set the recipe's `zero` back to {state.zero}, or start again with --resume never",
        )
    converted = needs_universal(state, world)
    folder = _universal(checkpoint) if converted else checkpoint
    groups = [_without_params(group) for group in engine.optimizer.param_groups] if converted else []
    hint = "start again with --resume never"
    try:
        loaded, _ = engine.load_checkpoint(str(folder), tag=TAG, load_lr_scheduler_states=False)
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        said = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{checkpoint} could not be loaded ({said})", hint=hint) from error
    if loaded is None:
        raise CheckpointError(f"{checkpoint} could not be loaded", hint=hint)
    if converted:
        _separate(engine.optimizer, groups, zero)
        dist.barrier()
        if dist.get_rank() == 0:
            shutil.rmtree(folder)


def needs_universal(state: State, world: int) -> bool:
    """Whether `world` ranks cannot read the checkpoint as it is; without ZeRO every rank holds everything."""
    return state.world != world and state.zero > 0


def _without_params(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _separate(optimizer: Any, groups: list[dict[str, Any]], zero: int) -> None:
    """Undo what DeepSpeed's universal load of ZeRO-3 makes one of many: every parameter group gets the settings of the
    first, and all states one `step` tensor, which the optimizer would then count up once per group."""
    for group, settings in zip(optimizer.param_groups, groups, strict=True):
        group.update(settings)
    if zero == 3:
        for states in optimizer.optimizer.state.values():
            states["step"] = states["step"].clone()


def _universal(checkpoint: Path) -> Path:
    """The checkpoint in DeepSpeed's universal form, in a folder beside it. Collective; rank 0 converts."""
    folder = checkpoint.with_name(f".universal-{checkpoint.name}")
    problem: list[str | None] = [None]
    if dist.get_rank() == 0:
        for leftover in checkpoint.parent.glob(".universal-*"):
            shutil.rmtree(leftover)
        command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
        command += ["--input_folder", str(checkpoint / TAG), "--output_folder", str(folder / TAG)]
        command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            problem = [" ".join(done.stderr.split())[-300:]]
    dist.broadcast_object_list(problem, src=0)
    if problem[0] is not None:
        raise CheckpointError(
            f"{checkpoint} could not be converted for another number of ranks: {problem[0]}",
            hint="run with the number of ranks that saved it, or start again with --resume never",
        )
    return folder


def newest(folder: Path, run: str) -> tuple[Path, State] | None:
    """The newest whole checkpoint of this run, or None. Raises CheckpointError when all there are unusable."""
    problems = []
    for checkpoint in reversed(all_in(folder)):
        try:
            state = read(checkpoint)
            if state.run != run:
                raise CheckpointError(f"{checkpoint} belongs to another run ({state.run[:12]}, not {run[:12]})")
            return checkpoint, state
        except CheckpointError as error:
            problems.append(error.message)
    if problems:
        raise CheckpointError("; ".join(problems), hint="start again with --resume never")
    return None


def read(checkpoint: Path) -> State:
    """A checkpoint's state, after checking that all its files are there in full and as they were written. Reads them
    all. Raises CheckpointError."""
    file = checkpoint / STATE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        state = State(**data)
    except FileNotFoundError:
        raise CheckpointError(f"{checkpoint} is no checkpoint ({STATE} is missing)") from None
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if state.format != FORMAT:
        raise CheckpointError(f"{checkpoint} has format {state.format}, this program reads {FORMAT}")
    for name, size in state.files.items():
        path = checkpoint / name
        if not path.is_file() or path.stat().st_size != size:
            raise CheckpointError(f"{checkpoint} is damaged: {name} is missing or not {size} bytes long")
    saved_by_torch = [checkpoint / name for name in state.files if name.endswith(".pt")]
    with ThreadPoolExecutor(READERS) as pool:
        for file, record in zip(saved_by_torch, pool.map(_bad_record, saved_by_torch), strict=True):
            if record is not None:
                raise CheckpointError(f"{checkpoint} is damaged: {file.relative_to(checkpoint)}, {record}")
    return state


def _bad_record(file: Path) -> str | None:
    """The record whose checksum is wrong in a file that torch wrote, which is a zip; torch itself does not look."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return str(error)


def all_in(folder: Path) -> list[Path]:
    """Published checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def sync_tree(folder: Path) -> None:
    """Everything below a folder, and the folder, to the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
