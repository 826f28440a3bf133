r"""OCR-VQA: `dataset.json`, one object of id -> book cover with its questions, next to `images/<id>.jpg`.

    {"761183272": {"imageURL": "http://ecx.images-amazon.com/images/I/61Y5cOdHJbL.jpg", "questions": ["Who wrote this
    book?", ...], "answers": ["Sandra Boynton", ...], "title": "...", "authorName": "...", "genre": "Calendars",
    "split": 1}, ...}

One sample per cover with its questions as turns, as the file has them and as LLaVA-1.5's mix and The Cauldron keep
them; only covers of the training split (`split` 1; 2 and 3 are validation and test). A question that cannot be used is
a reject of its own after its cover. The release's download script names an image by the id and the ending of its
address; many copies name all of them .jpg. Checked against ocr-vqa.github.io and open-mmlab/mmpretrain
(mmpretrain/datasets/ocr_vqa.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.group_by_image import (
    VqaRecord,
    iter_conversation,
    number_rows,
    resolve_first_image,
)
from mvl_assets.readers.files import format_relative_path, list_data_files
from mvl_assets.readers.format import ARCHIVE_FILES, Format
from mvl_assets.readers.parsers.json_stream import iter_elements
from mvl_assets.readers.rows import Row, to_rows
from mvl_assets.readers.sample import EncodedImage, RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

TRAIN_SPLIT = 1
SPLITS = (TRAIN_SPLIT, 2, 3)


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    for path in list_data_files(source.slug, root, "dataset.json", "*/dataset.json"):
        yield from number_rows(_iter_samples(root, path))


def _iter_samples(root: Path, path: Path) -> Iterator[Sample | RejectedRow]:
    for row in to_rows(format_relative_path(root, path), iter_elements(path)):
        if isinstance(row, RejectedRow):
            yield row
            continue
        try:
            if _parse_split(row) == TRAIN_SPLIT:
                cover = row.native_id or f"at {row.position}"
                image_url = row.value.get("imageURL")
                yield from iter_conversation(
                    row.file, cover, _parse_questions(row), partial(_resolve_row_image, root, image_url)
                )
        except RejectError as error:
            yield RejectedRow(row.file, row.position, error.code, error.message, row.native_id)


def _parse_split(row: Row) -> int:
    split = row.value.get("split")
    if isinstance(split, bool) or split not in SPLITS:
        raise RejectError("bad_split", f"the split is {str(split)[:40]!r}, not 1, 2 or 3")
    return int(split)


def _parse_questions(row: Row) -> list[VqaRecord]:
    questions, answers = row.value.get("questions"), row.value.get("answers")
    if not isinstance(questions, list) or not isinstance(answers, list):
        raise RejectError("no_turns", "the cover has no list of questions and of answers")
    if not questions or len(questions) != len(answers):
        raise RejectError("uneven_lists", f"there are {len(questions)} questions and {len(answers)} answers")
    return [
        VqaRecord(str(n), *question_and_answer)
        for n, question_and_answer in enumerate(zip(questions, answers, strict=True))
    ]


def _resolve_row_image(root: Path, image_url: object, cover: str) -> EncodedImage:
    suffix = PurePosixPath(image_url).suffix if isinstance(image_url, str) else ""
    return resolve_first_image(root, list(dict.fromkeys((f"{cover}{suffix}", f"{cover}.jpg"))), ("images", ""))


FORMAT = Format(
    row_files=("*.json",),
    media_files=ARCHIVE_FILES,
    description="dataset.json and images/<id>.jpg",
    read=read,
)
