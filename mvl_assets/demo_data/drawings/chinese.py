"""Questions in Chinese about drawn scenes, for the sources whose turns are Chinese.

The font inside Pillow has no Chinese letters, so the images stay without words.
"""

from __future__ import annotations

from random import Random
from types import MappingProxyType

from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair, sample_int
from mvl_assets.demo_data.drawings.scenes import SceneObject, render_objects, sample_objects
from mvl_assets.media.drawing import PAPERS

CHINESE_COLOURS: MappingProxyType[str, str] = MappingProxyType(
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
CHINESE_SHAPES: MappingProxyType[str, str] = MappingProxyType(
    {"circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "五角星"}
)


def draw_chinese_scene(rng: Random) -> Drawing:
    """Draw shapes to count and name."""
    objects = sample_objects(rng, 3, 3, sample_int(rng, 3, 6))
    image = render_objects(objects, 3, 3, sample_int(rng, 70, 110, 10), rng.choice(PAPERS))
    objects_text = "、".join(_format_object_name(scene_object) for scene_object in objects)
    shape = rng.choice(objects).shape
    n_same_shape = sum(scene_object.shape == shape for scene_object in objects)
    qa_pairs = (
        DrawnQAPair("图中一共有多少个图形？", str(len(objects)), f"图中的图形有：{objects_text}。"),
        DrawnQAPair(
            f"图中有几个{CHINESE_SHAPES[shape]}？",
            str(n_same_shape),
            f"图中的图形有：{objects_text}，其中{CHINESE_SHAPES[shape]}有{n_same_shape}个。",
        ),
        DrawnQAPair("请描述这张图片。", f"一张简单的图片，上面有{objects_text}。", "从左到右、从上到下看。"),
    )
    return Drawing(image, qa_pairs, f"一张简单的图片，上面有{len(objects)}个图形：{objects_text}。")


def _format_object_name(scene_object: SceneObject) -> str:
    return f"{CHINESE_COLOURS[scene_object.colour]}{CHINESE_SHAPES[scene_object.shape]}"
