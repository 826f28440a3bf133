"""The sources of questions about pictures that come in a format of their own."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings import documents, scenes
from mvl_assets.demo_data.recipes.recipe import PICTURE_FAULTS, Recipe


def _with_sentences(rng: Random, index: int, part: int) -> c.Content:
    """Questions about a scene or landscape with short answers; `sentences` are the answers in full."""
    drawing = (scenes.scene if index % 2 else scenes.landscape)(rng)
    pairs = rng.sample(drawing.pairs, min(4, len(drawing.pairs)))
    turns = tuple((pair.question, pair.answer) for pair in pairs)
    return c.Content(turns, (drawing,), fields={"sentences": [pair.steps for pair in pairs]})


# The first five name a picture by its id and .jpg.
RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "vqav2",
        "vqa_v2",
        c.asked(c.everyday, 3, False),
        (*PICTURE_FAULTS, "no_answer", "no_question"),
        jpeg_only=True,
    ),
    Recipe(
        "vizwiz",
        "vizwiz",
        c.asked(c.everyday, 1, False),
        (*PICTURE_FAULTS, "unanswerable", "no_answer"),
        jpeg_only=True,
    ),
    Recipe("gqa", "gqa", _with_sentences, (*PICTURE_FAULTS, "no_answer"), jpeg_only=True),
    Recipe("textvqa", "text_vqa", c.asked(c.SIGNS, 2, False), (*PICTURE_FAULTS, "unanswerable"), jpeg_only=True),
    Recipe(
        "ocr_vqa",
        "ocr_vqa",
        c.asked(c.plain(documents.notice), 4, False),
        (*PICTURE_FAULTS, "uneven_lists"),
        key="76118{number:04d}",
        jpeg_only=True,
    ),
    Recipe("docvqa_llava", "doc_vqa", c.asked(c.pages, 3, False), (*PICTURE_FAULTS, "no_answer"), png_only=True),
    Recipe(
        "clevr",
        "clevr",
        c.asked(c.SCENES, 1, False),
        (*PICTURE_FAULTS, "missing_field"),
        3,
        picture_name="CLEVR_train_{number:06d}",
        png_only=True,
    ),
)
