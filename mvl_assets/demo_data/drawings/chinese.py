"""Questions in Chinese about drawn scenes, for the sources whose turns are Chinese.

The font inside Pillow has no Chinese letters, so the pictures stay without words.
"""

from __future__ import annotations

from random import Random
from types import MappingProxyType

from mvl_assets.demo_data.drawings.drawing import PAPERS, Drawing, Pair, between
from mvl_assets.demo_data.drawings.scenes import Thing, choose, paint

COLOURS: MappingProxyType[str, str] = MappingProxyType(
    {
        "red": "红色",
        "green": "绿色",
        "blue": "蓝色",
        "yellow": "黄色",
        "purple": "紫色",
        "orange": "橙色",
        "black": "黑色",
        "pink": "粉色",
    }
)
SHAPES: MappingProxyType[str, str] = MappingProxyType(
    {"circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "五角星"}
)


def scene(rng: Random) -> Drawing:
    """Shapes to count and name."""
    things = choose(rng, 3, 3, between(rng, 3, 6))
    picture = paint(things, 3, 3, between(rng, 70, 110, 10), rng.choice(PAPERS))
    listed = "、".join(_name(thing) for thing in things)
    shape = rng.choice(things).shape
    same = sum(thing.shape == shape for thing in things)
    pairs = (
        Pair("图中一共有多少个图形？", str(len(things)), f"图中的图形有：{listed}。"),
        Pair(f"图中有几个{SHAPES[shape]}？", str(same), f"图中的图形有：{listed}，其中{SHAPES[shape]}有{same}个。"),
        Pair("请描述这张图片。", f"一张简单的图片，上面有{listed}。", "从左到右、从上到下看。"),
    )
    return Drawing(picture, pairs, f"一张简单的图片，上面有{len(things)}个图形：{listed}。")


def _name(thing: Thing) -> str:
    return f"{COLOURS[thing.colour]}{SHAPES[thing.shape]}"
