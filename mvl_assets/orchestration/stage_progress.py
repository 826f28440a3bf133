"""Progress of a step that asks a model: log lines while it runs, and a plot of its speed afterwards.

It logs one line every few seconds, never one per row: each line is a row of the event log's database. Code that runs
steps in its own process may subscribe to all reports with `add_listener`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import dagster as dg

from mvl_assets.common.markdown import embed_image
from mvl_assets.inference.progress import Progress
from mvl_assets.orchestration.speed_plot import draw_speed_plot

LOG_INTERVAL_S = 5.0
# Readings kept for the plot; a longer run keeps every second, fourth, ... one.
MAX_READINGS = 600

ProgressListener = Callable[[str, Progress], None]
_listeners: list[ProgressListener] = []


def add_listener(listener: ProgressListener) -> None:
    """Call `listener` with every later report of this process's steps and the step's name, such as `judged/ocr[a]`.

    It is called from the engine's event loop and must not block.
    """
    _listeners.append(listener)


class StageProgressLogger:
    """Progress callback for the engine: logs at most every `LOG_INTERVAL_S` and keeps readings for the plot."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._log = context.log
        self._step_name = "/".join(context.asset_key.path)
        if context.has_partition_key:
            self._step_name += f"[{context.partition_key}]"
        self._started_at = time.monotonic()
        self._last_logged_s = -LOG_INTERVAL_S
        self._sampling_interval = 1
        self._n_reports = 0
        self._readings: list[tuple[float, float, float]] = []

    def __call__(self, progress: Progress) -> None:
        elapsed_s = time.monotonic() - self._started_at
        if elapsed_s - self._last_logged_s >= LOG_INTERVAL_S:
            self._last_logged_s = elapsed_s
            self._log.info(progress.format_line())
        if self._n_reports % self._sampling_interval == 0:
            self._readings.append((elapsed_s, progress.requests_per_s, progress.tokens_per_s))
        self._n_reports += 1
        if len(self._readings) > MAX_READINGS:
            self._readings, self._sampling_interval = self._readings[::2], self._sampling_interval * 2
        for listener in _listeners:
            listener(self._step_name, progress)

    def render_plot(self) -> dg.MetadataValue | None:
        """Return a plot of rows and tokens per second over time; None for a run with fewer than three reports."""
        if len(self._readings) < 3:
            return None
        seconds, rows, tokens = zip(*self._readings, strict=True)
        plot = draw_speed_plot(seconds, {"rows/s": rows, "tokens/s": tokens})
        return dg.MetadataValue.md(embed_image(plot, "rows and tokens per second"))
