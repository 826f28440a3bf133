"""Questions about images in files of their own: VQA v2, GQA, DocVQA and its kin, OCR-VQA, CLEVR, ScienceQA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mvl_assets.demo_data.layouts.common import SourceLayout, write_files, write_json
from mvl_assets.demo_data.rows import RawFile, RawRow

FIRST_ID = 139  # of COCO's validation images; any number does


def write_vqa_v2(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write VQA v2's questions and annotations of `train2014` side by side, the images under COCO's names.

    Fault `no_answer`: a question without annotation; `no_question`: an annotation without question.
    """
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, row in enumerate(rows, FIRST_ID):
        for number, (question, answer) in enumerate(_select_turns(row)):
            ids = {"image_id": image_id, "question_id": image_id * 1000 + number}
            if row.fault != "no_question":
                questions.append({**ids, "question": question})
            if row.fault != "no_answer":
                human_answers = [
                    {**human_answer, "answer_id": n} for n, human_answer in enumerate(_build_human_answers(answer), 1)
                ]
                answer_type = "yes/no" if answer in ("yes", "no") else "number" if answer.isdecimal() else "other"
                annotation = {"multiple_choice_answer": answer, "answers": human_answers, "answer_type": answer_type}
                annotations.append({**ids, **annotation, "question_type": " ".join(question.lower().split()[:2])})
    header = {
        "info": {"description": f"{slug}, drawn in small", "version": "2.0", "year": 2017},
        "license": {"name": "Written for this project", "url": ""},
        "data_type": "mscoco",
        "data_subtype": "train2014",
    }
    document = {**header, "task_type": "Open-Ended", "questions": questions}
    write_json(source_dir / "v2_OpenEnded_mscoco_train2014_questions.json", document)
    write_json(source_dir / "v2_mscoco_train2014_annotations.json", {**header, "annotations": annotations})
    write_files(source_dir / "train2014", _iter_renamed_images(rows, "COCO_train2014_{:012d}.jpg", FIRST_ID))


def write_vizwiz(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write VizWiz's `Annotations/train.json`, an array of one question each, and `train/`.

    Fault `unanswerable`: most annotators say so; `no_answer`: no annotator answered.
    """
    records = []
    for number, row in enumerate(rows):
        question, answer = row.turns[0]
        is_answerable = row.fault != "unanswerable"
        human_answers = (
            [] if row.fault == "no_answer" else _build_human_answers(answer if is_answerable else "unanswerable")
        )
        records.append(
            {
                "image": f"VizWiz_train_{number:08d}.jpg",
                "question": question,
                "answers": human_answers,
                "answer_type": "other" if is_answerable else "unanswerable",
                "answerable": int(is_answerable),
            }
        )
    write_json(source_dir / "Annotations" / "train.json", records)
    write_files(source_dir / "train", _iter_renamed_images(rows, "VizWiz_train_{:08d}.jpg"))


def write_gqa(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write GQA's `questions1.2/train_balanced_questions.json`, question id -> question, and `images/`.

    The questions about one image are far apart, as in the original. `fields["sentences"]` are the answers as sentences.
    Fault `no_answer`: a question as in the test split.
    """
    questions: dict[str, dict[str, Any]] = {}
    max_turns = max(len(row.turns) for row in rows)
    for turn in range(max_turns):
        for image_id, row in enumerate(rows, 2_300_000):
            if turn >= len(_select_turns(row)):
                continue
            question_text, answer = row.turns[turn]
            question: dict[str, Any] = {"imageId": str(image_id), "question": question_text, "isBalanced": True}
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
    write_json(source_dir / "questions1.2" / "train_balanced_questions.json", questions)
    write_files(source_dir / "images", _iter_renamed_images(rows, "{}.jpg", 2_300_000))


def write_doc_vqa(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write DocVQA's `spdocvqa_qas/train_v1.0_withQT.json` and `spdocvqa_images/`.

    Its questions name the images by the folder of an older release. Fault `no_answer`: an empty list of answers.
    """
    data = [
        {
            "questionId": 337 + number,
            "question": question,
            "question_types": ["form"],
            "image": f"documents/{row.images[0].name}",
            "docId": 279 + number,
            "answers": [] if row.fault == "no_answer" else [answer, answer.upper()],
            "data_split": "train",
        }
        for number, (row, question, answer) in enumerate(_iter_questions(rows))
    ]
    document = {"dataset_name": "SP-DocVQA", "dataset_version": "1.0", "dataset_split": "train", "data": data}
    write_json(source_dir / "spdocvqa_qas" / "train_v1.0_withQT.json", document)
    write_files(source_dir / "spdocvqa_images", (image for row in rows for image in row.images))


def write_text_vqa(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write TextVQA's `TextVQA_0.5.1_train.json` and `train_images/`. Fault `unanswerable`: most annotators say so."""
    row_numbers = {row.row_id: number for number, row in enumerate(rows)}
    data = [
        {
            "question_id": number,
            "question": question,
            "question_tokens": question.lower().rstrip("?").split(),
            "image_id": f"{row_numbers[row.row_id]:016x}",
            "answers": [
                human_answer["answer"]
                for human_answer in _build_human_answers("unanswerable" if row.fault == "unanswerable" else answer)
            ],
            "set_name": "train",
        }
        for number, (row, question, answer) in enumerate(_iter_questions(rows))
    ]
    document = {"dataset_type": "train", "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": data}
    write_json(source_dir / "TextVQA_0.5.1_train.json", document)
    write_files(source_dir / "train_images", _iter_renamed_images(rows, "{:016x}.jpg"))


def write_ocr_vqa(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write OCR-VQA's `dataset.json`, id -> cover, and `images/`. Fault `uneven_lists`: an answer is missing."""
    covers = {}
    for row in rows:
        questions, answers = zip(*row.turns, strict=True)
        covers[row.row_id] = {
            "imageURL": f"http://ecx.images-amazon.com/images/I/{row.row_id}.jpg",
            "questions": list(questions),
            "answers": list(answers[:-1] if row.fault == "uneven_lists" else answers),
            "title": answers[0],
            "authorName": "",
            "genre": "Calendars",
            "split": 1,
        }
    write_json(source_dir / "dataset.json", covers)
    files = (RawFile(f"{row.row_id}.jpg", image.data) for row in rows for image in row.images)
    write_files(source_dir / "images", files)


def write_clevr(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write CLEVR's `CLEVR_v1.0/questions/CLEVR_train_questions.json` and `CLEVR_v1.0/images/train/`.

    Fault `missing_field`: a question as in the test split.
    """
    indices: dict[str, int] = {}
    questions = []
    for number, row in enumerate(rows):
        (image,), ((question_text, answer),) = row.images, row.turns
        question = {
            "image_index": indices.setdefault(image.name, len(indices)),
            "question_index": number,
            "image_filename": image.name,
            "split": "train",
            "question": question_text,
        }
        if row.fault != "missing_field":
            question |= {"answer": answer, "program": [], "question_family_index": 0}
        questions.append(question)
    header = {"split": "train", "license": "Written for this project", "version": "1.0", "date": "2/14/2017"}
    document = {"info": header, "questions": questions}
    release_dir = source_dir / "CLEVR_v1.0"
    write_json(release_dir / "questions" / "CLEVR_train_questions.json", document)
    write_files(release_dir / "images" / "train", (image for row in rows for image in row.images))


def write_science_qa(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write ScienceQA's `problems.json`, id -> problem, `pid_splits.json` and `images/train/<id>/image.png`.

    `fields` are the problem's `choices`, `answer` (an index), `hint`, `lecture` and `solution`. Fault `bad_answer`: the
    index names no choice.
    """
    problems = {}
    for row in rows:
        problem = {"question": row.turns[0][0], **row.fields, "image": "image.png" if row.images else None}
        if row.fault == "bad_answer":
            problem["answer"] = 26
        problems[row.row_id] = {**problem, "task": "closed choice", "grade": "grade4", "split": "train"}
    write_json(source_dir / "problems.json", problems)
    write_json(source_dir / "pid_splits.json", {"train": list(problems), "val": [], "test": []})
    files = (RawFile(f"{row.row_id}/image.png", image.data) for row in rows for image in row.images)
    write_files(source_dir / "images" / "train", files)


def _select_turns(row: RawRow) -> Sequence[tuple[str, str]]:
    """Return the turns to write: one question if the fault concerns the question, so that it affects one row."""
    return row.turns[:1] if row.fault in ("no_answer", "no_question", "unanswerable") else row.turns


def _iter_questions(rows: Sequence[RawRow]) -> Iterator[tuple[RawRow, str, str]]:
    for row in rows:
        for question, answer in _select_turns(row):
            yield row, question, answer


def _build_human_answers(answer: str) -> list[dict[str, str]]:
    """Return the answers of ten people, most of them `answer`."""
    answers = ["not sure", *[answer] * 5, "", answer, "unanswerable", answer.upper()]
    return [
        {"answer": human_answer, "answer_confidence": "maybe" if human_answer == "not sure" else "yes"}
        for human_answer in answers
    ]


def _iter_renamed_images(rows: Sequence[RawRow], name_template: str, first_number: int = 0) -> Iterator[RawFile]:
    """Yield the one image of every row, under a name made of the row's number."""
    for number, row in enumerate(rows, first_number):
        yield RawFile(name_template.format(number), row.images[0].data)


LAYOUTS = {
    "vqa_v2": SourceLayout("vqa_v2", write_vqa_v2),
    "vizwiz": SourceLayout("vqa_v2", write_vizwiz),
    "gqa": SourceLayout("gqa", write_gqa),
    "doc_vqa": SourceLayout("doc_vqa", write_doc_vqa),
    "text_vqa": SourceLayout("doc_vqa", write_text_vqa),
    "ocr_vqa": SourceLayout("ocr_vqa", write_ocr_vqa),
    "clevr": SourceLayout("records", write_clevr),
    "science_qa": SourceLayout("science_qa", write_science_qa),
}
