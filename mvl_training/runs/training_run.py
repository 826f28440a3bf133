"""Training stages as files and commands: the folder of a stage's run, the command that starts it, and its results.

The logic of the `pack_plan/*` and `checkpoint/*` assets, without Dagster and without torch. A checkpoint folder is
named after what the weights depend on (recipe, plan, initial weights), not after a run: the same inputs find the
finished work, a killed run resumes where it stopped, and other inputs get a folder of their own.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.common.digest import compute_digest
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.stages import CHECKPOINT
from mvl_training.recipe import Recipe, load_recipe
from mvl_training.trainer.export_report import ExportReport, read_export_report
from mvl_training.trainer.metrics import read_metrics
from mvl_training.trainer.run_files import (
    CHECKPOINTS_DIR,
    EXPORT_DIR,
    FAILURE_FILE,
    METRICS_FILE,
    PROBE_FILE,
    RESULT_FILE,
    format_checkpoint_name,
    list_checkpoints,
    parse_step,
    read_save_grace_s,
)

PLAN_MODULE = "mvl_training.runs.plan_main"
TRAIN_MODULE = "mvl_training.trainer.main"
EXPORT_MODULE = "mvl_training.trainer.export_main"

LAUNCHER_ENV = "MVL_LAUNCHER"
"""Environment variable: the command that runs torchrun's arguments on several machines (`deploy/train-*.sh`). It gets
`--shutdown-timeout S --nproc_per_node N -m …` and ends when all ranks have ended. Unset, torchrun runs on this
machine."""

MAX_RESTARTS = 3
"""How often torchrun starts the ranks of this machine again after one of them was lost."""


def get_export_asset_name(stage: TrainingStage) -> str:
    """Return the name of the asset that exports a stage: `checkpoint/<stage>_export`."""
    return f"{CHECKPOINT.name}/{stage}_export"


class StageError(MvlError):
    """A stage cannot start, or its results cannot be used."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A finished stage, or one of the checkpoints that were kept on the way.

    Attributes:
        stage: The training stage.
        output_dir: Holds `export/`, `result.json`, `export.json`, `metrics.jsonl` and the kept checkpoints.
        version: Identity of the weights.
        max_seq_len: Tokens of the longest sequence it was trained on.
        step: Finished optimizer steps of a kept checkpoint; None for the finished stage.
    """

    stage: TrainingStage
    output_dir: Path
    version: str
    max_seq_len: int
    step: int | None = None

    @property
    def name(self) -> str:
        """The stage, and for a kept checkpoint its folder: `one_vision/step-00000120`."""
        return self.stage if self.step is None else f"{self.stage}/{format_checkpoint_name(self.step)}"

    @property
    def export_dir(self) -> Path:
        return self.output_dir / EXPORT_DIR

    @property
    def weights_dir(self) -> Path:
        """What the local backend loads: the export, or the training checkpoint of a step, which it exports first."""
        if self.step is None:
            return self.export_dir
        return self.output_dir / CHECKPOINTS_DIR / format_checkpoint_name(self.step)


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One stage with its inputs resolved, as `resolve_training_run` does.

    Attributes:
        stage: The training stage.
        recipe_name: Name or path of the recipe.
        recipe: The recipe.
        lake_address: Address of the lake.
        plan_version: Data version of the pack plan.
        initial_checkpoint: Checkpoint of the previous stage; None for the first.
    """

    stage: TrainingStage
    recipe_name: str
    recipe: Recipe
    lake_address: str
    plan_version: str
    initial_checkpoint: Checkpoint | None

    @property
    def inputs_hash(self) -> str:
        """Digest of everything the weights depend on: 32 hex characters."""
        return compute_digest(
            "checkpoint",
            self.recipe.build_training_inputs(self.stage),
            self.recipe.build_plan_inputs(self.stage),
            self.plan_version,
            None if self.initial_checkpoint is None else self.initial_checkpoint.version,
        )

    @property
    def output_dir(self) -> Path:
        return load_settings().checkpoints_dir / self.stage / self.inputs_hash[:16]

    @property
    def export_run_dir(self) -> Path:
        """Gets the log of a process that does nothing but export."""
        return self.output_dir / "export_run"

    @property
    def is_finished(self) -> bool:
        """Whether the stage is trained, and exported or ready to be."""
        has_result, has_probe = ((self.output_dir / name).is_file() for name in (RESULT_FILE, PROBE_FILE))
        return has_result and (has_probe or self.is_exported)

    @property
    def is_exported(self) -> bool:
        """Whether the trained weights are there in Hugging Face form, and were found equal or could not be compared."""
        report = read_export_report(self.output_dir)
        return report is not None and report.is_usable

    @property
    def may_retry(self) -> bool:
        """Whether a run that failed may succeed when it is started again: a worker was lost, or the machine."""
        return not (self.output_dir / FAILURE_FILE).is_file()

    def build_command(self) -> list[str]:
        """Return the command that trains the stage: torchrun, or the launcher in its place, and its arguments.

        The trainer resumes from what it finds in the folder.
        """
        command = shlex.split(os.environ.get(LAUNCHER_ENV, ""))
        # Machines that lose a rank are started again by who started them: they would have to agree on it.
        restarts = ["--standalone", "--max-restarts", str(MAX_RESTARTS)]
        command = command or [sys.executable, "-m", "torch.distributed.run", *restarts]
        # By default torchrun kills its ranks 30 seconds after it told them to end.
        command += ["--shutdown-timeout", str(read_save_grace_s())]
        command += ["--nproc_per_node", str(self.recipe.nproc_per_node), "-m", TRAIN_MODULE]
        command += ["--recipe", self.recipe_name, "--stage", self.stage]
        command += ["--lake", self.lake_address, "--out", str(self.output_dir)]
        if holdout_fraction := load_profile(load_settings().profile).holdout_fraction:
            command += ["--holdout-fraction", str(holdout_fraction)]
        if self.initial_checkpoint is not None:
            command += ["--init-from", str(self.initial_checkpoint.export_dir)]
        return command

    def build_export_command(self) -> list[str]:
        """Return the command that exports the trained stage, on the first of the machines that train."""
        command = shlex.split(os.environ.get(LAUNCHER_ENV, ""))
        command += ["--nproc_per_node", "1"] if command else [sys.executable]
        return [*command, "-m", EXPORT_MODULE, "--out", str(self.output_dir)]

    def build_checkpoint(self) -> Checkpoint:
        """Return the checkpoint of the finished run. Its version is a digest of the inputs and the number of steps.

        Raises:
            StageError: The stage is not finished.
        """
        n_steps = self.read_result()["n_steps"]
        return Checkpoint(
            self.stage,
            self.output_dir,
            version=compute_digest("weights", self.inputs_hash, n_steps),
            max_seq_len=self.recipe.get_stage(self.stage).max_seq_len,
        )

    def read_result(self) -> dict[str, Any]:
        """Return the content of the trainer's `result.json`.

        Raises:
            StageError: The stage is not finished.
        """
        if not self.is_finished:
            raise StageError(
                f"{self.stage} is not trained with the current plan and recipe: {self.output_dir} has no result",
                hint=f"materialise {CHECKPOINT.name}/{self.stage} first",
            )
        return read_json(self.output_dir / RESULT_FILE)

    def read_export_report(self) -> ExportReport:
        """Return the comparison of the export with the trained model.

        Raises:
            StageError: The stage is not exported.
        """
        report = read_export_report(self.output_dir)
        if report is None:
            raise StageError(
                f"{self.stage} is not exported", hint=f"materialise {get_export_asset_name(self.stage)} first"
            )
        return report


def load_current_recipe() -> tuple[str, Recipe]:
    """Return name (or path) and content of the recipe that the profile in use names."""
    name = load_profile(load_settings().profile).recipe
    return name, load_recipe(name)


def resolve_training_run(lake: Lake, stage: TrainingStage) -> TrainingRun:
    """Return the stage as it would be trained now.

    Raises:
        StageError: Its plan or the checkpoint of the previous stage is missing.
    """
    name, recipe = load_current_recipe()
    plan = lake.get_table(f"pack_plan/{stage}")
    if not plan.count():
        raise StageError(f"the pack plan for {stage} is missing or empty", hint=f"materialise pack_plan/{stage} first")
    previous = recipe.get_previous_stage(stage)
    return TrainingRun(
        stage=stage,
        recipe_name=name,
        recipe=recipe,
        lake_address=lake.address,
        plan_version=plan.compute_data_version(),
        initial_checkpoint=None if previous is None else load_current_checkpoint(previous),
    )


def build_plan_command(stage: TrainingStage, lake_address: str, run_id: str, report_path: Path) -> list[str]:
    """Return the command that plans a stage in another process, because this one must not load a tokenizer."""
    name, _ = load_current_recipe()
    command = [sys.executable, "-m", PLAN_MODULE, "--recipe", name, "--stage", stage]
    return [*command, "--lake", lake_address, "--run-id", run_id, "--out", str(report_path)]


def get_plan_dir(stage: TrainingStage) -> Path:
    """Return the folder for the log and report of planning a stage; each run of planning overwrites them."""
    return load_settings().home / "planning" / _get_arm_path() / stage


def set_current_checkpoint(checkpoint: Checkpoint) -> None:
    """Make this the checkpoint of its stage that later stages start from and that is evaluated. Atomic."""
    pointer_path = _get_pointer_path(checkpoint.stage)
    pointer_path.parent.mkdir(parents=True, exist_ok=True)
    data = {**asdict(checkpoint), "output_dir": str(checkpoint.output_dir)}
    del data["step"]  # a stage goes on from its end
    write_text_atomic(pointer_path, json.dumps(data, indent=1))


def load_current_checkpoint(stage: TrainingStage) -> Checkpoint:
    """Return the checkpoint of a stage that was exported last.

    Raises:
        StageError: The stage has no checkpoint, or its files are gone.
    """
    pointer_path = _get_pointer_path(stage)
    hint = f"materialise {get_export_asset_name(stage)} first"
    if not pointer_path.is_file():
        raise StageError(f"stage {stage} has no checkpoint yet", hint=hint)
    data = json.loads(pointer_path.read_text(encoding="utf-8"))
    checkpoint = Checkpoint(data["stage"], Path(data["output_dir"]), data["version"], data["max_seq_len"])
    if not checkpoint.export_dir.is_dir():
        raise StageError(f"the checkpoint of {stage} is gone from {checkpoint.output_dir}", hint=hint)
    return checkpoint


def list_kept_checkpoints(checkpoint: Checkpoint) -> list[Checkpoint]:
    """Return the checkpoints that were kept while a finished stage was trained, oldest first; the last is its end."""
    folders = list_checkpoints(checkpoint.output_dir / CHECKPOINTS_DIR)
    return [build_kept_checkpoint(checkpoint, parse_step(folder)) for folder in folders]


def build_kept_checkpoint(checkpoint: Checkpoint, step: int) -> Checkpoint:
    """Return what a finished stage was after a step, whether it was kept or not."""
    return replace(checkpoint, step=step, version=compute_digest("kept_checkpoint", checkpoint.version, step))


def load_kept_checkpoint(stage: TrainingStage, folder_name: str) -> Checkpoint:
    """Return a checkpoint that the current one of the stage came by, by the name of its folder.

    Raises:
        StageError: The stage has no checkpoint, or this one was not kept.
    """
    kept = {c.weights_dir.name: c for c in list_kept_checkpoints(load_current_checkpoint(stage))}
    if folder_name not in kept:
        raise StageError(
            f"{stage} has no checkpoint {folder_name}; kept: {', '.join(kept) or 'none'}",
            hint="ask one of these, or set `keep_every_samples` in the recipe and train the stage again",
        )
    return kept[folder_name]


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that a launched process wrote.

    Raises:
        StageError: The file does not exist.
    """
    if not path.is_file():
        raise StageError(f"report {path} does not exist", hint=f"see {path.parent / 'log.txt'}")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _get_pointer_path(stage: TrainingStage) -> Path:
    return load_settings().checkpoints_dir / stage / _get_arm_path() / "current.json"


def _get_arm_path() -> str:
    """Return the folder of what an arm of a study has of its own; checkpoints are shared, by what they are made of."""
    arm_id = load_settings().arm_id
    return "" if arm_id is None else f"arms/{arm_id.path}"


def read_stage_metrics(output_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of a stage's `metrics.jsonl`, one per optimizer step."""
    return read_metrics(output_dir / METRICS_FILE)


@dataclass(frozen=True, slots=True)
class LossTrend:
    """Change of the loss over a run.

    Attributes:
        first_mean: Mean over the first tenth of the steps.
        last_mean: Mean over the last tenth.
        standard_error: Standard error of their difference.
    """

    first_mean: float
    last_mean: float
    standard_error: float

    @property
    def has_fallen(self) -> bool:
        return self.last_mean < self.first_mean

    @property
    def has_risen(self) -> bool:
        """Whether the loss rose by more than noise explains (two standard errors)."""
        return self.last_mean - self.first_mean > 2 * self.standard_error


def has_finite_values(line: Mapping[str, Any]) -> bool:
    """Return whether loss and gradient norm of a line of metrics are finite."""
    return all(value is not None and math.isfinite(value) for value in (line["loss"], line["grad_norm"]))


def compute_loss_trend(losses: Sequence[float]) -> LossTrend:
    """Compare the means of the first and last tenth of a loss curve, at least 3 steps each if there are 6.

    A single step is both, so its loss neither fell nor rose.

    Raises:
        ValueError: `losses` is empty.
    """
    if not losses:
        raise ValueError("a loss trend needs at least one step")
    window = max(1, min(max(3, len(losses) // 10), len(losses) // 2))
    first, last = losses[:window], losses[-window:]
    return LossTrend(
        statistics.fmean(first),
        statistics.fmean(last),
        math.hypot(_compute_standard_error(first), _compute_standard_error(last)),
    )


def _compute_standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
