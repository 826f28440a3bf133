"""The training loop of one stage on `deepspeed.initialize`: from a student and a plan to checkpoints.

Belongs here: the engine's configuration, parameter groups, learning rates, steps, what stops a run. Does not: the
command line and files of a run (`train`), the model (`model`), the order of the data (`order`).

The loss of a step is the sum over all its targets divided by their number, whatever the ranks, packs and micro-steps
they lie in. Data order and learning rate are functions of the step, and nothing draws random numbers, so a checkpoint
and a step number are enough to go on bit for bit.
"""

from __future__ import annotations

import math
import signal
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from mvl_assets.errors import MvlError
from mvl_training.data.batch_order import Order
from mvl_training.data.pack_loader import Packed, PackLoader, Prefetch
from mvl_training.data.pack_plan import PackPlan
from mvl_training.model.student_model import HEAD_ROWS, Student, part_of
from mvl_training.recipe import Stage
from mvl_training.trainer.mfu import Speed

SPIKE_WINDOW = 50


class Diverged(MvlError):
    """Loss or gradient norm is not a finite number, or the loss jumped. `row_ids` are the mixture rows of the packs it
    came from."""

    def __init__(self, step: int, what: str, row_ids: Sequence[str]) -> None:
        self.step = step
        self.row_ids = list(row_ids)
        shown = ", ".join(row_ids[:20]) + (f" and {len(row_ids) - 20} more" if len(row_ids) > 20 else "")
        super().__init__(
            f"the {what} in step {step}; mixture rows: {shown or 'none (weights are not finite)'}",
            hint="look at these rows (mvl trace ID) or lower the learning rate; the last checkpoint is intact",
        )


class Watch:
    """Knows the losses of the last steps, and when one has jumped away from them."""

    def __init__(self, spike: float | None, losses: Sequence[float] = ()) -> None:
        """`losses` are those of the steps before, oldest first."""
        self._spike = spike
        self._losses: deque[float] = deque(losses, maxlen=SPIKE_WINDOW)

    @property
    def limit(self) -> float:
        """The highest loss per target that is no spike; infinite until the window is full."""
        if self._spike is None or len(self._losses) < SPIKE_WINDOW:
            return math.inf
        return self._spike * statistics.median(self._losses)

    def see(self, loss: float) -> None:
        self._losses.append(loss)


class Interrupted(Exception):
    """A signal asked to stop; the step it names is finished."""

    def __init__(self, signum: int, step: int) -> None:
        self.signum = signum
        self.step = step
        super().__init__(f"stopped by signal {signum} after step {step}")


class StopSignals:
    """SIGINT and SIGTERM become a flag that the loop looks at between steps."""

    def __init__(self) -> None:
        self.received = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number


def rate_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """What learning rates are multiplied with in step `step` (from 0): linear warm-up over a share of the steps, then
    half a cosine to 0; transformers' `get_cosine_schedule_with_warmup`, which the released code uses."""
    warm = math.ceil(total * warmup)
    if step < warm:
        return step / max(1, warm)
    if schedule == "constant":
        return 1.0
    progress = (step - warm) / max(1, total - warm)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def engine_config(stage: Stage, micro_steps: int, universal: bool) -> dict[str, Any]:
    """DeepSpeed's configuration of a stage. Learning rates are set by the loop, not by a DeepSpeed scheduler."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": micro_steps,
        "gradient_clipping": stage.clip,
        "bf16": {"enabled": stage.precision == "bf16"},
        # Sums of many micro-steps in bf16 would lose what the small ones add.
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": _zero(stage),
        "checkpoint": {"load_universal": universal},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # that one is compiled at the first use
        "steps_per_print": 1 << 40,
        "wall_clock_breakdown": False,
    }


def _zero(stage: Stage) -> dict[str, Any]:
    offload = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {"stage": stage.zero, **({"offload_optimizer": offload} if stage.offload else {})}


def parameter_groups(student: Student, stage: Stage) -> list[dict[str, Any]]:
    """One AdamW group per part that learns; everything else is frozen."""
    groups: dict[str, list[torch.nn.Parameter]] = {part: [] for part in stage.train}
    for name, parameter in student.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(part in groups)
        if part in groups:
            groups[part].append(parameter)
    return [{"params": groups[part], "lr": rate, "name": part} for part, rate in stage.train.items()]


def build_engine(student: Student, stage: Stage, micro_steps: int, *, universal: bool = False) -> Any:
    """The DeepSpeed engine around a student. Collective; torch.distributed must be up.

    `universal`: it will load a checkpoint of another number of ranks.
    """
    import deepspeed

    student.head_calls = -(-stage.length // HEAD_ROWS) if stage.zero == 3 else None
    if stage.gradient_checkpointing:
        student.llava.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    groups = parameter_groups(student, stage)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=stage.weight_decay)
    if stage.zero == 3:
        # Read in Student's own forward, not in that of the module that owns it.
        deepspeed.zero.register_external_parameter(student, student.llava.model.image_newline)
    engine, *_ = deepspeed.initialize(
        model=student, optimizer=optimizer, config=engine_config(stage, micro_steps, universal)
    )
    engine.train()
    return engine


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps `start` to `total` of a stage over a plan. `losses` are those of the steps before `start`, oldest first, at
    least the last `SPIKE_WINDOW`; equal on all ranks."""

    stage: Stage
    plan: PackPlan
    speed: Speed
    order: Order
    start: int
    total: int
    losses: Sequence[float] = ()


def train(
    engine: Any,
    loader: PackLoader,
    schedule: Schedule,
    stop: StopSignals,
    report: Callable[[dict[str, Any]], None],
    save: Callable[[int], None],
) -> None:
    """Run the steps. `report` gets each step's numbers, `save` (finished steps) is called on all ranks every
    `save_every` steps, at the end and before an interruption is raised. Raises Diverged, Interrupted, and what the
    loader raises."""
    stage, order, total = schedule.stage, schedule.order, schedule.total
    rank, world = dist.get_rank(), dist.get_world_size()
    positions = (p for step in range(schedule.start, total) for p in order.share(step, rank, world))
    prefetch = Prefetch(loader, positions)
    batches = iter(prefetch)
    watch = Watch(stage.spike, schedule.losses)
    try:
        for step in range(schedule.start, total):
            factor = rate_factor(step, total, stage.warmup, stage.schedule)
            for group in engine.optimizer.param_groups:
                group["lr"] = stage.train[group["name"]] * factor
            members = order.step(step)
            targets = int(schedule.plan.n_targets[members].sum())
            began = time.monotonic()
            loss, norm, waited, signum = _step(engine, batches, order.micro_steps(world), targets, step, stop, watch)
            seconds = time.monotonic() - began
            done = step + 1
            report(
                {
                    "step": done,
                    "loss": loss,
                    "lr": {part: rate * factor for part, rate in stage.train.items()},
                    "grad_norm": norm,
                    "tokens": int(schedule.plan.n_tokens[members].sum()),
                    "targets": targets,
                    "samples": int(schedule.plan.n_samples[members].sum()),
                    "packs": len(members),
                    "epoch": step // order.steps_per_epoch,
                    "seconds": seconds,
                    "data_wait": waited,
                    "target_tokens_per_second": targets / seconds,
                    **schedule.speed.of(members, seconds),
                }
            )
            if done % stage.save_every == 0 or done == total or signum:
                save(done)
            if signum and done < total:
                raise Interrupted(signum, done)
    finally:
        prefetch.close()


def _step(
    engine: Any, batches: Iterator[Packed], micro_steps: int, targets: int, step: int, stop: StopSignals, watch: Watch
) -> tuple[float, float, float, int]:
    """One optimizer step with `targets` target tokens over all ranks.

    Returns the loss per target, the gradient norm, the seconds waited for data, and the signal that any rank received,
    or 0.
    """
    world = dist.get_world_size()
    # DeepSpeed averages over ranks and micro-steps; undone here, so that what remains is sum / targets.
    scale = world * micro_steps / targets
    total, waited = 0.0, 0.0
    seen: list[tuple[float, tuple[str, ...]]] = []
    for micro in range(micro_steps):
        began = time.monotonic()
        batch = next(batches).to(engine.device)
        waited += time.monotonic() - began
        loss = engine(batch)
        value = float(loss.detach())
        total += value
        seen.append((value / max(1, batch.n_targets), batch.row_ids))
        engine.backward(loss * scale)
        if micro + 1 < micro_steps:
            engine.step()
    shared = torch.tensor([total], dtype=torch.float64, device=engine.device)
    flags = torch.tensor([stop.received], dtype=torch.int64, device=engine.device)
    dist.all_reduce(shared)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    mean, signum = float(shared[0]) / targets, int(flags[0])
    if not mean <= watch.limit:
        what = (
            f"loss rose to {mean:.3g}, above {watch.limit:.3g}"
            if math.isfinite(mean)
            else "loss is not a finite number"
        )
        # Before the optimizer takes the step: the weights are still good.
        raise Diverged(step + 1, what, _worst(seen, watch.limit if math.isfinite(mean) else math.inf))
    watch.see(mean)
    norm = _take_step(engine)
    if not math.isfinite(norm):
        # DeepSpeed skips such a step without a word, or takes it and ruins the weights.
        raise Diverged(
            step + 1, "gradient norm is not a finite number", _everyones(r for _, rows in seen for r in rows)
        )
    return mean, norm, waited, signum


def _take_step(engine: Any) -> float:
    """The optimizer's step, and the norm of its gradients before clipping. With a norm that is no finite number the
    weights stay or, under ZeRO, may be ruined."""
    if engine.zero_optimization_stage():
        engine.step()
        return float(engine.get_global_grad_norm())
    # Without ZeRO DeepSpeed tells no norm.
    gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if math.isfinite(norm):
        engine.step()
    return norm


def _worst(seen: Sequence[tuple[float, tuple[str, ...]]], limit: float) -> list[str]:
    """The rows of all ranks' packs whose loss per target is above the limit or no finite number. Collective."""
    return _everyones(row for loss, rows in seen if not (loss <= limit and math.isfinite(loss)) for row in rows)


def _everyones(mine: Iterable[str]) -> list[str]:
    """The rows of all ranks. Collective."""
    everyone: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, list(mine))
    return [row for rows in everyone for row in rows]
