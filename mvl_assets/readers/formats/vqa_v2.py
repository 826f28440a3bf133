r"""VQA v2, two files joined over COCO's images; and VizWiz, which says the same in one file.

    v2_OpenEnded_mscoco_train2014_questions.json, next to it or in a folder of its own:
        {"questions": [{"question_id": 458752000, "image_id": 458752, "question": "What is this?"}, ...], ...}
    v2_mscoco_train2014_annotations.json:
        {"annotations": [{"question_id": 458752000, "image_id": 458752, "multiple_choice_answer": "net", "answers":
         [{"answer": "net", "answer_confidence": "maybe", "answer_id": 1}, ...ten], ...}, ...], ...}
    train2014/COCO_train2014_000000458752.jpg

    VizWiz's train.json (in its folder of annotations, or above the folder `train` of images):
        [{"image": "VizWiz_train_00000000.jpg", "question": "What's the name of this product?", "answerable": 1,
          "answers": [{"answer": "basil leaves", "answer_confidence": "yes"}, ...ten], "answer_type": "other"}, ...]

VQA v2 gives one sample per image (`group_questions_by_image`): both files are sorted by image on disk, so neither the
questions nor the answers are held in memory. The answer is `multiple_choice_answer`, the release's own most frequent
one; where it is absent (OK-VQA has the same files without it) and in VizWiz the answer most people gave. VizWiz has one
question per image; one that cannot be answered is a reject. Specifications: visualqa.org/download.html,
vizwiz.org/tasks-and-datasets/vqa; checked against google-research/big_vision (big_vision/datasets: vqa, vizwizvqa) and
open-mmlab/mmpretrain (mmpretrain/datasets/vizwiz.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.common.rejects import RejectError
from mvl_assets.errors import SourceError
from mvl_assets.readers.conversations.group_by_image import (
    ImageVqaRecord,
    VqaRecord,
    get_name_field,
    group_questions_by_image,
    iter_image_records,
)
from mvl_assets.readers.conversations.majority_answer import require_answerable, select_majority_answer
from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_image
from mvl_assets.readers.format import ARCHIVE_FILES, Format
from mvl_assets.readers.parsers.json_stream import iter_elements
from mvl_assets.readers.rows import Row, add_image_markers, build_qa_turns, build_sample, to_rows
from mvl_assets.readers.sample import EncodedImage, RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

QUESTIONS_PATTERN = "*OpenEnded_mscoco_train*_questions.json"
VIZWIZ_FILE = "train.json"
_QUESTIONS_NAME = re.compile(r"(?P<edition>.*)OpenEnded_mscoco_(?P<split>.*)_questions\.json")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    folders = ("", "[Qq]uestions/", "[Aa]nnotations/")
    for path in list_data_files(
        source.slug, root, *(f + name for f in folders for name in (QUESTIONS_PATTERN, VIZWIZ_FILE))
    ):
        if path.name == VIZWIZ_FILE:
            for row in to_rows(format_relative_path(root, path), iter_elements(path), "image"):
                yield build_sample(row, partial(_to_vizwiz_sample, root))
        else:
            yield from _read_vqa(source, root, path)


def _read_vqa(source: SourceSpec, root: Path, path: Path) -> Iterator[Sample | RejectedRow]:
    name, name_match = format_relative_path(root, path), _QUESTIONS_NAME.fullmatch(path.name)
    assert name_match is not None
    annotations_name = f"{name_match['edition']}mscoco_{name_match['split']}_annotations.json"
    annotations_path = next(
        (p for f in ("", "[Aa]nnotations/", "[Qq]uestions/") for p in sorted(root.glob(f + annotations_name))), None
    )
    if annotations_path is None:
        raise SourceError(
            source.slug, f"{annotations_name} is not there", file=name, hint="unpack the release's annotations, too"
        )
    question_rows = to_rows(name, iter_elements(path, ("questions",)))
    annotation_rows = to_rows(
        format_relative_path(root, annotations_path), iter_elements(annotations_path, ("annotations",))
    )
    image_records = chain(
        iter_image_records(question_rows, _parse_question_row),
        iter_image_records(annotation_rows, _parse_annotation_row),
    )
    yield from group_questions_by_image(name, image_records, partial(_resolve_row_image, root, name_match["split"]))


def _parse_question_row(row: Row) -> ImageVqaRecord:
    return ImageVqaRecord(
        get_name_field(row, "image_id"), VqaRecord(get_name_field(row, "question_id"), row.value.get("question"))
    )


def _parse_annotation_row(row: Row) -> ImageVqaRecord:
    image_name, record = get_name_field(row, "image_id"), VqaRecord(get_name_field(row, "question_id"))
    try:
        majority_answer = row.value.get("multiple_choice_answer")
        if isinstance(majority_answer, str) and majority_answer.strip():
            return ImageVqaRecord(image_name, record._replace(answer=require_answerable(majority_answer)))
        return ImageVqaRecord(image_name, record._replace(answer=select_majority_answer(row.value.get("answers"))))
    except RejectError as error:
        return ImageVqaRecord(image_name, record._replace(reject=(error.code, error.message)))


def _resolve_row_image(root: Path, split: str, image_id: str) -> EncodedImage:
    return resolve_image(root, f"COCO_{split}_{image_id:0>12}.jpg", (split, f"images/{split}", "images", ""))


def _to_vizwiz_sample(root: Path, row: Row) -> Sample:
    if row.value.get("answerable") == 0:
        raise RejectError("unanswerable", "the row says that its question cannot be answered")
    question = row.value.get("question")
    if not isinstance(question, str):
        raise RejectError("no_question", f"the question is a {type(question).__name__}")
    turns = add_image_markers(build_qa_turns(question, select_majority_answer(row.value.get("answers"))), 1)
    image = resolve_image(
        root, row.value.get("image"), ("train", "images/train", "Images/train", "images", "Images", "")
    )
    return Sample(row.file, row.position, turns, row.native_id, (image,))


FORMAT = Format(
    row_files=("*.json",),
    media_files=ARCHIVE_FILES,
    description=(
        "*OpenEnded_mscoco_train*_questions.json, *mscoco_train*_annotations.json and train2014/; or "
        "VizWiz's train.json and train/"
    ),
    read=read,
)
