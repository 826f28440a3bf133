"""A bar plot of two distributions side by side, small enough for an event: one panel per property.

Drawn with Pillow like `speed_plot`, because matplotlib is installed only where models are trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

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
    encode_plot,
)

LEGEND_HEIGHT = 20
BAR_SHARE = 0.8
"""Of the width of a group, that which its bars take."""

Shares = Mapping[str, Sequence[float]]
"""Per series one share for each label."""


def draw_share_plot(panels: Mapping[str, tuple[Sequence[str], Shares]]) -> bytes:
    """Return a PNG, `PLOT_WIDTH` pixels wide, with a legend and a panel per property.

    Args:
        panels: By the name of the property: the labels of the groups, and the shares of each series in them. All panels
            have the same series.
    """
    image = Image.new("RGB", (PLOT_WIDTH, LEGEND_HEIGHT + PANEL_HEIGHT * len(panels)), BACKGROUND_COLOUR)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=12)
    x = float(LEFT)
    for index, name in enumerate(next(iter(panels.values()))[1]):
        draw.rectangle((x, 6, x + 10, 16), fill=_get_colour(index))
        draw.text((x + 16, 11), name, fill=TEXT_COLOUR, font=font, anchor="lm")
        x += 40 + font.getlength(name)
    for panel_index, (name, (labels, shares)) in enumerate(panels.items()):
        _draw_panel(draw, font, LEGEND_HEIGHT + PANEL_HEIGHT * panel_index, name, labels, shares)
    return encode_plot(image)


def _draw_panel(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    start: int,
    name: str,
    labels: Sequence[str],
    shares: Shares,
) -> None:
    top, bottom, right = start + TOP, start + PANEL_HEIGHT - BOTTOM, PLOT_WIDTH - RIGHT
    for y in (top, bottom):
        draw.line((LEFT, y, right, y), fill=GRID_COLOUR)
    highest = max((share for series in shares.values() for share in series), default=0.0) or 1.0
    draw.text((LEFT, top - 18), name, fill=TEXT_COLOUR, font=font)
    draw.text((right + 6, top), f"{highest:.0%}", fill=TEXT_COLOUR, font=font, anchor="lm")
    draw.text((right + 6, bottom), "0", fill=TEXT_COLOUR, font=font, anchor="lm")
    group_width = (right - LEFT) / max(1, len(labels))
    bar_width = group_width * BAR_SHARE / max(1, len(shares))
    for group_index, label in enumerate(labels):
        x = LEFT + group_width * (group_index + (1 - BAR_SHARE) / 2)
        for series_index, series in enumerate(shares.values()):
            height = (bottom - top) * series[group_index] / highest
            left = x + bar_width * series_index
            if height > 0:
                draw.rectangle((left, bottom - height, left + bar_width - 1, bottom), fill=_get_colour(series_index))
        middle = LEFT + group_width * (group_index + 0.5)
        draw.text((middle, bottom + 3), label, fill=TEXT_COLOUR, font=font, anchor="ma")


def _get_colour(index: int) -> tuple[int, int, int]:
    return LINE_COLOURS[index % len(LINE_COLOURS)]
