r"""GQA: one JSON object of question id -> question, beside `images/<imageId>.jpg`.

    {"2930152": {"imageId": "2354786", "question": "Is the sky dark?", "answer": "yes", "fullAnswer": "Yes, the sky is
    dark.", "isBalanced": true, "semantic": [...], "groups": {...}, "entailed": [...], ...}, ...}

`train_balanced_questions.json` is read where it is; without it the parts of `train_all_questions/`, of which it is a
subset. One sample per picture (`by_picture`); of `train_all_questions/` one per picture and part. The answer is the
short `answer`, as in LLaVA-1.5's mix: it is the key that rewritten answers are compared with, and `fullAnswer` says the
same as a sentence. Specification: cs.stanford.edu/people/dorarad/gqa/download.html; the folders were checked against
google-research/big_vision, big_vision/datasets/gqa/gqa.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers.files import files_below, picture_at, relative
from mvl_assets.readers.group_by_image import Part, Question, by_picture, name_in, parts_of
from mvl_assets.readers.json_stream import elements
from mvl_assets.readers.rows import Row, rows_of
from mvl_assets.readers.sample import Broken, Picture, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

BALANCED = ("train_balanced_questions.json", "*/train_balanced_questions.json")
ALL = ("train_all_questions/*.json", "*/train_all_questions/*.json")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    is_balanced = any(True for pattern in BALANCED for _ in root.glob(pattern))
    for path in files_below(source.slug, root, *(BALANCED if is_balanced else (*BALANCED, *ALL))):
        name = relative(root, path)
        parts = parts_of(rows_of(name, elements(path)), _part)
        yield from by_picture(name, parts, partial(_picture, root))


def _part(row: Row) -> Part:
    own = row.native_id or f"at {row.position}"
    return Part(name_in(row, "imageId"), Question(own, row.value.get("question"), row.value.get("answer")))


def _picture(root: Path, image_id: str) -> Picture:
    return picture_at(root, f"{image_id}.jpg", ("images", ""))
