r"""VQA v2, two files joined over COCO's pictures; and VizWiz, which says the same in one file.

    v2_OpenEnded_mscoco_train2014_questions.json, beside it or in a folder of its own:
        {"questions": [{"question_id": 458752000, "image_id": 458752, "question": "What is this?"}, ...], ...}
    v2_mscoco_train2014_annotations.json:
        {"annotations": [{"question_id": 458752000, "image_id": 458752, "multiple_choice_answer": "net", "answers":
         [{"answer": "net", "answer_confidence": "maybe", "answer_id": 1}, ...ten], ...}, ...], ...}
    train2014/COCO_train2014_000000458752.jpg

    VizWiz's train.json (in its folder of annotations, or above the folder `train` of pictures):
        [{"image": "VizWiz_train_00000000.jpg", "question": "What's the name of this product?", "answerable": 1,
          "answers": [{"answer": "basil leaves", "answer_confidence": "yes"}, ...ten], "answer_type": "other"}, ...]

VQA v2 gives one sample per picture (`by_picture`): both files are sorted by picture on disk, so neither the questions
nor the answers are held in memory. The answer is `multiple_choice_answer`, the release's own most frequent one; where
it is absent (OK-VQA has the same files without it) and in VizWiz the answer most people gave. VizWiz has one question
per picture; one that cannot be answered is a broken row. Specifications: visualqa.org/download.html,
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

from mvl_assets.errors import SourceError
from mvl_assets.readers.files import files_below, picture_at, relative
from mvl_assets.readers.group_by_image import Part, Question, by_picture, name_in, parts_of
from mvl_assets.readers.json_stream import elements
from mvl_assets.readers.majority_answer import answerable, majority
from mvl_assets.readers.rows import Row, RowError, built, question_and_answer, rows_of, with_markers
from mvl_assets.readers.sample import Broken, Picture, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

QUESTIONS = "*OpenEnded_mscoco_train*_questions.json"
VIZWIZ = "train.json"
_NAME = re.compile(r"(?P<edition>.*)OpenEnded_mscoco_(?P<split>.*)_questions\.json")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    folders = ("", "[Qq]uestions/", "[Aa]nnotations/")
    for path in files_below(source.slug, root, *(f + name for f in folders for name in (QUESTIONS, VIZWIZ))):
        if path.name == VIZWIZ:
            for row in rows_of(relative(root, path), elements(path), "image"):
                yield built(row, partial(_vizwiz, root))
        else:
            yield from _vqa(source, root, path)


def _vqa(source: SourceSpec, root: Path, path: Path) -> Iterator[Sample | Broken]:
    name, parts = relative(root, path), _NAME.fullmatch(path.name)
    assert parts is not None
    wanted = f"{parts['edition']}mscoco_{parts['split']}_annotations.json"
    answers = next((p for f in ("", "[Aa]nnotations/", "[Qq]uestions/") for p in sorted(root.glob(f + wanted))), None)
    if answers is None:
        raise SourceError(
            source.slug, f"{wanted} is not there", file=name, hint="unpack the release's annotations, too"
        )
    asked = rows_of(name, elements(path, ("questions",)))
    told = rows_of(relative(root, answers), elements(answers, ("annotations",)))
    halves = chain(parts_of(asked, _asked), parts_of(told, _told))
    yield from by_picture(name, halves, partial(_picture, root, parts["split"]))


def _asked(row: Row) -> Part:
    return Part(name_in(row, "image_id"), Question(name_in(row, "question_id"), row.value.get("question")))


def _told(row: Row) -> Part:
    picture, question = name_in(row, "image_id"), Question(name_in(row, "question_id"))
    try:
        chosen = row.value.get("multiple_choice_answer")
        if isinstance(chosen, str) and chosen.strip():
            return Part(picture, question._replace(answer=answerable(chosen)))
        return Part(picture, question._replace(answer=majority(row.value.get("answers"))))
    except RowError as error:
        return Part(picture, question._replace(fault=(error.error, error.message)))


def _picture(root: Path, split: str, image_id: str) -> Picture:
    return picture_at(root, f"COCO_{split}_{image_id:0>12}.jpg", (split, f"images/{split}", "images", ""))


def _vizwiz(root: Path, row: Row) -> Sample:
    if row.value.get("answerable") == 0:
        raise RowError("unanswerable", "the row says that its question cannot be answered")
    question = row.value.get("question")
    if not isinstance(question, str):
        raise RowError("no_question", f"the question is a {type(question).__name__}")
    turns = with_markers(question_and_answer(question, majority(row.value.get("answers"))), 1)
    picture = picture_at(
        root, row.value.get("image"), ("train", "images/train", "Images/train", "images", "Images", "")
    )
    return Sample(row.file, row.position, turns, row.native_id, (picture,))
