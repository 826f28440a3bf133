"""Forms of records that data sets are published in: content parts, tool turns, lists, labels, markers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mvl_assets.config.catalog import RecordsMapping
from mvl_assets.readers.sample import RejectedRow, Sample
from tests.raw_files import errors, good, list_turns, make_image, messages, put, put_json, put_parquet, read_all, source


def read(root: Path, **fields: Any) -> list[Sample | RejectedRow]:
    values: dict[str, Any] = {"files": "rows.json", "shape": "list", **fields}
    if not {"turns", "question"} & values.keys():
        values |= {"question": "{q}", "answer": "{a}"}
    return read_all(source("records", RecordsMapping(**values)), root)


def read_one(root: Path, record: dict[str, Any], **fields: Any) -> list[str]:
    """What human and gpt say for one record, or its error."""
    put_json(root, "rows.json", [record])
    (row,) = read(root, **fields)
    return [row.error] if isinstance(row, RejectedRow) else [turn.value for turn in row.turns]


def build_talk(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}, {"role": "assistant", "content": [{"type": "text", "text": "!"}]}]


ENCODED = base64.b64encode(make_image(3)).decode()


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{ENCODED}"}},
        {"type": "input_image", "image_url": "a.png"},
        {"image": "a.png"},
        {"type": "image", "text": None, "image": {"bytes": None, "path": "a.png"}},
        {"type": "image", "text": None, "url": "https://example.org/x/a.png"},
    ],
)
def test_parts_of_a_turn_hold_or_name_their_images(tmp_path: Path, part: dict[str, Any]) -> None:
    put(tmp_path, "a.png", make_image(3))
    put_json(tmp_path, "rows.json", [{"messages": build_talk(part, {"type": "text", "text": "What?", "image": None})}])
    (sample,) = good(read(tmp_path, turns="messages"))
    assert list_turns(sample) == [("human", "<image>\nWhat?"), ("gpt", "!")]
    assert [image.read() for image in sample.images] == [make_image(3)]


def test_parts_that_only_mark_take_the_images_of_the_record(tmp_path: Path) -> None:
    talk = build_talk({"type": "text", "text": "From"}, {"type": "image"}, "to", {"type": "image"})
    put_parquet(
        tmp_path,
        "rows.parquet",
        [
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "From"}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "!"}]},
                ],
                "images": [{"bytes": make_image(1), "path": None}],
            }
        ],
    )
    (sample,) = good(read(tmp_path, files="*.parquet", shape="parquet", turns="messages", image_field="images"))
    assert (list_turns(sample)[0][1], len(sample.images)) == ("<image>\nFrom", 1)
    put_json(tmp_path, "rows.json", [{"messages": talk, "images": [ENCODED, ENCODED]}])
    (sample,) = good(read(tmp_path, turns="messages", image_field="images"))
    assert list_turns(sample)[0][1] == "From\n<image>\nto\n<image>"


def test_a_part_of_another_kind_is_a_bad_turn(tmp_path: Path) -> None:
    put_json(tmp_path, "rows.json", [{"m": build_talk(part)} for part in ({"type": "audio", "audio": "x"}, 5)])
    assert errors(read(tmp_path, turns="m")) == [(0, "bad_turn"), (1, "bad_turn")]


def test_what_tools_answer_is_a_human_turn_and_a_call_is_the_assistants(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "crop", "arguments": '{"x": 1}'}}
    talk = [
        {"role": "developer", "content": "Use tools."},
        {"role": "User", "content": "Crop it."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "left"},
        {"role": "tool", "content": "right"},
        {"role": "assistant", "content": "Done."},
    ]
    put_json(tmp_path, "rows.json", [{"m": talk}])
    (sample,) = good(read(tmp_path, turns="m"))
    assert list_turns(sample) == [
        ("system", "Use tools."),
        ("human", "Crop it."),
        ("gpt", json.dumps(call["function"])),
        ("human", "left\nright"),
        ("gpt", "Done."),
    ]


@pytest.mark.parametrize(
    ("answer", "template", "said"),
    [
        (["red", "blue"], "{a.0}", "red"),
        (["red", "blue"], "{a.-1}", "blue"),
        (["red", "blue"], "{a.*}", "red, blue"),
        ([{"text": "red"}, {"text": "blue"}, {}], "{a.*.text}", "red, blue"),
        ([[1, 2], [3, 4]], "{a.1.0}", "3"),
        (["red"], "{a.5}", "missing_field"),
        ([], "{a.*}", "missing_field"),
        (["red"], "{a}", "bad_field"),
    ],
)
def test_templates_look_into_lists(tmp_path: Path, answer: Any, template: str, said: str) -> None:
    assert read_one(tmp_path, {"q": "?", "a": answer}, question="{q}", answer=template)[-1] == said


@pytest.mark.parametrize(
    ("value", "names", "said"),
    [
        (1, ["cat", "dog"], "dog"),
        ("0", ["cat", "dog"], "cat"),
        (1.0, ["cat", "dog"], "dog"),
        (True, ["No", "Yes"], "Yes"),
        (False, {"false": "No", "true": "Yes"}, "No"),
        ("n02", {"n02": "hen"}, "hen"),
        (2, ["cat", "dog"], "unknown_label"),
        ("n03", {"n02": "hen"}, "unknown_label"),
        (True, None, "bad_field"),
    ],
)
def test_names_say_what_labels_and_booleans_mean(tmp_path: Path, value: Any, names: Any, said: str) -> None:
    assert read_one(tmp_path, {"q": "?", "a": value}, names={"a": names} if names else {})[-1] == said


def test_a_list_or_boolean_without_a_meaning_says_how_to_give_it_one(tmp_path: Path) -> None:
    put_json(tmp_path, "rows.json", [{"q": "?", "a": True}, {"q": "?", "a": ["x"]}])
    boolean, listed = messages(read(tmp_path))
    assert "names: {a: ['no', 'yes']}" in boolean
    assert "{a.0}" in listed and "{a.*}" in listed


def test_a_video_is_named_with_or_without_its_ending_or_is_a_folder_of_frames(tmp_path: Path) -> None:
    put(tmp_path, "videos/a.mp4", b"not looked into")
    put(tmp_path, "clips/b.webm", b"not looked into")
    for n in range(2):
        put(tmp_path, f"frames/c/{n}.png", make_image(n))
    rows = [{"clip": clip, "q": "<image>\nWho?", "a": "Ann"} for clip in ("a.mp4", "b", "c", "d")]
    put_json(tmp_path, "rows.json", rows)
    read_rows = read(tmp_path, video="{clip}", image_folders=["clips", "frames"])
    assert errors(read_rows) == [(3, "missing_video")]
    samples = good(read_rows)
    assert [sample.video.name for sample in samples if sample.video] == ["a.mp4", "b.webm", "c"]
    assert all(list_turns(sample) == [("human", "<video>\nWho?"), ("gpt", "Ann")] for sample in samples)
    with pytest.raises(ValidationError, match="either a `video` or images"):
        RecordsMapping(files="a", shape="list", question="{q}", answer="{a}", video="{v}", image_field="i")


def test_forms_of_annotation_tools_need_no_code(tmp_path: Path) -> None:
    labelme = {"imagePath": "a.png", "shapes": [{"label": "cat", "points": [[1, 2]]}, {"label": "cup", "points": []}]}
    assert read_one(tmp_path, labelme, question="Which things?", answer="{shapes.*.label}") == [
        "Which things?",
        "cat, cup",
    ]
    tokens = ["<tr>", "<td>", "</td>", "</tr>"]
    cells = [{"tokens": ["<b>", "T", "</b>"]}, {"tokens": []}, {"tokens": ["7"]}]
    table = {"html": {"structure": {"tokens": tokens}, "cells": cells}}
    html = {"question": "As HTML?", "answer": "{html.structure.tokens.+}"}
    assert read_one(tmp_path, table, **html)[1] == "<tr><td></td></tr>"
    assert read_one(tmp_path, table, question="Cells?", answer="{html.cells.*.tokens.+}")[1] == "<b>T</b>, 7"
    said = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann"}]
    assert read_one(tmp_path, {"chosen": said, "rejected": []}, turns="chosen") == ["Who?", "Ann"]


def test_the_most_frequent_of_several_answers_counts(tmp_path: Path) -> None:
    record = {"q": "?", "a": ["net", "nets", "nets"]}
    assert read_one(tmp_path, record, answer_is="votes") == ["?", "nets"]
    assert read_one(tmp_path, {"q": "?", "a": "net"}, answer_is="votes") == ["bad_answers"]


@pytest.mark.parametrize(
    ("record", "pairs"),
    [
        ({"qa": {"q": ["1?", "2?"], "a": ["x", "y"]}}, "qa"),
        ({"q": ["1?", "2?"], "a": ["x", "y"]}, ["q", "a"]),
    ],
)
def test_lists_that_go_together_are_pairs(tmp_path: Path, record: dict[str, Any], pairs: Any) -> None:
    assert read_one(tmp_path, record, pairs=pairs) == ["1?", "x", "2?", "y"]


def test_lists_of_different_lengths_are_a_bad_field(tmp_path: Path) -> None:
    assert read_one(tmp_path, {"q": ["1?", "2?"], "a": ["x"]}, pairs=["q", "a"]) == ["bad_field"]


def test_pairs_may_be_lists_themselves(tmp_path: Path) -> None:
    record = {"qa": [["1?", "x"], ["2?", "y"]]}
    assert read_one(tmp_path, record, pairs="qa", question="{0}", answer="{1}") == ["1?", "x", "2?", "y"]


def test_several_image_fields_are_taken_in_order_and_empty_ones_left_out(tmp_path: Path) -> None:
    cells = {"image_1": {"bytes": make_image(1), "path": None}, "image_2": None, "image_3": {"bytes": make_image(3)}}
    put_parquet(tmp_path, "rows.parquet", [{"q": "<image 1> and <image 2>?", "a": "<image 2>", **cells}])
    fields: dict[str, Any] = {"image_field": ["image_1", "image_2", "image_3"], "marker": "<image {1}>"}
    (sample,) = good(read(tmp_path, files="*.parquet", shape="parquet", **fields))
    assert [image.read() for image in sample.images] == [make_image(1), make_image(3)]
    assert list_turns(sample) == [("human", "<image> and <image>?"), ("gpt", "image 2")]
    with pytest.raises(ValidationError, match="the text of a marker"):
        read(tmp_path, marker="{1}")


def test_a_number_as_an_id_names_the_row(tmp_path: Path) -> None:
    put(tmp_path, "rows.json", b'[{"i": 7.0, "q": "?", "a": "!"}, {"i": 7.5, "q": "?", "a": "!"}]')
    assert [sample.native_id for sample in good(read(tmp_path, id="i"))] == ["7", "7.5"]
