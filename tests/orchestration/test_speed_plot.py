"""The plot of a run's throughput."""

from __future__ import annotations

import io
import math

import pytest
from PIL import Image

from mvl_assets.orchestration.speed_plot import (
    BACKGROUND_COLOUR,
    BOTTOM,
    GRID_COLOUR,
    LEFT,
    LINE_COLOURS,
    PANEL_HEIGHT,
    PLOT_WIDTH,
    RIGHT,
    TEXT_COLOUR,
    TOP,
    compute_line_points,
    draw_speed_plot,
)

SECONDS = [2.0 * n for n in range(600)]
WAVES = [20 + 10 * math.sin(n / 9) for n in range(600)]
SERIES = {"rows/s": WAVES, "tokens/s": [0.0] * 600}


def find_nearest_colour(pixel: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the plot's colour that a pixel of the reduced palette shows."""
    colours = (BACKGROUND_COLOUR, TEXT_COLOUR, GRID_COLOUR, *LINE_COLOURS)
    return min(colours, key=lambda colour: math.dist(colour, pixel))


def find_colours_around(image: Image.Image, x: float, y: float) -> set[tuple[int, int, int]]:
    """Return the plot's colours within a pixel of a point: a line two pixels wide is not centred on its points."""
    box = (round(x) - 1, round(y) - 1, round(x) + 2, round(y) + 2)
    return {find_nearest_colour(pixel) for pixel in image.crop(box).getdata()}


def test_line_points_span_the_panel_on_the_scale_of_their_values() -> None:
    points = compute_line_points([10.0, 11.0, 14.0], [0.0, 2.0, 4.0], panel_index=1)
    top, bottom, right = PANEL_HEIGHT + TOP, 2 * PANEL_HEIGHT - BOTTOM, PLOT_WIDTH - RIGHT
    assert points == [(LEFT, bottom), (LEFT + (right - LEFT) / 4, (top + bottom) / 2), (right, top)]


def test_line_points_of_a_measure_without_values_are_on_the_axis() -> None:
    assert {y for _, y in compute_line_points(SECONDS, [0.0] * 600, panel_index=0)} == {PANEL_HEIGHT - BOTTOM}


def test_speed_plot_has_a_line_per_measure_and_fits_into_an_event() -> None:
    data = draw_speed_plot(SECONDS, SERIES)
    assert len(data) < 10_000
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (PLOT_WIDTH, 2 * PANEL_HEIGHT)
        pixels = image.convert("RGB")
    for panel_index, values in enumerate(SERIES.values()):
        for x, y in compute_line_points(SECONDS, values, panel_index):
            assert LINE_COLOURS[panel_index] in find_colours_around(pixels, x, y), (panel_index, x, y)


def test_speed_plot_is_the_same_for_equal_readings() -> None:
    assert draw_speed_plot(SECONDS, {"rows/s": WAVES}) == draw_speed_plot(SECONDS, {"rows/s": WAVES})


def test_speed_plot_of_one_reading_is_refused() -> None:
    with pytest.raises(ValueError, match="two readings"):
        draw_speed_plot([1.0], {"rows/s": [1.0]})
