"""The launched training process of one stage, and the files a run leaves.

    python -m mvl_training.trainer.main --recipe demo --stage alignment --lake LAKE_ROOT --out DIR
        [--init-from EXPORT_DIR] [--steps N] [--resume auto|never|require]

Works alone (one rank) or under `torchrun --nproc_per_node N -m mvl_training.trainer.main …` (`recipe.processes` ranks is what
the recipe asks for on one machine). The same command after a kill goes on from the last checkpoint; SIGINT and SIGTERM
save one and exit with 130 or 143. A finished run asked for again returns at once. Needs `pack_plan/<stage>` in the
lake.

`--init-from` takes the `export/` folder of the stage before; without it the model is assembled from the towers.

Leaves in DIR:
  metrics.jsonl          one object per optimizer step (see `loop.train`)
  tensorboard/           the same numbers
  checkpoints/step-…/    atomic, the newest `keep` of the recipe
  export/                llava-hf layout (what the next stage, the runner and vLLM load)
  result.json            written last: stage, steps, first_loss, last_loss, samples, targets, seconds, checkpoint,
                         export, export_max_difference (largest difference of a logit after loading the export again), …

Under Dagster (Pipes variables in the environment) rank 0's progress lines go to the event log.
Exit codes: 0 done, 2 bad input (one line on stderr), 3 loss or gradients diverged (row ids on stderr), 130/143 stopped.
Belongs here: the command line, identity of a run, start and end. Does not: the loop (`loop`).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import torch
import torch.distributed as dist

from mvl_assets.common.digest import digest_hex
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.data.batch_order import Order
from mvl_training.data.chat_format import IGNORE, ChatTokens
from mvl_training.data.pack_loader import PackLoader
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.processing import SampleProcessor, load_tokens, locate
from mvl_training.model.cost_model import sizes_of_model
from mvl_training.model.hf_layout import write_model_files
from mvl_training.model.student_model import Student, assemble, load_student
from mvl_training.recipe import STAGES, Recipe, Stage, StageName, load_recipe
from mvl_training.trainer import checkpoint as checkpoints
from mvl_training.trainer.allocator import keep_freed_memory
from mvl_training.trainer.checkpoint import CheckpointError, State
from mvl_training.trainer.export import DTYPES, PROVENANCE, export_checkpoint
from mvl_training.trainer.loop import (
    SPIKE_WINDOW,
    Diverged,
    Interrupted,
    Schedule,
    StopSignals,
    build_engine,
    engine_config,
    train,
)
from mvl_training.trainer.metrics import LOG, Reporter, read_metrics
from mvl_training.trainer.mfu import Speed
from mvl_training.trainer.zero3 import shared_out

PACKAGES = ("torch", "transformers", "deepspeed", "tokenizers", "pylance", "mvl")
PR_SET_PDEATHSIG = 1
LOCK_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """A resolved command: what is trained on what, and who it is. `initial` names the weights of `init_from`."""

    recipe: Recipe
    stage_name: StageName
    stage: Stage
    lake: Lake
    out: Path
    init_from: Path | None
    resume: str
    initial: dict[str, Any] | None
    plan: PackPlan
    order: Order
    steps: int
    run: str


def main(arguments: Sequence[str]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    LOG.setLevel(logging.INFO)
    try:
        return _run(_job(_parse(arguments)))
    except Diverged as error:
        sys.stderr.write(f"{error}\n")
        return 3
    except MvlError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mvl_training.trainer.main", description="Train one stage")
    parser.add_argument("--recipe", required=True, help="name or path")
    parser.add_argument("--stage", required=True, choices=STAGES)
    parser.add_argument("--lake", required=True, help="root of the tables")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--init-from", type=Path, help="export folder of the stage before")
    parser.add_argument("--steps", type=int, help="instead of the recipe's number")
    parser.add_argument("--resume", choices=("auto", "never", "require"), default="auto")
    return parser.parse_args(arguments)


def _job(options: argparse.Namespace) -> Job:
    recipe = load_recipe(options.recipe)
    stage = recipe.stage(options.stage)
    lake = Lake(options.lake)
    plan = PackPlan(lake, options.stage)
    if options.init_from is not None and not (options.init_from / "config.json").is_file():
        raise MvlError(f"{options.init_from} is no export", hint="name the `export` folder of a finished stage")
    order = Order.of(plan, stage.batch, recipe.seed)
    steps = options.steps or stage.steps or stage.epochs * order.steps_per_epoch
    initial = None if options.init_from is None else _weights_of(options.init_from)
    return Job(
        recipe,
        options.stage,
        stage,
        lake,
        options.out,
        options.init_from,
        options.resume,
        initial,
        plan,
        order,
        steps,
        run=digest_hex("run", recipe.training_inputs(options.stage), plan.version, initial, steps),
    )


def _weights_of(export: Path) -> dict[str, Any]:
    """What names an export's weights: its run and step; for a foreign folder digests of its files."""
    file = export / PROVENANCE
    if file.is_file():
        data = json.loads(file.read_text(encoding="utf-8"))
        return {"run": data["run"], "step": data["step"]}
    return {p.name: _file_digest(p) for p in sorted(export.iterdir()) if p.is_file()}


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]


def _run(job: Job) -> int:
    if job.resume != "never" and _finished(job):
        LOG.info(f"{job.stage_name}: already done, {job.out}")
        return 0
    _die_with_launcher()
    stop = StopSignals()
    _join_ranks()
    try:
        with _only_writer(job.out):
            return _train(job, stop)
    finally:
        dist.destroy_process_group()


def _die_with_launcher() -> None:
    """torchrun puts its workers into sessions of their own: killed itself, it would leave them training on."""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    """Held by rank 0: two runs in one folder would tear each other's files. Raises MvlError on all ranks when another
    process still holds it after `LOCK_PATIENCE_S` (one that was just killed needs a moment to be gone)."""
    busy = [False]
    with contextlib.ExitStack() as stack:
        if dist.get_rank() == 0:
            out.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((out / ".lock").open("w", encoding="utf-8"))
            deadline = time.monotonic() + LOCK_PATIENCE_S
            while not (free := _locked(lock)) and time.monotonic() < deadline:
                time.sleep(0.1)
            busy = [not free]
        dist.broadcast_object_list(busy, src=0)
        if busy[0]:
            raise MvlError(f"another process trains in {out}", hint="wait for it or stop it; this one changed nothing")
        yield


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _train(job: Job, stop: StopSignals) -> int:
    first, world = dist.get_rank() == 0, dist.get_world_size()
    _agree(job.run)
    folder = job.out / "checkpoints"
    found = _resume_point(job, folder, first)
    tokens = load_tokens(job.recipe)
    universal = found is not None and checkpoints.needs_universal(found[1], world)
    micro_steps = job.order.micro_steps(world)
    if job.stage.zero == 3:
        settings = engine_config(job.stage, micro_steps, universal=universal)
        student, sizes = shared_out(lambda: _student(job, tokens), settings, DTYPES[job.stage.precision])
    else:
        student = _student(job, tokens)
        sizes = sizes_of_model(student.llava, student.grid)
    model_files = job.out / "model"
    if first:
        shutil.rmtree(model_files, ignore_errors=True)
        source = job.init_from or locate(job.recipe.language.tokenizer or job.recipe.language.model or "")
        write_model_files(student.llava, source, model_files, grid=student.grid, system=job.recipe.system)
    names = [name for name, _ in student.named_parameters()]
    engine = build_engine(student, job.stage, micro_steps, universal=universal)
    start = 0
    if found is not None:
        checkpoint, state = found
        checkpoints.load(engine, checkpoint, state, world=world, zero=job.stage.zero)
        start = state.step
    loader = PackLoader(
        job.lake, job.stage_name, job.plan, SampleProcessor.for_stage(job.recipe, job.stage_name, tokens)
    )
    losses = _losses_before(job.out, start)
    reporter = Reporter(job.out, job.stage_name, job.steps, start) if first else None
    began = time.monotonic()

    def save(step: int) -> None:
        state = State(
            job.run,
            step,
            world,
            job.stage.zero,
            job.stage_name,
            job.recipe.as_data(),
            job.plan.version,
            names,
            _provenance(job),
        )
        checkpoints.save(engine, folder, state, model_files, job.stage.keep)

    try:
        if reporter is not None:
            reporter.say(
                f"{job.stage_name}: {len(job.plan)} packs, {job.order.per_step} per step, "
                f"steps {start} to {job.steps}, {world} ranks, ZeRO-{job.stage.zero}, {job.stage.precision}"
            )
        train(
            engine,
            loader,
            Schedule(
                job.stage, job.plan, Speed(sizes, job.stage, job.plan, world), job.order, start, job.steps, losses
            ),
            stop,
            reporter.step if reporter is not None else lambda numbers: None,
            save,
        )
        _finish(job, engine, loader, start, time.monotonic() - began)
    except Interrupted as interruption:
        if reporter is not None:
            reporter.say(f"{interruption}; the same command goes on from there")
        return 128 + interruption.signum
    finally:
        if reporter is not None:
            reporter.close()
    return 0


def _agree(run: str) -> None:
    """Raises MvlError on all ranks unless all do the same run: a plan may be made anew while they start. Collective."""
    runs: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(runs, run)
    if len(set(runs)) > 1:
        raise MvlError("the ranks do not read the same plan or weights", hint="run the same command again")


def _student(job: Job, tokens: ChatTokens) -> Student:
    """The student as the stage finds it."""
    if job.init_from is None:
        return assemble(job.recipe, tokens)
    return load_student(job.init_from, job.recipe.grid.build())


def _resume_point(job: Job, folder: Path, first: bool) -> tuple[Path, State] | None:
    """The checkpoint to go on from, decided by rank 0 for all."""
    answer: list[Any] = [None, None]
    if first:
        try:
            if job.resume == "never":
                for name in ("checkpoints", "tensorboard", "export"):
                    shutil.rmtree(job.out / name, ignore_errors=True)
                for name in ("metrics.jsonl", "result.json"):
                    (job.out / name).unlink(missing_ok=True)
            answer[0] = checkpoints.newest(folder, job.run)
            if answer[0] is None and job.resume == "require":
                raise CheckpointError(f"{folder} holds no checkpoint to resume from")
            if answer[0] is None:
                shutil.rmtree(job.out / "tensorboard", ignore_errors=True)
        except CheckpointError as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    found: tuple[Path, State] | None = answer[0]
    return found


def _losses_before(out: Path, start: int) -> list[float]:
    """The last losses of the steps up to `start`, as rank 0 reads them, on all ranks. Collective."""
    answer: list[Any] = [[]]
    if start and dist.get_rank() == 0:
        answer = [[s["loss"] for s in read_metrics(out / "metrics.jsonl") if s["step"] <= start][-SPIKE_WINDOW:]]
    dist.broadcast_object_list(answer, src=0)
    losses: list[float] = answer[0]
    return losses


def _finish(job: Job, engine: Any, loader: PackLoader, start: int, seconds: float) -> None:
    """Export the last checkpoint, load it again, write result.json. Collective."""
    probe = loader.load(0).to(engine.device)
    engine.eval()
    with torch.no_grad():
        trained = probe_logits(engine.module, probe)
    if dist.get_rank() == 0:
        last = job.out / "checkpoints" / checkpoints.name_of(job.steps)
        export = export_checkpoint(last, job.out / "export")
        again = load_student(export, job.recipe.grid.build(), DTYPES[job.stage.precision]).to(engine.device).eval()
        with torch.no_grad():
            difference = float((probe_logits(again, probe) - trained).abs().max())
        steps = read_metrics(job.out / "metrics.jsonl")
        result = {
            "stage": job.stage_name,
            "run": job.run,
            "steps": job.steps,
            "first_loss": steps[0]["loss"],
            "last_loss": steps[-1]["loss"],
            "samples": sum(s["samples"] for s in steps),
            "tokens": sum(s["tokens"] for s in steps),
            "targets": sum(s["targets"] for s in steps),
            "seconds": sum(s["seconds"] for s in steps),
            "target_tokens_per_second": sum(s["targets"] for s in steps) / sum(s["seconds"] for s in steps),
            "wall_seconds": seconds,
            "checkpoint": str(last),
            "export": str(export),
            "export_max_difference": difference,
            "plan_version": job.plan.version,
            "resumed_from": start or None,
            "world": dist.get_world_size(),
            **_provenance(job),
        }
        part = job.out / "result.json.part"
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        part.replace(job.out / "result.json")
    dist.barrier()


def probe_logits(student: Student, batch: Any) -> torch.Tensor:
    """Logits at the targets of a pack, float32 (targets, vocabulary)."""
    places = torch.nonzero(batch.targets_L != IGNORE).flatten()
    logits: torch.Tensor = student.llava.lm_head(student.hidden(batch)[places]).float()
    return logits


def _finished(job: Job) -> bool:
    file = job.out / "result.json"
    if not file.is_file() or not (job.out / "export" / "config.json").is_file():
        return False
    return bool(json.loads(file.read_text(encoding="utf-8")).get("run") == job.run)


def _provenance(job: Job) -> dict[str, Any]:
    return {
        "recipe_name": job.recipe.name,
        "recipe_hash": digest_hex(job.recipe.training_inputs(job.stage_name)),
        "initial": job.initial,
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _join_ranks() -> None:
    """torch.distributed up, alone or under torchrun; DeepSpeed told what it must know before it is imported."""
    on_gpu = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if on_gpu else "cpu")
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        os.environ.update(alone | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        keep_freed_memory()
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
        # torchrun gives every rank one thread unless told otherwise; a lone rank takes what its environment says.
        if ranks > 1 or "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.WARNING)
    # Built by g++ at the first use (minutes), and a kill meanwhile leaves a lock that hangs every later run.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo", auto_mpi_discovery=False, verbose=False)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
