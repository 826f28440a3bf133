"""Questions about pictures in files of their own: VQA v2, GQA, DocVQA and its kin, OCR-VQA, CLEVR, ScienceQA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mvl_assets.demo_data.layouts.common import Layout, dump, save
from mvl_assets.demo_data.rows import RawFile, Row

FIRST_ID = 139  # of COCO's validation pictures; any number does


def vqa_v2(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """VQA v2's questions and annotations of `train2014` side by side, the pictures under COCO's names.

    Fault `no_answer`: a question without annotation; `no_question`: an annotation without question.
    """
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, row in enumerate(rows, FIRST_ID):
        for number, (asked, answer) in enumerate(_turns(row)):
            ids = {"image_id": image_id, "question_id": image_id * 1000 + number}
            if row.fault != "no_question":
                questions.append({**ids, "question": asked})
            if row.fault != "no_answer":
                people = [{**one, "answer_id": n} for n, one in enumerate(_people(answer), 1)]
                kind = "yes/no" if answer in ("yes", "no") else "number" if answer.isdecimal() else "other"
                told = {"multiple_choice_answer": answer, "answers": people, "answer_type": kind}
                annotations.append({**ids, **told, "question_type": " ".join(asked.lower().split()[:2])})
    about = {
        "info": {"description": f"{name}, drawn in small", "version": "2.0", "year": 2017},
        "license": {"name": "Written for this project", "url": ""},
        "data_type": "mscoco",
        "data_subtype": "train2014",
    }
    whole = {**about, "task_type": "Open-Ended", "questions": questions}
    dump(folder / "v2_OpenEnded_mscoco_train2014_questions.json", whole)
    dump(folder / "v2_mscoco_train2014_annotations.json", {**about, "annotations": annotations})
    save(folder / "train2014", _renamed(rows, "COCO_train2014_{:012d}.jpg", FIRST_ID))


def vizwiz(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """VizWiz's `Annotations/train.json`, an array of one question each, and `train/`.

    Fault `unanswerable`: most people say so; `no_answer`: nobody said anything.
    """
    records = []
    for number, row in enumerate(rows):
        asked, answer = row.turns[0]
        can_be_answered = row.fault != "unanswerable"
        people = [] if row.fault == "no_answer" else _people(answer if can_be_answered else "unanswerable")
        records.append(
            {
                "image": f"VizWiz_train_{number:08d}.jpg",
                "question": asked,
                "answers": people,
                "answer_type": "other" if can_be_answered else "unanswerable",
                "answerable": int(can_be_answered),
            }
        )
    dump(folder / "Annotations" / "train.json", records)
    save(folder / "train", _renamed(rows, "VizWiz_train_{:08d}.jpg"))


def gqa(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """GQA's `questions1.2/train_balanced_questions.json`, question id -> question, and `images/`.

    The questions about one picture lie apart, as in the original. `fields["sentences"]` are the answers as sentences.
    Fault `no_answer`: a question as in the test split.
    """
    questions: dict[str, dict[str, Any]] = {}
    most = max(len(row.turns) for row in rows)
    for turn in range(most):
        for image_id, row in enumerate(rows, 2_300_000):
            if turn >= len(_turns(row)):
                continue
            asked, answer = row.turns[turn]
            question: dict[str, Any] = {"imageId": str(image_id), "question": asked, "isBalanced": True}
            if row.fault != "no_answer":
                sentences = row.fields["sentences"]
                assert isinstance(sentences, Sequence)
                question |= {
                    "answer": answer,
                    "fullAnswer": sentences[turn],
                    "semantic": [],
                    "groups": {"global": None},
                }
            questions[f"{len(questions):08d}"] = question
    dump(folder / "questions1.2" / "train_balanced_questions.json", questions)
    save(folder / "images", _renamed(rows, "{}.jpg", 2_300_000))


def doc_vqa(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """DocVQA's `spdocvqa_qas/train_v1.0_withQT.json` and `spdocvqa_images/`.

    Its questions name the pictures by the folder of an older release. Fault `no_answer`: an empty list of answers.
    """
    data = [
        {
            "questionId": 337 + number,
            "question": asked,
            "question_types": ["form"],
            "image": f"documents/{row.pictures[0].name}",
            "docId": 279 + number,
            "answers": [] if row.fault == "no_answer" else [answer, answer.upper()],
            "data_split": "train",
        }
        for number, (row, asked, answer) in enumerate(_asked(rows))
    ]
    whole = {"dataset_name": "SP-DocVQA", "dataset_version": "1.0", "dataset_split": "train", "data": data}
    dump(folder / "spdocvqa_qas" / "train_v1.0_withQT.json", whole)
    save(folder / "spdocvqa_images", (picture for row in rows for picture in row.pictures))


def text_vqa(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """TextVQA's `TextVQA_0.5.1_train.json` and `train_images/`. Fault `unanswerable`: most people say so."""
    numbers = {row.key: number for number, row in enumerate(rows)}
    data = [
        {
            "question_id": number,
            "question": asked,
            "question_tokens": asked.lower().rstrip("?").split(),
            "image_id": f"{numbers[row.key]:016x}",
            "answers": [one["answer"] for one in _people("unanswerable" if row.fault == "unanswerable" else answer)],
            "set_name": "train",
        }
        for number, (row, asked, answer) in enumerate(_asked(rows))
    ]
    whole = {"dataset_type": "train", "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": data}
    dump(folder / "TextVQA_0.5.1_train.json", whole)
    save(folder / "train_images", _renamed(rows, "{:016x}.jpg"))


def ocr_vqa(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """OCR-VQA's `dataset.json`, id -> cover, and `images/`. Fault `uneven_lists`: a question without an answer."""
    covers = {}
    for row in rows:
        asked, answers = zip(*row.turns, strict=True)
        covers[row.key] = {
            "imageURL": f"http://ecx.images-amazon.com/images/I/{row.key}.jpg",
            "questions": list(asked),
            "answers": list(answers[:-1] if row.fault == "uneven_lists" else answers),
            "title": answers[0],
            "authorName": "",
            "genre": "Calendars",
            "split": 1,
        }
    dump(folder / "dataset.json", covers)
    files = (RawFile(f"{row.key}.jpg", picture.data) for row in rows for picture in row.pictures)
    save(folder / "images", files)


def clevr(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """CLEVR's `CLEVR_v1.0/questions/CLEVR_train_questions.json` and `CLEVR_v1.0/images/train/`.

    Fault `missing_field`: a question as in the test split.
    """
    indices: dict[str, int] = {}
    questions = []
    for number, row in enumerate(rows):
        (picture,), ((asked, answer),) = row.pictures, row.turns
        question = {
            "image_index": indices.setdefault(picture.name, len(indices)),
            "question_index": number,
            "image_filename": picture.name,
            "split": "train",
            "question": asked,
        }
        if row.fault != "missing_field":
            question |= {"answer": answer, "program": [], "question_family_index": 0}
        questions.append(question)
    about = {"split": "train", "license": "Written for this project", "version": "1.0", "date": "2/14/2017"}
    whole = {"info": about, "questions": questions}
    release = folder / "CLEVR_v1.0"
    dump(release / "questions" / "CLEVR_train_questions.json", whole)
    save(release / "images" / "train", (picture for row in rows for picture in row.pictures))


def science_qa(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """ScienceQA's `problems.json`, id -> problem, `pid_splits.json` and `images/train/<id>/image.png`.

    `fields` are the problem's `choices`, `answer` (an index), `hint`, `lecture` and `solution`. Fault `bad_answer`: the
    index names no choice.
    """
    problems = {}
    for row in rows:
        problem = {"question": row.turns[0][0], **row.fields, "image": "image.png" if row.pictures else None}
        if row.fault == "bad_answer":
            problem["answer"] = 26
        problems[row.key] = {**problem, "task": "closed choice", "grade": "grade4", "split": "train"}
    dump(folder / "problems.json", problems)
    dump(folder / "pid_splits.json", {"train": list(problems), "val": [], "test": []})
    files = (RawFile(f"{row.key}/image.png", picture.data) for row in rows for picture in row.pictures)
    save(folder / "images" / "train", files)


def _turns(row: Row) -> Sequence[tuple[str, str]]:
    """What is written of a row: one question where the fault is the question's, so that it breaks one row."""
    return row.turns[:1] if row.fault in ("no_answer", "no_question", "unanswerable") else row.turns


def _asked(rows: Sequence[Row]) -> Iterator[tuple[Row, str, str]]:
    for row in rows:
        for asked, answer in _turns(row):
            yield row, asked, answer


def _people(answer: str) -> list[dict[str, str]]:
    """What ten people say; most of them say `answer`."""
    said = ["not sure", *[answer] * 5, "", answer, "unanswerable", answer.upper()]
    return [{"answer": one, "answer_confidence": "maybe" if one == "not sure" else "yes"} for one in said]


def _renamed(rows: Sequence[Row], name: str, first: int = 0) -> Iterator[RawFile]:
    """The one picture of every row, under a name made of the row's number."""
    for number, row in enumerate(rows, first):
        yield RawFile(name.format(number), row.pictures[0].data)


LAYOUTS = {
    "vqa_v2": Layout("vqa_v2", vqa_v2),
    "vizwiz": Layout("vqa_v2", vizwiz),
    "gqa": Layout("gqa", gqa),
    "doc_vqa": Layout("doc_vqa", doc_vqa),
    "text_vqa": Layout("doc_vqa", text_vqa),
    "ocr_vqa": Layout("ocr_vqa", ocr_vqa),
    "clevr": Layout("records", clevr),
    "science_qa": Layout("science_qa", science_qa),
}
