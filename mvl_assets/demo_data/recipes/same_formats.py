"""The sources beyond the demo that are published in one of the demo's formats or read by a field map, a line each.

A line says what is drawn and how it is asked. Answers carry reasons (`reasons`) or are the bare key (`key`), as those
of the source do.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings import charts, chinese, documents, scans, scenes, screens, series, writing
from mvl_assets.demo_data.drawings.comparisons import edit
from mvl_assets.demo_data.layouts import LAYOUTS
from mvl_assets.demo_data.recipes.recipe import PICTURE_FAULTS, Recipe


def _key(draw: c.Draw, turns: int = 1) -> c.Maker:
    return c.asked(draw, turns, False)


def _reasons(draw: c.Draw, turns: int = 1) -> c.Maker:
    return c.asked(draw, turns, True)


BARS, LINES, PIES = c.plain(charts.bars), c.plain(charts.lines), c.plain(charts.pie)
WORD, DIGITS, LINE = c.plain(writing.word), c.plain(writing.digits), c.plain(writing.line)
ARITHMETIC, FORMULA = c.plain(writing.arithmetic), c.plain(writing.formula)
FORM, RECEIPT = c.plain(documents.form), c.plain(documents.receipt)
PHONE, HTML = c.plain(screens.phone), c.plain(screens.page_as_html)
SCAN, MAP, MATRIX = c.plain(scans.scan), c.plain(scans.tile_map), c.plain(series.matrix)
CHINESE = c.plain(chinese.scene)
LANDSCAPE = c.plain(scenes.landscape)

TABLE: tuple[tuple[str, str, c.Maker], ...] = (
    # general
    ("allava_vflan", "llava_json", c.discussed(c.everyday)),
    ("allava_4v_chinese_vflan", "llava_json", _reasons(CHINESE, 2)),
    ("allava_4v_chinese_laion", "llava_json", _reasons(CHINESE, 2)),
    ("lrv_normal_filtered", "llava_parquet", _reasons(c.everyday, 3)),
    ("lvis_instructv4", "llava_json", c.discussed(c.everyday)),
    ("sherlock", "sherlock", _reasons(c.everyday)),
    ("sharegpt4v_new", "llava_json", c.described(c.photos_first)),
    ("sharegpt4v_self_collection", "llava_json", c.described(c.everyday)),
    ("cambrian_filtered", "llava_json", c.mixed(_key(c.everyday))),
    ("svit_core", "llava_json_more_fields", _key(c.everyday, 3)),
    ("svit_core_mix", "llava_json", _key(c.everyday, 2)),
    ("cllava_instruct", "llava_json", _key(CHINESE)),
    ("llava_zh", "llava_json", _key(CHINESE, 2)),
    ("idefics375k", "cambrian_folder", c.mixed(_key(c.everyday))),
    ("alfworld", "cambrian_folder", _key(LANDSCAPE, 2)),
    ("q_instruct", "llava_json", _key(scans.poor_photo)),
    ("q_align", "llava_json", _key(scans.poor_photo)),
    ("sketchyvqa", "cambrian_folder", _key(c.one_shape)),
    ("lnqa", "cambrian_folder", _key(c.everyday, 3)),
    ("oodvqa", "cambrian_folder", _key(c.everyday)),
    ("hateful_memes_cauldron_llava_format", "cauldron_parquet", _key(scans.captioned_photo)),
    ("coco_qa", "cauldron_parquet", _key(c.everyday)),
    ("cap2qa", "cap2qa", _key(c.everyday)),
    ("macaw_llm", "macaw_llm", _key(c.everyday)),
    # ocr
    ("renderedtext_cauldron", "cauldron_parquet", _reasons(LINE)),
    ("iam_cauldron", "cauldron_parquet", _reasons(LINE)),
    ("iiit5k", "llava_parquet", _reasons(WORD)),
    ("textocr_cleaned", "llava_parquet_roles", c.described(c.SIGNS)),
    ("ureader_ocr", "llava_json", _reasons(c.pages)),
    ("llavar_gpt4_20k", "llava_parquet", _reasons(c.pages, 2)),
    ("multiui", "multiui", _reasons(PHONE)),
    ("screenqa", "cambrian_folder", _key(PHONE)),
    ("chrome_writing", "llava_parquet", _key(LINE)),
    ("hme100k", "llava_parquet_nulls", _key(FORMULA)),
    ("k12_printing", "llava_parquet_nulls", _key(FORMULA)),
    ("ureader_ie", "llava_parquet", _key(FORM, 2)),
    ("orand_car_a", "llava_parquet", _key(DIGITS)),
    ("screen2words_cauldron", "cauldron_parquet", c.described(PHONE)),
    ("sroie", "llava_parquet", _key(RECEIPT)),
    # chart
    ("dvqa", "cauldron_parquet", _reasons(BARS, 4)),
    ("hitab_cauldron_llava_format", "cauldron_parquet", _reasons(c.TABLES)),
    ("plotqa", "plotqa", _reasons(BARS)),
    ("arxiv_chart_4o", "llava_json", c.discussed(c.CHARTS)),
    ("mplug_docowl_chart", "llava_json", c.described(c.CHARTS)),
    ("robut_wikisql_cauldron", "cauldron_parquet", _reasons(c.TABLES, 2)),
    ("robut_sqa_cauldron", "cauldron_parquet", _reasons(c.TABLES, 3)),
    ("diagram_image_to_text_cauldron", "cauldron_parquet", c.described(c.DIAGRAMS)),
    ("tat_qa", "cauldron_parquet", _reasons(c.TABLES)),
    ("infographicvqa", "llava_parquet", _key(PIES)),
    ("ureader_qa", "llava_parquet", _key(c.CHARTS)),
    ("finqa", "cauldron_parquet", _key(c.TABLES)),
    ("vistext_cauldron", "cauldron_parquet", c.described(c.CHARTS)),
    ("lrv_chart", "llava_parquet", c.discussed(c.CHARTS)),
    ("ureader_chart", "llava_json_sourced_turns", _key(c.CHARTS)),
    ("ureader_kg", "llava_parquet", _key(c.TABLES)),
    ("chart2text_cauldron", "cauldron_parquet", c.described(c.CHARTS)),
    ("mapqa_cauldron_llava_format", "cauldron_parquet", _key(MAP, 2)),
    ("figureqa_mathv360k", "llava_parquet", _key(LINES)),
    ("figureqa_cauldron_llava_format", "cauldron_parquet", _key(c.CHARTS, 3)),
    # caption
    ("sharegpt4v_coco", "llava_parquet", c.described(c.photos_first)),
    ("infographic_gpt4v", "llava_parquet", c.described(PIES)),
    ("sharegpt4v_llava", "llava_parquet", c.described(c.everyday)),
    ("sharegpt4v_sam", "llava_parquet_roles", c.described(c.everyday)),
    ("image_textualization_filtered", "llava_parquet", c.described(c.everyday)),
    ("textcaps", "llava_parquet", c.described(c.SIGNS)),
    ("ureader_cap", "llava_parquet", c.described(c.everyday)),
    ("ureader_caption", "llava_json", c.described(c.everyday)),
    ("coco_caption_train", "coco_captions_train", c.captioned),
    # domain
    ("sharegpt4v_knowledge", "llava_parquet", c.described(c.photos_first)),
    ("vision_flan_filtered", "llava_parquet_files", _key(c.everyday)),
    ("pathvqa", "cambrian_sourced_turns", _key(SCAN)),
    ("viquae", "viquae", _key(c.photos_first)),
    ("websight_cauldron", "cauldron_parquet", _key(HTML)),
    ("a_okvqa_cauldron_llava_format", "cauldron_parquet", _key(c.everyday)),
    ("scienceqa_nona_context", "llava_parquet", c.multiple_choice(c.DIAGRAMS, False)),
    ("vqa_rad_cauldron_llava_format", "cauldron_parquet", _key(SCAN, 2)),
    # code and math
    ("mavis_math_rule_geo", "llava_parquet", _reasons(c.GEOMETRY)),
    ("geo3k", "llava_parquet", _reasons(c.GEOMETRY)),
    ("mavis_math_metagen", "llava_parquet", _reasons(c.GEOMETRY)),
    ("tabmwp_cauldron", "cauldron_parquet", c.word_problem),
    ("geos_mathv360k", "llava_parquet", _key(c.GEOMETRY)),
    ("iconqa_mathv360k", "llava_parquet", _key(c.one_shape)),
    ("tabmwp_mathv360k", "llava_parquet", c.word_problem),
    ("mapqa_mathv360k", "llava_parquet", _key(MAP)),
    ("math_vision", "cambrian_folder", _key(c.GEOMETRY)),
    ("geoqa_mathv360k", "llava_parquet", _key(c.GEOMETRY)),
    ("pmc_vqa_mathv360k", "llava_parquet", c.multiple_choice(SCAN, False)),
    ("unigeo_mathv360k", "llava_parquet", _key(c.GEOMETRY)),
    ("raven_cauldron", "cauldron_parquet", c.multiple_choice(MATRIX, False)),
    ("clevr_math_mathv360k", "llava_parquet", _key(c.SCENES)),
    ("geometry3k_mathv360k", "llava_parquet", _key(c.GEOMETRY)),
    ("super_clevr_mathv360k", "llava_parquet", _key(c.SCENES)),
    ("vizwiz_mathv360k", "llava_parquet", _key(c.everyday)),
    ("iconqa_cauldron_llava_format", "cauldron_parquet", _key(c.one_shape)),
    ("inter_gps_cauldron_llava_format", "cauldron_parquet", _key(c.GEOMETRY)),
    ("hand_written_arith", "hand_written_arith", _key(ARITHMETIC)),
    # detection
    ("clevr_cauldron_llava_format", "cauldron_parquet", _key(c.SCENES, 5)),
    ("detgpt", "detgpt", _key(c.SCENES)),
    # several pictures
    ("iconqa_multi_image", "m4_instruct", c.compared(series.odd_one, 1)),
    ("flintstonessv", "m4_instruct_zip", c.compared(series.story, 1)),
    ("vist", "m4_instruct", c.compared(series.story, 2)),
    ("pororosv", "m4_instruct_zip", c.compared(series.story, 1)),
    ("mimic_cgd", "cauldron_parquet", c.compared(edit, 2)),
    ("raven_multi_image", "m4_instruct", c.compared(series.puzzle, 1)),
    ("contrast_caption", "m4_instruct_zip", c.compared(series.contrast, 1)),
    # video
    ("m4_instruct_video", "llava_video", c.filmed(True)),
    # text only
    ("orca", "llava_json_int_ids", c.talked),
    ("mathinstruct", "llava_json_int_ids", c.sums),
    ("orca_math", "llava_json", c.sums),
    ("magpie_pro_single_turn", "llava_json", c.one_task),
)

MORE: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "sharegpt4v_new": {"picture_name": "sam/images/sa_{number}"},
        "svit_core": {"rows_per_picture": 2},
        "lvis_instructv4": {"rows_per_picture": 2, "picture_name": "coco/train2017/{number:012d}"},
        "vision_flan_filtered": {"picture_name": "größe/Foto {number:06d} – 图"},
        "coco_caption_train": {"picture_name": "{number:012d}"},
        "m4_instruct_video": {"rows_per_picture": 3},
        "viquae": {"picture_name": "512px-{number}"},
        "plotqa": {"png_only": True},
        "multiui": {"faults": ("missing_picture", "no_answer", "truncated_picture", "marker_mismatch")},
        **{slug: {"jpeg_only": True} for slug in ("sherlock", "cap2qa", "macaw_llm", "detgpt")},
    }
)
"""What differs from a recipe's defaults."""

TALK = ("no_answer", "unknown_role", "swapped_roles")
LLAVA = (*PICTURE_FAULTS, "marker_mismatch", *TALK)
FAULTS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "llava_json": LLAVA,
        "llava_parquet": LLAVA,
        "cambrian_jsonl": ("bad_json", *LLAVA),
        "cauldron_parquet": (*PICTURE_FAULTS, "no_turns"),
        "coco_captions": PICTURE_FAULTS,
        "m4_instruct": ("truncated_picture", "swapped_roles", "missing_picture", "marker_mismatch"),
        "llava_video": ("truncated_video", "missing_video", "no_answer"),
        "records": ("truncated_picture", "missing_field", "missing_picture"),
        "text": TALK,
    }
)
"""What may be wrong with a row of a format (`text`: of a collection that has rows without pictures)."""

WITHOUT_PICTURES = ("cambrian_filtered", "idefics375k", "orca", "mathinstruct", "orca_math", "magpie_pro_single_turn")
"""Sources with rows that have no picture to damage."""


def _recipe(number: int, slug: str, layout: str, maker: c.Maker) -> Recipe:
    """Each recipe begins with another fault of its format, so that few rows of all sources hold every fault."""
    possible = FAULTS["text" if slug in WITHOUT_PICTURES else LAYOUTS[layout].format]
    first = number % len(possible)
    more = {"faults": (*possible[first:], *possible[:first])[:4], **MORE.get(slug, {})}
    return Recipe(slug, layout, maker, **more)


RECIPES = tuple(_recipe(number, *line) for number, line in enumerate(TABLE))
