"""Recipes of sources whose images and videos come in archives."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings.comparisons import draw_claim_pair
from mvl_assets.demo_data.recipes.recipe import IMAGE_FAULTS, DemoRecipe

RELEASED_ROW_KINDS = (
    ("Cambrian-10M", "arxivqa_100k.json", c.make_qa_builder(c.CHARTS, 1, True)),
    ("M4-Instruct-Data", "nlvr2", c.make_multi_image_builder(draw_claim_pair, 1)),
    ("LLaVA-Video-178K", "0_30_s_academic_v0_1", c.make_video_builder(True)),
    ("", "orca_math_200k.json", c.build_math_problem_row),
)
"""What the released rows are made of: the folder their files are in, their `source`, and what they say."""


def _build_released_row(rng: Random, image_index: int, row_in_image: int) -> c.RowContent:
    """Return a row of one of the kinds in turn, which names its folder and source."""
    folder, origin, content_builder = RELEASED_ROW_KINDS[image_index % len(RELEASED_ROW_KINDS)]
    content = content_builder(rng, image_index, row_in_image)
    return c.RowContent(
        content.turns, content.drawings, content.video, {**content.fields, "source": origin, "folder": folder}
    )


RECIPES: tuple[DemoRecipe, ...] = (
    DemoRecipe(
        "arxivqa",
        "cambrian_tars",
        c.make_multiple_choice_builder(c.DIAGRAMS, True),
        ("truncated_image", "missing_image", "unsafe_member", "bad_json", "no_answer"),
        image_name_template="images/{number:06d}",
    ),
    DemoRecipe(
        "idk", "cambrian_tar_parts", c.make_qa_builder(c.draw_everyday_image, 1, True), (*IMAGE_FAULTS, "unsafe_member")
    ),
    DemoRecipe(
        "co_instruct",
        "m4_instruct_parts",
        c.make_multi_image_builder(draw_claim_pair, 2),
        ("truncated_image", "missing_image", "swapped_roles", "marker_mismatch"),
    ),
    DemoRecipe(
        "llava_video",
        "llava_video_tars",
        c.make_video_builder(True),
        ("truncated_video", "missing_video", "no_answer"),
        3,
    ),
    DemoRecipe(
        "llava_video_activitynetqa",
        "llava_video_tars",
        c.make_video_builder(False),
        ("missing_video", "unknown_role"),
        3,
    ),
    DemoRecipe(
        "mammoth_vl_instruct_12m",
        "mammoth_release",
        _build_released_row,
        ("no_answer", "unknown_role", "marker_mismatch"),
    ),
)
