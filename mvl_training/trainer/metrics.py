"""Metrics of a running training: JSON lines, TensorBoard, Weights & Biases, progress lines, Dagster Pipes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_training.trainer.run_files import METRICS_FILE, TENSORBOARD_DIR
from mvl_training.trainer.weights_and_biases import open_wandb_run

LOG = logging.getLogger("mvl.train")
PROGRESS_INTERVAL_S = 2.0
EMA_WEIGHT = 0.1
SMOOTHED_METRICS = ("loss_tokens_per_s", "tflops", "data_time_s")
"""Metrics that jump from step to step: progress lines show their moving average, weighted by `EMA_WEIGHT`."""


class MetricsReporter:
    """Reports steps; used by rank 0 only.

    Progress lines come every `PROGRESS_INTERVAL_S` seconds at most. Under Dagster (Pipes variables in the environment)
    they appear in the run's event log.

    Args:
        folder: Folder of the run; gets `metrics.jsonl` and `tensorboard/`.
        stage: The training stage.
        total_steps: Steps of the stage.
        resume_step: Number of finished steps that this process starts from; reports of later steps are removed.
        recipe: The recipe, as plain data; a run in Weights & Biases shows it.

    Raises:
        MvlError: `WANDB_PROJECT` is set, and wandb cannot start the run.
    """

    def __init__(self, folder: Path, stage: str, total_steps: int, resume_step: int, recipe: Mapping[str, Any]) -> None:
        self.stage = stage
        self.total_steps = total_steps
        self._stack = contextlib.ExitStack()
        self._pipes: Any = None
        if "DAGSTER_PIPES_CONTEXT" in os.environ:
            from dagster_pipes import open_dagster_pipes

            self._pipes = self._stack.enter_context(open_dagster_pipes())
        self.path = folder / METRICS_FILE
        kept = [row for row in read_metrics(self.path) if row["step"] <= resume_step]
        write_text_atomic(self.path, "".join(json.dumps(row) + "\n" for row in kept), unique=False)
        self._metrics_file = self._stack.enter_context(self.path.open("a", encoding="utf-8"))
        from torch.utils.tensorboard import SummaryWriter

        # Steps after the checkpoint are trained again: TensorBoard drops their earlier values.
        self._tensorboard = SummaryWriter(folder / TENSORBOARD_DIR, purge_step=resume_step + 1 if resume_step else None)
        self._stack.callback(self._tensorboard.close)
        self._wandb_run = open_wandb_run(folder, stage, recipe)
        if self._wandb_run is not None:
            self._stack.callback(self._wandb_run.finish)
        self._last_progress_at = 0.0
        self._ema_by_metric: dict[str, float] = {}

    def log(self, text: str) -> None:
        """Log a line, also to Dagster."""
        LOG.info(text)
        if self._pipes is not None:
            self._pipes.log.info(text)

    def report_step(self, metrics: Mapping[str, Any]) -> None:
        """Report the numbers of a step, as `loop.train` gives them."""
        self._metrics_file.write(json.dumps(metrics) + "\n")
        self._metrics_file.flush()
        scalars = dict(iter_scalars(metrics))
        for name, number in scalars.items():
            if name != "step":
                self._tensorboard.add_scalar(name, number, metrics["step"])
        if self._wandb_run is not None:
            self._wandb_run.log(scalars)
        for sample in metrics.get("skipped", ()):
            self.log(
                f"{self.stage} step {metrics['step']}: row {sample['row_id']} of {sample['source']} is left out, an"
                f" image cannot be decoded ({sample['error']}); `mvl trace {sample['row_id'][:12]}`"
            )
        for name in SMOOTHED_METRICS:
            previous = self._ema_by_metric.get(name, metrics[name])
            self._ema_by_metric[name] = previous + EMA_WEIGHT * (metrics[name] - previous)
        now = time.monotonic()
        if now - self._last_progress_at >= PROGRESS_INTERVAL_S or metrics["step"] == self.total_steps:
            self._last_progress_at = now
            mfu = f" ({metrics['mfu']:.0%} of peak)" if metrics["mfu"] is not None else ""
            self.log(
                f"{self.stage} step {metrics['step']}/{self.total_steps}  loss {metrics['loss']:.4f}  "
                f"{self._ema_by_metric['loss_tokens_per_s']:.0f} loss tokens/s, "
                f"{self._ema_by_metric['tflops']:.3g} TFLOP/s{mfu}, "
                f"{metrics['peak_memory_gib']:.1f} GiB, "
                f"waited {self._ema_by_metric['data_time_s']:.2f} s for data"
            )

    def close(self) -> None:
        """Close all files."""
        self._stack.close()


def iter_scalars(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a step by name; those of a group, such as a category's loss, as `group/name`."""
    for name, value in metrics.items():
        values = value.items() if isinstance(value, Mapping) else [("", value)]
        for component, number in values:
            if isinstance(number, int | float):
                yield f"{name}/{component}" if component else name, number


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the steps written so far; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
