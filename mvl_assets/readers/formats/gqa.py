r"""GQA: one JSON object of question id -> question, next to `images/<imageId>.jpg`.

    {"2930152": {"imageId": "2354786", "question": "Is the sky dark?", "answer": "yes", "fullAnswer": "Yes, the sky is
    dark.", "isBalanced": true, "semantic": [...], "groups": {...}, "entailed": [...], ...}, ...}

`train_balanced_questions.json` is read where it is; without it the parts of `train_all_questions/`, of which it is a
subset. One sample per image (`group_questions_by_image`); of `train_all_questions/` one per image and part. The answer
is the short `answer`, as in LLaVA-1.5's mix: rewritten answers are compared with it, and `fullAnswer` says the same as
a sentence. Specification: cs.stanford.edu/people/dorarad/gqa/download.html; the folders were checked against
google-research/big_vision, big_vision/datasets/gqa/gqa.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers.conversations.group_by_image import (
    ImageVqaRecord,
    VqaRecord,
    get_name_field,
    group_questions_by_image,
    iter_image_records,
)
from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_image
from mvl_assets.readers.format import ARCHIVE_FILES, Format
from mvl_assets.readers.parsers.json_stream import iter_elements
from mvl_assets.readers.rows import Row, to_rows
from mvl_assets.readers.sample import EncodedImage, RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

BALANCED_PATTERNS = ("train_balanced_questions.json", "*/train_balanced_questions.json")
ALL_PATTERNS = ("train_all_questions/*.json", "*/train_all_questions/*.json")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    is_balanced = any(True for pattern in BALANCED_PATTERNS for _ in root.glob(pattern))
    for path in list_data_files(
        source.slug, root, *(BALANCED_PATTERNS if is_balanced else (*BALANCED_PATTERNS, *ALL_PATTERNS))
    ):
        name = format_relative_path(root, path)
        image_records = iter_image_records(to_rows(name, iter_elements(path)), _to_image_record)
        yield from group_questions_by_image(name, image_records, partial(_resolve_row_image, root))


def _to_image_record(row: Row) -> ImageVqaRecord:
    question_id = row.native_id or f"at {row.position}"
    return ImageVqaRecord(
        get_name_field(row, "imageId"), VqaRecord(question_id, row.value.get("question"), row.value.get("answer"))
    )


def _resolve_row_image(root: Path, image_id: str) -> EncodedImage:
    return resolve_image(root, f"{image_id}.jpg", ("images", ""))


FORMAT = Format(
    row_files=("*.json",),
    media_files=ARCHIVE_FILES,
    description="train_balanced_questions.json or train_all_questions/*.json, and images/",
    read=read,
)
