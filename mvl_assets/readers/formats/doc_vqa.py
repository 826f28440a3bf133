r"""TextVQA, DocVQA, InfographicVQA and ST-VQA: `{"data": [question, ...]}` next to folders of images.

    {"question_id": 0, "question": "what is the brand of phone?", "image_id": "0054c91397f2fe05",
     "answers": ["nokia", "nokia", ...ten], "set_name": "train", ...}                          TextVQA_0.5.1_train.json
    {"questionId": 337, "question": "what is the date?", "image": "documents/xnbl0037_1.png", "docId": 279,
     "answers": ["1/8/93"], "data_split": "train", ...}                                 train_v1.0[_withQT].json, DocVQA
    {"questionId": 65718, "question": "Which...?", "image_local_name": "20471.jpeg", "answers": ["linkedin"], ...}
                                                                                    infographicsVQA_train_v1.0.json
    {"question_id": 1, "question": "Where...?", "file_path": "coco-text/COCO_train2014_000000481798.jpg",
     "answers": ["mexico"], ...}                                                             train_task_3.json, ST-VQA

One sample per image (`group_questions_by_image`), named by the image's file name. TextVQA gives ten people's answers,
the others correct answers in several spellings: the most frequent one counts, the first of equally frequent ones.
Checked against textvqa.org/dataset, docvqa.org/datasets, and the loaders of google-research/big_vision
(big_vision/datasets: textvqa, docvqa, infovqa, stvqa).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.group_by_image import (
    ImageVqaRecord,
    VqaRecord,
    get_name_field,
    group_questions_by_image,
    iter_image_records,
    resolve_first_image,
)
from mvl_assets.readers.conversations.majority_answer import select_majority_answer
from mvl_assets.readers.files import format_relative_path, list_data_files
from mvl_assets.readers.format import ARCHIVE_FILES, Format
from mvl_assets.readers.parsers.json_stream import iter_elements
from mvl_assets.readers.rows import Row, parse_native_id, to_rows
from mvl_assets.readers.sample import EncodedImage, RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

FILE_PATTERNS = ("TextVQA_[0-9]*_train.json", "train_v*.json", "infographic*VQA_train_v*.json", "train_task_3.json")
IMAGE_FOLDERS = ("", "train", "train_images", "train_imgs", "images", "infographicsvqa_images")
DOCUMENTS_FOLDER = "spdocvqa_images"
"""The newer release of DocVQA has its images here; its questions still name them `documents/<file>`."""


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    for path in list_data_files(source.slug, root, *FILE_PATTERNS, *(f"*/{name}" for name in FILE_PATTERNS)):
        if path.with_name(f"{path.stem}_withQT.json").is_file():
            continue  # the same questions, there with their types
        name = format_relative_path(root, path)
        rows = to_rows(name, iter_elements(path, ("data",)), "question_id", "questionId")
        yield from group_questions_by_image(
            name, iter_image_records(rows, _to_image_record), partial(_resolve_row_image, root)
        )


def _to_image_record(row: Row) -> ImageVqaRecord:
    image_id = parse_native_id(row.value.get("image_id"))
    image_name = (
        f"{image_id}.jpg" if image_id is not None else get_name_field(row, "image", "image_local_name", "file_path")
    )
    question_id = row.native_id or f"at {row.position}"
    record = VqaRecord(question_id, row.value.get("question"))
    try:
        return ImageVqaRecord(image_name, record._replace(answer=select_majority_answer(row.value.get("answers"))))
    except RejectError as error:
        return ImageVqaRecord(image_name, record._replace(reject=(error.code, error.message)))


def _resolve_row_image(root: Path, image_name: str) -> EncodedImage:
    alternative_names = (
        [f"{DOCUMENTS_FOLDER}/{PurePosixPath(image_name).name}"] if image_name.startswith("documents/") else []
    )
    return resolve_first_image(root, (*alternative_names, image_name), IMAGE_FOLDERS)


FORMAT = Format(
    row_files=("*.json",),
    media_files=ARCHIVE_FILES,
    description=(
        "TextVQA_*_train.json, train_v*.json (DocVQA), infographic*VQA_train_v*.json or "
        "train_task_3.json (ST-VQA), and the folder of images"
    ),
    read=read,
)
