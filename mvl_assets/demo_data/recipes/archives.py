"""The sources whose pictures and videos come in archives."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings.comparisons import claim
from mvl_assets.demo_data.recipes.recipe import PICTURE_FAULTS, Recipe

KINDS = (
    ("Cambrian-10M", "arxivqa_100k.json", c.asked(c.CHARTS, 1, True)),
    ("M4-Instruct-Data", "nlvr2", c.compared(claim, 1)),
    ("LLaVA-Video-178K", "0_30_s_academic_v0_1", c.filmed(True)),
    ("", "orca_math_200k.json", c.sums),
)
"""What the released rows are made of: the folder their files are in, their `source`, and what they say."""


def _released(rng: Random, index: int, part: int) -> c.Content:
    """A row of one of the kinds in turn, which names its folder and source."""
    folder, origin, make = KINDS[index % len(KINDS)]
    made = make(rng, index, part)
    return c.Content(made.turns, made.drawings, made.film, {**made.fields, "source": origin, "folder": folder})


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "arxivqa",
        "cambrian_tars",
        c.multiple_choice(c.DIAGRAMS, True),
        ("truncated_picture", "missing_picture", "unsafe_member", "bad_json", "no_answer"),
        picture_name="images/{number:06d}",
    ),
    Recipe("idk", "cambrian_tar_parts", c.asked(c.everyday, 1, True), (*PICTURE_FAULTS, "unsafe_member")),
    Recipe(
        "co_instruct",
        "m4_instruct_parts",
        c.compared(claim, 2),
        ("truncated_picture", "missing_picture", "swapped_roles", "marker_mismatch"),
    ),
    Recipe("llava_video", "llava_video_tars", c.filmed(True), ("truncated_video", "missing_video", "no_answer"), 3),
    Recipe("llava_video_activitynetqa", "llava_video_tars", c.filmed(False), ("missing_video", "unknown_role"), 3),
    Recipe("mammoth_vl_instruct_12m", "mammoth_release", _released, ("no_answer", "unknown_role", "marker_mismatch")),
)
