"""Answers hold in the pixels: re-derived here from the pictures, without the code that drew them."""

from __future__ import annotations

import ast
import operator
import re
from fractions import Fraction
from io import BytesIO
from random import Random

import av
import numpy as np
import pytest
from PIL import Image, ImageChops
from skimage.measure import label

from mvl_assets.demo_data import encode
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
from mvl_assets.media.drawing import COLOURS, RGB
from mvl_assets.media.image import standardise_image

SEEDS = range(12)

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def answer_to(pairs: tuple[DrawnQAPair, ...], beginning: str) -> DrawnQAPair | None:
    return next((pair for pair in pairs if pair.question.startswith(beginning)), None)


def mask(image: Image.Image, colour: RGB) -> np.ndarray:
    return np.all(np.asarray(image) == colour, axis=2)


@pytest.mark.parametrize("seed", SEEDS)
def test_bars_are_as_high_as_the_answers_say(seed: int) -> None:
    drawing = charts.draw_bar_chart(Random(seed))
    told = [int(value) for value in re.findall(r" (\d+)(?:,| and|\.)", drawing.caption.split(": ", 1)[1])]
    result = max((mask(drawing.image, colour) for colour in COLOURS.values()), key=np.sum)
    text_size = max(14, drawing.image.width // 24)
    result[: int(4.5 * text_size)] = False  # titles above the plotting area
    columns = label(result)
    heights = [int(np.ptp(np.nonzero(columns == n)[0])) + 1 for n in range(1, columns.max() + 1)]
    left = [int(np.nonzero(columns == n)[1].min()) for n in range(1, columns.max() + 1)]
    bars = [high for _, high in sorted(zip(left, heights, strict=True)) if high > 4 or len(heights) == len(told)]
    assert len(bars) == len(told)
    plot = drawing.image.height - 7 * text_size
    assert [round(high / plot * 20) * 5 for high in bars] == told
    high = answer_to(drawing.qa_pairs, "Which label has the highest")
    labels = re.findall(r"([A-Z][A-Za-z ]*?) \d+", drawing.caption.split(": ", 1)[1])
    assert high is not None and high.answer == labels[int(np.argmax(bars))]


@pytest.mark.parametrize("seed", SEEDS)
def test_slices_of_a_pie_cover_their_share(seed: int) -> None:
    drawing = charts.draw_pie_chart(Random(seed))
    told = [int(value) for value in re.findall(r" (\d+)(?:,| and|\.)", drawing.caption.split("percent: ")[1])]
    disc = drawing.image.crop((0, 36, drawing.image.height, drawing.image.height))
    areas = np.array([mask(disc, colour).sum() for colour in list(COLOURS.values())[: len(told)]])
    assert sum(told) == 100
    assert np.allclose(100 * areas / areas.sum(), told, atol=2.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_scenes_show_the_shapes_they_name(seed: int) -> None:
    rng = Random(seed)
    drawing = scenes.draw_scene(rng)
    total = answer_to(drawing.qa_pairs, "How many shapes are there in all")
    patches = label(np.abs(np.asarray(drawing.image).astype(int) - np.asarray(drawing.image)[0, 0]).sum(axis=2) > 30)
    assert total is not None and patches.max() == int(total.answer)
    where = answer_to(drawing.qa_pairs, "In which part")
    assert where is not None
    colour = where.question.split("the ")[-1].split()[0]
    thirds = {"upper": 0, "lower": 2, "left": 0, "right": 2}
    row = next((thirds[word] for word in where.answer.split() if word in ("upper", "lower")), 1)
    column = next((thirds[word] for word in where.answer.split() if word in ("left", "right")), 1)
    cell = drawing.image.width // 3
    middle = ((column * 2 + 1) * cell // 2, (row * 2 + 1) * cell // 2)
    assert drawing.image.getpixel(middle) == COLOURS[colour]


def test_claims_of_place_are_true_as_often_as_false() -> None:
    told = [answer_to(scenes.draw_scene(Random(seed)).qa_pairs, "Is the ") for seed in range(200)]
    answers = [pair.answer for pair in told if pair is not None]
    assert len(answers) > 150 and 0.35 < answers.count("yes") / len(answers) < 0.65


@pytest.mark.parametrize("seed", SEEDS)
def test_windows_door_and_side_of_the_house_match_the_answers(seed: int) -> None:
    drawing = scenes.draw_landscape(Random(seed))
    windows, door = (
        answer_to(drawing.qa_pairs, "How many windows"),
        answer_to(drawing.qa_pairs, "What colour is the door"),
    )
    assert windows is not None and door is not None
    assert label(mask(drawing.image, (225, 240, 250))).max() == int(windows.answer)
    assert mask(drawing.image, COLOURS[door.answer]).any()
    side = answer_to(drawing.qa_pairs, "On which side")
    roof = np.nonzero(mask(drawing.image, (96, 64, 48)))[1].mean()
    assert side is not None and side.answer == ("left" if roof < drawing.image.width / 2 else "right")


@pytest.mark.parametrize("seed", SEEDS)
def test_an_edit_changes_one_cell_and_names_it(seed: int) -> None:
    both = comparisons.draw_edit_pair(Random(seed))
    box = ImageChops.difference(*both.images).getbbox()
    assert box is not None
    cell = both.images[0].width / 3
    column, row = int((box[0] + box[2]) / 2 // cell), int((box[1] + box[3]) / 2 // cell)
    assert box[2] - box[0] <= cell and box[3] - box[1] <= cell
    words = f"{['upper', '', 'lower'][row]} {['left', '', 'right'][column]}".strip() or "centre"
    assert both.qa_pairs[2].answer == words


@pytest.mark.parametrize("seed", SEEDS)
def test_videos_begin_and_end_with_the_colours_of_the_answers(seed: int) -> None:
    video = videos.draw_video(Random(seed))
    with av.open(BytesIO(video.data)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    at_start, at_end = frames[0], frames[-1]
    asked = {
        pair.question.rsplit(" ", 1)[1]: pair.answer
        for pair in video.qa_pairs
        if pair.question.startswith("What colour")
    }
    places = []
    for frame, when in ((at_start, "beginning?"), (at_end, "end?")):
        pixels = np.asarray(frame).astype(int)
        off = np.abs(pixels - np.asarray(COLOURS[asked[when]])).sum(axis=2) < 60
        assert off.sum() > 300, video.caption
        ys, xs = np.nonzero(off)
        places.append((xs.mean(), ys.mean()))
    (x0, y0), (x1, y1) = places
    moved = {
        "from left to right": x1 - x0,
        "from right to left": x0 - x1,
        "from top to bottom": y1 - y0,
        "from bottom to top": y0 - y1,
    }
    assert video.qa_pairs[0].answer == max(moved, key=moved.__getitem__)


@pytest.mark.parametrize("seed", SEEDS)
def test_geometry_adds_up(seed: int) -> None:
    drawing = geometry.draw_triangle(Random(seed))
    a, b = (int(value) for value in re.findall(r"(\d+)°", drawing.caption))
    assert drawing.qa_pairs[0].answer == str(180 - a - b)
    ys, xs = np.nonzero(mask(drawing.image, (232, 240, 250)))
    foot = xs[ys == ys.max()]
    apex_x, rise = xs[ys == ys.min()].mean(), ys.max() - ys.min()
    assert np.degrees(np.arctan2(rise, apex_x - foot.min())) == pytest.approx(a, abs=3)
    assert np.degrees(np.arctan2(rise, foot.max() - apex_x)) == pytest.approx(b, abs=3)


@pytest.mark.parametrize("seed", range(40))
def test_word_problems_can_be_solved_from_their_table(seed: int) -> None:
    problem = tables.build_word_problem(Random(seed))
    cells = [line.split(" | ") for line in problem.table.as_text.splitlines()]
    if problem.unit == "letters":
        numbers = [int(row[1]) for row in cells[1:]]
        assert int(problem.answer) * len(numbers) == sum(numbers)
        return
    prices = {row[0]: round(float(row[1][1:]) * 100) for row in cells}
    bought = [name for name in prices if re.search(rf"\b{name}\b", problem.question)]
    if problem.unit == "$":
        assert round(float(problem.answer) * 100) == sum(prices[name] for name in bought)
    elif problem.choices == ("yes", "no"):
        purse = round(float(re.findall(r"\$([\d.]+\d)", problem.question)[0]) * 100)
        assert (problem.answer == "yes") == (purse >= sum(prices[name] for name in bought))
    else:
        assert problem.answer == max(prices, key=prices.__getitem__)


def compute(calculation: str) -> Fraction:
    """Return the value of numbers joined by +, -, x and /, with the usual precedence."""

    def visit(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](visit(node.left), visit(node.right))
        assert isinstance(node, ast.Constant) and isinstance(node.value, int), ast.dump(node)
        return Fraction(node.value)

    return visit(ast.parse(calculation.strip().replace("x", "*"), mode="eval").body)


@pytest.mark.parametrize("seed", range(60))
def test_the_calculations_of_math_problems_are_correct(seed: int) -> None:
    pair = chat.build_math_problem(Random(seed))
    for left, right in re.findall(r"([\d x+/-]+\d) = (\d+)", pair.rationale):
        assert compute(left) == int(right)
    assert pair.rationale.rstrip(".").endswith((pair.answer, "teams", "left"))


def test_photos_come_in_another_size_in_every_round() -> None:
    first, second = photos.load_photo(Random(0), 0), photos.load_photo(Random(0), len(photos.PHOTOS))
    assert first.caption == second.caption and first.image.size != second.image.size


def test_every_photo_named_ships_with_the_package() -> None:
    assert [
        photo.file_name for photo in photos.PHOTOS if not (photos.find_skimage_data_dir() / photo.file_name).is_file()
    ] == []


@pytest.mark.parametrize("style", ["jpeg", "png", "exif_rotated", "cmyk", "palette", "gray16"])
def test_every_encoding_shows_the_drawing_again_once_standardised(style: str) -> None:
    drawing = documents.draw_form(Random(5)) if style == "gray16" else scenes.draw_landscape(Random(5))
    _, data = encode.encode_drawing(drawing, style)
    shown, drawn = standardise_image(data).resize((160, 120)), drawing.image.resize((160, 120))
    if style == "gray16":
        shown, drawn = shown.convert("L"), drawn.convert("L")
    difference = np.abs(np.asarray(shown).astype(int) - np.asarray(drawn).astype(int))
    assert difference.mean() < 6


def test_wide_images_exceed_an_aspect_ratio_of_seven() -> None:
    for draw in (scenes.draw_strip, documents.draw_banner):
        sizes = [draw(Random(seed)).image.size for seed in SEEDS]
        assert min(width / height for width, height in sizes) > 7


@pytest.mark.parametrize(
    "draw",
    [
        charts.draw_chart,
        tables.draw_table,
        documents.draw_document,
        documents.draw_sign,
        geometry.draw_figure,
        diagrams.draw_diagram,
        scenes.draw_scene,
    ],
)
def test_questions_of_a_drawing_differ_and_are_answered(draw) -> None:
    for seed in range(30):
        drawing: Drawing = draw(Random(seed))
        questions = [pair.question for pair in drawing.qa_pairs]
        assert len(questions) == len(set(questions)) >= 2
        assert all(pair.answer.strip() and pair.rationale.strip() for pair in drawing.qa_pairs)
        assert drawing.caption.endswith((".", '."')) and not re.search(r"\ba [aeiou]", drawing.caption)
