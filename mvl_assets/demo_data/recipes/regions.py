"""Recipes of sources that annotate regions of an image."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data.contents import RowContent
from mvl_assets.demo_data.drawings import located
from mvl_assets.demo_data.drawings.signboards import build_signboard_wall
from mvl_assets.demo_data.recipes.recipe import DemoRecipe


def _build_narrated_row(rng: Random, image_index: int, row_in_image: int) -> RowContent:
    """Return a scene of shapes told in one caption."""
    content = located.build_located_shapes(rng, image_index, row_in_image)
    return RowContent((("", content.drawings[0].caption),), content.drawings, fields=content.fields)


RECIPES: tuple[DemoRecipe, ...] = (
    DemoRecipe(
        "mscoco",
        "coco_instances",
        located.build_located_shapes,
        ("truncated_image", "missing_image", "no_objects", "bad_box", "unknown_category", "unknown_image"),
        image_name_template="{number:012d}",
    ),
    DemoRecipe(
        "visualgenome",
        "visual_genome",
        located.build_located_shapes,
        ("truncated_image", "missing_image", "not_an_object", "unknown_image"),
        4,
        jpeg_only=True,
    ),
    DemoRecipe(
        "refcoco",
        "ref_coco",
        located.build_referring_expression,
        ("truncated_image", "missing_image", "unknown_annotation", "no_expression"),
        4,
        image_name_template="COCO_train2014_{number:012d}",
        jpeg_only=True,
    ),
    DemoRecipe(
        "localized_narratives",
        "localized_narratives",
        _build_narrated_row,
        ("truncated_image", "missing_image", "bad_json", "no_caption"),
        jpeg_only=True,
    ),
    DemoRecipe(
        "rects",
        "rects",
        build_signboard_wall,
        ("truncated_image", "missing_image", "bad_polygon", "no_text", "bad_json"),
        image_name_template="train_ReCTS_{number:06d}",
        jpeg_only=True,
    ),
    DemoRecipe(
        "rctw_17",
        "rctw",
        build_signboard_wall,
        ("not_an_image", "bad_polygon", "bad_utf8", "no_text"),
        image_name_template="image_{number}",
        jpeg_only=True,
    ),
    # What this source is made of is not known; it gets the simplest of the text formats.
    DemoRecipe(
        "cn_ocr_1",
        "icdar_lines",
        build_signboard_wall,
        ("truncated_image", "missing_image", "bad_utf8"),
        image_name_template="{number:06d}",
    ),
)
