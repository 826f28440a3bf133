"""The picture of a run's speed."""

from __future__ import annotations

import io
import math

import pytest
from PIL import Image

from mvl_assets.media.speed_plot import PANEL_HEIGHT, PLOT_WIDTH, draw_speed_plot


def test_a_line_is_drawn_per_measure_and_the_picture_fits_into_an_event() -> None:
    seconds = [2.0 * n for n in range(600)]
    waves = [20 + 10 * math.sin(n / 9) for n in range(600)]
    data = draw_speed_plot(seconds, {"rows/s": waves, "tokens/s": [0.0] * 600})
    assert len(data) < 10_000
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (PLOT_WIDTH, 2 * PANEL_HEIGHT)
        rgb = picture.convert("RGB")
        # The line of the upper half wanders over its height, that of the lower one lies on its axis.
        blue = [
            y
            for y in range(PANEL_HEIGHT)
            if any(rgb.getpixel((x, y))[2] > rgb.getpixel((x, y))[0] + 40 for x in range(12, 560))
        ]
        assert max(blue) - min(blue) > 30
    assert draw_speed_plot(seconds, {"rows/s": waves}) == draw_speed_plot(seconds, {"rows/s": waves})


def test_one_reading_is_no_line() -> None:
    with pytest.raises(ValueError, match="two readings"):
        draw_speed_plot([1.0], {"rows/s": [1.0]})
