r"""OCR-VQA: `dataset.json`, one object of id -> book cover with its questions, beside `images/<id>.jpg`.

    {"761183272": {"imageURL": "http://ecx.images-amazon.com/images/I/61Y5cOdHJbL.jpg", "questions": ["Who wrote this
    book?", ...], "answers": ["Sandra Boynton", ...], "title": "...", "authorName": "...", "genre": "Calendars",
    "split": 1}, ...}

One sample per cover with its questions as turns, as the file has them and as LLaVA-1.5's mix and The Cauldron keep
them; only covers of the training split (`split` 1; 2 and 3 are validation and test). A question that cannot be used is
a broken row of its own behind its cover. The release's download script names a picture by the id and the ending of its
address; many copies name all of them .jpg. Checked against ocr-vqa.github.io and open-mmlab/mmpretrain
(mmpretrain/datasets/ocr_vqa.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mvl_assets.readers.files import files_below, relative
from mvl_assets.readers.group_by_image import Question, conversation, numbered, picture_called
from mvl_assets.readers.json_stream import elements
from mvl_assets.readers.rows import Row, RowError, rows_of
from mvl_assets.readers.sample import Broken, Picture, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

TRAIN = 1
SPLITS = (TRAIN, 2, 3)


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, "dataset.json", "*/dataset.json"):
        yield from numbered(_rows(root, path))


def _rows(root: Path, path: Path) -> Iterator[Sample | Broken]:
    for row in rows_of(relative(root, path), elements(path)):
        if isinstance(row, Broken):
            yield row
            continue
        try:
            if _split(row) == TRAIN:
                cover = row.native_id or f"at {row.position}"
                address = row.value.get("imageURL")
                yield from conversation(row.file, cover, _questions(row), partial(_picture, root, address))
        except RowError as error:
            yield Broken(row.file, row.position, error.error, error.message, row.native_id)


def _split(row: Row) -> int:
    split = row.value.get("split")
    if isinstance(split, bool) or split not in SPLITS:
        raise RowError("bad_split", f"the split is {str(split)[:40]!r}, not 1, 2 or 3")
    return int(split)


def _questions(row: Row) -> list[Question]:
    asked, told = row.value.get("questions"), row.value.get("answers")
    if not isinstance(asked, list) or not isinstance(told, list):
        raise RowError("no_turns", "the cover has no list of questions and of answers")
    if not asked or len(asked) != len(told):
        raise RowError("uneven_lists", f"there are {len(asked)} questions and {len(told)} answers")
    return [Question(str(n), *both) for n, both in enumerate(zip(asked, told, strict=True))]


def _picture(root: Path, address: object, cover: str) -> Picture:
    ending = PurePosixPath(address).suffix if isinstance(address, str) else ""
    return picture_called(root, list(dict.fromkeys((f"{cover}{ending}", f"{cover}.jpg"))), ("images", ""))
