r"""ScienceQA: `problems.json`, one object of id -> problem, next to `images/<split>/<id>/image.png`.

    {"1": {"question": "Which of these states is farthest north?", "choices": ["West Virginia", "Louisiana"],
           "answer": 0, "hint": "", "image": "image.png", "lecture": "Maps have four cardinal directions...",
           "solution": "To find the answer, look at the compass rose...", "split": "train", "subject": "...", ...}, ...}

One sample per problem of the training split; `pid_splits.json` says the same again, as lists of ids. Half the problems
have no image (`image` is null) and stay text. The question is followed by the hint and the lettered choices; the
answer is lecture, solution and then the right choice, as LLaVA was trained on it (haotian-liu/LLaVA,
scripts/convert_sqa_to_llava.py). Checked against lupantech/ScienceQA (models/base_prompt.py, tools/download.sh).
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.group_by_image import number_rows
from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_image
from mvl_assets.readers.format import ARCHIVE_FILES, Format
from mvl_assets.readers.parsers.json_stream import iter_elements
from mvl_assets.readers.rows import Row, add_image_markers, build_qa_turns, build_sample, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

TRAIN_SPLIT = "train"
OTHER_SPLITS = ("val", "test")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    for path in list_data_files(source.slug, root, "problems.json", "*/problems.json", "data/scienceqa/problems.json"):
        rows = to_rows(format_relative_path(root, path), iter_elements(path))
        train_rows = (row for row in rows if isinstance(row, RejectedRow) or row.value.get("split") not in OTHER_SPLITS)
        folder = path.parent.relative_to(root).as_posix()
        yield from number_rows(build_sample(row, partial(_to_sample, root, folder)) for row in train_rows)


def _to_sample(root: Path, folder: str, row: Row) -> Sample:
    if row.value.get("split") != TRAIN_SPLIT:
        raise RejectError("bad_split", f"the split is {str(row.value.get('split'))[:40]!r}, not train, val or test")
    choices = row.value.get("choices")
    if not isinstance(choices, list) or not 1 < len(choices) <= len(string.ascii_uppercase):
        raise RejectError("bad_choices", "the choices are not a list of 2 to 26")
    options = [
        f"{letter}. {_parse_text(choice, 'choices')}"
        for letter, choice in zip(string.ascii_uppercase, choices, strict=False)
    ]
    index = row.value.get("answer")
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(options):
        raise RejectError("bad_answer", f"the answer {str(index)[:40]!r} names none of {len(options)} choices")
    if not (question_text := _get_field(row, "question")):
        raise RejectError("no_question", "the problem has no question")
    question = _join_nonempty("\n", question_text, _get_field(row, "hint"), *options)
    answer = _join_nonempty(
        "\n\n", _get_field(row, "lecture"), _get_field(row, "solution"), f"Answer: {options[index]}"
    )
    image = row.value.get("image")
    names = [] if image in (None, "") else [f"{TRAIN_SPLIT}/{row.native_id}/{image}"]
    images = tuple(resolve_image(root, name, (f"{folder}/images", folder, "images")) for name in names)
    turns = add_image_markers(build_qa_turns(question, answer), len(images))
    return Sample(row.file, row.position, turns, row.native_id, images)


def _get_field(row: Row, name: str) -> str:
    value = row.value.get(name)
    return "" if value is None else _parse_text(value, name)


def _parse_text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise RejectError("bad_field", f"{field} holds a {type(value).__name__} where text was expected")
    return value.strip()


def _join_nonempty(separator: str, *parts: str) -> str:
    return separator.join(part for part in parts if part)


FORMAT = Format(
    row_files=("*.json",),
    media_files=ARCHIVE_FILES,
    description="problems.json and images/train/<id>/image.png",
    read=read,
)
