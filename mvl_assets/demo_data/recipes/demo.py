"""The miniatures that the demo runs on.

Two sources per category that occur in the catalog under these slugs, one kept unchanged (group A: detailed answers) and
one to be rewritten (group B: short answers) where the category has both; also COCO captions for their format, TabMWP
in its own layout, two text-only sources and the alignment corpus.
"""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings.comparisons import claim, edit
from mvl_assets.demo_data.drawings.drawing import Drawing
from mvl_assets.demo_data.recipes.recipe import PICTURE_FAULTS, Recipe


def _recipes() -> list[Recipe]:
    text_faults = ("no_answer", "unknown_role")
    return [
        # general
        Recipe(
            "allava_laion",
            "llava_json",
            c.discussed(c.everyday),
            (*PICTURE_FAULTS, "marker_mismatch", *text_faults),
            2,
        ),
        Recipe(
            "visual7w_cauldron_llava_format",
            "cauldron_parquet",
            c.asked(c.one_shape, 1, False),
            ("truncated_picture", "not_a_picture", "no_turns"),
        ),
        # ocr
        Recipe("visualmrc_cauldron", "cauldron_parquet", c.asked(c.pages, 2, True), ("truncated_picture", "no_turns")),
        Recipe(
            "st_vqa_cauldron_llava_format",
            "llava_parquet",
            c.asked(c.SIGNS, 3, False),
            ("truncated_picture", "missing_picture", "marker_mismatch"),
        ),
        # chart
        Recipe(
            "robut_wtq_cauldron_llava_format",
            "cauldron_parquet",
            c.asked(c.TABLES, 2, True),
            ("truncated_picture", "no_turns"),
        ),
        Recipe(
            "chartqa_cauldron_llava_format",
            "llava_parquet",
            c.asked(c.CHARTS, 1, False),
            (*PICTURE_FAULTS, "unknown_role"),
        ),
        # caption
        Recipe(
            "sharegpt4v",
            "llava_json",
            c.described(c.photos_first),
            (*PICTURE_FAULTS, "no_answer"),
            picture_name="coco/train2017/{number:012d}",
        ),
        Recipe(
            "sharegpt_4o",
            "llava_parquet_roles",
            c.described(c.everyday),
            ("truncated_picture", "missing_picture", "no_answer"),
        ),
        Recipe(
            "coco_caption_val",
            "coco_captions",
            c.captioned,
            ("truncated_picture", "missing_picture"),
            picture_name="{number:012d}",
        ),
        # domain
        Recipe(
            "ai2d_gpt4v", "llava_parquet", c.multiple_choice(c.DIAGRAMS, True), ("not_a_picture", "marker_mismatch")
        ),
        Recipe(
            "tqa_cauldron_llava_format",
            "cauldron_parquet",
            c.multiple_choice(c.DIAGRAMS, False),
            ("truncated_picture", "no_turns"),
        ),
        # code and math
        Recipe(
            "geomverse_cauldron",
            "cauldron_parquet",
            c.asked(c.GEOMETRY, 1, True),
            ("truncated_picture", "not_a_picture"),
        ),
        Recipe("geo170k", "llava_json", c.asked(c.GEOMETRY, 1, False), (*PICTURE_FAULTS, "unknown_role"), 2),
        Recipe(
            "tabmwp", "tabmwp", c.word_problem, ("truncated_picture", "missing_picture"), key="{number}", png_only=True
        ),
        # detection
        Recipe(
            "tallyqa_cauldron_llava_format",
            "cauldron_parquet",
            c.asked(c.plain(_counting), 1, False),
            ("truncated_picture", "no_turns"),
        ),
        Recipe(
            "vsr_cauldron_llava_format",
            "cauldron_parquet",
            c.asked(c.plain(_placing), 1, False),
            ("not_a_picture", "no_turns"),
        ),
        # several pictures
        Recipe(
            "nlvr2",
            "m4_instruct",
            c.compared(claim, 1),
            ("truncated_picture", "missing_picture", "swapped_roles", "swapped_roles"),
        ),
        Recipe("hq_edit", "m4_instruct_zip", c.compared(edit, 1), ("marker_mismatch", "swapped_roles")),
        # video
        Recipe("llava_video_perceptiontest", "llava_video", c.filmed(True), ("truncated_video", "missing_video"), 3),
        Recipe("llava_video_next_qa", "llava_video", c.filmed(True), ("missing_video", "no_answer"), 3),
        # text only
        Recipe("numinamath", "llava_json", c.sums, ("no_answer", "unknown_role")),
        Recipe("magpie_pro_multi_turn", "llava_jsonl", c.talked, ("bad_json", "swapped_roles")),
        # alignment
        Recipe(
            "lcs_558k",
            "llava_json",
            c.paired,
            ("truncated_picture", "missing_picture"),
            picture_name="{folder}/{number:09d}",
        ),
    ]


def _counting(rng: Random) -> Drawing:
    """A scene asked about numbers only."""
    drawing = c.SCENES(rng, 0)
    return _only(drawing, "How many")


def _placing(rng: Random) -> Drawing:
    """A scene asked about places and relations only."""
    return _only(c.SCENES(rng, 0), "In which part", "Is the")


def _only(drawing: Drawing, *beginnings: str) -> Drawing:
    kept = tuple(pair for pair in drawing.pairs if pair.question.startswith(beginnings))
    return Drawing(drawing.picture, kept, drawing.caption, drawing.needs_colour)


RECIPES = tuple(_recipes())
