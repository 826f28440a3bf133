"""Bar plots of two distributions."""

from __future__ import annotations

import io

from PIL import Image

from mvl_assets.orchestration.share_plot import LEGEND_HEIGHT, draw_share_plot
from mvl_assets.orchestration.speed_plot import LINE_COLOURS, PANEL_HEIGHT, PLOT_WIDTH


def test_bars_of_both_series_stand_beside_each_other_in_each_panel() -> None:
    panel = (["short", "long"], {"original": [1.0, 0.0], "rewritten": [0.25, 0.75]})
    plot = draw_share_plot({"length": panel, "form": panel})
    image = Image.open(io.BytesIO(plot)).convert("RGB")
    assert image.size == (PLOT_WIDTH, LEGEND_HEIGHT + 2 * PANEL_HEIGHT) and len(plot) < 10_000
    colours = {colour: n for n, colour in image.getcolors(1 << 16) or ()}
    assert abs(colours[LINE_COLOURS[0]] - colours[LINE_COLOURS[1]]) < 0.1 * colours[LINE_COLOURS[0]]


def test_a_panel_without_rows_has_no_bars() -> None:
    plot = draw_share_plot({"length": (["short"], {"original": [0.0], "rewritten": [0.0]})})
    assert Image.open(io.BytesIO(plot)).size == (PLOT_WIDTH, LEGEND_HEIGHT + PANEL_HEIGHT)
