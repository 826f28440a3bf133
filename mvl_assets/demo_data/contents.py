"""Content of one row: builders draw its images and choose the wording.

A builder is `(rng, image_index, row_in_image) -> RowContent`: `rng` is the same for all rows that share an image,
`image_index` counts images, `row_in_image` counts the rows of that image and selects which of its questions is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from mvl_assets.demo_data.drawings import (
    charts,
    chat,
    comparisons,
    diagrams,
    documents,
    geometry,
    photos,
    scenes,
    tables,
    videos,
)
from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair
from mvl_assets.demo_data.drawings.questions import ANSWERS, draw_shape_question

DrawFn = Callable[[Random, int], Drawing]

SHORT_CAPTION_PROMPT = "Describe the picture in one sentence."
DETAILED_CAPTION_PROMPTS = (
    "Describe this picture in detail.",
    "What is shown in this picture? Give a full description.",
    "Please explain what can be seen here.",
    "Write a detailed caption for this picture.",
)


@dataclass(frozen=True, slots=True)
class RowContent:
    """Turns of one row and what they are about: still images, a video, or (text only) neither."""

    turns: tuple[tuple[str, str], ...]
    drawings: tuple[Drawing, ...] = ()
    video: videos.VideoClip | None = None
    fields: Mapping[str, object] = field(default_factory=dict)


ContentBuilder = Callable[[Random, int, int], RowContent]


def make_qa_builder(draw: DrawFn, n_turns: int, detailed: bool) -> ContentBuilder:
    """Return a builder of `n_turns` questions about a drawing; answers are the bare key, or reasons and the key."""

    def build(rng: Random, image_index: int, row_in_image: int) -> RowContent:
        drawing = draw(rng, image_index)
        return RowContent(
            _to_turns(_select_qa_pairs(rng, drawing.qa_pairs, n_turns, row_in_image), detailed), (drawing,)
        )

    return build


def make_caption_and_qa_builder(draw: DrawFn) -> ContentBuilder:
    """Return a builder of a full description, then a question about the drawing answered with reasons."""

    def build(rng: Random, image_index: int, row_in_image: int) -> RowContent:
        drawing = draw(rng, image_index)
        caption_turn = (
            DETAILED_CAPTION_PROMPTS[(image_index + row_in_image) % len(DETAILED_CAPTION_PROMPTS)],
            drawing.caption,
        )
        return RowContent(
            (caption_turn, *_to_turns(_select_qa_pairs(rng, drawing.qa_pairs, 1, row_in_image), True)), (drawing,)
        )

    return build


def make_multiple_choice_builder(draw: DrawFn, detailed: bool) -> ContentBuilder:
    """Return a builder of one of the drawing's questions with choices, lettered in random order."""

    def build(rng: Random, image_index: int, row_in_image: int) -> RowContent:
        drawing = draw(rng, image_index)
        qa_pair = _select_qa_pairs(
            rng, tuple(qa_pair for qa_pair in drawing.qa_pairs if qa_pair.choices), 1, row_in_image
        )[0]
        question, letter = format_choices(rng, qa_pair)
        answer = f"{qa_pair.rationale}\n\nAnswer: {letter}" if detailed else letter
        return RowContent(((question, answer),), (drawing,))

    return build


def format_choices(rng: Random, qa_pair: DrawnQAPair) -> tuple[str, str]:
    """Return the question with its choices, lettered in random order, and the letter of the answer."""
    choices = rng.sample(qa_pair.choices, len(qa_pair.choices))
    choices_text = "\n".join(f"{'ABCD'[n]}. {choice}" for n, choice in enumerate(choices))
    letter = "ABCD"[choices.index(qa_pair.answer)]
    return f"{qa_pair.question}\n{choices_text}\nAnswer with the letter of the choice.", letter


def make_caption_builder(draw: DrawFn) -> ContentBuilder:
    """Return a builder of a request for a full description, answered by the caption."""

    def build(rng: Random, image_index: int, row_in_image: int) -> RowContent:
        drawing = draw(rng, image_index)
        return RowContent(
            (
                (
                    DETAILED_CAPTION_PROMPTS[(image_index + row_in_image) % len(DETAILED_CAPTION_PROMPTS)],
                    drawing.caption,
                ),
            ),
            (drawing,),
        )

    return build


def build_coco_captions(rng: Random, image_index: int, row_in_image: int) -> RowContent:
    """Return several captions of one photo or scene, one per turn (COCO captions)."""
    if image_index % 3 == 2:
        drawing = scenes.draw_landscape(rng)
        return RowContent(
            ((SHORT_CAPTION_PROMPT, drawing.caption), (SHORT_CAPTION_PROMPT, "A house and trees on a meadow.")),
            (drawing,),
        )
    photo_index = image_index - image_index // 3
    drawing = photos.load_photo(rng, photo_index)
    captions = (photos.get_short_caption(photo_index), *_split_sentences(drawing.caption))
    return RowContent(tuple((SHORT_CAPTION_PROMPT, caption) for caption in captions), (drawing,))


def build_short_caption(rng: Random, image_index: int, row_in_image: int) -> RowContent:
    """Return a web image with its one-line caption (the alignment corpus)."""
    photo_index = image_index // 2
    if image_index % 2 == 0:
        return RowContent(
            ((SHORT_CAPTION_PROMPT, photos.get_short_caption(photo_index)),), (photos.load_photo(rng, photo_index),)
        )
    drawing = scenes.draw_landscape(rng) if image_index % 4 == 1 else scenes.draw_scene(rng)
    return RowContent(((SHORT_CAPTION_PROMPT, drawing.caption),), (drawing,))


def make_multi_image_builder(
    draw_multi_image: Callable[[Random], comparisons.MultiImageDrawing], n_turns: int
) -> ContentBuilder:
    """Return a builder of questions about several images together."""

    def build(rng: Random, image_index: int, row_in_image: int) -> RowContent:
        multi_image = draw_multi_image(rng)
        drawings = tuple(Drawing(image, (), "") for image in multi_image.images)
        return RowContent(_to_turns(_select_qa_pairs(rng, multi_image.qa_pairs, n_turns, row_in_image), True), drawings)

    return build


def make_video_builder(detailed: bool) -> ContentBuilder:
    """Return a builder of one question about a video."""

    def build(rng: Random, image_index: int, row_in_image: int) -> RowContent:
        video = videos.draw_video(rng)
        return RowContent(_to_turns(_select_qa_pairs(rng, video.qa_pairs, 1, row_in_image), detailed), video=video)

    return build


def build_math_problem_row(rng: Random, image_index: int, row_in_image: int) -> RowContent:
    """Return one sum with its solution, text only."""
    return RowContent(_to_turns((chat.build_math_problem(rng),), True))


def build_task_conversation(rng: Random, image_index: int, row_in_image: int) -> RowContent:
    """Return two or three small tasks in one conversation, text only."""
    tasks = [chat.build_text_task(rng) for _ in range(2 + image_index % 2)]
    return RowContent(_to_turns(tuple(tasks), True))


def build_text_task_row(rng: Random, image_index: int, row_in_image: int) -> RowContent:
    """Return one small task, text only."""
    return RowContent(_to_turns((chat.build_text_task(rng),), True))


def make_mixed_builder(content_builder: ContentBuilder) -> ContentBuilder:
    """Return a builder whose every fifth row is a text-only task, as collections of many sets have them."""

    def build(rng: Random, image_index: int, row_in_image: int) -> RowContent:
        return (
            build_text_task_row(rng, image_index, row_in_image)
            if image_index % 5 == 3
            else content_builder(rng, image_index, row_in_image)
        )

    return build


def build_word_problem_row(rng: Random, image_index: int, row_in_image: int) -> RowContent:
    """Return a TabMWP-like problem with its table drawn; `fields` are the problem's native fields."""
    problem = tables.build_word_problem(rng)
    table = problem.table
    image = tables.render_table(table, 15)
    table_rows = ([table.header] if table.header else []) + list(table.rows)
    fields = {
        "question": problem.question,
        "choices": None if problem.choices is None else list(problem.choices),
        "answer": problem.answer,
        "unit": problem.unit,
        "table_title": table.title,
        "table": table.as_text,
        "row_num": len(table_rows),
        "column_num": len(table_rows[0]),
        "solution": problem.solution,
        "ques_type": "free_text" if problem.choices is None else "multi_choice",
        "ans_type": problem.answer_kind,
        "grade": 2 + image_index % 7,
        "split": "dev",
    }
    drawing = Drawing(image, (), table.title or "A table of prices.", needs_colour=False)
    return RowContent(((problem.question, problem.answer),), (drawing,), fields=fields)


def draw_shape_question_image(rng: Random, image_index: int) -> Drawing:
    """Draw the images of `questions`, their families in turn."""
    family = tuple(ANSWERS)[image_index % len(ANSWERS)]
    return draw_shape_question(rng, family, rng.choice(ANSWERS[family]))


def draw_everyday_image(rng: Random, image_index: int) -> Drawing:
    """Draw photos, landscapes and grids of shapes, now and then a long strip."""
    if image_index % 12 == 5:
        return scenes.draw_strip(rng)
    if image_index % 3 == 0:
        return photos.load_photo(rng, image_index // 3)
    return scenes.draw_landscape(rng) if image_index % 3 == 1 else scenes.draw_scene(rng)


def draw_page(rng: Random, image_index: int) -> Drawing:
    """Draw receipts, notices and forms, now and then a long banner."""
    return documents.draw_banner(rng) if image_index % 12 == 5 else documents.draw_document(rng)


def draw_photo_or_scene(rng: Random, image_index: int) -> Drawing:
    """Draw each photo once, then drawn images."""
    if image_index < len(photos.PHOTOS):
        return photos.load_photo(rng, image_index)
    return rng.choice((scenes.draw_landscape, scenes.draw_scene, charts.draw_bar_chart))(rng)


def ignore_index(draw: Callable[[Random], Drawing]) -> DrawFn:
    """Return a drawing function that takes no image index as one that does."""
    return lambda rng, _: draw(rng)


def _select_qa_pairs(
    rng: Random, qa_pairs: tuple[DrawnQAPair, ...], count: int, row_in_image: int
) -> tuple[DrawnQAPair, ...]:
    """Return `count` different pairs, others for each row (`row_in_image`) of an image while they last."""
    start = rng.randrange(len(qa_pairs)) + row_in_image * count
    return tuple(qa_pairs[(start + n) % len(qa_pairs)] for n in range(min(count, len(qa_pairs))))


def _to_turns(qa_pairs: tuple[DrawnQAPair, ...], detailed: bool) -> tuple[tuple[str, str], ...]:
    return tuple((qa_pair.question, qa_pair.detailed_answer if detailed else qa_pair.answer) for qa_pair in qa_pairs)


def _split_sentences(caption: str) -> list[str]:
    return [f"{sentence.rstrip('.')}." for sentence in caption.split(". ")]


GEOMETRY: DrawFn = ignore_index(geometry.draw_figure)
DIAGRAMS: DrawFn = ignore_index(diagrams.draw_diagram)
CHARTS: DrawFn = ignore_index(charts.draw_chart)
TABLES: DrawFn = ignore_index(tables.draw_table)
SIGNS: DrawFn = ignore_index(documents.draw_sign)
SCENES: DrawFn = ignore_index(scenes.draw_scene)
