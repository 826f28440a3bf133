"""Chinese characters of straight strokes, because the font inside Pillow has none."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from PIL import ImageDraw

from mvl_assets.media.drawing import RGB

Stroke = tuple[tuple[float, float], ...]


def _build_rectangle_stroke(left: float, top: float, right: float, bottom: float) -> Stroke:
    return ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))


_BOX, _TALL_BOX = _build_rectangle_stroke(0.14, 0.2, 0.86, 0.86), _build_rectangle_stroke(0.24, 0.1, 0.76, 0.9)

# Corners of each stroke, as shares of the character's square.
STROKES: Mapping[str, tuple[Stroke, ...]] = MappingProxyType(
    {
        "一": (((0.1, 0.5), (0.9, 0.5)),),
        "二": (((0.22, 0.3), (0.78, 0.3)), ((0.08, 0.8), (0.92, 0.8))),
        "三": (((0.18, 0.2), (0.82, 0.2)), ((0.24, 0.5), (0.76, 0.5)), ((0.08, 0.82), (0.92, 0.82))),
        "十": (((0.1, 0.45), (0.9, 0.45)), ((0.5, 0.1), (0.5, 0.92))),
        "口": (_BOX,),
        "日": (_TALL_BOX, ((0.24, 0.5), (0.76, 0.5))),
        "目": (_TALL_BOX, ((0.24, 0.37), (0.76, 0.37)), ((0.24, 0.63), (0.76, 0.63))),
        "田": (_BOX, ((0.14, 0.53), (0.86, 0.53)), ((0.5, 0.2), (0.5, 0.86))),
        "中": (_build_rectangle_stroke(0.14, 0.28, 0.86, 0.64), ((0.5, 0.06), (0.5, 0.94))),
        "王": (
            ((0.14, 0.16), (0.86, 0.16)),
            ((0.2, 0.5), (0.8, 0.5)),
            ((0.08, 0.86), (0.92, 0.86)),
            ((0.5, 0.16), (0.5, 0.86)),
        ),
        "土": (((0.22, 0.4), (0.78, 0.4)), ((0.5, 0.1), (0.5, 0.86)), ((0.08, 0.86), (0.92, 0.86))),
        "工": (((0.16, 0.2), (0.84, 0.2)), ((0.5, 0.2), (0.5, 0.84)), ((0.08, 0.84), (0.92, 0.84))),
        "上": (((0.46, 0.1), (0.46, 0.86)), ((0.46, 0.42), (0.8, 0.42)), ((0.08, 0.86), (0.92, 0.86))),
        "下": (((0.08, 0.16), (0.92, 0.16)), ((0.48, 0.16), (0.48, 0.92)), ((0.54, 0.4), (0.76, 0.56))),
        "山": (((0.5, 0.1), (0.5, 0.86)), ((0.12, 0.4), (0.12, 0.86), (0.88, 0.86), (0.88, 0.4))),
        "人": (((0.5, 0.1), (0.42, 0.5), (0.1, 0.9)), ((0.46, 0.4), (0.9, 0.9))),
        "大": (((0.1, 0.36), (0.9, 0.36)), ((0.5, 0.08), (0.46, 0.5), (0.1, 0.92)), ((0.5, 0.44), (0.9, 0.92))),
        "木": (
            ((0.08, 0.34), (0.92, 0.34)),
            ((0.5, 0.08), (0.5, 0.94)),
            ((0.5, 0.36), (0.12, 0.78)),
            ((0.5, 0.36), (0.88, 0.78)),
        ),
    }
)
CHINESE_WORDS = (
    *("中山", "大田", "山口", "上田", "木下", "三木", "大王", "土木", "工人", "人口"),
    *("日中", "田口", "下山", "十三", "二十一", "中日大工", "目上"),
)


def draw_characters(draw: ImageDraw.ImageDraw, text: str, xy: tuple[float, float], size: int, ink: RGB) -> None:
    """Draw text with the strokes of `STROKES`, to the right.

    Args:
        draw: Canvas.
        text: Characters that `STROKES` has.
        xy: Upper left corner of the first character, in pixels.
        size: Side of the square that each character fills, in pixels.
        ink: Colour of the strokes.
    """
    for number, character in enumerate(text):
        for stroke in STROKES[character]:
            points = [(xy[0] + (number + a) * size, xy[1] + b * size) for a, b in stroke]
            draw.line(points, fill=ink, width=max(2, size // 11))
