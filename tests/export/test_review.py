"""Judged pairs as one flat table, and as rows for a notebook."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions
from mvl_assets.export.review import export_review, iter_pairs
from mvl_assets.lake.lake import Lake
from tests.export.small_lake import PROMPT_HASH, fill_judged_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return fill_judged_lake(tmp_path_factory.mktemp("review") / "lake")


def test_pairs_join_original_rewrite_verdicts_and_image_bytes(lake: Lake) -> None:
    pairs = {pair["original_question"]: pair for pair in iter_pairs(lake.root)}
    assert sorted(pairs) == ["Question 1?", "Question 3?", "Question 5?", "Question 7?"]
    dropped = pairs["Question 3?"]
    expected = {
        "original_answer": "it is 3",
        "question": "Question 3, in steps?",
        "answer": "First, see. So it is 3.",
        "keep": False,
        "drop_reason": "judge_no",
        "p_yes": 0.2,
        "correct_yes": False,
        "relevant_p_yes": 0.2,
        "relevance_score": 5,
        "scores": '{"ratings.relevance": 4.0, "ratings.sharp": true, "ratings.topic": "maps"}',
        "license": "cc-by-4.0",
        "prompt_hash": PROMPT_HASH,
        "judge_model": "judge",
        "file": "rows.json",
    }
    assert {name: dropped[name] for name in expected} == expected
    assert [compute_digest(data) for data in dropped["images"]] == dropped["image_ids"]
    assert pairs["Question 1?"]["keep"] and pairs["Question 1?"]["drop_reason"] is None


def test_a_draw_is_the_same_each_time_and_part_of_a_larger_one(lake: Lake) -> None:
    draws = [[pair["id"] for pair in iter_pairs(lake, ["chart"], n)] for n in (2, 2, 3)]
    assert draws[0] == draws[1] and len(draws[0]) == 2 and set(draws[0]) < set(draws[2])
    assert list(iter_pairs(lake, ["ocr"])) == []


def test_the_flat_table_has_the_pairs(lake: Lake, tmp_path: Path) -> None:
    folder = ExportFolder(str(tmp_path))
    options = ExportOptions(shard_bytes=1)
    result = export_review(lake, folder, ["chart"], None, options, ProcessExecutor(1))
    (file,) = (tmp_path / "review").iterdir()
    rows = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features["image"] == datasets.Image()
    pairs = list(iter_pairs(lake))
    assert (result.rows, result.images) == (4, 4)
    undecoded = rows.cast_column("image", datasets.Image(decode=False))
    for row, pair in zip(undecoded, pairs, strict=True):
        assert [row["image"]["bytes"]] == pair.pop("images") and row["more_images"] == []
        assert {name: row[name] for name in pair} == pair
    written_at = file.stat().st_mtime_ns
    export_review(lake, folder, ["chart"], None, options, ProcessExecutor(1))
    assert file.stat().st_mtime_ns == written_at
