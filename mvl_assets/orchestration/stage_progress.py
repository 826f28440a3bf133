"""What a step that asks a model says while it runs, and shows of it afterwards.

One log line every few seconds, never one per row (each is a row of the event log's database). Whoever runs steps in a
process may `listen` to all reports of it.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

import dagster as dg

from mvl_assets.inference.progress import Progress
from mvl_assets.media.speed_plot import speed_plot

EVERY_SECONDS = 5.0
# Readings kept for the plot; a longer run keeps every second, fourth, ... of them.
READINGS = 600

Listener = Callable[[str, Progress], None]
_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """From now on every report of this process's steps is given to it, with the step's name, such as `judged/ocr[a]`.

    It is called from the engine's event loop: it must not block.
    """
    _listeners.append(listener)


class Watch:
    """A progress sink for the engine: logs at most every `EVERY_SECONDS`, and keeps what the plot needs."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._log = context.log
        self._name = "/".join(context.asset_key.path)
        if context.has_partition_key:
            self._name += f"[{context.partition_key}]"
        self._began = time.monotonic()
        self._logged = -EVERY_SECONDS
        self._every = 1
        self._count = 0
        self._readings: list[tuple[float, float, float]] = []

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic() - self._began
        if now - self._logged >= EVERY_SECONDS:
            self._logged = now
            self._log.info(progress.line())
        if self._count % self._every == 0:
            self._readings.append((now, progress.rows_per_s, progress.tokens_per_s))
        self._count += 1
        if len(self._readings) > READINGS:
            self._readings, self._every = self._readings[::2], self._every * 2
        for listener in _listeners:
            listener(self._name, progress)

    def plot(self) -> dg.MetadataValue | None:
        """Rows and tokens per second over the time of the run; None for one that was over too soon."""
        if len(self._readings) < 3:
            return None
        seconds, rows, tokens = zip(*self._readings, strict=True)
        picture = base64.b64encode(speed_plot(seconds, {"rows/s": rows, "tokens/s": tokens})).decode("ascii")
        return dg.MetadataValue.md(f"![rows and tokens per second](data:image/png;base64,{picture})")
