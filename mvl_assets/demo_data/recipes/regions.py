"""Sources that say what is where in a picture."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data.contents import Content
from mvl_assets.demo_data.drawings import located
from mvl_assets.demo_data.drawings.signboards import wall
from mvl_assets.demo_data.recipes.recipe import Recipe


def _narrated(rng: Random, index: int, part: int) -> Content:
    """A scene of shapes told in one caption."""
    content = located.shapes(rng, index, part)
    return Content((("", content.drawings[0].caption),), content.drawings, fields=content.fields)


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "mscoco",
        "coco_instances",
        located.shapes,
        ("truncated_picture", "missing_picture", "no_objects", "bad_box", "unknown_category", "unknown_picture"),
        picture_name="{number:012d}",
    ),
    Recipe(
        "visualgenome",
        "visual_genome",
        located.shapes,
        ("truncated_picture", "missing_picture", "not_an_object", "unknown_picture"),
        4,
        jpeg_only=True,
    ),
    Recipe(
        "refcoco",
        "ref_coco",
        located.expressions,
        ("truncated_picture", "missing_picture", "unknown_annotation", "no_expression"),
        4,
        picture_name="COCO_train2014_{number:012d}",
        jpeg_only=True,
    ),
    Recipe(
        "localized_narratives",
        "localized_narratives",
        _narrated,
        ("truncated_picture", "missing_picture", "bad_json", "no_caption"),
        jpeg_only=True,
    ),
    Recipe(
        "rects",
        "rects",
        wall,
        ("truncated_picture", "missing_picture", "bad_polygon", "no_text", "bad_json"),
        picture_name="train_ReCTS_{number:06d}",
        jpeg_only=True,
    ),
    Recipe(
        "rctw_17",
        "rctw",
        wall,
        ("not_a_picture", "bad_polygon", "bad_utf8", "no_text"),
        picture_name="image_{number}",
        jpeg_only=True,
    ),
    # What this source is made of is not known; it gets the plainest of the text formats.
    Recipe(
        "cn_ocr_1",
        "icdar_lines",
        wall,
        ("truncated_picture", "missing_picture", "bad_utf8"),
        picture_name="{number:06d}",
    ),
)
