"""Training process of one stage: command line, identity of the run, start, export and report.

    python -m mvl_training.trainer.main --recipe demo --stage alignment --lake LAKE_ROOT --out DIR
        [--init-from EXPORT_DIR] [--steps N] [--resume auto|never|require] [--allow-cpu]

Runs alone (one rank) or under `torchrun --nproc_per_node N -m mvl_training.trainer.main …`, where N is the recipe's
`nproc_per_node`. The same command after a kill resumes from the last checkpoint; SIGINT and SIGTERM save one and exit
with 130 or 143. A finished run that is started again returns at once. Needs `pack_plan/<stage>` in the lake;
reads `packed_rows/<stage>` where it was made from this plan.

`--init-from` takes the `export/` folder of the previous stage; without it the model is assembled from the towers. A
recipe that is not a demo refuses to train without CUDA unless `--allow-cpu` or MVL_ALLOW_CPU=1 allows it.

Leaves in DIR:
  metrics.jsonl          one object per optimizer step (see `loop.train`)
  tensorboard/           the same numbers
  checkpoints/step-…/    atomic, the newest `keep_checkpoints` of the recipe
  export/                llava-hf layout (loaded by the next stage, `StudentRunner` and vLLM)
  result.json            written last: stage, n_steps, first_loss, last_loss, samples, loss_tokens, train_time_s,
                         checkpoint_dir, export_dir, export_max_difference (largest difference of a logit after loading
                         the export again), …

Under Dagster (Pipes variables in the environment) rank 0's progress lines go to the event log.
Exit codes: 0 done, 2 bad input (one line on stderr), 3 loss or gradients diverged (row ids on stderr), 130/143 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.common.digest import compute_digest
from mvl_assets.common.end_with_parent import end_with_parent
from mvl_assets.common.file_lock import acquire_lock
from mvl_assets.common.free_port import find_free_port
from mvl_assets.common.malloc import retain_freed_blocks
from mvl_assets.common.training_stages import TRAINING_STAGES, TrainingStage
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.holdout import read_held_out_samples
from mvl_assets.lake_queries.views import list_mixture_categories
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_loader import PackedBatch, PackLoader
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.packed_rows import PackedRows, open_packs
from mvl_training.data.processing import SampleProcessor, load_tokenizer, resolve_model_dir
from mvl_training.data.step_packs import PackLimits, StepPacker
from mvl_training.model.cost_model import build_sample_flops, compute_model_sizes
from mvl_training.model.hf_layout import write_model_files
from mvl_training.model.student_model import Student, assemble_student, load_student
from mvl_training.recipe import Recipe, StageConfig, load_recipe
from mvl_training.trainer import checkpoint as checkpoints
from mvl_training.trainer.checkpoint import CheckpointError, CheckpointState
from mvl_training.trainer.collective import STEP_TIMEOUT, open_control_group, run_on_rank_0, wait_for_all_ranks
from mvl_training.trainer.export import DTYPE_BY_PRECISION, export_checkpoint
from mvl_training.trainer.held_out import HeldOutEvaluator
from mvl_training.trainer.loop import (
    SPIKE_WINDOW,
    Interrupted,
    StepSchedule,
    StopSignals,
    TrainingDiverged,
    build_deepspeed_config,
    build_engine,
    train,
)
from mvl_training.trainer.metrics import LOG, MetricsReporter, read_metrics
from mvl_training.trainer.mfu import ThroughputMeter
from mvl_training.trainer.run_files import (
    CHECKPOINTS_DIR,
    EXPORT_DIR,
    METRICS_FILE,
    PROVENANCE_FILE,
    RESULT_FILE,
    TENSORBOARD_DIR,
)
from mvl_training.trainer.zero3 import build_student_zero3, gather_own_parameters

VERSIONED_PACKAGES = ("torch", "transformers", "deepspeed", "tokenizers", "pylance", "mvl")
LOCK_TIMEOUT_S = 10.0
MAX_PROBED_SAMPLES = 64

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


def main(arguments: Sequence[str]) -> int:
    """Train a stage; return the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    LOG.setLevel(logging.INFO)
    try:
        return _run_job(_resolve_job(_parse_arguments(arguments)))
    except TrainingDiverged as error:
        sys.stderr.write(f"{error}\n")
        return 3
    except MvlError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
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


def _resolve_job(options: argparse.Namespace) -> TrainingJob:
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


def _run_job(job: TrainingJob) -> int:
    if job.resume != "never" and _is_finished(job):
        LOG.info(f"{job.stage}: already finished, {job.output_dir}")
        return 0
    check_device(job.recipe, allow_cpu=job.allow_cpu)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # torchrun puts its workers into sessions of their own.
        end_with_parent()
    stop_signals = StopSignals()
    init_distributed()
    try:
        with _lock_output_dir(job.output_dir):
            return _train_job(job, stop_signals)
    finally:
        dist.destroy_process_group()


def check_device(recipe: Recipe, *, allow_cpu: bool) -> None:
    """Refuse to train a recipe that is not a demo on a CPU, where it would take weeks.

    Catches a torch that was installed without CUDA.

    Raises:
        MvlError: No CUDA device is found, the recipe is not a demo, and `allow_cpu` is not set.
    """
    if torch.cuda.is_available() or recipe.is_demo or allow_cpu:
        return
    raise MvlError(
        f"recipe {recipe.name} would train on the CPU: torch {torch.__version__} finds no CUDA device",
        hint=f"`mvl doctor` checks torch; to train on the CPU all the same, pass --allow-cpu or set {ALLOW_CPU_ENV}=1",
    )


@contextlib.contextmanager
def _lock_output_dir(output_dir: Path) -> Iterator[None]:
    """Hold the folder's lock on rank 0: two runs in one folder would corrupt each other's files.

    Raises MvlError on all ranks when another process still holds it after `LOCK_TIMEOUT_S` (one that was just killed
    needs a moment to be gone).
    """
    with contextlib.ExitStack() as stack:

        def acquire() -> None:
            output_dir.mkdir(parents=True, exist_ok=True)
            deadline = time.monotonic() + LOCK_TIMEOUT_S
            while (lock := acquire_lock(output_dir / ".lock", blocking=False)) is None:
                if time.monotonic() >= deadline:
                    raise MvlError(
                        f"another process trains in {output_dir}",
                        hint="wait for it or stop it; this process changed nothing",
                    )
                time.sleep(0.1)
            stack.callback(os.close, lock)

        run_on_rank_0(acquire)
        yield


def _train_job(job: TrainingJob, stop_signals: StopSignals) -> int:
    is_rank_0, world_size = dist.get_rank() == 0, dist.get_world_size()
    _check_ranks_agree(job.run_hash)
    checkpoints_dir = job.output_dir / CHECKPOINTS_DIR
    resume_point = run_on_rank_0(lambda: _find_resume_point(job, checkpoints_dir))
    tokenizer = load_tokenizer(job.recipe)
    load_universal = resume_point is not None and checkpoints.needs_universal_conversion(resume_point[1], world_size)
    if job.stage_config.zero_stage == 3:
        deepspeed_config = build_deepspeed_config(job.stage_config, load_universal=load_universal)
        student, sizes = build_student_zero3(
            lambda: _build_student(job, tokenizer), deepspeed_config, DTYPE_BY_PRECISION[job.stage_config.precision]
        )
    else:
        student = _build_student(job, tokenizer)
        sizes = compute_model_sizes(student.llava, student.grid)
    model_dir = job.output_dir / "model"
    if is_rank_0:
        shutil.rmtree(model_dir, ignore_errors=True)
        tokenizer_dir = job.init_from or resolve_model_dir(
            job.recipe.language.tokenizer or job.recipe.language.model or ""
        )
        write_model_files(
            student.llava, tokenizer_dir, model_dir, grid=student.grid, system_prompt=job.recipe.system_prompt
        )
    parameter_names = [name for name, _ in student.named_parameters()]
    engine = build_engine(student, job.stage_config, load_universal=load_universal)
    start_step = 0
    if resume_point is not None:
        checkpoint, state = resume_point
        checkpoints.load(engine, checkpoint, state, world_size=world_size, zero_stage=job.stage_config.zero_stage)
        start_step = state.step
    processor = SampleProcessor.for_stage(job.recipe, job.stage, tokenizer)
    loader = PackLoader(job.lake, job.stage, job.plan, processor, job.recipe.loss_weighting)
    step_packer = StepPacker(
        job.plan,
        job.batch_order,
        build_sample_flops(sizes, job.stage_config),
        PackLimits.for_stage(job.recipe, job.stage),
        world_size,
    )
    categories = run_on_rank_0(lambda: list_mixture_categories(job.lake, job.stage))
    held_out = _open_held_out(job, processor, categories)
    previous_losses = run_on_rank_0(lambda: _read_previous_losses(job.output_dir, start_step))
    reporter = MetricsReporter(job.output_dir, job.stage, job.n_steps, start_step) if is_rank_0 else None
    started_at = time.monotonic()

    def save_checkpoint(step: int) -> None:
        state = CheckpointState(
            job.run_hash,
            step,
            world_size,
            job.stage_config.zero_stage,
            job.stage,
            job.recipe.to_dict(),
            job.plan.version,
            parameter_names,
            _build_provenance(job),
        )
        checkpoints.save(engine, checkpoints_dir, state, model_dir, job.stage_config.keep_checkpoints)

    try:
        if reporter is not None:
            reporter.log(
                f"{job.stage}: {len(job.plan)} samples, {job.stage_config.global_batch_size} per step, "
                f"steps {start_step} to {job.n_steps}, {world_size} ranks, ZeRO-{job.stage_config.zero_stage}, "
                f"{job.stage_config.precision}"
            )
        train(
            engine,
            loader,
            StepSchedule(
                job.stage_config,
                job.recipe.loss_weighting,
                ThroughputMeter(sizes, job.stage_config, world_size),
                step_packer,
                start_step,
                job.n_steps,
                previous_losses,
                categories,
            ),
            stop_signals,
            reporter.report_step if reporter is not None else lambda numbers: None,
            save_checkpoint,
            held_out,
        )
        _export_and_report(job, engine, loader, start_step, time.monotonic() - started_at)
    except Interrupted as interruption:
        if reporter is not None:
            reporter.log(f"{interruption}; the same command resumes from there")
        return 128 + interruption.signum
    finally:
        if reporter is not None:
            reporter.close()
    return 0


def _check_ranks_agree(run_hash: str) -> None:
    """Raise MvlError on all ranks unless their run hashes are equal: a plan may be replaced meanwhile. Collective."""
    run_hashes: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(run_hashes, run_hash)
    if len(set(run_hashes)) > 1:
        raise MvlError("the ranks do not read the same plan or weights", hint="run the same command again")


def _build_student(job: TrainingJob, tokenizer: ChatTokenizer) -> Student:
    """Return the student with its weights from before the stage."""
    if job.init_from is None:
        return assemble_student(job.recipe, tokenizer)
    return load_student(job.init_from, job.recipe.grid.to_tile_grid())


def _find_resume_point(job: TrainingJob, checkpoints_dir: Path) -> tuple[Path, CheckpointState] | None:
    """Return the checkpoint to resume from; `--resume never` first removes those of earlier runs. Rank 0 only."""
    if job.resume == "never":
        for name in (CHECKPOINTS_DIR, TENSORBOARD_DIR, EXPORT_DIR):
            shutil.rmtree(job.output_dir / name, ignore_errors=True)
        for name in (METRICS_FILE, RESULT_FILE):
            (job.output_dir / name).unlink(missing_ok=True)
    newest = checkpoints.find_newest(checkpoints_dir, job.run_hash)
    if newest is None:
        if job.resume == "require":
            raise CheckpointError(f"{checkpoints_dir} holds no checkpoint to resume from")
        shutil.rmtree(job.output_dir / TENSORBOARD_DIR, ignore_errors=True)
    return newest


def _open_held_out(job: TrainingJob, processor: SampleProcessor, categories: Sequence[str]) -> HeldOutEvaluator | None:
    """Return what measures held-out samples; None if there are none, or the recipe wants none. Collective."""
    if job.stage_config.held_out_interval is None or not job.holdout_fraction:
        return None

    def read() -> list[dict[str, Any]]:
        n_samples = job.stage_config.held_out_samples
        return [
            row
            for category in categories
            for row in read_held_out_samples(job.lake, category, job.holdout_fraction, n_samples)
        ]

    rows = run_on_rank_0(read)
    return HeldOutEvaluator(rows, job.lake, processor, job.stage_config.pack_tokens) if rows else None


def _read_previous_losses(output_dir: Path, start_step: int) -> list[float]:
    """Return the losses of the last steps up to `start_step`, oldest first."""
    steps = [step for step in read_metrics(output_dir / METRICS_FILE) if step["step"] <= start_step]
    return [step["loss"] for step in steps[-SPIKE_WINDOW:]]


def _export_and_report(job: TrainingJob, engine: Any, loader: PackLoader, start_step: int, wall_time_s: float) -> None:
    """Export the last checkpoint, compare it with the trained model, write result.json. Collective."""
    probe_batch = _load_probe_batch(loader).to(engine.device)
    engine.eval()
    with torch.no_grad(), gather_own_parameters(engine.module):
        trained_logits = compute_probe_logits(engine.module, probe_batch)
    if dist.get_rank() == 0:
        last_checkpoint = job.output_dir / CHECKPOINTS_DIR / checkpoints.format_checkpoint_name(job.n_steps)
        export_dir = export_checkpoint(last_checkpoint, job.output_dir / EXPORT_DIR)
        reloaded = (
            load_student(export_dir, job.recipe.grid.to_tile_grid(), DTYPE_BY_PRECISION[job.stage_config.precision])
            .to(engine.device)
            .eval()
        )
        with torch.no_grad():
            differences = (compute_probe_logits(reloaded, probe_batch) - trained_logits).abs()
            max_difference = float(differences.max()) if differences.numel() else math.nan
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
            "checkpoint_dir": str(last_checkpoint),
            "export_dir": str(export_dir),
            "export_max_difference": max_difference,
            "plan_version": job.plan.version,
            "resumed_from": start_step or None,
            "world_size": dist.get_world_size(),
            **_build_provenance(job),
        }
        write_text_atomic(job.output_dir / RESULT_FILE, json.dumps(result, indent=1) + "\n", unique=False)
    wait_for_all_ranks()


def _load_probe_batch(loader: PackLoader) -> PackedBatch:
    """Return the first pack of one sample that can be decoded; an empty one if none of the first can."""
    batches = (loader.load([position]) for position in range(min(len(loader.plan), MAX_PROBED_SAMPLES)))
    return next((batch for batch in batches if batch.row_ids), loader.load([]))


def compute_probe_logits(student: Student, batch: PackedBatch) -> torch.Tensor:
    """Return the logits at the loss tokens of a pack, float32 (loss tokens, vocabulary)."""
    logits: torch.Tensor = student.llava.lm_head(student.compute_last_hidden(batch)[batch.loss_positions_K]).float()
    return logits


def _is_finished(job: TrainingJob) -> bool:
    result_path = job.output_dir / RESULT_FILE
    if not result_path.is_file() or not (job.output_dir / EXPORT_DIR / "config.json").is_file():
        return False
    return bool(json.loads(result_path.read_text(encoding="utf-8")).get("run_hash") == job.run_hash)


def _build_provenance(job: TrainingJob) -> dict[str, Any]:
    return {
        "recipe_name": job.recipe.name,
        "recipe_hash": compute_digest(job.recipe.build_training_inputs(job.stage)),
        "initial_weights": job.initial_weights,
        "versions": {name: _read_package_version(name) for name in VERSIONED_PACKAGES},
    }


def _read_package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def init_distributed() -> None:
    """Initialise torch.distributed, alone or under torchrun, and the variables that DeepSpeed reads when imported."""
    on_gpu = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if on_gpu else "cpu")
    if "RANK" not in os.environ:
        single_rank_env = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        os.environ.update(single_rank_env | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_port())})
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        retain_freed_blocks()
        n_local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
        # torchrun gives every rank one thread by default; a single rank takes what its environment says.
        if n_local_ranks > 1 or "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // n_local_ranks))
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.WARNING)
    # Compiled at the first use (minutes), and a kill meanwhile leaves a lock that hangs every later run.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        dist_backend="nccl" if on_gpu else "gloo", auto_mpi_discovery=False, verbose=False, timeout=STEP_TIMEOUT
    )
    open_control_group()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
