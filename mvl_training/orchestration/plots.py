"""Training curves as small PNGs that fit into a Dagster event.

Belongs here: drawing numbers, and embedding a picture into markdown. matplotlib is imported where it draws: definitions
that are only loaded do not pay for it.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

# Events live in the event log's database; a page shows dozens of them.
MAX_EMBEDDED_CHARS = 60_000


def plot_training_curves(metrics: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """A PNG of 720 x 260 pixels: the loss of every optimizer step with a running mean, and learning rates beside it.

    `metrics` are lines of a stage's metrics.jsonl: `step`, `loss`, and `lr`, a number or one number per trained part.
    Values that are not finite leave a gap. Raises `ValueError` for no lines.
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
    # 32 colours are enough for a few lines, and a third of the bytes: the picture has to fit into an event.
    with Image.open(drawn_png) as image:
        image.convert("RGB").quantize(32).save(quantized_png, "PNG", optimize=True)
    return quantized_png.getvalue()


def compute_running_mean(values: Sequence[float]) -> list[float]:
    """The mean of the last tenth of the steps (at least 5) up to each step; values that are not finite are left out."""
    width = max(5, len(values) // 10)
    means = []
    for end in range(1, len(values) + 1):
        window = [value for value in values[max(0, end - width) : end] if math.isfinite(value)]
        means.append(sum(window) / len(window) if window else math.nan)
    return means


def embed_image(image: bytes, alt: str, media_type: str = "image/png") -> str:
    """Markdown with the picture inside it, or a line that says why there is none when it would be too large."""
    encoded = base64.b64encode(image).decode("ascii")
    if len(encoded) > MAX_EMBEDDED_CHARS:
        return f"*{alt}: {len(image) // 1000} kB, too large to show here*"
    return f"![{alt}](data:{media_type};base64,{encoded})"


def _group_learning_rates(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Learning rates by part; 0, which a logarithmic axis cannot show, leaves a gap."""
    rates_by_step = [line["lr"] if isinstance(line["lr"], Mapping) else {"all": line["lr"]} for line in metrics]
    return {component: [rates.get(component) or math.nan for rates in rates_by_step] for component in rates_by_step[0]}


def _replace_non_finite(value: float | None) -> float:
    return math.nan if value is None or not math.isfinite(value) else value
