"""Any table by a field map: every shape gives the same samples, and every part of the map does what it says."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from mvl_assets.config.catalog import RecordsMapping, load_catalog
from mvl_assets.errors import SourceError
from mvl_assets.readers.sample import RejectedRow, Sample
from tests.raw_files import (
    TABMWP,
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

REAL_TABMWP = Path(__file__).resolve().parents[4] / "shared" / "data" / "tabmwp"


def read(root: Path, **fields: Any) -> list[Sample | RejectedRow]:
    values: dict[str, Any] = {"files": "rows.json", "shape": "list", "question": "{q}", "answer": "{a}", **fields}
    return read_all(source("records", RecordsMapping(**values)), root)


def asked(root: Path, record: dict[str, Any], **fields: Any) -> list[str]:
    """What human and gpt say for one record, or its error."""
    put_json(root, "rows.json", [record])
    (row,) = read(root, **fields)
    return [row.error] if isinstance(row, RejectedRow) else [turn.value for turn in row.turns]


RECORDS = [{"key": "k1", "q": 'One, "two"?', "a": "three\nlines"}, {"key": "k2", "q": "é?", "a": "ü"}]


def delimited(delimiter: str) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(RECORDS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(RECORDS)
    return buffer.getvalue().encode()


@pytest.mark.parametrize("shape", ["list", "dict_of_id", "jsonl", "csv", "tsv", "parquet"])
def test_every_shape_gives_the_same_samples(tmp_path: Path, shape: str) -> None:
    data = {
        "list": json.dumps({"data": {"rows": RECORDS}}).encode(),
        "dict_of_id": json.dumps({r["key"]: r for r in RECORDS}).encode(),
        "jsonl": "\n".join(json.dumps(r) for r in RECORDS).encode(),
        "csv": delimited(","),
        "tsv": delimited("\t"),
    }
    if shape == "parquet":
        put_parquet(tmp_path, "rows", RECORDS)
    else:
        put(tmp_path, "rows", data[shape])
    rows = read(
        tmp_path,
        files="rows",
        shape=shape,
        id=None if shape == "dict_of_id" else "key",
        key="data.rows" if shape == "list" else None,
        quoted=True if shape == "tsv" else None,
    )
    assert [(s.native_id, s.position) for s in good(rows)] == [("k1", 0), ("k2", 1)]
    assert [list_turns(s) for s in good(rows)] == [[("human", r["q"]), ("gpt", r["a"])] for r in RECORDS]


def test_context_unit_hint_and_choices_surround_the_question(tmp_path: Path) -> None:
    record = {"q": "How much?", "a": "2 $", "c": ["1 $", "2 $"], "u": "$", "ctx": "A shop.", "h": "Count."}
    extra = {"choices": "c", "unit": "u", "context": "ctx", "hint": "h"}
    assert asked(tmp_path, record, **extra) == ["A shop.\nHow much? (Unit: $)\nCount.\nA. 1 $\nB. 2 $", "2 $"]
    assert asked(tmp_path, {"q": "How much?", "a": "2", "c": None, "u": ""}, **extra) == ["How much?", "2"]


@pytest.mark.parametrize(
    ("answer", "answer_is", "choices", "said_back"),
    [
        ("b", "letter", ["red", "blue"], "blue"),
        ("(B)", "letter", ["red", "blue"], "blue"),
        (1, "index", ["red", "blue"], "blue"),
        ("y", "letter", {"x": "red", "y": "blue"}, "blue"),
        ("1", "index", '["red", "blue"]', "blue"),
        ("blue", "text", ["red", "blue"], "blue"),
        (2, "index", ["red", "blue"], "bad_answer"),
        ("-1", "index", ["red", "blue"], "bad_answer"),
        ("C", "letter", ["red", "blue"], "bad_answer"),
        ("A", "letter", 3, "bad_choices"),
        ("A", "letter", ["x"] * 27, "bad_choices"),
        ("A", "letter", "[broken", "bad_json"),
        ("7", "index", None, "7"),
    ],
)
def test_the_answer_to_choices_is_the_text_of_the_right_one(
    tmp_path: Path, answer: object, answer_is: str, choices: object, said_back: str
) -> None:
    result = asked(tmp_path, {"q": "Which?", "a": answer, "c": choices}, choices="c", answer_is=answer_is)
    assert result[-1] == said_back


def test_templates_look_inside_objects_and_name_what_is_missing(tmp_path: Path) -> None:
    record = {"q": {"text": "Why"}, "a": 4}
    assert asked(tmp_path, record, question="{{x}} {q.text}?", answer="= {a}") == ["{x} Why?", "= 4"]
    assert asked(tmp_path, record, question="{q.nothing}") == ["missing_field"]
    assert asked(tmp_path, {"q": "", "a": "x"}) == ["missing_field"]
    assert asked(tmp_path, {"q": ["x"], "a": "x"}) == ["bad_field"]


def test_whole_numbers_are_padded_with_zeros_and_other_values_refused(tmp_path: Path) -> None:
    for value, filled in (
        (7, "is 00007"),
        ("12", "is 00012"),
        (1234567, "is 1234567"),
        (-3, None),
        ("x1", None),
        (2.5, None),
    ):
        result = asked(tmp_path, {"q": "?", "a": value}, answer="is {a:05d}")
        assert result[-1] == (filled or "bad_field")


def test_id_is_the_native_id_or_a_field_of_that_name(tmp_path: Path) -> None:
    assert asked(tmp_path, {"id": 5, "key": "k", "a": "!"}, question="{id}", id="key") == ["k", "!"]
    assert asked(tmp_path, {"id": 5, "key": "k", "a": "!"}, question="{id}") == ["5", "!"]
    assert asked(tmp_path, {"key": "k", "a": "!"}, question="{id}") == ["missing_field"]


def test_pairs_of_a_record_make_one_conversation(tmp_path: Path) -> None:
    record = {"about": "Tea.", "qa": [{"q": "Hot?", "a": "Yes", "c": ["Yes", "No"]}, {"q": "Green?", "a": "No"}]}
    pairs = {"pairs": "qa", "choices": "c", "context": "about"}
    assert asked(tmp_path, record, **pairs) == ["Tea.\nHot?\nA. Yes\nB. No", "Yes", "Tea.\nGreen?", "No"]
    assert asked(tmp_path, {"qa": '[{"q": "Hot?", "a": "Yes"}]'}, pairs="qa") == ["Hot?", "Yes"]


@pytest.mark.parametrize(
    ("pairs", "error"),
    [
        ([], "no_turns"),
        (None, "no_turns"),
        ({"q": "?"}, "no_turns"),
        (["x"], "bad_field"),
        ([{"q": "?"}], "missing_field"),
    ],
)
def test_pairs_that_are_none_break_their_record(tmp_path: Path, pairs: object, error: str) -> None:
    assert asked(tmp_path, {"qa": pairs}, pairs="qa") == [error]


def test_a_list_is_found_bare_or_under_its_key(tmp_path: Path) -> None:
    put_json(tmp_path, "a.json", {"qa_pairs": RECORDS})
    put_json(tmp_path, "b.json", RECORDS)
    assert [s.file for s in good(read(tmp_path, files="*.json", key="qa_pairs"))] == ["a.json"] * 2 + ["b.json"] * 2


def test_an_unreadable_file_is_a_broken_file(tmp_path: Path) -> None:
    put_json(tmp_path, "rows.json", {"other": RECORDS})
    assert errors(read(tmp_path, key="rows")) == [(0, "broken_file")]


def test_a_template_that_cannot_be_used_is_a_source_error(tmp_path: Path) -> None:
    for template in ("{q", "{}", "{q!r}", "{q:>9}", "{q:d}", "{q:0d}", "{q:05.2f}"):
        with pytest.raises(SourceError, match="template"):
            asked(tmp_path, {"q": "x", "a": "y"}, question=template)


def test_images_named_by_a_template_stay_inside_the_folder(tmp_path: Path) -> None:
    put(tmp_path, "p/7.png", make_image(7))
    put(tmp_path.parent, "secret.png", make_image(8))
    put_json(tmp_path, "rows.json", [{"q": "?", "a": "!", "n": n} for n in ("7", "8", "../../secret")])
    rows = read(tmp_path, images=["p/{n}.png"])
    assert [p.read() for s in good(rows) for p in s.images] == [make_image(7)]
    assert errors(rows) == [(1, "missing_image"), (2, "outside_root")]


def test_images_are_searched_next_to_the_records_file_before_the_source_folder(tmp_path: Path) -> None:
    for split, colour in (("train", 1), ("val", 2)):
        put_json(tmp_path, f"{split}/rows.json", [{"q": "?", "a": "!", "n": n} for n in (0, 1)])
        put(tmp_path, f"{split}/png/0.png", make_image(colour))
    put(tmp_path, "png/0.png", make_image(3))
    put(tmp_path, "extra/png/1.png", make_image(4))
    rows = read(tmp_path, files="*/rows.json", images=["png/{n}.png"], image_folders=["extra"])
    assert [s.images[0].read() for s in good(rows)] == [make_image(1), make_image(4), make_image(2), make_image(4)]


def test_an_image_named_by_url_is_the_file_with_the_longest_matching_path(tmp_path: Path) -> None:
    put(tmp_path, "b/c d.png", make_image(1))
    put(tmp_path, "c d.png", make_image(2))
    put(tmp_path.parent, "secret.png", make_image(3))
    long = "x" * 300
    addresses = [
        "https://h/a/b/c%20d.png?size=9",
        f"http://h/{long}/c%20d.png",
        "http://h/none.png",
        "http://h/../secret.png",
    ]
    put_json(
        tmp_path,
        "rows.json",
        [{"q": "?", "a": "!", "u": u} for u in [*addresses, "http://h/%2e%2e/secret.png", "https://"]],
    )
    for fields in ({"images": ["{u}"]}, {"image_field": "u"}):
        rows = read(tmp_path, **fields)
        assert [s.images[0].read() for s in good(rows)] == [make_image(1), make_image(2)]
        assert [error for _, error in errors(rows)] == ["missing_image", *["outside_root"] * 2, "missing_image"]


def test_an_image_field_holds_base64_a_data_url_a_path_or_a_list(tmp_path: Path) -> None:
    put(tmp_path, "7.png", make_image(7))
    text = base64.b64encode(make_image(1)).decode()
    cells: list[object] = [text, f"data:image/png;base64,{text}", "7.png", [text, "7.png"], None, "=" * 300, 5]
    put_json(tmp_path, "rows.json", [{"q": "?", "a": "!", "p": cell} for cell in cells])
    rows = read(tmp_path, image_field="p")
    one, seven = make_image(1), make_image(7)
    assert [[p.read() for p in s.images] for s in good(rows)] == [[one], [one], [seven], [one, seven], []]
    assert errors(rows) == [(5, "bad_base64"), (6, "missing_image")]


def test_a_parquet_table_may_hold_bytes_or_the_hubs_struct(tmp_path: Path) -> None:
    for cell in (make_image(3), {"bytes": make_image(3), "path": "x.png"}):
        put_parquet(tmp_path, "rows", [{"q": "?", "a": "!", "p": cell}])
        (sample,) = good(read(tmp_path, files="rows", shape="parquet", image_field="p"))
        assert [p.read() for p in sample.images] == [make_image(3)]


def test_a_field_may_hold_a_whole_conversation_even_as_text_in_a_csv(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    put_json(tmp_path, "rows.json", [{"talk": turns}])
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["talk"], [json.dumps(turns)], ["[oops"]])
    put(tmp_path, "rows.csv", buffer.getvalue().encode())
    plain = read(tmp_path, question=None, answer=None, turns="talk")
    in_csv = read(tmp_path, files="rows.csv", shape="csv", question=None, answer=None, turns="talk")
    assert list_turns(good(plain)[0]) == list_turns(good(in_csv)[0]) == [("human", "Hi"), ("gpt", "Hello")]
    assert errors(in_csv) == [(1, "bad_json")]


def test_each_bad_line_of_a_csv_is_one_reject(tmp_path: Path) -> None:
    put(tmp_path, "rows.csv", b"q,a\none,1\ntoo,many,cells\nbad,\xff\n\nfour,4\n")
    rows = read(tmp_path, files="rows.csv", shape="csv")
    assert [list_turns(s)[0][1] for s in good(rows)] == ["one", "four"]
    assert errors(rows) == [(1, "bad_csv"), (2, "bad_utf8")]


def test_quotes_are_characters_in_a_tsv_unless_the_map_says_otherwise(tmp_path: Path) -> None:
    put(tmp_path, "rows.tsv", b'q\ta\n"one\t1\ntwo"\t2\n')
    rows = read(tmp_path, files="rows.tsv", shape="tsv")
    assert [list_turns(row) for row in good(rows)] == [
        [("human", '"one'), ("gpt", "1")],
        [("human", 'two"'), ("gpt", "2")],
    ]
    swallowed = read(tmp_path, files="rows.tsv", shape="tsv", quoted=True)
    assert [list_turns(row)[0] for row in good(swallowed)] == [("human", "one\t1\ntwo")]
    with pytest.raises(ValidationError, match="no meaning for the shape `list`"):
        read(tmp_path, files="rows.json", shape="list", quoted=False)


@pytest.mark.parametrize(
    ("lines", "questions", "rejected"),
    [
        (b'"a" b,1\nc,2\n', ["c"], [(0, "bad_csv")]),
        (b'"a,1\nb,2\n"c" d,3\ne,4\n', ["b", "e"], [(0, "bad_csv"), (2, "bad_csv")]),
        (b'a,1\n"b,2\nc,3\n', ["a"], [(1, "broken_file")]),
        (b'"a, ""b""\nc",1\n', ['a, "b"\nc'], []),
    ],
)
def test_a_stray_quote_costs_its_own_row(
    tmp_path: Path, lines: bytes, questions: list[str], rejected: list[tuple[int, str]]
) -> None:
    put(tmp_path, "rows.csv", b"q,a\n" + lines)
    rows = read(tmp_path, files="rows.csv", shape="csv")
    assert [list_turns(row)[0][1] for row in good(rows)] == questions
    assert errors(rows) == rejected
    assert all("line 2" in m or "line 3" in m or "line 4" in m for m in messages(rows))


def test_a_tsv_whose_cells_are_quoted_says_what_to_write(tmp_path: Path) -> None:
    put(tmp_path, "rows.tsv", b'q\ta\n"one\ttwo"\t1\nthree\t3\n')
    rows = read(tmp_path, files="rows.tsv", shape="tsv")
    assert errors(rows) == [(0, "bad_csv")] and "`quoted: true`" in messages(rows)[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"question": "question"}, 'write "{question}"'),
        ({"question": "qa.text"}, 'write "{qa.text}"'),
        ({"answer": "the answer"}, "write fields in braces"),
        ({"images": ("image",)}, "write fields in braces"),
    ],
)
def test_a_template_without_a_field_is_an_error(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        RecordsMapping(**{"files": "*", "shape": "jsonl", "question": "{q}", "answer": "{a}", **fields})
    RecordsMapping(files="*", shape="jsonl", question="What is it?", answer="{a}")


def test_a_blank_question_is_rejected(tmp_path: Path) -> None:
    put(tmp_path, "a.png", make_image())
    for question in (" \n", "  "):
        assert asked(tmp_path, {"q": question, "a": "1", "file": "a.png"}, images=("{file}",)) == ["empty_question"]
        assert asked(tmp_path, {"q": question, "a": "1"}) == ["empty_question"]


@pytest.mark.parametrize("name", ["http://host/x//y//a.png", "https://host//images/a.png?size=2"])
def test_an_address_with_two_slashes_in_its_path_leads_to_its_file(tmp_path: Path, name: str) -> None:
    put(tmp_path, "images/a.png", make_image())
    assert asked(tmp_path, {"q": "What?", "a": "1", "url": name}, images=("{url}",)) == ["<image>\nWhat?", "1"]


def test_an_empty_csv_is_a_broken_file(tmp_path: Path) -> None:
    put(tmp_path, "rows.csv", b"")
    assert errors(read(tmp_path, files="rows.csv", shape="csv")) == [(0, "broken_file")]


PUBLISHED: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "sherlock": (
        {
            "sherlock_train_v1_1.json": [
                {
                    "instance_id": "0a1b",
                    "inputs": {
                        "image": {
                            "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/7.jpg",
                            "width": 8,
                            "height": 8,
                        },
                        "bboxes": [{"left": 1, "top": 1, "width": 2, "height": 2}],
                        "clue": "wet umbrellas by the door",
                        "obs_idx": 0,
                    },
                    "targets": {"inference": "it has been raining"},
                }
            ],
            "VG_100K_2/7.jpg": None,
        },
        [("One can see: wet umbrellas by the door. What may be inferred from it?", "it has been raining")],
    ),
    "plotqa": (
        {
            "val/qa_pairs_V1.json": {
                "qa_pairs": [
                    {"image_index": 7, "qid": 1, "question_string": "How many bars?", "answer": 4, "answer_bbox": []},
                    {"image_index": 7, "qid": 2, "question_string": "Is there a legend?", "answer": "Yes"},
                ]
            },
            "val/png/7.png": None,
        },
        [("How many bars?", "4"), ("Is there a legend?", "Yes")],
    ),
    "macaw_llm": (
        {
            "generated_examples_coco.json": {
                "data": [{"id": "COCO_train2014_000000000007.jpg", "instruction": "What is it?", "response": "A boat."}]
            },
            "train2014/COCO_train2014_000000000007.jpg": None,
        },
        [("What is it?", "A boat.")],
    ),
    "detgpt": (
        {
            "coco_task_annotation.json": {
                "annotations": [{"image_id": "000000000007", "task": "Find a seat.", "answer": "There is a <chair>."}]
            },
            "val2017/000000000007.jpg": None,
        },
        [("Find a seat.", "There is a <chair>.")],
    ),
    "viquae": (
        {
            "test.jsonl": {
                "image": "512px-Someone.jpg",
                "input": "In which town was this painter born?",
                "kilt_id": "qw_1",
                "id": "abc",
                "meta": {},
                "original_question": "?",
                "output": {"answer": ["Delft", "delft"], "original_answer": "Delft", "provenance": []},
                "url": "http://upload.wikimedia.org/wikipedia/commons/thumb/a/ae/Someone.jpg/512px-Someone.jpg",
                "wikidata_id": "Q1",
            },
            "images/512px-Someone.jpg": None,
        },
        [("In which town was this painter born?", "Delft")],
    ),
    "cap2qa": (
        {
            "instructions/val.json": [
                {"image_id": 7, "question": "What stands there?", "answer": "A horse stands there."}
            ],
            "val2017/000000000007.jpg": None,
        },
        [("What stands there?", "A horse stands there.")],
    ),
}
"""By source: files in the form that its publishers describe (None: a picture), and what they say."""


@pytest.mark.parametrize("slug", PUBLISHED)
def test_the_field_map_of_a_source_reads_files_in_the_form_its_publishers_describe(slug: str, tmp_path: Path) -> None:
    files, expected = PUBLISHED[slug]
    for name, value in files.items():
        if value is None:
            put(tmp_path, name, make_image(7))
        else:
            put_json(tmp_path, name, value)
    rows = read_all(load_catalog()[slug], tmp_path)
    talks = [tuple(turn.value.removeprefix("<image>\n") for turn in sample.turns) for sample in good(rows)]
    assert talks == expected and errors(rows) == []
    assert all(result.read() == make_image(7) for sample in good(rows) for result in sample.images)
    assert all(len(sample.images) == 1 for sample in good(rows))


@pytest.mark.skipif(
    not REAL_TABMWP.is_dir(), reason="the real TabMWP files are not next to the project (../shared/data)"
)
def test_the_real_tabmwp_is_read_whole() -> None:
    rows = read_all(source("records", TABMWP), REAL_TABMWP)
    problems = json.loads((REAL_TABMWP / "problems.json").read_text(encoding="utf-8"))
    assert errors(rows) == []
    assert [s.native_id for s in good(rows)] == list(problems)
    for sample in good(rows)[:50]:
        problem = problems[sample.native_id or ""]
        question, answer = (turn.value for turn in sample.turns)
        assert question.startswith(f"<image>\n{problem['question']}")
        assert answer == problem["answer"]
        assert all(choice in question for choice in problem["choices"] or ())
        assert sample.images[0].read().startswith(b"\x89PNG")


def test_a_parquet_table_without_the_image_column_is_refused_with_its_columns(tmp_path: Path) -> None:
    put_parquet(tmp_path, "rows", [{"q": "?", "a": "!"}])
    (row,) = read(tmp_path, files="rows", shape="parquet", image_field="photo")
    assert isinstance(row, RejectedRow) and row.error == "broken_file"
    assert "q, a" in row.message and "photo" in row.message


def test_a_small_base64_image_is_not_read_as_a_file_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    assert len(text) < 255
    put_json(tmp_path, "rows.json", [{"q": "?", "a": "!", "p": text}])
    (sample,) = good(read(tmp_path, image_field="p"))
    assert sample.images[0].read() == buffer.getvalue()


def test_an_id_may_be_nested_in_an_object(tmp_path: Path) -> None:
    rows = [{"q": "?", "a": "!", "meta": {"id": f"n{n}"}} for n in range(2)]
    put_json(tmp_path, "rows.json", rows)
    assert [s.native_id for s in good(read(tmp_path, id="meta.id"))] == ["n0", "n1"]
    put_parquet(tmp_path, "rows.parquet", rows)
    nested = RecordsMapping(files="*.parquet", shape="parquet", id="meta.id", question="{q}", answer="{a}")
    keyed(source("records", nested), tmp_path)
    assert [s.native_id for s in good(read_all(source("records", nested), tmp_path))] == ["n0", "n1"]


def test_a_column_that_the_map_does_not_name_may_hold_anything(tmp_path: Path) -> None:
    strange = pa.array([1], pa.timestamp("us", tz="Mars/Base"))
    pq.write_table(pa.table({"q": ["?"], "a": ["!"], "when": strange}), tmp_path / "a.parquet")
    fields = {"files": "*.parquet", "shape": "parquet"}
    assert [list_turns(s) for s in good(read(tmp_path, **fields))] == [[("human", "?"), ("gpt", "!")]]
    assert errors(read(tmp_path, **fields, hint="{when}")) == [(0, "bad_cell")]


def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", b"q,a,a\n?,!,.\n")
    assert errors(read(tmp_path, files="a.csv", shape="csv")) == [(0, "broken_file")]
