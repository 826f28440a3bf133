"""Curves are pictures small enough for an event, whatever the numbers are."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from mvl_assets.common.markdown import embed_image
from mvl_training.orchestration.plots import MAX_EMBEDDED_CHARS, compute_running_mean, plot_training_curves


def _metrics(steps: int) -> list[dict]:
    return [
        {"step": n, "loss": 10 / (n + 1) + 0.3 * math.sin(n * 12.9), "lr": {"language": 1e-5, "vision": 2e-6}}
        for n in range(steps)
    ]


def test_the_plot_of_a_long_run_fits_into_an_event() -> None:
    picture = plot_training_curves(_metrics(3000), "single_image")
    markdown = embed_image(picture, "loss", max_chars=MAX_EMBEDDED_CHARS)
    assert len(markdown) < MAX_EMBEDDED_CHARS
    assert markdown.startswith("![loss](data:image/png;base64,")
    with Image.open(io.BytesIO(picture)) as image:
        assert image.size == (720, 260)
        image.load()


def test_the_plot_has_the_losses_their_mean_and_the_learning_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    save = Figure.savefig

    def record_and_save(figure: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", record_and_save)
    metrics = _metrics(40)
    plot_training_curves(metrics, "single_image")
    (figure,) = figures
    steps, losses = list(range(40)), [line["loss"] for line in metrics]
    loss_axes, lr_axes = figure.axes
    assert loss_axes.get_title() == "single_image"
    assert {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in loss_axes.lines} == {
        "step": (steps, losses),
        "mean": (steps, compute_running_mean(losses)),
    }
    low, high = loss_axes.get_ylim()
    assert low < min(losses) and high > max(losses)
    assert lr_axes.get_yscale() == "log"
    assert {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in lr_axes.lines} == {
        "language": (steps, [1e-5] * 40),
        "vision": (steps, [2e-6] * 40),
    }


def test_equal_metrics_give_equal_plots() -> None:
    assert plot_training_curves(_metrics(20), "a") == plot_training_curves(_metrics(20), "a")


def test_steps_without_a_finite_loss_and_a_single_step_are_drawn_too() -> None:
    metrics = _metrics(6)
    metrics[2]["loss"] = math.nan
    metrics[3]["lr"] = {"language": 0.0, "vision": 0.0}
    assert plot_training_curves(metrics, "a")
    assert plot_training_curves([{"step": 1, "loss": 2.0, "lr": 1e-3}], "a")
    with pytest.raises(ValueError, match="no metrics"):
        plot_training_curves([], "a")


def test_the_running_mean_leaves_out_what_is_not_finite() -> None:
    assert compute_running_mean([1.0, math.nan, 3.0]) == [1.0, 1.0, 2.0]


def test_an_image_too_large_for_an_event_is_replaced_by_a_note() -> None:
    assert embed_image(b"x" * 60_000, "loss", max_chars=MAX_EMBEDDED_CHARS) == "*loss: 60 kB, too large to show here*"
