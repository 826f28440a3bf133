"""What a run tells of itself while it goes: one JSON line per step, TensorBoard, progress lines, Dagster Pipes.

Belongs here: writing numbers down, on rank 0. Does not: measuring them (`loop`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG = logging.getLogger("mvl.train")
LINE_EVERY_S = 2.0
EMA = 0.1
SMOOTHED = ("target_tokens_per_second", "tflops", "data_wait")
"""Numbers that jump from step to step: progress lines show their moving average, of which a step is a tenth."""


class Reporter:
    """Rank 0's voice. `step` may be called for every step; progress lines come every `LINE_EVERY_S` seconds at most.

    Under Dagster (Pipes variables in the environment) progress lines appear in the run's event log.
    """

    def __init__(self, folder: Path, stage: str, steps: int, resumed_at: int) -> None:
        self.stage = stage
        self.steps = steps
        self._stack = contextlib.ExitStack()
        self._pipes: Any = None
        if "DAGSTER_PIPES_CONTEXT" in os.environ:
            from dagster_pipes import open_dagster_pipes

            self._pipes = self._stack.enter_context(open_dagster_pipes())
        self.file = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(self.file) if row["step"] <= resumed_at]
        part = self.file.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        part.replace(self.file)
        self._lines = self._stack.enter_context(self.file.open("a", encoding="utf-8"))
        from torch.utils.tensorboard import SummaryWriter

        # Steps after the checkpoint are trained again: TensorBoard drops what it had of them.
        self._board = SummaryWriter(folder / "tensorboard", purge_step=resumed_at + 1 if resumed_at else None)
        self._stack.callback(self._board.close)
        self._last_line = 0.0
        self._smooth: dict[str, float] = {}

    def say(self, text: str) -> None:
        LOG.info(text)
        if self._pipes is not None:
            self._pipes.log.info(text)

    def step(self, numbers: Mapping[str, Any]) -> None:
        """`numbers` are those of `loop.train`."""
        self._lines.write(json.dumps(numbers) + "\n")
        self._lines.flush()
        for name, value in numbers.items():
            values = value.items() if isinstance(value, Mapping) else [("", value)]
            for part, number in values:
                if isinstance(number, int | float) and name != "step":
                    self._board.add_scalar(f"{name}/{part}" if part else name, number, numbers["step"])
        for name in SMOOTHED:
            before = self._smooth.get(name, numbers[name])
            self._smooth[name] = before + EMA * (numbers[name] - before)
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_S or numbers["step"] == self.steps:
            self._last_line = now
            mfu = f" ({numbers['mfu']:.0%} of peak)" if numbers["mfu"] is not None else ""
            self.say(
                f"{self.stage} step {numbers['step']}/{self.steps}  loss {numbers['loss']:.4f}  "
                f"{self._smooth['target_tokens_per_second']:.0f} target tokens/s, "
                f"{self._smooth['tflops']:.3g} TFLOP/s{mfu}, "
                f"{numbers['memory_gib']:.1f} GiB, "
                f"waited {self._smooth['data_wait']:.2f} s for data"
            )

    def close(self) -> None:
        self._stack.close()


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The steps written so far; a last line cut short by a kill is left out."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
