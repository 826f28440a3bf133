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
LARGEST_MARKDOWN = 60_000


def curves(metrics: Sequence[Mapping[str, Any]], title: str) -> bytes:
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
    losses = [_finite(line["loss"]) for line in metrics]
    # No pyplot: it keeps every figure alive and looks for a display.
    figure = Figure(figsize=(7.2, 2.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    left.plot(steps, losses, color="#9bb8d3", linewidth=1, label="step")
    left.plot(steps, running_mean(losses), color="#1f4e79", linewidth=1.8, label="mean")
    left.set(title=title, xlabel="step", ylabel="loss per target token")
    left.legend(frameon=False, fontsize=8)
    for part, rates in _rates(metrics).items():
        right.plot(steps, rates, linewidth=1.4, label=part)
    right.set(title="learning rate", xlabel="step", yscale="log")
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.title.set_fontsize(9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    # 32 colours are enough for a few lines, and a third of the bytes: the picture has to fit into an event.
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(32).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def running_mean(values: Sequence[float]) -> list[float]:
    """The mean of the last tenth of the steps (at least 5) up to each step; values that are not finite are left out."""
    width = max(5, len(values) // 10)
    means = []
    for end in range(1, len(values) + 1):
        window = [value for value in values[max(0, end - width) : end] if math.isfinite(value)]
        means.append(sum(window) / len(window) if window else math.nan)
    return means


def embedded(picture: bytes, alt: str, media_type: str = "image/png") -> str:
    """Markdown with the picture inside it, or a line that says why there is none when it would be too large."""
    encoded = base64.b64encode(picture).decode("ascii")
    if len(encoded) > LARGEST_MARKDOWN:
        return f"*{alt}: {len(picture) // 1000} kB, too large to show here*"
    return f"![{alt}](data:{media_type};base64,{encoded})"


def _rates(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Learning rates by part; 0, which a logarithmic axis cannot show, leaves a gap."""
    listed = [line["lr"] if isinstance(line["lr"], Mapping) else {"all": line["lr"]} for line in metrics]
    return {part: [rates.get(part) or math.nan for rates in listed] for part in listed[0]}


def _finite(value: float | None) -> float:
    return math.nan if value is None or not math.isfinite(value) else value
