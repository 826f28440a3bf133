"""Recipes of the sources that the demo runs on.

Two sources per category that occur in the catalog under these slugs, one kept unchanged (group A: detailed answers) and
one to be rewritten (group B: short answers) where the category has both; also COCO captions for their format, TabMWP
in its own layout, two text-only sources and the alignment corpus.
"""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings.comparisons import draw_claim_pair, draw_edit_pair
from mvl_assets.demo_data.drawings.drawing import Drawing
from mvl_assets.demo_data.recipes.recipe import IMAGE_FAULTS, DemoRecipe


def _build_recipes() -> list[DemoRecipe]:
    text_faults = ("no_answer", "unknown_role")
    return [
        # general
        DemoRecipe(
            "allava_laion",
            "llava_json",
            c.make_caption_and_qa_builder(c.draw_everyday_image),
            (*IMAGE_FAULTS, "marker_mismatch", *text_faults),
            2,
        ),
        DemoRecipe(
            "visual7w_cauldron_llava_format",
            "cauldron_parquet",
            c.make_qa_builder(c.draw_shape_question_image, 1, False),
            ("truncated_image", "not_an_image", "no_turns"),
        ),
        # ocr
        DemoRecipe(
            "visualmrc_cauldron",
            "cauldron_parquet",
            c.make_qa_builder(c.draw_page, 2, True),
            ("truncated_image", "no_turns"),
        ),
        DemoRecipe(
            "st_vqa_cauldron_llava_format",
            "llava_parquet",
            c.make_qa_builder(c.SIGNS, 3, False),
            ("truncated_image", "missing_image", "marker_mismatch"),
        ),
        # chart
        DemoRecipe(
            "robut_wtq_cauldron_llava_format",
            "cauldron_parquet",
            c.make_qa_builder(c.TABLES, 2, True),
            ("truncated_image", "no_turns"),
        ),
        DemoRecipe(
            "chartqa_cauldron_llava_format",
            "llava_parquet",
            c.make_qa_builder(c.CHARTS, 1, False),
            (*IMAGE_FAULTS, "unknown_role"),
        ),
        # caption
        DemoRecipe(
            "sharegpt4v",
            "llava_json",
            c.make_caption_builder(c.draw_photo_or_scene),
            (*IMAGE_FAULTS, "no_answer"),
            image_name_template="coco/train2017/{number:012d}",
        ),
        DemoRecipe(
            "sharegpt_4o",
            "llava_parquet_roles",
            c.make_caption_builder(c.draw_everyday_image),
            ("truncated_image", "missing_image", "no_answer"),
        ),
        DemoRecipe(
            "coco_caption_val",
            "coco_captions",
            c.build_coco_captions,
            ("truncated_image", "missing_image"),
            image_name_template="{number:012d}",
        ),
        # domain
        DemoRecipe(
            "ai2d_gpt4v",
            "llava_parquet",
            c.make_multiple_choice_builder(c.DIAGRAMS, True),
            ("not_an_image", "marker_mismatch"),
        ),
        DemoRecipe(
            "tqa_cauldron_llava_format",
            "cauldron_parquet",
            c.make_multiple_choice_builder(c.DIAGRAMS, False),
            ("truncated_image", "no_turns"),
        ),
        # code and math
        DemoRecipe(
            "geomverse_cauldron",
            "cauldron_parquet",
            c.make_qa_builder(c.GEOMETRY, 1, True),
            ("truncated_image", "not_an_image"),
        ),
        DemoRecipe(
            "geo170k", "llava_json", c.make_qa_builder(c.GEOMETRY, 1, False), (*IMAGE_FAULTS, "unknown_role"), 2
        ),
        DemoRecipe(
            "tabmwp",
            "tabmwp",
            c.build_word_problem_row,
            ("truncated_image", "missing_image"),
            row_id_template="{number}",
            png_only=True,
        ),
        # detection
        DemoRecipe(
            "tallyqa_cauldron_llava_format",
            "cauldron_parquet",
            c.make_qa_builder(c.ignore_index(_draw_counting_scene), 1, False),
            ("truncated_image", "no_turns"),
        ),
        DemoRecipe(
            "vsr_cauldron_llava_format",
            "cauldron_parquet",
            c.make_qa_builder(c.ignore_index(_draw_position_scene), 1, False),
            ("not_an_image", "no_turns"),
        ),
        # several images
        DemoRecipe(
            "nlvr2",
            "m4_instruct",
            c.make_multi_image_builder(draw_claim_pair, 1),
            ("truncated_image", "missing_image", "swapped_roles", "swapped_roles"),
        ),
        DemoRecipe(
            "hq_edit",
            "m4_instruct_zip",
            c.make_multi_image_builder(draw_edit_pair, 1),
            ("marker_mismatch", "swapped_roles"),
        ),
        # video
        DemoRecipe(
            "llava_video_perceptiontest",
            "llava_video",
            c.make_video_builder(True),
            ("truncated_video", "missing_video"),
            3,
        ),
        DemoRecipe("llava_video_next_qa", "llava_video", c.make_video_builder(True), ("missing_video", "no_answer"), 3),
        # text only
        DemoRecipe("numinamath", "llava_json", c.build_math_problem_row, ("no_answer", "unknown_role")),
        DemoRecipe("magpie_pro_multi_turn", "llava_jsonl", c.build_task_conversation, ("bad_json", "swapped_roles")),
        # alignment
        DemoRecipe(
            "lcs_558k",
            "llava_json",
            c.build_short_caption,
            ("truncated_image", "missing_image"),
            image_name_template="{folder}/{number:09d}",
        ),
    ]


def _draw_counting_scene(rng: Random) -> Drawing:
    """Draw a scene asked about numbers only."""
    drawing = c.SCENES(rng, 0)
    return _filter_qa_pairs(drawing, "How many")


def _draw_position_scene(rng: Random) -> Drawing:
    """Draw a scene asked about places and relations only."""
    return _filter_qa_pairs(c.SCENES(rng, 0), "In which part", "Is the")


def _filter_qa_pairs(drawing: Drawing, *prefixes: str) -> Drawing:
    kept_qa_pairs = tuple(qa_pair for qa_pair in drawing.qa_pairs if qa_pair.question.startswith(prefixes))
    return Drawing(drawing.image, kept_qa_pairs, drawing.caption, drawing.needs_colour)


RECIPES = tuple(_build_recipes())
