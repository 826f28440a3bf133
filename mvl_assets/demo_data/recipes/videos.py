"""Recipes of video sources in a format of their own."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings import videos
from mvl_assets.demo_data.recipes.recipe import DemoRecipe
from mvl_assets.media.drawing import COLOURS, SHAPES

_ANSWER_GROUPS = (
    tuple(f"from {way}" for way in videos.DIRECTIONS),
    tuple(COLOURS),
    SHAPES,
    tuple(str(n) for n in range(1, 7)),
    ("yes", "no", "only at the very end", "twice", "it cannot be seen"),
)
"""Answers of the same kind, from which the wrong options are taken."""


def make_video_choice_builder(n_options: int) -> c.ContentBuilder:
    """Return a builder of a question about a video with `n_choices` options, fewer if there are not as many answers."""

    def build(rng: Random, image_index: int, row_in_image: int) -> c.RowContent:
        video = videos.draw_video(rng)
        qa_pair = video.qa_pairs[(rng.randrange(len(video.qa_pairs)) + row_in_image) % len(video.qa_pairs)]
        others = [
            answer
            for answer in next(kind for kind in _ANSWER_GROUPS if qa_pair.answer in kind)
            if answer != qa_pair.answer
        ]
        options = [qa_pair.answer, *rng.sample(others, min(len(others), n_options - 1))]
        rng.shuffle(options)
        fields = {"question": qa_pair.question, "options": options, "answer": options.index(qa_pair.answer)}
        return c.RowContent(((qa_pair.question, qa_pair.answer),), video=video, fields=fields)

    return build


RECIPES: tuple[DemoRecipe, ...] = (
    DemoRecipe(
        "egoschema",
        "egoschema",
        make_video_choice_builder(5),
        ("no_answer", "no_answer", "missing_video", "truncated_video"),
        row_id_template="0074f737-11cb-497d-8d07-{number:012x}",
    ),
    DemoRecipe(
        "video_mme", "video_mme", make_video_choice_builder(4), ("missing_video", "no_answer", "truncated_video"), 3
    ),
    DemoRecipe(
        "videochatgpt",
        "video_instruct",
        c.make_video_builder(True),
        ("missing_video", "bad_turn", "truncated_video"),
        3,
    ),
    DemoRecipe(
        "llava_hound", "frame_folders", c.make_video_builder(True), ("missing_video", "no_answer", "marker_mismatch"), 3
    ),
)
