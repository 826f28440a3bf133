"""Files of benchmarks in the shapes in which they are published, read by the maps that ship or would be written.

Shapes seen in public files and in the code that reads them; the rows are made up.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.benchmarks import load_benchmarks
from mvl_assets.config.catalog import RecordsMapping, SourceSpec
from tests.raw_files import good, make_image, put, put_json, put_parquet, read_all, source


def read_turns(spec: SourceSpec, root: Path) -> list[tuple[str, ...]]:
    """What is asked and answered in each row, without markers of images."""
    rows = read_all(spec, root)
    samples = good(rows)
    assert samples == rows
    return [tuple(turn.value.replace("<image>\n", "") for turn in sample.turns) for sample in samples]


def test_mmbench_has_nan_as_text_where_a_row_has_no_hint_or_fewer_options(tmp_path: Path) -> None:
    image = {"bytes": make_image(), "path": None}
    rest = {"answer": "nan", "category": "ocr", "source": "x", "L2-category": "y", "comment": "nan", "split": "test"}
    rows = [
        {"index": 7, "question": "Which?", "hint": "nan", "A": "one", "B": "two", "C": "nan", "D": "nan"},
        {"index": 8, "question": "Which?", "hint": "Two boats.", "A": "1", "B": "2", "C": "3", "D": "4"},
    ]
    put_parquet(tmp_path, "en/test-00000-of-00001.parquet", [row | rest | {"image": image} for row in rows])
    assert read_turns(load_benchmarks()["benchmark_mmbench"], tmp_path) == [
        ("Which?\nA. one\nB. two", "7"),
        ("Two boats.\nWhich?\nA. 1\nB. 2\nC. 3\nD. 4", "8"),
    ]


def test_mmbench_as_a_table_has_base64_images_and_cells_in_quotes(tmp_path: Path) -> None:
    header = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tsource\tl2-category\tcomment\tsplit"
    image = base64.b64encode(make_image()).decode()
    cells = ("241", "Which can it answer?", '"Read it.\n\nTwo slopes.\nFigure: a sledge."', "wax", "none", "", "", "B")
    line = "\t".join((*cells, "identity_reasoning", image, "x", "y", "", "dev"))
    put(tmp_path, "MMBench_DEV_EN.tsv", f"{header}\n{line}\n".encode())
    fields: dict[str, Any] = {
        "choices": ["A", "B", "C", "D"],
        "answer_is": "letter",
        "context": "hint",
        "image_field": "image",
    }
    table: dict[str, Any] = {"files": "*.tsv", "shape": "tsv", "quoted": True, "id": "index"}
    mapping = RecordsMapping.model_validate(table | fields | {"question": "{question}", "answer": "{answer}"})
    assert read_turns(source("records", mapping), tmp_path) == [
        ("Read it.\n\nTwo slopes.\nFigure: a sledge.\nWhich can it answer?\nA. wax\nB. none", "none")
    ]


def test_videomme_has_lettered_options(tmp_path: Path) -> None:
    row = {"video_id": "001", "duration": "short", "domain": "Life", "sub_category": "x", "url": "x", "videoID": "x"}
    row |= {"question_id": "001-1", "task_type": "Counting", "question": "What hangs there?", "answer": "C"}
    options = ["A. Apples.", "B. Candles.", "C. Berries.", "D. All of them."]
    put_parquet(tmp_path, "videomme/test-00000-of-00001.parquet", [row | {"options": options}])
    asked = "What hangs there?\nA. Apples.\nB. Candles.\nC. Berries.\nD. All of them."
    assert read_turns(load_benchmarks()["benchmark_videomme"], tmp_path) == [(asked, "Berries.")]


@pytest.mark.parametrize("options", [["rows", "sings"], ["A. rows", "B. sings"], ["(A) rows", "(B) sings"]])
def test_egoschema_has_a_list_of_options(tmp_path: Path, options: list[str]) -> None:
    row = {"question_idx": "1", "question": "What does C do?", "video_idx": "v1", "option": options, "answer": None}
    put_parquet(tmp_path, "GENERATION/test-00000-of-00001.parquet", [row])
    spec = load_benchmarks()["benchmark_egoschema"]
    assert read_turns(spec, tmp_path) == [("What does C do?\nA. rows\nB. sings", "v1")]


def test_mathvista_is_an_object_by_id_with_null_where_there_are_no_choices_or_units(tmp_path: Path) -> None:
    metadata = {"split": "testmini", "language": "english", "img_width": 8, "img_height": 8, "skills": ["numeric"]}
    rows: dict[str, dict[str, Any]] = {
        "1": {"question": "How long?", "choices": None, "unit": "cm", "precision": 1, "answer": "1.2"},
        "2": {"question": "Which?\r\nSay it.", "choices": ["3", "4"], "unit": None, "precision": None, "answer": "4"},
    }
    problems = {
        pid: row | {"image": f"images/{pid}.jpg", "pid": pid, "metadata": metadata} for pid, row in rows.items()
    }
    put_json(tmp_path, "testmini.json", problems)
    for pid in problems:
        put(tmp_path, f"images/{pid}.jpg", make_image())
    fields = {"question": "{question}", "choices": "choices", "unit": "unit", "answer": "{answer}"}
    table: dict[str, Any] = {"files": "testmini.json", "shape": "dict_of_id", "images": ["{image}"]}
    assert read_turns(source("records", RecordsMapping.model_validate(fields | table)), tmp_path) == [
        ("How long? (Unit: cm)", "1.2"),
        ("Which?\r\nSay it.\nA. 3\nB. 4", "4"),
    ]


def test_pope_has_lines_of_json_in_files_that_end_like_one_document(tmp_path: Path) -> None:
    row = {"question_id": 1, "image": "COCO_val2014_000000000001.jpg", "text": "Is there a car?", "label": "no"}
    put(tmp_path, "COCO_val2014_000000000001.jpg", make_image())
    for name in ("random", "popular"):
        put(tmp_path, f"coco_pope_{name}.json", "".join(f"{json.dumps(row)}\n" for _ in range(2)).encode())
    fields = {"files": "*.json", "shape": "jsonl", "id": "question_id", "question": "{text}", "answer": "{label}"}
    mapping = RecordsMapping.model_validate(fields | {"images": ["{image}"]})
    assert read_turns(source("records", mapping), tmp_path) == [("Is there a car?", "no")] * 4
