"""The sources beyond the demo that are published in one of the demo's formats or read by a field map, a line each.

A line says what is drawn and how it is asked. Answers carry reasons (`reasons`) or are the bare key (`key`), as those
of the source do.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings import charts, chinese, documents, scans, scenes, screens, series, writing
from mvl_assets.demo_data.drawings.comparisons import draw_edit_pair
from mvl_assets.demo_data.layouts import LAYOUTS
from mvl_assets.demo_data.recipes.recipe import IMAGE_FAULTS, DemoRecipe


def _make_short_answer_builder(draw: c.DrawFn, n_turns: int = 1) -> c.ContentBuilder:
    return c.make_qa_builder(draw, n_turns, False)


def _make_detailed_answer_builder(draw: c.DrawFn, n_turns: int = 1) -> c.ContentBuilder:
    return c.make_qa_builder(draw, n_turns, True)


BARS, LINES, PIES = (
    c.ignore_index(charts.draw_bar_chart),
    c.ignore_index(charts.draw_line_chart),
    c.ignore_index(charts.draw_pie_chart),
)
WORD, DIGITS, LINE = (
    c.ignore_index(writing.draw_word),
    c.ignore_index(writing.draw_digits),
    c.ignore_index(writing.draw_handwritten_line),
)
ARITHMETIC, FORMULA = c.ignore_index(writing.draw_arithmetic), c.ignore_index(writing.draw_formula)
FORM, RECEIPT = c.ignore_index(documents.draw_form), c.ignore_index(documents.draw_receipt)
PHONE, HTML = c.ignore_index(screens.draw_phone_screen), c.ignore_index(screens.draw_html_page)
SCAN, MAP, MATRIX = (
    c.ignore_index(scans.draw_scan),
    c.ignore_index(scans.draw_tile_map),
    c.ignore_index(series.draw_puzzle_matrix),
)
CHINESE = c.ignore_index(chinese.draw_chinese_scene)
LANDSCAPE = c.ignore_index(scenes.draw_landscape)

RECIPE_TABLE: tuple[tuple[str, str, c.ContentBuilder], ...] = (
    # general
    ("allava_vflan", "llava_json", c.make_caption_and_qa_builder(c.draw_everyday_image)),
    ("allava_4v_chinese_vflan", "llava_json", _make_detailed_answer_builder(CHINESE, 2)),
    ("allava_4v_chinese_laion", "llava_json", _make_detailed_answer_builder(CHINESE, 2)),
    ("lrv_normal_filtered", "llava_parquet", _make_detailed_answer_builder(c.draw_everyday_image, 3)),
    ("lvis_instructv4", "llava_json", c.make_caption_and_qa_builder(c.draw_everyday_image)),
    ("sherlock", "sherlock", _make_detailed_answer_builder(c.draw_everyday_image)),
    ("sharegpt4v_new", "llava_json", c.make_caption_builder(c.draw_photo_or_scene)),
    ("sharegpt4v_self_collection", "llava_json", c.make_caption_builder(c.draw_everyday_image)),
    ("cambrian_filtered", "llava_json", c.make_mixed_builder(_make_short_answer_builder(c.draw_everyday_image))),
    ("svit_core", "llava_json_more_fields", _make_short_answer_builder(c.draw_everyday_image, 3)),
    ("svit_core_mix", "llava_json", _make_short_answer_builder(c.draw_everyday_image, 2)),
    ("cllava_instruct", "llava_json", _make_short_answer_builder(CHINESE)),
    ("llava_zh", "llava_json", _make_short_answer_builder(CHINESE, 2)),
    ("idefics375k", "cambrian_folder", c.make_mixed_builder(_make_short_answer_builder(c.draw_everyday_image))),
    ("alfworld", "cambrian_folder", _make_short_answer_builder(LANDSCAPE, 2)),
    ("q_instruct", "llava_json", _make_short_answer_builder(scans.draw_degraded_photo)),
    ("q_align", "llava_json", _make_short_answer_builder(scans.draw_degraded_photo)),
    ("sketchyvqa", "cambrian_folder", _make_short_answer_builder(c.draw_shape_question_image)),
    ("lnqa", "cambrian_folder", _make_short_answer_builder(c.draw_everyday_image, 3)),
    ("oodvqa", "cambrian_folder", _make_short_answer_builder(c.draw_everyday_image)),
    ("hateful_memes_cauldron_llava_format", "cauldron_parquet", _make_short_answer_builder(scans.draw_meme)),
    ("coco_qa", "cauldron_parquet", _make_short_answer_builder(c.draw_everyday_image)),
    ("cap2qa", "cap2qa", _make_short_answer_builder(c.draw_everyday_image)),
    ("macaw_llm", "macaw_llm", _make_short_answer_builder(c.draw_everyday_image)),
    # ocr
    ("renderedtext_cauldron", "cauldron_parquet", _make_detailed_answer_builder(LINE)),
    ("iam_cauldron", "cauldron_parquet", _make_detailed_answer_builder(LINE)),
    ("iiit5k", "llava_parquet", _make_detailed_answer_builder(WORD)),
    ("textocr_cleaned", "llava_parquet_roles", c.make_caption_builder(c.SIGNS)),
    ("ureader_ocr", "llava_json", _make_detailed_answer_builder(c.draw_page)),
    ("llavar_gpt4_20k", "llava_parquet", _make_detailed_answer_builder(c.draw_page, 2)),
    ("multiui", "multiui", _make_detailed_answer_builder(PHONE)),
    ("screenqa", "cambrian_folder", _make_short_answer_builder(PHONE)),
    ("chrome_writing", "llava_parquet", _make_short_answer_builder(LINE)),
    ("hme100k", "llava_parquet_nulls", _make_short_answer_builder(FORMULA)),
    ("k12_printing", "llava_parquet_nulls", _make_short_answer_builder(FORMULA)),
    ("ureader_ie", "llava_parquet", _make_short_answer_builder(FORM, 2)),
    ("orand_car_a", "llava_parquet", _make_short_answer_builder(DIGITS)),
    ("screen2words_cauldron", "cauldron_parquet", c.make_caption_builder(PHONE)),
    ("sroie", "llava_parquet", _make_short_answer_builder(RECEIPT)),
    # chart
    ("dvqa", "cauldron_parquet", _make_detailed_answer_builder(BARS, 4)),
    ("hitab_cauldron_llava_format", "cauldron_parquet", _make_detailed_answer_builder(c.TABLES)),
    ("plotqa", "plotqa", _make_detailed_answer_builder(BARS)),
    ("arxiv_chart_4o", "llava_json", c.make_caption_and_qa_builder(c.CHARTS)),
    ("mplug_docowl_chart", "llava_json", c.make_caption_builder(c.CHARTS)),
    ("robut_wikisql_cauldron", "cauldron_parquet", _make_detailed_answer_builder(c.TABLES, 2)),
    ("robut_sqa_cauldron", "cauldron_parquet", _make_detailed_answer_builder(c.TABLES, 3)),
    ("diagram_image_to_text_cauldron", "cauldron_parquet", c.make_caption_builder(c.DIAGRAMS)),
    ("tat_qa", "cauldron_parquet", _make_detailed_answer_builder(c.TABLES)),
    ("infographicvqa", "llava_parquet", _make_short_answer_builder(PIES)),
    ("ureader_qa", "llava_parquet", _make_short_answer_builder(c.CHARTS)),
    ("finqa", "cauldron_parquet", _make_short_answer_builder(c.TABLES)),
    ("vistext_cauldron", "cauldron_parquet", c.make_caption_builder(c.CHARTS)),
    ("lrv_chart", "llava_parquet", c.make_caption_and_qa_builder(c.CHARTS)),
    ("ureader_chart", "llava_json_sourced_turns", _make_short_answer_builder(c.CHARTS)),
    ("ureader_kg", "llava_parquet", _make_short_answer_builder(c.TABLES)),
    ("chart2text_cauldron", "cauldron_parquet", c.make_caption_builder(c.CHARTS)),
    ("mapqa_cauldron_llava_format", "cauldron_parquet", _make_short_answer_builder(MAP, 2)),
    ("figureqa_mathv360k", "llava_parquet", _make_short_answer_builder(LINES)),
    ("figureqa_cauldron_llava_format", "cauldron_parquet", _make_short_answer_builder(c.CHARTS, 3)),
    # caption
    ("sharegpt4v_coco", "llava_parquet", c.make_caption_builder(c.draw_photo_or_scene)),
    ("infographic_gpt4v", "llava_parquet", c.make_caption_builder(PIES)),
    ("sharegpt4v_llava", "llava_parquet", c.make_caption_builder(c.draw_everyday_image)),
    ("sharegpt4v_sam", "llava_parquet_roles", c.make_caption_builder(c.draw_everyday_image)),
    ("image_textualization_filtered", "llava_parquet", c.make_caption_builder(c.draw_everyday_image)),
    ("textcaps", "llava_parquet", c.make_caption_builder(c.SIGNS)),
    ("ureader_cap", "llava_parquet", c.make_caption_builder(c.draw_everyday_image)),
    ("ureader_caption", "llava_json", c.make_caption_builder(c.draw_everyday_image)),
    ("coco_caption_train", "coco_captions_train", c.build_coco_captions),
    # domain
    ("sharegpt4v_knowledge", "llava_parquet", c.make_caption_builder(c.draw_photo_or_scene)),
    ("vision_flan_filtered", "llava_parquet_files", _make_short_answer_builder(c.draw_everyday_image)),
    ("pathvqa", "cambrian_sourced_turns", _make_short_answer_builder(SCAN)),
    ("viquae", "viquae", _make_short_answer_builder(c.draw_photo_or_scene)),
    ("websight_cauldron", "cauldron_parquet", _make_short_answer_builder(HTML)),
    ("a_okvqa_cauldron_llava_format", "cauldron_parquet", _make_short_answer_builder(c.draw_everyday_image)),
    ("scienceqa_nona_context", "llava_parquet", c.make_multiple_choice_builder(c.DIAGRAMS, False)),
    ("vqa_rad_cauldron_llava_format", "cauldron_parquet", _make_short_answer_builder(SCAN, 2)),
    # code and math
    ("mavis_math_rule_geo", "llava_parquet", _make_detailed_answer_builder(c.GEOMETRY)),
    ("geo3k", "llava_parquet", _make_detailed_answer_builder(c.GEOMETRY)),
    ("mavis_math_metagen", "llava_parquet", _make_detailed_answer_builder(c.GEOMETRY)),
    ("tabmwp_cauldron", "cauldron_parquet", c.build_word_problem_row),
    ("geos_mathv360k", "llava_parquet", _make_short_answer_builder(c.GEOMETRY)),
    ("iconqa_mathv360k", "llava_parquet", _make_short_answer_builder(c.draw_shape_question_image)),
    ("tabmwp_mathv360k", "llava_parquet", c.build_word_problem_row),
    ("mapqa_mathv360k", "llava_parquet", _make_short_answer_builder(MAP)),
    ("math_vision", "cambrian_folder", _make_short_answer_builder(c.GEOMETRY)),
    ("geoqa_mathv360k", "llava_parquet", _make_short_answer_builder(c.GEOMETRY)),
    ("pmc_vqa_mathv360k", "llava_parquet", c.make_multiple_choice_builder(SCAN, False)),
    ("unigeo_mathv360k", "llava_parquet", _make_short_answer_builder(c.GEOMETRY)),
    ("raven_cauldron", "cauldron_parquet", c.make_multiple_choice_builder(MATRIX, False)),
    ("clevr_math_mathv360k", "llava_parquet", _make_short_answer_builder(c.SCENES)),
    ("geometry3k_mathv360k", "llava_parquet", _make_short_answer_builder(c.GEOMETRY)),
    ("super_clevr_mathv360k", "llava_parquet", _make_short_answer_builder(c.SCENES)),
    ("vizwiz_mathv360k", "llava_parquet", _make_short_answer_builder(c.draw_everyday_image)),
    ("iconqa_cauldron_llava_format", "cauldron_parquet", _make_short_answer_builder(c.draw_shape_question_image)),
    ("inter_gps_cauldron_llava_format", "cauldron_parquet", _make_short_answer_builder(c.GEOMETRY)),
    ("hand_written_arith", "hand_written_arith", _make_short_answer_builder(ARITHMETIC)),
    # detection
    ("clevr_cauldron_llava_format", "cauldron_parquet", _make_short_answer_builder(c.SCENES, 5)),
    ("detgpt", "detgpt", _make_short_answer_builder(c.SCENES)),
    # several images
    ("iconqa_multi_image", "m4_instruct", c.make_multi_image_builder(series.draw_odd_one_out, 1)),
    ("flintstonessv", "m4_instruct_zip", c.make_multi_image_builder(series.draw_story, 1)),
    ("vist", "m4_instruct", c.make_multi_image_builder(series.draw_story, 2)),
    ("pororosv", "m4_instruct_zip", c.make_multi_image_builder(series.draw_story, 1)),
    ("mimic_cgd", "cauldron_parquet", c.make_multi_image_builder(draw_edit_pair, 2)),
    ("raven_multi_image", "m4_instruct", c.make_multi_image_builder(series.draw_puzzle_panels, 1)),
    ("contrast_caption", "m4_instruct_zip", c.make_multi_image_builder(series.draw_contrast_pair, 1)),
    # video
    ("m4_instruct_video", "llava_video", c.make_video_builder(True)),
    # text only
    ("orca", "llava_json_int_ids", c.build_task_conversation),
    ("mathinstruct", "llava_json_int_ids", c.build_math_problem_row),
    ("orca_math", "llava_json", c.build_math_problem_row),
    ("magpie_pro_single_turn", "llava_json", c.build_text_task_row),
)

RECIPE_OVERRIDES: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "sharegpt4v_new": {"image_name_template": "sam/images/sa_{number}"},
        "svit_core": {"rows_per_image": 2},
        "lvis_instructv4": {"rows_per_image": 2, "image_name_template": "coco/train2017/{number:012d}"},
        "vision_flan_filtered": {"image_name_template": "größe/Foto {number:06d} – 图"},
        "coco_caption_train": {"image_name_template": "{number:012d}"},
        "m4_instruct_video": {"rows_per_image": 3},
        "viquae": {"image_name_template": "512px-{number}"},
        "plotqa": {"png_only": True},
        "multiui": {"faults": ("missing_image", "no_answer", "truncated_image", "marker_mismatch")},
        **{slug: {"jpeg_only": True} for slug in ("sherlock", "cap2qa", "macaw_llm", "detgpt")},
    }
)
"""What differs from a recipe's defaults."""

CONVERSATION_FAULTS = ("no_answer", "unknown_role", "swapped_roles")
LLAVA_FAULTS = (*IMAGE_FAULTS, "marker_mismatch", *CONVERSATION_FAULTS)
FAULTS_BY_FORMAT: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "llava_json": LLAVA_FAULTS,
        "llava_parquet": LLAVA_FAULTS,
        "cambrian_jsonl": ("bad_json", *LLAVA_FAULTS),
        "cauldron_parquet": (*IMAGE_FAULTS, "no_turns"),
        "coco_captions": IMAGE_FAULTS,
        "m4_instruct": ("truncated_image", "swapped_roles", "missing_image", "marker_mismatch"),
        "llava_video": ("truncated_video", "missing_video", "no_answer"),
        "records": ("truncated_image", "missing_field", "missing_image"),
        "text": CONVERSATION_FAULTS,
    }
)
"""Faults of the rows of a format (`text`: of a collection that has rows without images)."""

SLUGS_WITHOUT_IMAGES = (
    "cambrian_filtered",
    "idefics375k",
    "orca",
    "mathinstruct",
    "orca_math",
    "magpie_pro_single_turn",
)
"""Sources with rows that have no image to damage."""


def _build_recipe(number: int, slug: str, layout: str, content_builder: c.ContentBuilder) -> DemoRecipe:
    """Return a recipe that starts with another fault of its format, so that few rows cover every fault."""
    possible_faults = FAULTS_BY_FORMAT["text" if slug in SLUGS_WITHOUT_IMAGES else LAYOUTS[layout].format]
    first_fault = number % len(possible_faults)
    overrides = {
        "faults": (*possible_faults[first_fault:], *possible_faults[:first_fault])[:4],
        **RECIPE_OVERRIDES.get(slug, {}),
    }
    return DemoRecipe(slug, layout, content_builder, **overrides)


RECIPES = tuple(_build_recipe(number, *line) for number, line in enumerate(RECIPE_TABLE))
