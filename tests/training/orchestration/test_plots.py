"""Curves are pictures small enough for an event, whatever the numbers are."""

from __future__ import annotations

import io
import math

import pytest
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
        assert len(image.convert("RGB").getcolors(1 << 18)) > 20, "something is drawn"


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
