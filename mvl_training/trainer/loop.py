"""Training loop of one stage on DeepSpeed: engine, parameter groups, learning rates, steps, stop conditions.

The loss of a step is the weighted sum over all its loss tokens divided by the sum of their weights, over all ranks,
packs and micro-steps (`loss_weights`).
The step number is the state: data order, learning rate and the random numbers of dropout are functions of the step, so
a checkpoint and its step number are enough to resume bit for bit.
"""

from __future__ import annotations

import math
import signal
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from mvl_assets.errors import MvlError
from mvl_training.data.loss_weights import compute_sample_weights
from mvl_training.data.pack_loader import PackedBatch, PackLoader, Prefetcher, SkippedSample
from mvl_training.data.step_packs import StepPacker
from mvl_training.recipe import LossWeighting, StageConfig
from mvl_training.trainer.held_out import HeldOutEvaluator
from mvl_training.trainer.mfu import ThroughputMeter
from mvl_training.trainer.step_sums import StepSums

T = TypeVar("T")

SPIKE_WINDOW = 50
"""Steps whose median loss a spike is measured against."""


class TrainingDiverged(MvlError):
    """Loss or gradient norm is not a finite number, or the loss jumped.

    Attributes:
        step: The optimizer step, from 1.
        row_ids: Mixture rows of the packs that caused it.
    """

    def __init__(self, step: int, problem: str, row_ids: Sequence[str]) -> None:
        self.step = step
        self.row_ids = list(row_ids)
        row_list = ", ".join(row_ids[:20]) + (f" and {len(row_ids) - 20} more" if len(row_ids) > 20 else "")
        super().__init__(
            f"the {problem} in step {step}; mixture rows: {row_list or 'none (weights are not finite)'}",
            hint="look at these rows (mvl trace ID) or lower the learning rate; the last checkpoint is intact",
        )


class LossSpikeDetector:
    """Compares a step's loss with those of the last steps.

    Args:
        spike_factor: A loss above this multiple of their median is a spike; None: no loss is.
        previous_losses: Losses of the steps before, oldest first.
    """

    def __init__(self, spike_factor: float | None, previous_losses: Sequence[float] = ()) -> None:
        self._spike_factor = spike_factor
        self._losses: deque[float] = deque(previous_losses, maxlen=SPIKE_WINDOW)

    @property
    def threshold(self) -> float:
        """Highest loss that is not a spike; infinite until the window is full."""
        if self._spike_factor is None or len(self._losses) < SPIKE_WINDOW:
            return math.inf
        return self._spike_factor * statistics.median(self._losses)

    def update(self, loss: float) -> None:
        """Add the loss of a step."""
        self._losses.append(loss)


class Interrupted(Exception):
    """A signal asked the run to stop.

    Attributes:
        signum: The signal.
        step: The last step, which is finished, from 1.
    """

    def __init__(self, signum: int, step: int) -> None:
        self.signum = signum
        self.step = step
        super().__init__(f"stopped by signal {signum} after step {step}")


class SaveTimer:
    """Says when a checkpoint is due by time.

    Args:
        minutes: Minutes between two; None: never.
    """

    def __init__(self, minutes: float | None) -> None:
        self._interval_s = math.inf if minutes is None else 60 * minutes
        self.reset()

    def reset(self) -> None:
        """Count from now on."""
        self._started_at = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the time has passed."""
        return time.monotonic() - self._started_at >= self._interval_s


class StopSignals:
    """Turns SIGINT and SIGTERM into a flag that the loop reads between steps."""

    def __init__(self) -> None:
        self.received_signum = 0
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.received_signum = signum


def compute_lr_scale(step: int, total_steps: int, warmup_ratio: float, schedule: str) -> float:
    """Return the factor of all learning rates in step `step` (from 0).

    Linear warm-up over a share of the steps, then half a cosine to 0 (transformers' `get_cosine_schedule_with_warmup`,
    which the released code uses) or, with the schedule `constant`, 1.

    Args:
        step: The step, from 0.
        total_steps: Steps of the whole run.
        warmup_ratio: Share of the steps with warm-up, from 0 to 1.
        schedule: `cosine` or `constant`.
    """
    warmup_steps = math.ceil(total_steps * warmup_ratio)
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


@dataclass(frozen=True, slots=True)
class StepSchedule:
    """The steps to run.

    Attributes:
        stage_config: Of the stage.
        loss_weighting: What counts alike in the loss.
        throughput_meter: Meter of the steps.
        step_packer: Makes the packs of a step.
        start_step: Number of finished steps to start from.
        total_steps: Steps of the stage.
        previous_losses: Losses of the steps before `start_step`, oldest first, at least the last `SPIKE_WINDOW`; equal
            on all ranks.
        categories: Those of the mixture, whose losses are reported apart; equal on all ranks.
    """

    stage_config: StageConfig
    loss_weighting: LossWeighting
    throughput_meter: ThroughputMeter
    step_packer: StepPacker
    start_step: int
    total_steps: int
    previous_losses: Sequence[float] = ()
    categories: Sequence[str] = ()


def train(
    engine: Any,
    loader: PackLoader,
    schedule: StepSchedule,
    stop_signals: StopSignals,
    on_step: Callable[[dict[str, Any]], None],
    save_checkpoint: Callable[[int], None],
    held_out: HeldOutEvaluator | None = None,
) -> None:
    """Run the steps of a stage. Collective.

    Args:
        engine: DeepSpeed's.
        loader: Loads packs.
        schedule: The steps to run.
        stop_signals: Read between steps.
        on_step: Called with the numbers of each step.
        save_checkpoint: Called with the number of finished steps on all ranks: every `save_interval` steps, when
            `save_minutes` have passed since the last one, at the end and before an interruption is raised.
        held_out: Measures held-out samples every `held_out_interval` steps and after the last; None: there are none.

    Raises:
        TrainingDiverged: Loss or gradient norm is not a finite number, or the loss jumped.
        Interrupted: A signal asked to stop.
        MvlError: A pack cannot be loaded.
    """
    stage_config, step_packer, total_steps = schedule.stage_config, schedule.step_packer, schedule.total_steps
    rank = dist.get_rank()
    packs = (
        pack
        for step in range(schedule.start_step, total_steps)
        for pack in step_packer.pack_step(step).packs_by_rank[rank]
    )
    prefetch = Prefetcher(loader, packs, device=engine.device)
    batches = iter(prefetch)
    spike_detector = LossSpikeDetector(stage_config.loss_spike_factor, schedule.previous_losses)
    save_timer = SaveTimer(stage_config.save_minutes)
    try:
        for step in range(schedule.start_step, total_steps):
            lr_scale = compute_lr_scale(step, total_steps, stage_config.warmup, stage_config.schedule)
            for group in engine.optimizer.param_groups:
                group["lr"] = stage_config.learning_rates[group["name"]] * lr_scale
            # What adapters drop; every rank drops by itself.
            torch.manual_seed(step * dist.get_world_size() + rank)
            step_packs = step_packer.pack_step(step)
            counts = step_packs.counts
            started_at = time.monotonic()
            result = _run_step(
                engine,
                batches,
                step_packs.grad_accum_steps,
                float(compute_sample_weights(counts.n_loss_tokens, schedule.loss_weighting).sum()),
                step,
                stop_signals,
                save_timer,
                spike_detector,
                schedule.categories,
            )
            step_time_s = time.monotonic() - started_at
            finished_step = step + 1
            interval = stage_config.held_out_interval
            is_measured = interval and (finished_step % interval == 0 or finished_step == total_steps)
            on_step(
                {
                    "step": finished_step,
                    "loss": result.loss,
                    "loss_by_category": result.loss_by_category,
                    "lr": {component: rate * lr_scale for component, rate in stage_config.learning_rates.items()},
                    "grad_norm": result.grad_norm,
                    "tokens": int(counts.n_tokens.sum()),
                    "loss_tokens": result.n_loss_tokens,
                    "samples": len(counts.n_tokens) - len(result.skipped),
                    "skipped_samples": len(result.skipped),
                    "skipped": [asdict(sample) for sample in result.skipped],
                    "packs": sum(len(pack) > 0 for packs in step_packs.packs_by_rank for pack in packs),
                    "lockstep_efficiency": step_packs.lockstep_efficiency,
                    "epoch": step // step_packer.batch_order.steps_per_epoch,
                    "step_time_s": step_time_s,
                    "data_time_s": result.data_time_s,
                    "loss_tokens_per_s": result.n_loss_tokens / step_time_s,
                    **schedule.throughput_meter.measure(counts, step_time_s),
                    **(held_out.evaluate(engine) if held_out is not None and is_measured else {}),
                }
            )
            is_due = result.is_save_due or finished_step % stage_config.save_interval == 0
            if is_due or finished_step == total_steps or result.signum:
                save_checkpoint(finished_step)
                save_timer.reset()
            if result.signum and finished_step < total_steps:
                raise Interrupted(result.signum, finished_step)
    finally:
        prefetch.close()


@dataclass(frozen=True, slots=True)
class _StepResult:
    """What a step gave, over all ranks but for `data_time_s`.

    Attributes:
        loss: Its loss.
        loss_by_category: Mean loss per loss token, without weights, of the categories that it had.
        n_loss_tokens: Its loss tokens.
        grad_norm: Norm of the gradient before clipping.
        data_time_s: Seconds that this rank waited for data.
        skipped: Samples that were left out.
        signum: The signal that any rank received, or 0.
        is_save_due: Whether a checkpoint is due by the clock of any rank.
    """

    loss: float
    loss_by_category: dict[str, float]
    n_loss_tokens: int
    grad_norm: float
    data_time_s: float
    skipped: list[SkippedSample]
    signum: int
    is_save_due: bool


def _run_step(
    engine: Any,
    batches: Iterator[PackedBatch],
    grad_accum_steps: int,
    loss_weight: float,
    step: int,
    stop_signals: StopSignals,
    save_timer: SaveTimer,
    spike_detector: LossSpikeDetector,
    categories: Sequence[str],
) -> _StepResult:
    """Run one optimizer step whose loss tokens weigh `loss_weight` over all ranks.

    A sample that cannot be decoded has no loss and no gradient: the others keep the weights that they would have with
    it, whatever the number of ranks.
    """
    world_size = dist.get_world_size()
    # Undoes DeepSpeed's averaging over ranks.
    loss_scale = world_size / loss_weight
    data_time_s = 0.0
    sums = StepSums(categories)
    pack_loss_sums: list[torch.Tensor] = []
    packs: list[tuple[float, tuple[str, ...]]] = []
    for micro_step in range(grad_accum_steps):
        started_at = time.monotonic()
        batch = next(batches).to(engine.device)
        data_time_s += time.monotonic() - started_at
        engine.set_gradient_accumulation_boundary(micro_step + 1 == grad_accum_steps)
        loss = engine(batch)
        # Read after the last micro-step: a number that is read makes the device finish first.
        pack_loss_sums.append(loss.detach())
        packs.append((batch.loss_weight or 1.0, batch.row_ids))
        sums.add(batch, engine.module.sample_losses_N)
        engine.backward(loss * loss_scale)
        if micro_step + 1 < grad_accum_steps:
            engine.step()
    local_loss_sums = [float(pack_loss_sum) for pack_loss_sum in pack_loss_sums]
    pack_losses = [
        (loss_sum / weight, row_ids) for loss_sum, (weight, row_ids) in zip(local_loss_sums, packs, strict=True)
    ]
    global_sums = torch.tensor([sum(local_loss_sums), *sums.to_list()], dtype=torch.float64, device=engine.device)
    requests = [stop_signals.received_signum, int(save_timer.is_due)]
    global_requests = torch.tensor(requests, dtype=torch.int64, device=engine.device)
    dist.all_reduce(global_sums)
    dist.all_reduce(global_requests, op=dist.ReduceOp.MAX)
    loss_sum, *summed = global_sums.tolist()
    signum, is_save_due = global_requests.tolist()
    totals = sums.read_list(summed)
    skipped = sorted(_gather_objects(sums.skipped), key=lambda s: s.row_id) if totals.n_skipped else []
    if not totals.n_loss_tokens:
        raise MvlError(
            f"no sample of step {step + 1} can be decoded: {skipped[0].error if skipped else 'it has no loss token'}",
            hint=f"mvl trace {skipped[0].row_id if skipped else ''} says where the first is from; the last checkpoint"
            " is intact",
        )
    mean_loss = loss_sum / (totals.loss_weight if skipped else loss_weight)
    if not mean_loss <= spike_detector.threshold:
        problem = (
            f"loss rose to {mean_loss:.3g}, above {spike_detector.threshold:.3g}"
            if math.isfinite(mean_loss)
            else "loss is not a finite number"
        )
        # Before the optimizer takes the step: the weights are still good.
        raise TrainingDiverged(
            step + 1,
            problem,
            _gather_spike_row_ids(pack_losses, spike_detector.threshold if math.isfinite(mean_loss) else math.inf),
        )
    spike_detector.update(mean_loss)
    grad_norm = _step_optimizer(engine)
    if not math.isfinite(grad_norm):
        # DeepSpeed skips such a step silently, or takes it and ruins the weights.
        raise TrainingDiverged(
            step + 1,
            "gradient norm is not a finite number",
            _gather_row_ids(row_id for _, row_ids in pack_losses for row_id in row_ids),
        )
    return _StepResult(
        mean_loss,
        totals.loss_by_category,
        totals.n_loss_tokens,
        grad_norm,
        data_time_s,
        skipped,
        signum,
        bool(is_save_due),
    )


def _step_optimizer(engine: Any) -> float:
    """Take the optimizer's step and return the gradient norm before clipping.

    If the norm is not finite, the weights are kept without ZeRO and may be ruined with it.
    """
    if engine.zero_optimization_stage():
        engine.step()
        return float(engine.get_global_grad_norm())
    # Without ZeRO, DeepSpeed reports no norm.
    gradients = [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]
    grad_norm = float(torch.nn.utils.get_total_norm(gradients))
    if math.isfinite(grad_norm):
        engine.step()
    return grad_norm


def _gather_spike_row_ids(pack_losses: Sequence[tuple[float, tuple[str, ...]]], threshold: float) -> list[str]:
    """Return the rows of all ranks' packs whose mean loss is above the threshold or not finite. Collective."""
    return _gather_row_ids(
        row_id for loss, row_ids in pack_losses if not (loss <= threshold and math.isfinite(loss)) for row_id in row_ids
    )


def _gather_row_ids(row_ids: Iterable[str]) -> list[str]:
    """Return the rows of all ranks. Collective."""
    return _gather_objects(list(row_ids))


def _gather_objects(objects: Sequence[T]) -> list[T]:
    """Return the objects of all ranks, in the order of the ranks. Collective."""
    objects_by_rank: list[list[T]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(objects_by_rank, list(objects))
    return [item for rank_objects in objects_by_rank for item in rank_objects]
