"""The sources of videos that come in a format of their own."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings import videos
from mvl_assets.demo_data.drawings.drawing import COLOURS
from mvl_assets.demo_data.drawings.shapes import SHAPES
from mvl_assets.demo_data.recipes.recipe import Recipe

_LIKE = (
    tuple(f"from {way}" for way in videos.MOVES),
    tuple(COLOURS),
    SHAPES,
    tuple(str(n) for n in range(1, 7)),
    ("yes", "no", "only at the very end", "twice", "it cannot be seen"),
)
"""Answers of the same kind, from which the wrong options are taken."""


def chosen(options: int) -> c.Maker:
    """A question about a film with so many options (fewer where there are not as many answers of its kind)."""

    def make(rng: Random, index: int, part: int) -> c.Content:
        film = videos.film(rng)
        pair = film.pairs[(rng.randrange(len(film.pairs)) + part) % len(film.pairs)]
        others = [answer for answer in next(kind for kind in _LIKE if pair.answer in kind) if answer != pair.answer]
        listed = [pair.answer, *rng.sample(others, min(len(others), options - 1))]
        rng.shuffle(listed)
        fields = {"question": pair.question, "options": listed, "answer": listed.index(pair.answer)}
        return c.Content(((pair.question, pair.answer),), film=film, fields=fields)

    return make


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "egoschema",
        "egoschema",
        chosen(5),
        ("no_answer", "no_answer", "missing_video", "truncated_video"),
        key="0074f737-11cb-497d-8d07-{number:012x}",
    ),
    Recipe("video_mme", "video_mme", chosen(4), ("missing_video", "no_answer", "truncated_video"), 3),
    Recipe("videochatgpt", "video_instruct", c.filmed(True), ("missing_video", "bad_turn", "truncated_video"), 3),
    Recipe("llava_hound", "frame_folders", c.filmed(True), ("missing_video", "no_answer", "marker_mismatch"), 3),
)
