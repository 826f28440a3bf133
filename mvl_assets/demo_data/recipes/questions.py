"""Recipes of visual question answering sources in a format of their own."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings import documents, scenes
from mvl_assets.demo_data.recipes.recipe import IMAGE_FAULTS, DemoRecipe


def _build_full_sentence_answers(rng: Random, image_index: int, row_in_image: int) -> c.RowContent:
    """Return questions about a scene or landscape with short answers; `sentences` are the answers in full."""
    drawing = (scenes.draw_scene if image_index % 2 else scenes.draw_landscape)(rng)
    qa_pairs = rng.sample(drawing.qa_pairs, min(4, len(drawing.qa_pairs)))
    turns = tuple((qa_pair.question, qa_pair.answer) for qa_pair in qa_pairs)
    return c.RowContent(turns, (drawing,), fields={"sentences": [qa_pair.rationale for qa_pair in qa_pairs]})


# The first five name an image by its id and .jpg.
RECIPES: tuple[DemoRecipe, ...] = (
    DemoRecipe(
        "vqav2",
        "vqa_v2",
        c.make_qa_builder(c.draw_everyday_image, 3, False),
        (*IMAGE_FAULTS, "no_answer", "no_question"),
        jpeg_only=True,
    ),
    DemoRecipe(
        "vizwiz",
        "vizwiz",
        c.make_qa_builder(c.draw_everyday_image, 1, False),
        (*IMAGE_FAULTS, "unanswerable", "no_answer"),
        jpeg_only=True,
    ),
    DemoRecipe("gqa", "gqa", _build_full_sentence_answers, (*IMAGE_FAULTS, "no_answer"), jpeg_only=True),
    DemoRecipe(
        "textvqa", "text_vqa", c.make_qa_builder(c.SIGNS, 2, False), (*IMAGE_FAULTS, "unanswerable"), jpeg_only=True
    ),
    DemoRecipe(
        "ocr_vqa",
        "ocr_vqa",
        c.make_qa_builder(c.ignore_index(documents.draw_notice), 4, False),
        (*IMAGE_FAULTS, "uneven_lists"),
        row_id_template="76118{number:04d}",
        jpeg_only=True,
    ),
    DemoRecipe(
        "docvqa_llava", "doc_vqa", c.make_qa_builder(c.draw_page, 3, False), (*IMAGE_FAULTS, "no_answer"), png_only=True
    ),
    DemoRecipe(
        "clevr",
        "clevr",
        c.make_qa_builder(c.SCENES, 1, False),
        (*IMAGE_FAULTS, "missing_field"),
        3,
        image_name_template="CLEVR_train_{number:06d}",
        png_only=True,
    ),
)
