"""GQA, TextVQA and its kin, OCR-VQA, CLEVR and ScienceQA, each from rows as its publisher describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.catalog import load_catalog
from mvl_assets.errors import SourceError
from tests.raw_files import errors, good, list_turns, make_image, put, put_json, read_all, source

GQA = source("gqa")
DOC = source("doc_vqa")
OCR = source("ocr_vqa")
SCIENCE = source("science_qa")
CLEVR = load_catalog()["clevr"]


# GQA


def gqa_question(**fields: Any) -> dict[str, Any]:
    return {
        "imageId": "2407890",
        "question": "Is there a red apple on the table?",
        "answer": "no",
        "fullAnswer": "No, there is an apple but it is green.",
        "isBalanced": True,
        "groups": {"global": None, "local": "10-apple_color"},
        "entailed": [],
        "semantic": [{"operation": "select", "dependencies": [], "argument": "table (279472)"}],
        **fields,
    }


def test_gqa_groups_the_questions_about_an_image(tmp_path: Path) -> None:
    put(tmp_path, "images/2407890.jpg", make_image(1))
    put(tmp_path, "images/n161313.jpg", make_image(2))
    put_json(
        tmp_path,
        "questions1.2/train_balanced_questions.json",
        {
            "05515938": gqa_question(),
            "201640614": gqa_question(imageId="n161313", question="Is it overcast?", answer="yes"),
            "05515939": gqa_question(question="What is green?", answer="apple"),
        },
    )
    put_json(tmp_path, "questions1.2/train_all_questions/train_all_questions_0.json", {"1": gqa_question()})
    put_json(tmp_path, "questions1.2/testdev_balanced_questions.json", {"1": gqa_question()})
    apple, sky = good(read_all(GQA, tmp_path))
    assert list_turns(apple) == [
        ("human", "<image>\nIs there a red apple on the table?"),
        ("gpt", "no"),
        ("human", "What is green?"),
        ("gpt", "apple"),
    ]
    assert [(s.native_id, s.images[0].read()) for s in (apple, sky)] == [
        ("2407890", make_image(1)),
        ("n161313", make_image(2)),
    ]


def test_gqa_without_a_balanced_file_reads_the_parts_of_all_questions(tmp_path: Path) -> None:
    put(tmp_path, "images/2407890.jpg", make_image(1))
    for part in (0, 1):
        put_json(tmp_path, f"train_all_questions/train_all_questions_{part}.json", {f"{part}": gqa_question()})
    assert [(s.file[-6:], s.position) for s in good(read_all(GQA, tmp_path))] == [("0.json", 0), ("1.json", 0)]


def test_gqa_names_what_is_wrong_with_a_question(tmp_path: Path) -> None:
    put(tmp_path, "images/2407890.jpg", make_image(1))
    unanswered = gqa_question()
    del unanswered["answer"]
    questions = {
        "1": unanswered,
        "2": gqa_question(question=None),
        "3": gqa_question(answer=" "),
        "4": gqa_question(answer=["no"]),
        "5": gqa_question(imageId=["2407890"]),
        "6": gqa_question(imageId="1"),
        "7": gqa_question(imageId="../images/2407890"),
        "8": [],
        "9": gqa_question(),
    }
    put_json(tmp_path, "train_balanced_questions.json", questions)
    # The last key comes twice, which only text can say.
    path = tmp_path / "train_balanced_questions.json"
    path.write_text(path.read_text()[:-1] + ', "9": ' + json.dumps(gqa_question()) + "}")
    rows = read_all(GQA, tmp_path)
    assert len(good(rows)) == 1 and len(good(rows)[0].turns) == 2
    assert sorted(e for _, e in errors(rows)) == sorted(
        [
            *("no_answer", "no_question", "empty_answer", "bad_turn", "duplicate_id"),
            *("missing_field", "missing_image", "outside_root", "not_an_object"),
        ]
    )


# TextVQA, DocVQA, InfographicVQA, ST-VQA


def test_text_vqa_takes_the_answer_of_most_of_ten_people(tmp_path: Path) -> None:
    put(tmp_path, "train_images/0054c91397f2fe05.jpg", make_image(1))
    row = {
        "question": "what is the brand of phone?",
        "image_id": "0054c91397f2fe05",
        "image_classes": ["Belt", "Mobile phone"],
        "flickr_original_url": "https://example.org/o.jpg",
        "image_width": 1024,
        "answers": ["toni", "nokia", "nokia", "nokia", "nokia", "toni", "nokia", "nokia", "nokia", "nokia"],
        "question_tokens": ["what", "is", "the", "brand", "of", "phone"],
        "question_id": 0,
        "set_name": "train",
    }
    other = {**row, "question_id": 1, "question": "what is it called?", "answers": ["unanswerable"] * 10}
    whole = {"dataset_type": "train", "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": [row, other]}
    put_json(tmp_path, "TextVQA_0.5.1_train.json", whole)
    put_json(tmp_path, "TextVQA_Rosetta_OCR_v0.2_train.json", {"data": [{"image_id": "0054c91397f2fe05"}]})
    put_json(tmp_path, "TextVQA_0.5.1_val.json", whole)
    rows = read_all(DOC, tmp_path)
    assert [list_turns(s) for s in good(rows)] == [
        [("human", "<image>\nwhat is the brand of phone?"), ("gpt", "nokia")]
    ]
    assert errors(rows) == [(1, "unanswerable")]


def doc_question(**fields: Any) -> dict[str, Any]:
    return {
        "questionId": 337,
        "question": "what is the date mentioned in this letter?",
        "question_types": ["handwritten", "form"],
        "image": "documents/xnbl0037_1.png",
        "docId": 279,
        "ucsf_document_id": "xnbl0037",
        "ucsf_document_page_no": "1",
        "answers": ["1/8/93"],
        "data_split": "train",
        **fields,
    }


@pytest.mark.parametrize(
    ("questions", "picture_file"),
    [
        ("train/train_v1.0.json", "train/documents/xnbl0037_1.png"),
        ("train_v1.0.json", "documents/xnbl0037_1.png"),
        ("spdocvqa_qas/train_v1.0_withQT.json", "spdocvqa_images/xnbl0037_1.png"),
    ],
)
def test_doc_vqa_is_read_in_each_of_its_releases(tmp_path: Path, questions: str, picture_file: str) -> None:
    put(tmp_path, picture_file, make_image(5))
    rows = [doc_question(), doc_question(questionId=338, question="Who?", answers=["A. B", "a. b"])]
    put_json(tmp_path, questions, {"dataset_name": "SP-DocVQA", "dataset_split": "train", "data": rows})
    (sample,) = good(read_all(DOC, tmp_path))
    assert [value for _, value in list_turns(sample)][1:] == ["1/8/93", "Who?", "A. B"]
    assert (sample.native_id, sample.images[0].read()) == ("documents/xnbl0037_1.png", make_image(5))


def test_doc_vqa_in_two_editions_of_the_same_questions_is_read_once(tmp_path: Path) -> None:
    put(tmp_path, "documents/xnbl0037_1.png", make_image())
    for name in ("train_v1.0.json", "train_v1.0_withQT.json"):
        put_json(tmp_path, name, {"data": [doc_question()]})
    assert [s.file for s in read_all(DOC, tmp_path)] == ["train_v1.0_withQT.json"]


def test_infographics_and_scene_texts_name_their_images_by_their_own_fields(tmp_path: Path) -> None:
    put(tmp_path, "infographicsvqa_images/20471.jpeg", make_image(1))
    put(tmp_path, "train_imgs/coco-text/COCO_train2014_000000481798.jpg", make_image(2))
    info = {
        "questionId": 65718,
        "question": "Which social platform has heavy female audience?",
        "image_local_name": "20471.jpeg",
        "image_url": "https://example.org/i.jpg",
        "ocr_output_file": "20471.json",
        "answers": ["pinterest"],
        "data_split": "train",
    }
    scene = {
        "file_path": "coco-text/COCO_train2014_000000481798.jpg",
        "file_name": "COCO_train2014_000000481798.jpg",
        "dataset": "coco-text",
        "question_id": 1,
        "question": "Where is this train going?",
        "answers": ["mexico"],
        "set_name": "train",
    }
    put_json(tmp_path, "infographicsvqa_qas/infographicsVQA_train_v1.0.json", {"data": [info]})
    put_json(tmp_path, "train_task_3.json", {"data": [scene]})
    samples = good(read_all(DOC, tmp_path))
    assert [(s.native_id, list_turns(s)[1][1], s.images[0].read()) for s in samples] == [
        ("20471.jpeg", "pinterest", make_image(1)),
        ("coco-text/COCO_train2014_000000481798.jpg", "mexico", make_image(2)),
    ]


def test_doc_vqa_names_what_is_wrong_with_a_question(tmp_path: Path) -> None:
    put(tmp_path, "documents/xnbl0037_1.png", make_image())
    unanswered = doc_question(questionId=2)
    del unanswered["answers"]
    data = [
        doc_question(questionId=1, answers=[]),
        unanswered,
        doc_question(questionId=3, answers=["a", None]),
        doc_question(questionId=4, question=""),
        doc_question(questionId=5, image=None),
        doc_question(questionId=6, image="documents/gone_1.png"),
        doc_question(questionId=7),
        doc_question(questionId=7),
        None,
    ]
    put_json(tmp_path, "train_v1.0.json", {"data": data})
    rows = read_all(DOC, tmp_path)
    assert [s.native_id for s in good(rows)] == ["documents/xnbl0037_1.png"]
    assert sorted(e for _, e in errors(rows)) == sorted(
        [
            *("no_answer", "bad_answers", "bad_answers", "empty_question", "missing_field"),
            *("missing_image", "duplicate_id", "not_an_object"),
        ]
    )


# OCR-VQA


def cover(**fields: Any) -> dict[str, Any]:
    return {
        "imageURL": "http://ecx.images-amazon.com/images/I/61Y5cOdHJbL.jpg",
        "questions": ["Who wrote this book?", "Is this a games related book?"],
        "answers": ["Sandra Boynton", "No"],
        "title": "Mom's Family Wall Calendar 2016",
        "authorName": "Sandra Boynton",
        "genre": "Calendars",
        "split": 1,
        **fields,
    }


def test_ocr_vqa_gives_one_sample_a_cover_of_the_training_split(tmp_path: Path) -> None:
    put(tmp_path, "images/761183272.jpg", make_image(1))
    put(tmp_path, "images/042528.gif", make_image(2))
    put(tmp_path, "images/0439.jpg", make_image(3))
    covers = {
        "13": cover(split=3),
        "761183272": cover(),
        "14": cover(split=2),
        "042528": cover(imageURL="http://ecx.images-amazon.com/images/I/a.gif"),
        "0439": cover(imageURL="http://ecx.images-amazon.com/images/I/b.gif"),
    }
    put_json(tmp_path, "dataset.json", covers)
    samples = good(read_all(OCR, tmp_path))
    assert [(s.native_id, s.position) for s in samples] == [("761183272", 0), ("042528", 1), ("0439", 2)]
    assert [s.images[0].read() for s in samples] == [make_image(n) for n in (1, 2, 3)]
    assert list_turns(samples[0]) == [
        ("human", "<image>\nWho wrote this book?"),
        ("gpt", "Sandra Boynton"),
        ("human", "Is this a games related book?"),
        ("gpt", "No"),
    ]


def test_ocr_vqa_names_what_is_wrong_with_a_cover_or_one_of_its_questions(tmp_path: Path) -> None:
    put(tmp_path, "images/1.jpg", make_image(1))
    covers = {
        "1": cover(answers=["", "No"]),
        "2": cover(answers=["No"]),
        "3": cover(questions=[], answers=[]),
        "4": cover(questions=None),
        "5": cover(split=9),
        "6": cover(split=[]),
        "7": cover(imageURL="http://[", split=1),
        "8": "cover",
        "../1": cover(),
    }
    put_json(tmp_path, "dataset.json", covers)
    rows = read_all(OCR, tmp_path)
    assert [(s.native_id, len(s.turns)) for s in good(rows)] == [("1", 2)]
    assert errors(rows) == [
        (1, "empty_answer"),
        (2, "uneven_lists"),
        (3, "uneven_lists"),
        (4, "no_turns"),
        (5, "bad_split"),
        (6, "bad_split"),
        (7, "missing_image"),
        (8, "not_an_object"),
        (9, "outside_root"),
    ]


# CLEVR, by the field map of its catalog entry


def clevr_question(index: int, **fields: Any) -> dict[str, Any]:
    return {
        "image_index": 0,
        "program": [{"inputs": [], "function": "scene", "value_inputs": []}],
        "question_index": index,
        "image_filename": "CLEVR_train_000000.png",
        "question_family_index": 2,
        "split": "train",
        "answer": "yes",
        "question": "Are there more big green things than large purple shiny cubes?",
        **fields,
    }


@pytest.mark.parametrize("folder", ["", "CLEVR_v1.0/"])
def test_clevr_is_read_by_its_field_map_unpacked_here_or_in_the_folder_of_the_release(
    tmp_path: Path, folder: str
) -> None:
    put(tmp_path, f"{folder}images/train/CLEVR_train_000000.png", make_image(1))
    of_test_split = clevr_question(2)
    del of_test_split["answer"]
    rows = [
        clevr_question(0),
        clevr_question(1, answer="0"),
        of_test_split,
        clevr_question(3, image_filename="CLEVR_train_000001.png"),
    ]
    put_json(tmp_path, f"{folder}questions/CLEVR_train_questions.json", {"info": {"split": "train"}, "questions": rows})
    put_json(tmp_path, f"{folder}questions/CLEVR_test_questions.json", {"questions": [of_test_split]})
    result = read_all(CLEVR, tmp_path)
    assert [(s.native_id, list_turns(s)[1][1], s.images[0].read()) for s in good(result)] == [
        ("0", "yes", make_image(1)),
        ("1", "0", make_image(1)),
    ]
    assert errors(result) == [(2, "missing_field"), (3, "missing_image")]


# ScienceQA


def problem(**fields: Any) -> dict[str, Any]:
    return {
        "question": "Which of these states is farthest north?",
        "choices": ["West Virginia", "Louisiana", "Arizona", "Oklahoma"],
        "answer": 0,
        "hint": "",
        "image": "image.png",
        "task": "closed choice",
        "grade": "grade2",
        "subject": "social science",
        "lecture": "Maps have four cardinal directions, or main directions.",
        "solution": "To find the answer, look at the compass rose.",
        "split": "train",
        **fields,
    }


@pytest.mark.parametrize("folder", ["", "scienceqa/", "data/scienceqa/"])
def test_science_qa_asks_with_choices_and_answers_with_reasons(tmp_path: Path, folder: str) -> None:
    put(tmp_path, f"{folder}images/train/1/image.png", make_image(1))
    text_only = problem(question="Which tense?", choices=["present", "past"], answer=1, image=None, hint="Mona ran.")
    problems = {"1": problem(), "2": problem(split="test"), "3": {**text_only, "lecture": "", "solution": ""}}
    put_json(tmp_path, f"{folder}problems.json", problems)
    put_json(tmp_path, f"{folder}pid_splits.json", {"train": ["1", "3"], "val": [], "test": ["2"]})
    states, tense = good(read_all(SCIENCE, tmp_path))
    assert list_turns(states) == [
        (
            "human",
            "<image>\nWhich of these states is farthest north?\n"
            "A. West Virginia\nB. Louisiana\nC. Arizona\nD. Oklahoma",
        ),
        (
            "gpt",
            "Maps have four cardinal directions, or main directions.\n\n"
            "To find the answer, look at the compass rose.\n\nAnswer: A. West Virginia",
        ),
    ]
    assert [p.read() for p in states.images] == [make_image(1)]
    assert list_turns(tense) == [("human", "Which tense?\nMona ran.\nA. present\nB. past"), ("gpt", "Answer: B. past")]
    assert [(s.native_id, s.position, len(s.images)) for s in (states, tense)] == [("1", 0, 1), ("3", 1, 0)]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"answer": 4}, "bad_answer"),
        ({"answer": "0"}, "bad_answer"),
        ({"answer": True}, "bad_answer"),
        ({"choices": []}, "bad_choices"),
        ({"choices": "West Virginia"}, "bad_choices"),
        ({"choices": ["West Virginia", None]}, "bad_field"),
        ({"question": None}, "no_question"),
        ({"hint": 7}, "bad_field"),
        ({"image": "gone.png"}, "missing_image"),
        ({"image": "../2/image.png"}, "outside_root"),
        ({"split": None}, "bad_split"),
    ],
)
def test_science_qa_names_what_is_wrong_with_a_problem(tmp_path: Path, fields: dict[str, Any], error: str) -> None:
    for pid in ("1", "2"):
        put(tmp_path, f"images/train/{pid}/image.png", make_image())
    put_json(tmp_path, "problems.json", {"1": problem(**fields), "2": problem()})
    rows = read_all(SCIENCE, tmp_path)
    assert errors(rows) == [(0, error)]
    assert [s.native_id for s in good(rows)] == ["2"]


@pytest.mark.parametrize("format", ["vqa_v2", "gqa", "doc_vqa", "ocr_vqa", "science_qa"])
def test_a_folder_without_a_training_split_is_a_source_error(tmp_path: Path, format: str) -> None:
    put_json(tmp_path, "val_v1.0.json", {})
    with pytest.raises(SourceError, match="put the source's files there"):
        read_all(source(format), tmp_path)
