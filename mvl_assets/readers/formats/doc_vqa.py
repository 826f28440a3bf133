r"""TextVQA, DocVQA, InfographicVQA and ST-VQA: `{"data": [question, ...]}` beside folders of pictures.

    {"question_id": 0, "question": "what is the brand of phone?", "image_id": "0054c91397f2fe05",
     "answers": ["nokia", "nokia", ...ten], "set_name": "train", ...}                          TextVQA_0.5.1_train.json
    {"questionId": 337, "question": "what is the date?", "image": "documents/xnbl0037_1.png", "docId": 279,
     "answers": ["1/8/93"], "data_split": "train", ...}                                 train_v1.0[_withQT].json, DocVQA
    {"questionId": 65718, "question": "Which...?", "image_local_name": "20471.jpeg", "answers": ["linkedin"], ...}
                                                                                    infographicsVQA_train_v1.0.json
    {"question_id": 1, "question": "Where...?", "file_path": "coco-text/COCO_train2014_000000481798.jpg",
     "answers": ["mexico"], ...}                                                             train_task_3.json, ST-VQA

One sample per picture (`by_picture`), called by the picture's file name. TextVQA gives ten people's answers, the others
correct answers in several spellings: the most frequent one counts, the first of equally frequent ones. Checked against
textvqa.org/dataset, docvqa.org/datasets, and the loaders of google-research/big_vision (big_vision/datasets: textvqa,
docvqa, infovqa, stvqa).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mvl_assets.readers.files import files_below, relative
from mvl_assets.readers.group_by_image import Part, Question, by_picture, name_in, parts_of, picture_called
from mvl_assets.readers.json_stream import elements
from mvl_assets.readers.majority_answer import majority
from mvl_assets.readers.rows import Row, RowError, native_id, rows_of
from mvl_assets.readers.sample import Broken, Picture, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

FILES = ("TextVQA_[0-9]*_train.json", "train_v*.json", "infographic*VQA_train_v*.json", "train_task_3.json")
FOLDERS = ("", "train", "train_images", "train_imgs", "images", "infographicsvqa_images")
DOCUMENTS = "spdocvqa_images"
"""The newer release of DocVQA has its pictures here; its questions still name them `documents/<file>`."""


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, *FILES, *(f"*/{name}" for name in FILES)):
        if path.with_name(f"{path.stem}_withQT.json").is_file():
            continue  # the same questions, there with their types
        name = relative(root, path)
        rows = rows_of(name, elements(path, ("data",)), "question_id", "questionId")
        yield from by_picture(name, parts_of(rows, _part), partial(_picture, root))


def _part(row: Row) -> Part:
    image_id = native_id(row.value.get("image_id"))
    file = f"{image_id}.jpg" if image_id is not None else name_in(row, "image", "image_local_name", "file_path")
    own = row.native_id or f"at {row.position}"
    question = Question(own, row.value.get("question"))
    try:
        return Part(file, question._replace(answer=majority(row.value.get("answers"))))
    except RowError as error:
        return Part(file, question._replace(fault=(error.error, error.message)))


def _picture(root: Path, name: str) -> Picture:
    elsewhere = [f"{DOCUMENTS}/{PurePosixPath(name).name}"] if name.startswith("documents/") else []
    return picture_called(root, (*elsewhere, name), FOLDERS)
