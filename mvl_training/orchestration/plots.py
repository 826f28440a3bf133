"""Training curves as small PNGs that fit into a Dagster event.

matplotlib is imported in the function that draws, so that loading the definitions does not import it. It is installed
only where models are trained: the data lake's own plots (`mvl_assets.orchestration.speed_plot`) are drawn with
Pillow, which has neither logarithmic axes nor legends.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

# Events are stored in the event log's database, and a page of the UI shows dozens of them.
MAX_EMBEDDED_CHARS = 60_000


def plot_training_curves(metrics: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Return a PNG of 720 x 260 pixels: the loss of every optimizer step with a running mean, and the learning rates.

    Values that are not finite leave a gap.

    Args:
        metrics: Lines of a training stage's metrics.jsonl: `step`, `loss`, and `lr`, a number or one per component.
        title: Title of the loss plot.

    Raises:
        ValueError: `metrics` is empty.
    """
    if not metrics:
        raise ValueError("no metrics to draw")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    steps = [line["step"] for line in metrics]
    losses = [_replace_non_finite(line["loss"]) for line in metrics]
    # No pyplot: it keeps every figure alive and looks for a display.
    figure = Figure(figsize=(7.2, 2.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, lr_axes = figure.subplots(1, 2, width_ratios=[2, 1])
    loss_axes.plot(steps, losses, color="#9bb8d3", linewidth=1, label="step")
    loss_axes.plot(steps, compute_running_mean(losses), color="#1f4e79", linewidth=1.8, label="mean")
    loss_axes.set(title=title, xlabel="step", ylabel="loss per target token")
    loss_axes.legend(frameon=False, fontsize=8)
    for component, rates in _group_learning_rates(metrics).items():
        lr_axes.plot(steps, rates, linewidth=1.4, label=component)
    lr_axes.set(title="learning rate", xlabel="step", yscale="log")
    lr_axes.legend(frameon=False, fontsize=8)
    for axes in (loss_axes, lr_axes):
        axes.title.set_fontsize(9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    drawn_png, quantized_png = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn_png, format="png", metadata={"Software": None})
    # 32 colours are enough for a few lines and take a third of the bytes: the image has to fit into an event.
    with Image.open(drawn_png) as image:
        image.convert("RGB").quantize(32).save(quantized_png, "PNG", optimize=True)
    return quantized_png.getvalue()


def compute_running_mean(values: Sequence[float]) -> list[float]:
    """Return the mean of the last tenth of the steps (at least 5) up to each step; skips values that are not finite."""
    width = max(5, len(values) // 10)
    means = []
    for end in range(1, len(values) + 1):
        window = [value for value in values[max(0, end - width) : end] if math.isfinite(value)]
        means.append(sum(window) / len(window) if window else math.nan)
    return means


def _group_learning_rates(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return learning rates by component; 0, which a logarithmic axis cannot show, leaves a gap."""
    rates_by_step = [line["lr"] if isinstance(line["lr"], Mapping) else {"all": line["lr"]} for line in metrics]
    return {component: [rates.get(component) or math.nan for rates in rates_by_step] for component in rates_by_step[0]}


def _replace_non_finite(value: float | None) -> float:
    return math.nan if value is None or not math.isfinite(value) else value
