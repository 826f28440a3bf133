"""What one row of a miniature says and shows. Each maker draws from the rooms of pictures and chooses the wording.

A maker is `(rng, index, part) -> Content`: `rng` is the same for all rows that share a picture, `index` counts
pictures, `part` counts the rows of that picture and picks which of its questions are asked.
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
from mvl_assets.demo_data.drawings.drawing import Drawing, Pair
from mvl_assets.demo_data.drawings.questions import ANSWERS, shape_drawing

Draw = Callable[[Random, int], Drawing]

SHORTLY = "Describe the picture in one sentence."
FULLY = (
    "Describe this picture in detail.",
    "What is shown in this picture? Give a full description.",
    "Please explain what can be seen here.",
    "Write a detailed caption for this picture.",
)


@dataclass(frozen=True, slots=True)
class Content:
    """Turns of one row and what they are about: still pictures, a film, or (text only) neither."""

    turns: tuple[tuple[str, str], ...]
    drawings: tuple[Drawing, ...] = ()
    film: videos.Film | None = None
    fields: Mapping[str, object] = field(default_factory=dict)


Maker = Callable[[Random, int, int], Content]


def asked(draw: Draw, turns: int, detailed: bool) -> Maker:
    """`turns` questions about a drawing; answers are the bare key, or reasons followed by the key."""

    def make(rng: Random, index: int, part: int) -> Content:
        drawing = draw(rng, index)
        return Content(_turns(_some(rng, drawing.pairs, turns, part), detailed), (drawing,))

    return make


def discussed(draw: Draw) -> Maker:
    """A full description, then a question about the drawing answered with reasons."""

    def make(rng: Random, index: int, part: int) -> Content:
        drawing = draw(rng, index)
        first = (FULLY[(index + part) % len(FULLY)], drawing.caption)
        return Content((first, *_turns(_some(rng, drawing.pairs, 1, part), True)), (drawing,))

    return make


def multiple_choice(draw: Draw, detailed: bool) -> Maker:
    """One of the drawing's questions with choices, lettered in random order."""

    def make(rng: Random, index: int, part: int) -> Content:
        drawing = draw(rng, index)
        pair = _some(rng, tuple(pair for pair in drawing.pairs if pair.choices), 1, part)[0]
        choices = rng.sample(pair.choices, len(pair.choices))
        letter = "ABCD"[choices.index(pair.answer)]
        listed = "\n".join(f"{'ABCD'[n]}. {choice}" for n, choice in enumerate(choices))
        answer = f"{pair.steps}\n\nAnswer: {letter}" if detailed else letter
        return Content(((f"{pair.question}\n{listed}\nAnswer with the letter of the choice.", answer),), (drawing,))

    return make


def described(draw: Draw) -> Maker:
    """A request for a full description, answered by the caption."""

    def make(rng: Random, index: int, part: int) -> Content:
        drawing = draw(rng, index)
        return Content(((FULLY[(index + part) % len(FULLY)], drawing.caption),), (drawing,))

    return make


def captioned(rng: Random, index: int, part: int) -> Content:
    """Several captions of one photo or scene, one per turn (COCO captions)."""
    if index % 3 == 2:
        drawing = scenes.landscape(rng)
        return Content(((SHORTLY, drawing.caption), (SHORTLY, "A house and trees on a meadow.")), (drawing,))
    number = index - index // 3
    drawing = photos.photo(rng, number)
    captions = (photos.short_caption(number), *_sentences(drawing.caption))
    return Content(tuple((SHORTLY, caption) for caption in captions), (drawing,))


def paired(rng: Random, index: int, part: int) -> Content:
    """A web picture with its one-line caption (the alignment corpus)."""
    number = index // 2
    if index % 2 == 0:
        return Content(((SHORTLY, photos.short_caption(number)),), (photos.photo(rng, number),))
    drawing = scenes.landscape(rng) if index % 4 == 1 else scenes.scene(rng)
    return Content(((SHORTLY, drawing.caption),), (drawing,))


def compared(compare: Callable[[Random], comparisons.Comparison], turns: int) -> Maker:
    """Questions about several pictures together."""

    def make(rng: Random, index: int, part: int) -> Content:
        shown = compare(rng)
        drawings = tuple(Drawing(picture, (), "") for picture in shown.pictures)
        return Content(_turns(_some(rng, shown.pairs, turns, part), True), drawings)

    return make


def filmed(detailed: bool) -> Maker:
    """One question about a film."""

    def make(rng: Random, index: int, part: int) -> Content:
        film = videos.film(rng)
        return Content(_turns(_some(rng, film.pairs, 1, part), detailed), film=film)

    return make


def sums(rng: Random, index: int, part: int) -> Content:
    """One worked sum, text only."""
    return Content(_turns((chat.sum_problem(rng),), True))


def talked(rng: Random, index: int, part: int) -> Content:
    """Two or three small tasks in one conversation, text only."""
    tasks = [chat.small_task(rng) for _ in range(2 + index % 2)]
    return Content(_turns(tuple(tasks), True))


def one_task(rng: Random, index: int, part: int) -> Content:
    """One small task, text only."""
    return Content(_turns((chat.small_task(rng),), True))


def mixed(maker: Maker) -> Maker:
    """Every fifth row is a text-only task, as collections of many sets have them."""

    def make(rng: Random, index: int, part: int) -> Content:
        return one_task(rng, index, part) if index % 5 == 3 else maker(rng, index, part)

    return make


def word_problem(rng: Random, index: int, part: int) -> Content:
    """A TabMWP-like problem with its table drawn; `fields` are the problem's native fields."""
    problem = tables.word_problem(rng)
    table = problem.table
    picture = tables.paint(table, 15)
    lines = ([table.header] if table.header else []) + list(table.rows)
    fields = {
        "question": problem.question,
        "choices": None if problem.choices is None else list(problem.choices),
        "answer": problem.answer,
        "unit": problem.unit,
        "table_title": table.title,
        "table": table.as_text,
        "row_num": len(lines),
        "column_num": len(lines[0]),
        "solution": problem.solution,
        "ques_type": "free_text" if problem.choices is None else "multi_choice",
        "ans_type": problem.answer_kind,
        "grade": 2 + index % 7,
        "split": "dev",
    }
    drawing = Drawing(picture, (), table.title or "A table of prices.", needs_colour=False)
    return Content(((problem.question, problem.answer),), (drawing,), fields=fields)


def one_shape(rng: Random, index: int) -> Drawing:
    """The drawings of `questions`, their families in turn."""
    family = tuple(ANSWERS)[index % len(ANSWERS)]
    return shape_drawing(rng, family, rng.choice(ANSWERS[family]))


def everyday(rng: Random, index: int) -> Drawing:
    """Photos, landscapes and grids of shapes, now and then a long strip."""
    if index % 12 == 5:
        return scenes.strip(rng)
    if index % 3 == 0:
        return photos.photo(rng, index // 3)
    return scenes.landscape(rng) if index % 3 == 1 else scenes.scene(rng)


def pages(rng: Random, index: int) -> Drawing:
    """Receipts, notices and forms, now and then a long banner."""
    return documents.banner(rng) if index % 12 == 5 else documents.document(rng)


def photos_first(rng: Random, index: int) -> Drawing:
    """Each photo once, then drawn pictures."""
    if index < len(photos.PHOTOS):
        return photos.photo(rng, index)
    return rng.choice((scenes.landscape, scenes.scene, charts.bars))(rng)


def plain(draw: Callable[[Random], Drawing]) -> Draw:
    """A drawing function that does not ask for the picture's number."""
    return lambda rng, _: draw(rng)


def _some(rng: Random, pairs: tuple[Pair, ...], count: int, part: int) -> tuple[Pair, ...]:
    """`count` different pairs; rows of one picture (same `rng`, another `part`) get others as long as there are."""
    start = rng.randrange(len(pairs)) + part * count
    return tuple(pairs[(start + n) % len(pairs)] for n in range(min(count, len(pairs))))


def _turns(pairs: tuple[Pair, ...], detailed: bool) -> tuple[tuple[str, str], ...]:
    return tuple((pair.question, pair.detailed if detailed else pair.answer) for pair in pairs)


def _sentences(caption: str) -> list[str]:
    return [f"{sentence.rstrip('.')}." for sentence in caption.split(". ")]


GEOMETRY: Draw = plain(geometry.figure)
DIAGRAMS: Draw = plain(diagrams.diagram)
CHARTS: Draw = plain(charts.chart)
TABLES: Draw = plain(tables.table)
SIGNS: Draw = plain(documents.sign)
SCENES: Draw = plain(scenes.scene)
