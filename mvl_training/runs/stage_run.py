"""The stages as files and commands: where a stage's training lives, how it is started, what it left behind.

Belongs here: the logic behind the `pack_plan/*` and `checkpoint/*` assets, without Dagster and without torch. Does not:
training itself (`train`), showing results (`definitions`, `report`).

A checkpoint folder is named after what the weights depend on (recipe, plan, initial weights), not after a run: the same
inputs find the finished work, a killed run goes on where it stopped, and other inputs start beside it.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import settings
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.recipe import STAGES, Recipe, StageName, load_recipe
from mvl_training.trainer.metrics import read_metrics

PLAN_MODULE = "mvl_training.data.plan_main"
TRAIN_MODULE = "mvl_training.trainer.main"
RESULT, METRICS = "result.json", "metrics.jsonl"

LAUNCHER = "MVL_LAUNCHER"
"""Environment variable: the command that runs torchrun's arguments on several machines (`deploy/train-*.sh`). It gets
`--nproc_per_node N -m …` and ends when all ranks have ended. Unset, torchrun runs on this machine."""

# Largest difference of a logit between the trained model and its export, loaded again: equal weights, other kernels.
EXPORT_TOLERANCE = 1e-3


class StageError(MvlError):
    """A stage cannot start, or left something behind that cannot be used."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A finished stage: `folder` holds `export/`, `result.json` and `metrics.jsonl`. `version` names the weights.

    `length` is the longest sequence it was trained on, in tokens.
    """

    stage: StageName
    folder: Path
    version: str
    length: int

    @property
    def export(self) -> Path:
        return self.folder / "export"


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage with its inputs resolved. Made by `stage_run`."""

    stage: StageName
    recipe_name: str
    recipe: Recipe
    lake_root: str
    plan_version: str
    initial: Checkpoint | None

    @property
    def inputs_hash(self) -> str:
        """Of everything the weights depend on: 32 hex characters."""
        return digest_hex(
            "checkpoint",
            self.recipe.training_inputs(self.stage),
            self.recipe.plan_inputs(self.stage),
            self.plan_version,
            None if self.initial is None else self.initial.version,
        )

    @property
    def folder(self) -> Path:
        return settings().checkpoints / self.stage / self.inputs_hash[:16]

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).is_file() and (self.folder / "export").is_dir()

    def command(self) -> list[str]:
        """torchrun, or what stands in for it, with the recipe's number of processes; the trainer resumes what it finds
        in the folder."""
        command = shlex.split(os.environ.get(LAUNCHER, ""))
        command = command or [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", str(self.recipe.processes), "-m", TRAIN_MODULE]
        command += ["--recipe", self.recipe_name, "--stage", self.stage]
        command += ["--lake", self.lake_root, "--out", str(self.folder)]
        if self.initial is not None:
            command += ["--init-from", str(self.initial.export)]
        return command

    def checkpoint(self) -> Checkpoint:
        """What the finished run left. The version names the inputs and the steps done. Raises `StageError`."""
        steps = self.result()["steps"]
        return Checkpoint(
            self.stage,
            self.folder,
            version=digest_hex("weights", self.inputs_hash, steps),
            length=self.recipe.stage(self.stage).length,
        )

    def result(self) -> dict[str, Any]:
        """The trainer's result.json. Raises `StageError` when the stage is not finished."""
        if not self.finished:
            raise StageError(
                f"training of {self.stage} left no result in {self.folder}", hint=f"see {self.folder / 'log.txt'}"
            )
        return read_json(self.folder / RESULT)


def current_recipe() -> tuple[str, Recipe]:
    """Name (or path) and content of the recipe that the profile in use names."""
    name = load_profile(settings().profile).recipe
    return name, load_recipe(name)


def stage_run(lake: Lake, stage: StageName) -> StageRun:
    """The stage as it would be trained now. Raises `StageError` when its plan or the checkpoint before is missing."""
    name, recipe = current_recipe()
    plan = lake.table(f"pack_plan/{stage}")
    if not plan.count():
        raise StageError(
            f"there is no pack plan for {stage}, or it is empty", hint=f"materialise pack_plan/{stage} first"
        )
    before = previous_stage(stage)
    return StageRun(
        stage=stage,
        recipe_name=name,
        recipe=recipe,
        lake_root=lake.root,
        plan_version=plan.data_version(),
        initial=None if before is None else current_checkpoint(before),
    )


def previous_stage(stage: StageName) -> StageName | None:
    index = STAGES.index(stage)
    return STAGES[index - 1] if index else None


def plan_command(stage: StageName, lake_root: str, run_id: str, out: Path) -> list[str]:
    """Planning counts tokens with the tokenizer, so it runs outside the process that holds the definitions."""
    name, _ = current_recipe()
    command = [sys.executable, "-m", PLAN_MODULE, "--recipe", name, "--stage", stage]
    return [*command, "--lake", lake_root, "--run-id", run_id, "--out", str(out)]


def plan_folder(stage: StageName) -> Path:
    """Log and report of planning a stage; nothing in it is needed twice."""
    return settings().home / "planning" / stage


def set_current(checkpoint: Checkpoint) -> None:
    """Makes `checkpoint` the one that later stages start from and that evaluation asks; appears whole or not at all."""
    file = _pointer(checkpoint.stage)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    data = {**asdict(checkpoint), "folder": str(checkpoint.folder)}
    part.write_text(json.dumps(data, indent=1), encoding="utf-8")
    part.replace(file)


def current_checkpoint(stage: StageName) -> Checkpoint:
    """The checkpoint that was materialised last. Raises `StageError` when there is none, or its files are gone."""
    file = _pointer(stage)
    hint = f"materialise checkpoint/{stage} first"
    if not file.is_file():
        raise StageError(f"stage {stage} has no checkpoint yet", hint=hint)
    data = json.loads(file.read_text(encoding="utf-8"))
    found = Checkpoint(data["stage"], Path(data["folder"]), data["version"], data["length"])
    if not found.export.is_dir():
        raise StageError(f"the checkpoint of {stage} is gone from {found.folder}", hint=hint)
    return found


def read_json(file: Path) -> dict[str, Any]:
    """A report that a launched process left. Raises `StageError` when it left none."""
    if not file.is_file():
        raise StageError(f"no report was left in {file}", hint=f"see {file.parent / 'log.txt'}")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _pointer(stage: StageName) -> Path:
    return settings().checkpoints / stage / "current.json"


def curve(folder: Path) -> list[dict[str, Any]]:
    """The lines of a stage's metrics.jsonl: one per optimizer step."""
    return read_metrics(folder / METRICS)


@dataclass(frozen=True, slots=True)
class Fall:
    """How the loss moved: means over the first and last tenth of the steps, and the noise of their difference (one
    standard error)."""

    first: float
    last: float
    noise: float

    @property
    def fell(self) -> bool:
        return self.last < self.first

    @property
    def rose(self) -> bool:
        """Above what noise explains (two standard errors)."""
        return self.last - self.first > 2 * self.noise


def is_finite(line: Mapping[str, Any]) -> bool:
    """Whether the loss and the gradient norm of a metrics line are numbers."""
    return all(value is not None and math.isfinite(value) for value in (line["loss"], line["grad_norm"]))


def fall_of(losses: Sequence[float]) -> Fall:
    """Compares both ends of a loss curve, at least 3 steps each where there are 6. One step alone is both ends and
    neither fell nor rose; `ValueError` without any."""
    if not losses:
        raise ValueError("a fall needs a step")
    width = max(1, min(max(3, len(losses) // 10), len(losses) // 2))
    first, last = losses[:width], losses[-width:]
    return Fall(statistics.fmean(first), statistics.fmean(last), math.hypot(_error(first), _error(last)))


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
