"""Tables with text, and screenshots with their HTML, each from a small set built by its public description."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.media import table_image
from mvl_assets.media.image import inspect_image
from mvl_assets.readers.conversations.caption_turns import MAX_TEXT_CHARS
from mvl_assets.readers.sample import RejectedRow, Sample
from tests.raw_files import (
    errors,
    good,
    keyed,
    list_turns,
    make_image,
    messages,
    put,
    put_json,
    put_parquet,
    read_all,
    source,
)

TABLES = source("table_text")
PAGES = source("screenshot_html")


# Tables with text

FINQA = {
    "id": "ABC/2016/page_23.pdf-2",
    "pre_text": ["the table shows net revenue .", ""],
    "post_text": ["all figures in millions ."],
    "table": [["", "amount"], ["2014 net revenue", "$ 5735"], ["2015 net revenue", "$ 5829"]],
    "qa": {"question": "what is the net change ?", "answer": "94", "exe_ans": 94.0, "program": "subtract(5829, 5735)"},
}
TATQA = {
    "table": {"uid": "3ffd", "table": [["", "2019 €m"], ["Fixed", "1,452.4"], ["Other", "44.1"]]},
    "paragraphs": [
        {"uid": "b", "order": 2, "text": "Second."},
        {"uid": "a", "order": 1, "text": "First."},
    ],
    "questions": [
        {"order": 1, "question": "Which kinds are there?", "answer": ["Fixed", "Other"], "scale": ""},
        {"order": 2, "question": "What is the change?", "answer": -12.6, "scale": "million"},
    ],
}


def test_finqa_draws_the_table_between_its_texts(tmp_path: Path) -> None:
    empty = {**FINQA, "id": "x", "qa": {"question": "up ?", "answer": "", "exe_ans": "yes"}}
    put_json(tmp_path, "dataset/train.json", [FINQA, empty])
    first, second = good(read_all(TABLES, tmp_path))
    assert list_turns(first) == [("human", "<image>\nwhat is the net change ?"), ("gpt", "94")]
    assert list_turns(second)[1] == ("gpt", "yes")
    assert first.native_id == "ABC/2016/page_23.pdf-2"
    assert inspect_image(first.images[0].read()).width == 1000
    assert first.images[0].read() == second.images[0].read() == first.images[0].read()
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        first.images[0].read(10)


def test_a_page_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_json(tmp_path, "train.json", [FINQA])

    def read_image() -> bytes:
        (sample,) = good(read_all(TABLES, tmp_path))
        return sample.images[0].read()

    data = read_image()
    drawn: list[object] = []
    monkeypatch.setattr(table_image, "draw_page", lambda page: (drawn.append(page), data)[1])
    assert (read_image(), len(drawn)) == (data, 0)
    (kept,) = (tmp_path / ".unpacked/drawn").iterdir()
    kept.write_bytes(data[:-20])
    assert (read_image(), read_image(), len(drawn)) == (data, data, 1)
    monkeypatch.setattr(table_image, "DRAWING_VERSION", 0)
    assert (read_image(), len(drawn)) == (data, 2)


def test_tat_qa_asks_all_questions_of_a_table_with_spans_and_scales(tmp_path: Path) -> None:
    put_json(tmp_path, "tatqa_dataset_train.json", [TATQA])
    (sample,) = good(read_all(TABLES, tmp_path))
    assert sample.native_id == "3ffd"
    assert list_turns(sample) == [
        ("human", "<image>\nWhich kinds are there?"),
        ("gpt", "Fixed, Other"),
        ("human", "What is the change?"),
        ("gpt", "-12.6 million"),
    ]
    shown = sample.images[0].page.texts  # type: ignore[attr-defined]
    assert [word for _, _, word in shown if word][:3] == ["First.", "Second.", "2019 EURm"]


def test_of_a_clone_only_the_training_split_is_read(tmp_path: Path) -> None:
    for name in ("raw/tatqa_dataset_train", "tagop/tatqa_dataset_train", "raw/tatqa_dataset_dev"):
        put_json(tmp_path, f"dataset_{name}.json", [TATQA])
    put_json(tmp_path, "sample_prediction.json", {"3ffd": ["94", ""]})
    assert [row.file for row in read_all(TABLES, tmp_path)] == ["dataset_raw/tatqa_dataset_train.json"]
    (tmp_path / "dataset_raw/tatqa_dataset_train.json").unlink()
    assert [row.file for row in read_all(TABLES, tmp_path)] == ["dataset_tagop/tatqa_dataset_train.json"]


def test_broken_tables_are_named(tmp_path: Path) -> None:
    asked = {"order": 1, "question": "?", "scale": ""}
    put_json(
        tmp_path,
        "a.json",
        [
            {**FINQA, "qa": {"question": "held back ?"}},
            {**TATQA, "questions": [asked]},
            {**FINQA, "qa": None},
            {**TATQA, "questions": []},
            {**FINQA, "table": "a | b"},
            {**FINQA, "table": [[{"cell": 1}]]},
            {**FINQA, "table": []},
            {**FINQA, "table": [["x"]] * 500},
            {**FINQA, "table": [["营业收入"]], "pre_text": []},
            {**FINQA, "table": [["\ud800" * 50]]},
            {**FINQA, "pre_text": ["see <image>"], "qa": {"question": "see <image> ?", "answer": "1"}},
            ["no object"],
            FINQA,
        ],
    )
    read = read_all(TABLES, tmp_path)
    assert [error for _, error in errors(read)] == [
        *("no_answer", "no_answer", "no_turns", "no_turns", "no_table", "bad_field", "empty_table"),
        *("table_too_large", "no_glyphs", "no_glyphs", "marker_in_text", "not_an_object"),
    ]
    assert [sample.position for sample in good(read)] == [12]


TEXTS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8))
JSONS = st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(["id", "table", "qa", "questions", "paragraphs", "pre_text"]), JSONS))
def test_any_object_is_a_sample_or_a_reject(value: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        put_json(Path(folder), "a.json", [value, FINQA])
        read = read_all(TABLES, Path(folder))
        assert len(read) == 2 and isinstance(read[1], Sample)


# Screenshots


def test_design2code_pairs_are_one_sample_a_page_and_the_placeholder_none(tmp_path: Path) -> None:
    html = "<html><body>\n<p>Olá</p>\n<img src='rick.jpg'></body></html>\n"
    put(tmp_path, "testset_final/10.html", html.encode())
    put(tmp_path, "testset_final/10.png", make_image(1))
    put(tmp_path, "testset_final/rick.jpg", make_image(2, format="JPEG"))
    (sample,) = read_all(PAGES, tmp_path)
    assert isinstance(sample, Sample)
    assert (sample.file, sample.position, sample.native_id) == ("testset_final/10.html", 0, "10")
    assert list_turns(sample)[1] == ("gpt", html)
    assert sample.images[0].read() == make_image(1)
    keyed(PAGES, tmp_path)


def test_pages_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    pages = {
        "big": b"<p>" + b"x" * MAX_TEXT_CHARS,
        "huge": b"<p>" + "é".encode() * (3 * MAX_TEXT_CHARS),
        "empty": b" ",
        "latin": b"caf\xe9",
        "marked": b"<svg><image></svg>",
        "whole": b"\xef\xbb\xbf<p>",
    }
    for name, data in pages.items():
        put(tmp_path, f"{name}.html", data)
        put(tmp_path, f"{name}.png", make_image())
    put(tmp_path, "alone.html", b"<p>")
    put(tmp_path, "widow.png", make_image())
    read = {row.file: row for row in read_all(PAGES, tmp_path)}
    assert {name: row.error for name, row in read.items() if isinstance(row, RejectedRow)} == {
        "alone.html": "missing_image",
        "big.html": "too_large",
        "huge.html": "too_large",
        "empty.html": "empty_answer",
        "latin.html": "bad_utf8",
        "marked.html": "marker_in_text",
        "widow.png": "missing_html",
    }
    assert list_turns(read["whole.html"])[1] == ("gpt", "<p>")  # type: ignore[arg-type]
    keyed(PAGES, tmp_path)


def test_websight_rows_hold_image_and_html(tmp_path: Path) -> None:
    image = {"bytes": make_image(3), "path": "0.png"}
    rows = [{"image": image, "text": "<html></html>", "llm_generated_idea": "A shop"}, {"image": None, "text": "<p>"}]
    put_parquet(tmp_path, "data/train-00000-of-00738.parquet", rows)
    put_parquet(tmp_path, "other.parquet", [{"image": image, "html": "<p>"}])
    read = read_all(PAGES, tmp_path)
    assert list_turns(good(read)[0])[1] == ("gpt", "<html></html>")
    assert errors(read) == [(1, "missing_image"), (0, "broken_file")]
    assert messages(read)[1] == "has the columns image, html, but not text"
    keyed(PAGES, tmp_path)
