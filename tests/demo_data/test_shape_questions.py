"""The learnable questions: balanced, repeatable, and true in the pixels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from skimage.measure import label, regionprops

from mvl_assets.demo_data.drawings.drawing import NUMBER_WORDS
from mvl_assets.demo_data.drawings.questions import ANSWERS, iter_shape_questions
from mvl_assets.media.drawing import COLOURS, RGB


def blobs(image: Image.Image) -> list[tuple[RGB, float]]:
    """(colour, filled share of its bounding box) of every connected patch that is not paper."""
    pixels = np.asarray(image).astype(int)
    marked = label(np.abs(pixels - pixels[0, 0]).sum(axis=2) > 30)
    result = []
    for region in regionprops(marked):
        if region.area > 60:
            y, x = region.coords[len(region.coords) // 2]
            result.append((tuple(int(v) for v in pixels[y, x]), float(region.extent)))
    return result


def test_a_longer_series_begins_with_the_shorter_one() -> None:
    short = [(p.tobytes(), q, a, f) for p, q, a, f in iter_shape_questions(7, seed=3)]
    long = [(p.tobytes(), q, a, f) for p, q, a, f in iter_shape_questions(20, seed=3)]
    assert long[:7] == short
    assert [q for _, q, _, _ in iter_shape_questions(20, seed=4)] != [
        q for _, q, _, _ in iter_shape_questions(20, seed=3)
    ]


def test_every_answer_of_every_family_comes_equally_often() -> None:
    deck = sum(len(answers) for answers in ANSWERS.values())
    seen = Counter((family, answer) for _, _, answer, family in iter_shape_questions(5 * deck, seed=0, side=32))
    assert set(seen.values()) == {5}
    assert {family for family, _ in seen} == set(ANSWERS)
    assert all(" " not in answer for _, answer in seen)


@pytest.mark.parametrize("side", [64, 112, 224])
def test_colour_and_number_are_what_the_pixels_show(side: int) -> None:
    for image, question, answer, family in iter_shape_questions(56, seed=1, side=side):
        assert image.size == (side, side)
        result = blobs(image)
        if family == "count":
            assert len(result) == NUMBER_WORDS.index(answer), question
        else:
            assert len(result) == 1
        if family == "colour":
            assert result[0][0] == COLOURS[answer], question


def test_the_four_shapes_differ_in_how_much_of_their_box_they_fill() -> None:
    fill: dict[str, list[float]] = {}
    for image, _, answer, family in iter_shape_questions(14 * 6, seed=2):
        if family == "shape":
            fill.setdefault(answer, []).append(blobs(image)[0][1])
    means = {shape: float(np.mean(values)) for shape, values in fill.items()}
    assert means["square"] > 0.97 and 0.75 < means["circle"] < 0.81 and 0.47 < means["triangle"] < 0.53
    assert means["star"] < 0.45
