"""VQA v2 and VizWiz, from rows as their publishers describe them."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.common.rejects import RejectError
from mvl_assets.errors import SourceError
from mvl_assets.readers.conversations import external_group_by, group_by_image
from mvl_assets.readers.conversations.majority_answer import select_majority_answer
from mvl_assets.readers.formats import vqa_v2
from mvl_assets.readers.parsers import json_stream
from mvl_assets.readers.sample import RejectedRow
from tests.raw_files import errors, good, list_turns, make_image, put, put_json, read_all, source

VQA = source("vqa_v2")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() != "" and "<image>" not in text
)


# VQA v2


def ten(answer: str, others: int = 3) -> list[dict[str, object]]:
    output_by = [answer] * (10 - others) + ["something else"] * others
    return [{"answer": a, "answer_confidence": "yes", "answer_id": n} for n, a in enumerate(output_by, 1)]


def asked(question_id: int, question: Any, **fields: Any) -> dict[str, Any]:
    return {"image_id": question_id // 1000, "question": question, "question_id": question_id, **fields}


def told(question_id: int, answer: str, **fields: Any) -> dict[str, Any]:
    return {
        "question_type": "what is this",
        "multiple_choice_answer": answer,
        "answers": ten(answer),
        "image_id": question_id // 1000,
        "answer_type": "other",
        "question_id": question_id,
        **fields,
    }


def vqa(root: Path, questions: list[Any], annotations: list[Any], folder: str = "") -> None:
    about = {"info": {"year": 2017}, "data_subtype": "train2014", "license": {}}
    put_json(root, f"{folder}v2_OpenEnded_mscoco_train2014_questions.json", {**about, "questions": questions})
    put_json(root, f"{folder}v2_mscoco_train2014_annotations.json", {**about, "annotations": annotations})


def coco(image_id: int) -> str:
    return f"train2014/COCO_train2014_{image_id:012d}.jpg"


def test_vqa_gives_one_sample_per_image_with_its_questions_in_order(tmp_path: Path) -> None:
    put(tmp_path, coco(458752), make_image(1))
    put(tmp_path, "images/" + coco(262146), make_image(2))
    vqa(
        tmp_path,
        [
            asked(458752000, "What is this photo taken looking through?"),
            asked(262146000, "What color is the snow?"),
            asked(458752001, "What position is this man playing?"),
        ],
        [told(262146000, "white"), told(458752001, "pitcher"), told(458752000, "net")],
    )
    snow, field = read_all(VQA, tmp_path)
    assert [(r.native_id, r.position) for r in (snow, field)] == [("262146", 0), ("458752", 1)]
    assert list_turns(good([field])[0]) == [
        ("human", "<image>\nWhat is this photo taken looking through?"),
        ("gpt", "net"),
        ("human", "What position is this man playing?"),
        ("gpt", "pitcher"),
    ]
    assert [p.read() for row in good([snow, field]) for p in row.images] == [make_image(2), make_image(1)]


@pytest.mark.parametrize("folders", [("Questions/", "Annotations/"), ("questions/", "annotations/")])
def test_vqa_files_may_be_in_separate_folders(tmp_path: Path, folders: tuple[str, str]) -> None:
    put(tmp_path, coco(1), make_image())
    vqa(tmp_path, [asked(1000, "What?")], [told(1000, "net")])
    names = ("v2_OpenEnded_mscoco_train2014_questions", "v2_mscoco_train2014_annotations")
    for name, folder in zip(names, folders, strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / f"{name}.json").rename(tmp_path / folder / f"{name}.json")
    assert len(good(read_all(VQA, tmp_path))) == 1


def test_vqa_files_without_a_chosen_answer_give_the_one_most_people_gave(tmp_path: Path) -> None:
    put(tmp_path, coco(1), make_image())
    annotation = told(1000, "race")
    del annotation["multiple_choice_answer"]
    put_json(tmp_path, "OpenEnded_mscoco_train2014_questions.json", {"questions": [asked(1000, "What sport?")]})
    put_json(tmp_path, "mscoco_train2014_annotations.json", {"annotations": [annotation]})
    assert list_turns(good(read_all(VQA, tmp_path))[0])[1] == ("gpt", "race")


def test_vqa_rejects_mismatched_entries_and_keeps_the_rest_of_the_image(tmp_path: Path) -> None:
    for image_id in (1, 2):
        put(tmp_path, coco(image_id), make_image(image_id))
    vqa(
        tmp_path,
        [
            asked(1000, "Kept?"),
            asked(1001, "Without annotation?"),
            asked(1000, "Asked twice?"),
            asked(1002, "Answered with nothing?"),
            asked(1003, 7),
            asked(1004, "Where is the <image>?"),
            asked(1005, "Can it be said?"),
            asked(2000, "Also kept?"),
            asked(3000, "Where is the picture?"),
            asked(4000, "About what?", image_id=None),
            {"image_id": 2, "question": "Who am I?"},
            "no question",
        ],
        [
            told(1000, "yes"),
            told(1002, "", answers=ten("", 0)),
            told(1003, "seven"),
            told(1004, "here"),
            told(1005, "unanswerable"),
            told(2000, "yes"),
            told(2001, "to what?"),
            told(3000, "gone"),
        ],
    )
    rows = read_all(VQA, tmp_path)
    assert [(r.native_id, list_turns(r)) for r in good(rows)] == [
        ("1", [("human", "<image>\nKept?"), ("gpt", "yes")]),
        ("2", [("human", "<image>\nAlso kept?"), ("gpt", "yes")]),
    ]
    assert [r.position for r in rows] == list(range(len(rows)))
    assert [e for _, e in errors(rows)] == [
        *("no_answer", "no_answer", "bad_turn", "marker_mismatch", "unanswerable", "duplicate_id"),
        "no_question",
        "missing_image",
        *("missing_field", "missing_field", "not_an_object"),
    ]
    messages = [row.message for row in rows if isinstance(row, RejectedRow)]
    assert "question 1001 about 1" in messages[0]
    assert "element 9 of v2_OpenEnded_mscoco_train2014_questions.json" in messages[8]


def test_a_nan_in_a_field_that_nothing_needs_costs_nothing(tmp_path: Path) -> None:
    put(tmp_path, coco(1), make_image())
    questions = [asked(1000, "Kept?"), asked(1001, "Kept, too?", width=float("nan"))]
    vqa(tmp_path, questions, [told(1000, "yes"), told(1001, "no")])
    rows = read_all(VQA, tmp_path)
    assert not errors(rows)
    assert len(good(rows)) == 1


def test_a_truncated_annotation_file_never_gives_an_image_with_some_of_its_questions(tmp_path: Path) -> None:
    put(tmp_path, coco(1), make_image())
    vqa(tmp_path, [asked(1000, "Kept?"), asked(1001, "Lost?")], [told(1000, "yes"), told(1001, "no")])
    path = tmp_path / "v2_mscoco_train2014_annotations.json"
    path.write_bytes(path.read_bytes()[:-300])
    rows = read_all(VQA, tmp_path)
    assert not good(rows)
    assert [e for _, e in errors(rows)] == ["incomplete_file", "broken_file"]


def test_questions_without_their_file_of_annotations_are_a_source_error(tmp_path: Path) -> None:
    put_json(tmp_path, "v2_OpenEnded_mscoco_train2014_questions.json", {"questions": [asked(1000, "Why?")]})
    with pytest.raises(SourceError, match=r"v2_mscoco_train2014_annotations\.json is not there"):
        read_all(VQA, tmp_path)


def test_too_many_questions_about_one_image_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_by_image, "MAX_QUESTIONS", 5)
    for image_id in (1, 2):
        put(tmp_path, coco(image_id), make_image())
    ids = [1000, *range(2000, 2009)]
    vqa(tmp_path, [asked(n, "Why?") for n in ids], [told(n, "So.") for n in ids])
    rows = read_all(VQA, tmp_path)
    assert [r.native_id for r in good(rows)] == ["1"]
    assert errors(rows) == [(1, "too_many_questions")]


@settings(max_examples=25, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(1, 3), TEXT, TEXT), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
    run=st.sampled_from([1, 1 << 20]),
)
def test_any_questions_and_answers_are_read_unchanged(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, str, str]], order: Any, run: int
) -> None:
    root = tmp_path_factory.mktemp("vqa")
    for image_id in (1, 2, 3):
        put(root, coco(image_id), make_image(image_id))
    questions = [asked(image_id * 1000 + n, q) for n, (image_id, q, _) in enumerate(pairs)]
    annotations = [told(image_id * 1000 + n, a) for n, (image_id, _, a) in enumerate(pairs)]
    order.shuffle(annotations)
    vqa(root, questions, annotations)
    before, external_group_by.RUN_BYTES = external_group_by.RUN_BYTES, run
    try:
        rows = read_all(VQA, root)
    finally:
        external_group_by.RUN_BYTES = before
    answerable = [p for p in pairs if p[2].strip().casefold() != "unanswerable"]
    assert [row.native_id for row in good(rows)] == sorted({str(i) for i, _, _ in answerable})
    for row in good(rows):
        turns = [t for i, q, a in answerable if str(i) == row.native_id for t in (("human", q), ("gpt", a))]
        assert list_turns(row) == [("human", f"<image>\n{turns[0][1]}"), *turns[1:]]
        assert row.images[0].read() == make_image(int(row.native_id or 0))


def test_memory_does_not_grow_with_the_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_group_by, "RUN_BYTES", 1 << 19)
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", 1 << 16)

    def peak() -> int:
        gc.collect()
        tracemalloc.start()
        assert sum(1 for _ in vqa_v2.read(VQA, tmp_path)) == pictures
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peaks = []
    for pictures in (500, 2_000):
        ids = [image_id * 1000 + n for n in range(2) for image_id in range(pictures)]
        vqa(tmp_path, [asked(i, "Which of them?" * 10) for i in ids], [told(i, "red", answers=[]) for i in ids])
        for image_id in range(pictures):
            put(tmp_path, coco(image_id), b"")
        # The lower of two: whatever else the process still does is counted, too.
        peaks.append(min(peak(), peak()))
    size = sum(path.stat().st_size for path in tmp_path.glob("*.json"))
    assert peaks[1] < 1.3 * peaks[0] < size


# VizWiz


def vizwiz(told: list[str], **fields: Any) -> dict[str, Any]:
    return {
        "image": "VizWiz_train_00000000.jpg",
        "question": "What's the name of this product?",
        "answers": [{"answer": a, "answer_confidence": "yes"} for a in told],
        "answer_type": "other",
        "answerable": 1,
        **fields,
    }


@pytest.mark.parametrize("file", ["train.json", "Annotations/train.json", "annotations/train.json"])
def test_vizwiz_gives_the_answer_most_people_gave(tmp_path: Path, file: str) -> None:
    put(tmp_path, "train/VizWiz_train_00000000.jpg", make_image(3))
    put_json(tmp_path, file, [vizwiz(["basil", "", "basil leaves", "basil leaves ", "basil", "basil leaves"])])
    (sample,) = good(read_all(VQA, tmp_path))
    assert list_turns(sample) == [("human", "<image>\nWhat's the name of this product?"), ("gpt", "basil leaves")]
    assert (sample.native_id, sample.images[0].read()) == ("VizWiz_train_00000000.jpg", make_image(3))


def test_vizwiz_names_what_cannot_be_answered(tmp_path: Path) -> None:
    put(tmp_path, "train/VizWiz_train_00000000.jpg", make_image())
    rows = [
        vizwiz(["a", "b"], answerable=0),
        vizwiz(["unanswerable", "unanswerable", "can"]),
        vizwiz(["Unsuitable", "unsuitable image", "Unsuitable"]),
        vizwiz(["", " "]),
        vizwiz([], answers=None),
        vizwiz([], answers=[{"answer": 3}]),
        vizwiz(["can"], question=None),
        vizwiz(["can"], image="VizWiz_train_00000001.jpg"),
        vizwiz(["can"], image="../VizWiz_train_00000000.jpg"),
        vizwiz(["kept", "other"]),
    ]
    put_json(tmp_path, "train.json", rows)
    result = read_all(VQA, tmp_path)
    assert errors(result) == [
        *((n, "unanswerable") for n in range(3)),
        (3, "no_answer"),
        (4, "bad_answers"),
        (5, "bad_answers"),
        (6, "no_question"),
        (7, "missing_image"),
        (8, "outside_root"),
    ]
    assert [(s.position, list_turns(s)[1]) for s in good(result)] == [(9, ("gpt", "kept"))]


def test_of_answers_given_equally_often_the_first_one_counts() -> None:
    assert select_majority_answer(["dog", "cat", "", "cat ", "dog", {"answer": "cow"}]) == "dog"
    with pytest.raises(RejectError, match="unanswerable"):
        select_majority_answer(["Answering does not require reading text in the image", "nokia"][:1])
