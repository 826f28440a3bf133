"""Answers about screens, scans, maps, series and writing hold in the pixels, without the code that drew them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageChops
from skimage.measure import label

from mvl_assets.demo_data.drawings import chinese, scans, screens, series, writing
from mvl_assets.demo_data.drawings.drawing import Drawing
from mvl_assets.media.drawing import COLOURS, RGB

SEEDS = range(8)
OPERATORS = {"+": operator.add, "-": operator.sub, "x": operator.mul}


def patches(image: Image.Image, colour: RGB) -> int:
    """How many separate areas of exactly this colour there are."""
    result: int = label(np.all(np.asarray(image) == colour, axis=2)).max()
    return result


def answers(drawing: Drawing) -> dict[str, str]:
    return {pair.question: pair.answer for pair in drawing.qa_pairs}


def answer_to(drawing: Drawing, beginning: str) -> str:
    return next(answer for question, answer in answers(drawing).items() if question.startswith(beginning))


@pytest.mark.parametrize("seed", SEEDS)
def test_green_and_grey_switches_match_the_caption(seed: int) -> None:
    drawing = screens.draw_phone_screen(Random(seed))
    assert patches(drawing.image, (52, 168, 83)) == drawing.caption.count(" is on")
    assert patches(drawing.image, (190, 190, 196)) == drawing.caption.count(" is off")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drawn_page_is_answered_with_a_complete_html_document(seed: int) -> None:
    (pair,) = screens.draw_html_page(Random(seed)).qa_pairs
    assert pair.answer.startswith("<!DOCTYPE html>") and pair.answer.rstrip().endswith("</html>")


@pytest.mark.parametrize("seed", SEEDS)
def test_spots_of_a_scan_match_the_answers_in_number_and_position(seed: int) -> None:
    drawing = scans.draw_scan(Random(seed))
    spots = label(np.all(np.asarray(drawing.image) == (240, 240, 240), axis=2))
    assert spots.max() == int(answer_to(drawing, "How many"))
    middle = np.nonzero(spots)[1].mean()
    assert answer_to(drawing, "In which half") == ("left" if middle < drawing.image.width / 2 else "right")


@pytest.mark.parametrize("seed", SEEDS)
def test_areas_of_a_map_have_the_shades_that_are_counted(seed: int) -> None:
    drawing = scans.draw_tile_map(Random(seed))
    question = next(question for question in answers(drawing) if question.startswith("How many areas"))
    level = re.findall(r"have a (\w+) rainfall", question)[0]
    pixels = np.asarray(drawing.image)
    corners = [
        tuple(pixels[top + 3, left + 3])
        for top in range(32, drawing.image.height - 20, 1)
        for left in (6,)
        if tuple(pixels[top, left + 8]) == (30, 30, 34) and tuple(pixels[top + 1, left + 8]) != (30, 30, 34)
    ]
    first_column = [name for name in scans.LEVEL_COLOURS for corner in corners if corner == scans.LEVEL_COLOURS[name]]
    assert len(first_column) == 3
    assert int(answers(drawing)[question]) >= first_column.count(level)
    assert len(answer_to(drawing, "Which areas").split(", ")) == int(answers(drawing)[question])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_rows_of_a_puzzle_count_one_two_three_and_the_last_panel_is_missing(seed: int) -> None:
    shown = series.draw_puzzle_panels(Random(seed))
    assert len(shown.images) == 8
    answer = shown.qa_pairs[0].answer
    colour = COLOURS[answer.split()[1]]
    assert [patches(image, colour) for image in shown.images] == [1, 2, 3, 1, 2, 3, 1, 2]
    whole = series.draw_puzzle_matrix(Random(seed))
    assert whole.qa_pairs[0].answer == answer and patches(whole.image, colour) == 15
    assert answer in whole.qa_pairs[0].choices and len(set(whole.qa_pairs[0].choices)) == 4


@pytest.mark.parametrize("seed", SEEDS)
def test_a_story_matches_its_answers_in_direction_and_final_colour(seed: int) -> None:
    shown = series.draw_story(Random(seed))
    first, last = shown.images[0], shown.images[-1]
    colour = shown.qa_pairs[1].answer
    assert patches(last, COLOURS[colour]) == 1 and patches(first, COLOURS[colour]) == 0
    places = [np.mean(np.nonzero(np.any(np.asarray(p) != p.getpixel((0, 0)), axis=2)), axis=1) for p in (first, last)]
    down, right = places[1] - places[0]
    way = {"left to right": right, "right to left": -right, "top to bottom": down, "bottom to top": -down}
    assert shown.qa_pairs[2].answer == f"from {max(way, key=way.__getitem__)}"


@pytest.mark.parametrize("seed", SEEDS)
def test_contrasted_scenes_differ_in_the_shape_that_is_named(seed: int) -> None:
    shown = series.draw_contrast_pair(Random(seed))
    box = ImageChops.difference(*shown.images).getbbox()
    assert box is not None
    colour = shown.qa_pairs[1].answer.split()[1]
    middle = ((box[0] + box[2]) // 2, (box[1] + box[3]) // 2)
    assert shown.images[1].getpixel(middle) == COLOURS[colour]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_answer_names_the_odd_image(seed: int) -> None:
    shown = series.draw_odd_one_out(Random(seed))
    data = [image.tobytes() for image in shown.images]
    odd = [number for number, picture in enumerate(data, 1) if data.count(picture) == 1]
    assert [str(number) for number in odd] == [shown.qa_pairs[0].answer]


@pytest.mark.parametrize("seed", SEEDS)
def test_chinese_questions_count_what_is_drawn(seed: int) -> None:
    drawing = chinese.draw_chinese_scene(Random(seed))
    pixels = np.asarray(drawing.image).astype(int)
    count = label(np.abs(pixels - pixels[0, 0]).sum(axis=2) > 30).max()
    assert drawing.qa_pairs[0].answer == str(count)
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in pair.question) for pair in drawing.qa_pairs)


@pytest.mark.parametrize(
    "draw",
    [
        writing.draw_word,
        writing.draw_digits,
        writing.draw_handwritten_line,
        writing.draw_arithmetic,
        writing.draw_formula,
    ],
)
def test_writing_stays_inside_its_image_and_has_answers(draw: Callable[[Random], Drawing]) -> None:
    for seed in SEEDS:
        drawing = draw(Random(seed))
        pixels = np.asarray(drawing.image).astype(int)
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == pixels[0, 0]).all(), drawing.caption
        assert (np.abs(pixels - pixels[0, 0]).sum(axis=2) > 100).sum() > 50
        assert all(pair.answer and pair.rationale for pair in drawing.qa_pairs)


def test_handwritten_sums_have_their_result_as_answer() -> None:
    for seed in range(30):
        output = answers(writing.draw_arithmetic(Random(seed)))
        written = output["Which sum is written in the picture?"]
        left, sign, right = written.split()
        result = OPERATORS[sign](int(left), int(right))
        assert result == int(output["What is the result of the sum in the picture?"])


def test_degraded_photos_have_the_described_quality() -> None:
    good, blurred, dark, faded = (
        np.asarray(scans.draw_degraded_photo(Random(0), index).image.convert("L")).astype(float) for index in range(4)
    )
    assert dark.mean() < 60 < good.mean()
    sharpness = [np.abs(np.diff(image, axis=1)).mean() for image in (good, blurred)]
    assert sharpness[1] < sharpness[0] / 2
    assert faded.std() < good.std() / 2
