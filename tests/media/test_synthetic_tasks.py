"""Synthetic questions: references read back from the pixels, and deterministic files."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mvl_assets.media import synthetic_tasks
from mvl_training.evaluation.tasks.utils import process_results


def _where(picture: bytes, colour: str) -> np.ndarray:
    with Image.open(io.BytesIO(picture)) as image:
        return (np.asarray(image) == synthetic_tasks.COLOURS[colour]).all(axis=-1)


@pytest.mark.parametrize("seed", range(40))
def test_counting_questions_show_as_many_discs_as_the_reference(seed: int) -> None:
    one = synthetic_tasks.draw_counting_question(random.Random(seed))
    colour = re.search(r"many (\w+) discs", one.text).group(1)  # type: ignore[union-attr]
    disc = np.pi * 26**2
    assert round(_where(one.images[0], colour).sum() / disc) == int(one.reference)


@pytest.mark.parametrize("seed", range(40))
def test_the_reference_option_is_the_highest_bar(seed: int) -> None:
    one = synthetic_tasks.draw_bar_chart_question(random.Random(seed))
    options = dict(re.findall(r"^([A-D])\. (\w+)$", one.text, re.MULTILINE))
    heights = {letter: _where(one.images[0], colour).any(axis=1).sum() for letter, colour in options.items()}
    assert max(heights, key=heights.__getitem__) == one.reference


@pytest.mark.parametrize("seed", range(40))
def test_the_reference_image_has_the_larger_disc(seed: int) -> None:
    one = synthetic_tasks.draw_size_comparison_question(random.Random(seed))
    colour = re.search(r"the (\w+) disc", one.text).group(1)  # type: ignore[union-attr]
    first, second = (_where(image, colour).sum() for image in one.images)
    assert one.reference == ("first" if first > second else "second")


@pytest.mark.parametrize(
    ("said", "answer", "right"),
    [
        ("a green bar, C", "C", 1.0),
        ("A green bar: C.", "C", 1.0),
        ("a green bar, C", "A", 0.0),
        ("A", "A", 1.0),
        ("a.", "A", 1.0),
        ("A is higher than B", "A", 1.0),
        ("(D) red", "D", 1.0),
        ("There are 3 discs, not 4", "3", 1.0),
        ("In the second picture", "second", 1.0),
        ("a larger one", "second", 0.0),
    ],
)
def test_an_article_is_not_scored_as_an_option(said: str, answer: str, right: float) -> None:
    assert process_results({"answer": answer}, [said]) == {"exact_match": right}


def test_task_data_is_deterministic_and_every_image_has_a_marker(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        synthetic_tasks.write_task_data(tmp_path / folder, n_questions=12)
    for task in synthetic_tasks.TASK_GENERATORS:
        first, second = (pq.read_table(tmp_path / folder / f"{task}.parquet") for folder in ("a", "b"))
        assert first.equals(second) and first.num_rows == 12
        for row in first.to_pylist():
            assert row["text"].count("<image>") == len(row["images"])
        assert len(set(first.column("answer").to_pylist())) > 1
