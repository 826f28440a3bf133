"""Training process of one stage: command line, identity of the run, start and report.

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
  failure.json           why it failed, where starting it again would not help
  probe.pt               logits of the trained model on one pack
  result.json            written last: stage, n_steps, first_loss, last_loss, samples, loss_tokens, train_time_s,
                         checkpoint_dir, …
`mvl_training.trainer.export_main` turns the last checkpoint into an export, which the next stage starts from.

Under Dagster (Pipes variables in the environment) rank 0's progress lines go to the event log.
Exit codes: 0 done, 2 bad input (one line on stderr), 3 loss or gradients diverged (row ids on stderr), 130/143 stopped.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.common.end_with_parent import end_with_parent
from mvl_assets.common.free_port import find_free_port
from mvl_assets.common.malloc import retain_freed_blocks
from mvl_assets.common.scratch_location import create_scratch_parent
from mvl_assets.errors import MvlError
from mvl_assets.lake_queries.holdout import read_held_out_samples
from mvl_assets.lake_queries.views import list_mixture_categories
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_loader import PackLoader
from mvl_training.data.processing import SampleProcessor, load_tokenizer
from mvl_training.data.step_packs import PackLimits, StepPacker
from mvl_training.data.students.model_files import resolve_model_dir
from mvl_training.model.cost_model import ModelSizes, build_sample_flops, compute_model_sizes
from mvl_training.model.lora import add_adapters
from mvl_training.model.student_model import Student
from mvl_training.model.students.choose import load_student, start_student
from mvl_training.recipe import Recipe
from mvl_training.trainer import checkpoint as checkpoints
from mvl_training.trainer.checkpoint import CheckpointError, CheckpointState
from mvl_training.trainer.checkpoint_loader import load_checkpoint, needs_universal_conversion
from mvl_training.trainer.checkpoint_writer import CheckpointWriter
from mvl_training.trainer.collective import STEP_TIMEOUT, open_control_group, run_on_all_ranks, run_on_rank_0
from mvl_training.trainer.disk_need import check_disk, check_save_time, check_staging_disk
from mvl_training.trainer.engine import build_deepspeed_config, build_engine
from mvl_training.trainer.export import DTYPE_BY_PRECISION
from mvl_training.trainer.finish import finish_stage
from mvl_training.trainer.gpu_need import check_gpu_memory
from mvl_training.trainer.held_out import HeldOutEvaluator
from mvl_training.trainer.job import (
    ALLOW_CPU_ENV,
    TrainingJob,
    build_provenance,
    is_finished,
    parse_arguments,
    resolve_job,
)
from mvl_training.trainer.loop import (
    SPIKE_WINDOW,
    Interrupted,
    StepSchedule,
    StopSignals,
    TrainingDiverged,
    train,
)
from mvl_training.trainer.metrics import LOG, MetricsReporter, read_metrics
from mvl_training.trainer.mfu import ThroughputMeter
from mvl_training.trainer.output_lock import OutputBusy, acquire_output_lock
from mvl_training.trainer.run_files import (
    BENCHMARKS_DIR,
    CHECKPOINTS_DIR,
    EXPORT_DIR,
    EXPORT_REPORT_FILE,
    FAILURE_FILE,
    HELD_OUT_DIR,
    METRICS_FILE,
    PROBE_FILE,
    RESULT_FILE,
    SAVE_GRACE_ENV,
    TENSORBOARD_DIR,
    read_save_grace_s,
)
from mvl_training.trainer.zero3 import build_student_zero3


def main(arguments: Sequence[str]) -> int:
    """Train a stage; return the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    LOG.setLevel(logging.INFO)
    options = parse_arguments(arguments)
    failure_path = options.out / FAILURE_FILE
    if (failure := _read_failure(failure_path)) is not None:
        sys.stderr.write(f"{failure['message']}\n")
        return int(failure["exit_code"])
    try:
        return _run_job(resolve_job(options))
    except MvlError as error:
        exit_code = 3 if isinstance(error, TrainingDiverged) else 2
        sys.stderr.write(f"{error}\n")
        if options.out.is_dir() and not isinstance(error, OutputBusy):
            failure_text = json.dumps({"message": str(error), "exit_code": exit_code})
            write_text_atomic(failure_path, failure_text, unique=True)
        return exit_code


def _read_failure(failure_path: Path) -> dict[str, Any] | None:
    """Return why the ranks that torchrun has started again failed before; None if a start may help.

    torchrun starts its ranks again whatever they ended with. The first start forgets what earlier runs left.
    """
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        if os.environ.get("RANK", "0") == "0":
            failure_path.unlink(missing_ok=True)
        return None
    if not failure_path.is_file():
        return None
    failure: dict[str, Any] = json.loads(failure_path.read_text(encoding="utf-8"))
    return failure


def _run_job(job: TrainingJob) -> int:
    if job.resume != "never" and is_finished(job):
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
    """Refuse to train a recipe that is not a demo on a CPU, where it would take weeks, or with more ranks than GPUs.

    Catches a torch that was installed without CUDA.

    Raises:
        MvlError: No CUDA device is found, the recipe is not a demo, and `allow_cpu` is not set; or this machine has
            fewer GPUs than ranks.
    """
    n_local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if torch.cuda.is_available() and n_local_ranks > torch.cuda.device_count():
        raise MvlError(
            f"{n_local_ranks} ranks would share {torch.cuda.device_count()} GPUs of this machine",
            hint="lower the recipe's `nproc_per_node`, or see CUDA_VISIBLE_DEVICES",
        )
    if torch.cuda.is_available() or recipe.is_demo or allow_cpu:
        return
    raise MvlError(
        f"recipe {recipe.name} would train on the CPU: torch {torch.__version__} finds no CUDA device",
        hint=f"`mvl doctor` checks torch; to train on the CPU all the same, pass --allow-cpu or set {ALLOW_CPU_ENV}=1",
    )


@contextlib.contextmanager
def _lock_output_dir(output_dir: Path) -> Iterator[None]:
    """Hold the folder's lock on rank 0. Raises OutputBusy on all ranks."""
    with contextlib.ExitStack() as stack:

        def acquire() -> None:
            stack.callback(os.close, acquire_output_lock(output_dir))

        run_on_rank_0(acquire)
        yield


def _train_job(job: TrainingJob, stop_signals: StopSignals) -> int:
    world_size = dist.get_world_size()
    _check_ranks_agree(job.run_hash)
    checkpoints_dir = job.output_dir / CHECKPOINTS_DIR
    resume_point = run_on_rank_0(lambda: _find_resume_point(job, checkpoints_dir))
    tokenizer = load_tokenizer(job.recipe)
    load_universal = resume_point is not None and needs_universal_conversion(resume_point[1], world_size)
    if job.stage_config.zero_stage == 3:
        deepspeed_config = build_deepspeed_config(job.stage_config, load_universal=load_universal)
        student, sizes = build_student_zero3(
            lambda: _build_student(job, tokenizer),
            deepspeed_config,
            DTYPE_BY_PRECISION[job.stage_config.precision],
            check_sizes=lambda sizes: _check_gpu_memory(job, sizes),
        )
    else:
        student = _build_student(job, tokenizer)
        sizes = compute_model_sizes(student)
        _check_gpu_memory(job, sizes)
    run_on_rank_0(lambda: _check_disk(job, sizes))
    staging_dir = _create_staging_dir(job, sizes)
    if job.stage_config.lora is not None:
        dtype = DTYPE_BY_PRECISION[job.stage_config.precision]
        add_adapters(student, job.stage_config.lora, seed=job.recipe.seed, compute_dtype=dtype)
    processor = SampleProcessor.for_stage(job.recipe, job.stage, tokenizer)
    model_dir = job.output_dir / "model"

    def write_model_files() -> None:
        shutil.rmtree(model_dir, ignore_errors=True)
        student.write_model_files(job.init_from or _resolve_source_dir(job.recipe), model_dir, processor)

    run_on_rank_0(write_model_files)
    parameter_names = [name for name, _ in student.named_parameters()]
    engine = build_engine(student, job.stage_config, load_universal=load_universal)
    start_step = 0
    if resume_point is not None:
        checkpoint, state = resume_point
        load_checkpoint(engine, checkpoint, state, world_size=world_size, zero_stage=job.stage_config.zero_stage)
        start_step = state.step
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
    reporter = _open_reporter(job, start_step)
    started_at = time.monotonic()
    grace_s = read_save_grace_s()
    writer = CheckpointWriter(checkpoints_dir, model_dir, job.stage_config, staging_dir)

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
            build_provenance(job),
        )
        writer.save(engine, state)
        if reporter is not None and writer.write_time_s > grace_s:
            reporter.log(
                f"step {step}: the last checkpoint took {writer.write_time_s:.0f} s to write, and a run that is"
                f" cancelled gets {grace_s} s: its work since the last checkpoint would be lost; raise {SAVE_GRACE_ENV}"
            )

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
        writer.finish()
        finish_stage(job, engine, loader, start_step, time.monotonic() - started_at)
    except Interrupted as interruption:
        writer.finish()
        if reporter is not None:
            reporter.log(f"{interruption}; the same command resumes from there")
        return 128 + interruption.signum
    finally:
        if reporter is not None:
            reporter.close()
    return 0


def _check_gpu_memory(job: TrainingJob, sizes: ModelSizes) -> None:
    """Raise MvlError on all ranks if the stage does not fit on the GPU of any. Collective."""

    def check() -> None:
        if torch.cuda.is_available():
            gpu_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
            n_gpus = dist.get_world_size()
            check_gpu_memory(job.recipe, job.stage, sizes, gpu_bytes=gpu_bytes, n_gpus=n_gpus)

    run_on_all_ranks(check)


def _check_disk(job: TrainingJob, sizes: ModelSizes) -> None:
    """Raise MvlError if the checkpoints do not fit, or one is not written within the time that a cancelled run gets."""
    check_disk(job.output_dir, sizes, job.stage_config, job.n_steps)
    check_save_time(
        job.output_dir, sizes, job.stage_config, grace_s=read_save_grace_s(), n_machines=_get_machine_count()
    )


def _get_machine_count() -> int:
    return int(os.environ.get("GROUP_WORLD_SIZE", "1"))


def _create_staging_dir(job: TrainingJob, sizes: ModelSizes) -> Path | None:
    """Return where this machine's part of a checkpoint goes first; None where it is not staged. Collective."""
    if not job.stage_config.staged_checkpoints:
        return None
    # By the machine, too: the scratch folder may be one that machines share.
    staging_dir = create_scratch_parent() / f"checkpoints-{job.run_hash[:16]}-{os.environ.get('GROUP_RANK', '0')}"
    run_on_all_ranks(lambda: check_staging_disk(staging_dir.parent, sizes, job.stage_config, _get_machine_count()))
    return staging_dir


def _open_reporter(job: TrainingJob, start_step: int) -> MetricsReporter | None:
    """Return the reporter on rank 0, None on the others. Collective."""

    def open_on_rank_0() -> MetricsReporter | None:
        if dist.get_rank() != 0:
            return None
        return MetricsReporter(job.output_dir, job.stage, job.n_steps, start_step, job.recipe.to_dict())

    return run_on_all_ranks(open_on_rank_0)


def _check_ranks_agree(run_hash: str) -> None:
    """Raise MvlError on all ranks unless their run hashes are equal: a plan may be replaced meanwhile. Collective."""
    run_hashes: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(run_hashes, run_hash)
    if len(set(run_hashes)) > 1:
        raise MvlError("the ranks do not read the same plan or weights", hint="run the same command again")


def _build_student(job: TrainingJob, tokenizer: ChatTokenizer) -> Student:
    """Return the student with its weights from before the stage."""
    if job.init_from is None:
        return start_student(job.recipe, tokenizer)
    return load_student(job.recipe, job.init_from)


def _resolve_source_dir(recipe: Recipe) -> Path:
    """Return the folder of the model or tokenizer that a recipe starts from."""
    if recipe.student is not None:
        return resolve_model_dir(recipe.student.model, recipe.student.revision)
    language = recipe.towers.language
    return resolve_model_dir(language.tokenizer or language.model or "")


def _find_resume_point(job: TrainingJob, checkpoints_dir: Path) -> tuple[Path, CheckpointState] | None:
    """Return the checkpoint to resume from; `--resume never` first removes what earlier runs left. Rank 0 only."""
    if job.resume == "never":
        # First what says that the stage is trained: a kill in the middle must not leave that alone.
        for name in (RESULT_FILE, EXPORT_REPORT_FILE, PROBE_FILE, METRICS_FILE):
            (job.output_dir / name).unlink(missing_ok=True)
        for name in (EXPORT_DIR, HELD_OUT_DIR, BENCHMARKS_DIR, TENSORBOARD_DIR, CHECKPOINTS_DIR):
            shutil.rmtree(job.output_dir / name, ignore_errors=True)
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
    if restart_count := int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        # torchrun keeps its store, and in it the addresses of the ranks that it has ended.
        store, rank, world_size = next(dist.rendezvous("env://"))
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=dist.PrefixStore(f"restart-{restart_count}", store),
            rank=rank,
            world_size=world_size,
            timeout=STEP_TIMEOUT,
        )
    deepspeed.init_distributed(
        dist_backend="nccl" if on_gpu else "gloo", auto_mpi_discovery=False, verbose=False, timeout=STEP_TIMEOUT
    )
    open_control_group()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
