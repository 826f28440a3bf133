"""What one run of the trainer trains: its command line resolved, its identity, and where its weights come from."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.training_stages import TRAINING_STAGES, TrainingStage
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.packed_rows import PackedRows, open_packs
from mvl_training.recipe import Recipe, StageConfig, load_recipe
from mvl_training.trainer.export_report import read_export_report
from mvl_training.trainer.run_files import PROBE_FILE, PROVENANCE_FILE, RESULT_FILE

VERSIONED_PACKAGES = ("torch", "transformers", "deepspeed", "tokenizers", "pylance", "mvl")

ALLOW_CPU_ENV = "MVL_ALLOW_CPU"
"""Environment variable: 1 lets a recipe that is not a demo train without CUDA, as `--allow-cpu` does."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A resolved command line.

    Attributes:
        recipe: The recipe.
        stage: The training stage.
        stage_config: Settings of the stage.
        lake: Lake with mixture and pack plan.
        output_dir: Folder of the run.
        init_from: Export that training starts from; None starts from the towers.
        resume: `auto`, `never` or `require`.
        allow_cpu: Train without CUDA.
        holdout_fraction: Share of image groups that the mixtures have not, for measurements.
        initial_weights: Identity of the weights of `init_from`.
        plan: The stage's pack plan, or the packed rows made from it.
        batch_order: Order of its samples.
        n_steps: Optimizer steps.
        run_hash: Identity of the run.
    """

    recipe: Recipe
    stage: TrainingStage
    stage_config: StageConfig
    lake: Lake
    output_dir: Path
    init_from: Path | None
    resume: str
    allow_cpu: bool
    holdout_fraction: float
    initial_weights: dict[str, Any] | None
    plan: PackPlan | PackedRows
    batch_order: BatchOrder
    n_steps: int
    run_hash: str


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="mvl_training.trainer.main", description="Train one stage")
    parser.add_argument("--recipe", required=True, help="name or path")
    parser.add_argument("--stage", required=True, choices=TRAINING_STAGES)
    parser.add_argument("--lake", required=True, help="root of the tables")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--init-from", type=Path, help="export folder of the previous stage")
    parser.add_argument("--steps", type=int, help="in place of the recipe's number")
    parser.add_argument(
        "--holdout-fraction", type=float, default=0.0, help="the profile's: measure samples that the mixtures have not"
    )
    parser.add_argument("--allow-cpu", action="store_true", help=f"train without CUDA (or set {ALLOW_CPU_ENV}=1)")
    parser.add_argument("--resume", choices=("auto", "never", "require"), default="auto")
    return parser.parse_args(arguments)


def resolve_job(options: argparse.Namespace) -> TrainingJob:
    """Return what a command line means.

    Raises:
        MvlError: The recipe, the plan or the initial weights are missing or wrong.
    """
    recipe = load_recipe(options.recipe)
    stage_config = recipe.get_stage(options.stage)
    lake = Lake(options.lake)
    plan = open_packs(lake, options.stage)
    if options.init_from is not None and not (options.init_from / "config.json").is_file():
        raise MvlError(f"{options.init_from} is not an export", hint="name the `export` folder of a finished stage")
    batch_order = BatchOrder(len(plan), stage_config.global_batch_size, recipe.seed)
    n_steps = options.steps or stage_config.steps or stage_config.epochs * batch_order.steps_per_epoch
    initial_weights = None if options.init_from is None else _identify_weights(options.init_from)
    return TrainingJob(
        recipe,
        options.stage,
        stage_config,
        lake,
        options.out,
        options.init_from,
        options.resume,
        options.allow_cpu or os.environ.get(ALLOW_CPU_ENV, "") not in ("", "0"),
        options.holdout_fraction,
        initial_weights,
        plan,
        batch_order,
        n_steps,
        run_hash=compute_digest(
            "run", recipe.build_training_inputs(options.stage), plan.version, initial_weights, n_steps
        ),
    )


def _identify_weights(export_dir: Path) -> dict[str, Any]:
    """Return the identity of an export's weights: its run and step, or digests of the files of a foreign folder.

    It is part of `run_hash`, so its keys must not change.
    """
    provenance_path = export_dir / PROVENANCE_FILE
    if provenance_path.is_file():
        data = json.loads(provenance_path.read_text(encoding="utf-8"))
        return {"run": data["run_hash"], "step": data["step"]}
    return {path.name: _compute_file_digest(path) for path in sorted(export_dir.iterdir()) if path.is_file()}


def _compute_file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]


def is_finished(job: TrainingJob) -> bool:
    """Return whether the folder holds the result of this run."""
    result_path = job.output_dir / RESULT_FILE
    if not result_path.is_file():
        return False
    if not (job.output_dir / PROBE_FILE).is_file() and read_export_report(job.output_dir) is None:
        return False
    return bool(json.loads(result_path.read_text(encoding="utf-8")).get("run_hash") == job.run_hash)


def build_provenance(job: TrainingJob) -> dict[str, Any]:
    """Return what an export says of where its weights come from, besides run, step and recipe."""
    return {
        "recipe_name": job.recipe.name,
        "recipe_hash": compute_digest(job.recipe.build_training_inputs(job.stage)),
        "initial_weights": job.initial_weights,
        **({} if job.stage_config.lora is None else {"merged_adapters": job.stage_config.lora.model_dump(mode="json")}),
        "versions": {name: _read_package_version(name) for name in VERSIONED_PACKAGES},
    }


def _read_package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
