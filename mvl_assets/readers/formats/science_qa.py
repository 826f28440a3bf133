r"""ScienceQA: `problems.json`, one object of id -> problem, beside `images/<split>/<id>/image.png`.

    {"1": {"question": "Which of these states is farthest north?", "choices": ["West Virginia", "Louisiana"],
           "answer": 0, "hint": "", "image": "image.png", "lecture": "Maps have four cardinal directions...",
           "solution": "To find the answer, look at the compass rose...", "split": "train", "subject": "...", ...}, ...}

One sample per problem of the training split; `pid_splits.json` says the same again, as lists of ids. Half the problems
have no picture (`image` is null) and stay text. The question is followed by the hint and the lettered choices; the
answer is lecture, solution and then the right choice, as LLaVA was trained on it (haotian-liu/LLaVA,
scripts/convert_sqa_to_llava.py). Checked against lupantech/ScienceQA (models/base_prompt.py, tools/download.sh).
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers.files import files_below, picture_at, relative
from mvl_assets.readers.group_by_image import numbered
from mvl_assets.readers.json_stream import elements
from mvl_assets.readers.rows import Row, RowError, built, question_and_answer, rows_of, with_markers
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

TRAIN = "train"
OTHERS = ("val", "test")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, "problems.json", "*/problems.json", "data/scienceqa/problems.json"):
        rows = rows_of(relative(root, path), elements(path))
        wanted = (row for row in rows if isinstance(row, Broken) or row.value.get("split") not in OTHERS)
        folder = path.parent.relative_to(root).as_posix()
        yield from numbered(built(row, partial(_sample, root, folder)) for row in wanted)


def _sample(root: Path, folder: str, row: Row) -> Sample:
    if row.value.get("split") != TRAIN:
        raise RowError("bad_split", f"the split is {str(row.value.get('split'))[:40]!r}, not train, val or test")
    choices = row.value.get("choices")
    if not isinstance(choices, list) or not 1 < len(choices) <= len(string.ascii_uppercase):
        raise RowError("bad_choices", "the choices are no list of 2 to 26")
    options = [
        f"{letter}. {_text(choice, 'choices')}" for letter, choice in zip(string.ascii_uppercase, choices, strict=False)
    ]
    index = row.value.get("answer")
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(options):
        raise RowError("bad_answer", f"the answer {str(index)[:40]!r} names none of {len(options)} choices")
    if not (asked := _field(row, "question")):
        raise RowError("no_question", "the problem has no question")
    question = _joined("\n", asked, _field(row, "hint"), *options)
    answer = _joined("\n\n", _field(row, "lecture"), _field(row, "solution"), f"Answer: {options[index]}")
    image = row.value.get("image")
    names = [] if image in (None, "") else [f"{TRAIN}/{row.native_id}/{image}"]
    pictures = tuple(picture_at(root, name, (f"{folder}/images", folder, "images")) for name in names)
    turns = with_markers(question_and_answer(question, answer), len(pictures))
    return Sample(row.file, row.position, turns, row.native_id, pictures)


def _field(row: Row, name: str) -> str:
    value = row.value.get(name)
    return "" if value is None else _text(value, name)


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise RowError("bad_field", f"{field} holds a {type(value).__name__} where text was expected")
    return value.strip()


def _joined(between: str, *parts: str) -> str:
    return between.join(part for part in parts if part)
